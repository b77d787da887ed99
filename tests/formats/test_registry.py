"""One table of formats: each row opens, makes streams and moves; others add rows from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.registry import FORMATS, find_format, open_run
from attpc_filter.formats.root import attpcroot, plain
from tests import miniatures

#: A distribution that adds a format of one text line an event.
PLUGIN = """
import numpy as np
from attpc_filter.formats.registry import Format
from attpc_filter.formats.run import Run, allocate_new
from attpc_filter.records import Record

class TextRun(Run):
    format_name = "text events"
    def __init__(self, path):
        super().__init__(path)
        self._lines = path.read_text().splitlines()[1:]
        self.events = [(n, str(n)) for n in range(len(self._lines))]
    def read(self, event, name, allocate=allocate_new):
        traces = allocate(1)
        traces[:] = int(self._lines[event])
        return Record(event, name, traces=traces)
    def close(self):
        pass

FORMAT = Format("text events", lambda f: f.head.startswith(b"text"), lambda f, e: TextRun(f.path))
"""


def install(folder: Path, module: str, target: str, name: str) -> None:
    """A distribution with one entry point, as pip would lay it down."""
    (folder / "text_events.py").write_text(module)
    info = folder / "attpc_text-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attpc-text\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[attpc_filter.formats]\n{name} = {target}\n")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "text_events", raising=False)
    return folder


def test_names_are_unique_and_those_of_the_runs() -> None:
    names = [row.name for row in FORMATS]
    assert len(set(names)) == len(names)
    for kind in (attpcroot.TraceRun, attpcroot.HitRun, plain.PlainRun):
        assert kind.format_name in names
    assert set(miniatures.FORMAT_NAMES.values()) <= set(names)


def test_a_format_of_another_distribution(plugin: Path, tmp_path: Path) -> None:
    install(plugin, PLUGIN, "text_events:FORMAT", "text")
    path = tmp_path / "run_0007.txt"
    path.write_text("text\n5\n-3\n")
    with open_run(path) as run:
        assert run.format_name == "text events"
        assert [int(r.traces.max()) for r in run.records() if r.traces is not None] == [5, -3]
        assert not run.has_streams
        with pytest.raises(OutputError, match="makes no streams"):
            run.create_stream(tmp_path / "s", "copy", "proton")
    assert find_format("text events").move_events is None


@pytest.mark.parametrize(
    ("module", "target", "said"),
    [
        ("import absent_module", "text_events:FORMAT", "ModuleNotFoundError"),
        ("FORMAT = 3", "text_events:FORMAT", "no Format"),
    ],
)
def test_a_broken_distribution_is_named(
    module: str, target: str, said: str, plugin: Path, tmp_path: Path
) -> None:
    install(plugin, module, target, "text")
    path = tmp_path / "run_0007.txt"
    path.write_text("text\n5\n-3\n")
    with pytest.raises(InputError, match=rf"format text of attpc-text.*{said}"):
        open_run(path)
    # what our own rows know needs no entry point
    open_run(miniatures.write_run("merger_2.0", tmp_path / "run_0001.h5")).close()
    assert find_format("attpc_merger 2.0").name == "attpc_merger 2.0"


def test_an_unknown_format_in_a_manifest() -> None:
    with pytest.raises(InputError, match="no format 'nothing' is known"):
        find_format("nothing")


def test_uproot_is_not_imported_for_hdf5(tmp_path: Path) -> None:
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0001.h5")
    code = (
        "import sys; from attpc_filter.formats.registry import open_run;"
        f"open_run({str(path)!r}).close(); print('uproot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
