"""Fixtures: miniatures of every format, a model with known scores, the real command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # One core a test process. Libraries read this when they are imported; without it each process
    # starts threads for every core, which wait for one another in loops.
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

from attpc_filter.cli import main
from tests import miniatures, tiny_models

# the same examples every time; HYPOTHESIS_PROFILE=search looks for new ones
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

#: How much longer the tests marked ``campaign`` search than usual.
CAMPAIGN = float(os.environ.get("ATTPC_CAMPAIGN", "1"))

SHARED = Path(__file__).parents[2] / "shared"
AR46 = SHARED / "data" / "ar46"


def shared(path: str) -> Path:
    """A file of the shared simulated data; skips the test where they are absent."""
    if not (AR46 / path).exists():
        pytest.skip(f"needs the simulated 46Ar runs beside the repository: {AR46 / path}")
    return AR46 / path


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills, once for all processes of this test run.

    The first process that asks fills it, the others wait for it. Use it for what takes seconds to
    set up; tests must not change what is in the folder.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the folder above is the same for all workers
        base = base.parent
    folder, whole = base / name, base / f"{name}.whole"
    with FileLock(base / f"{name}.lock"):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A miniature run of a layout, written once; do not change it."""
    folder = tmp_path_factory.mktemp("miniatures")

    def path_of(layout: str) -> Path:
        path = folder / layout / "run_0046.h5"
        return path if path.exists() else miniatures.write_run(layout, path)

    return path_of


@pytest.fixture(scope="session")
def counter_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that counts lit pixels."""
    return tiny_models.write_model(tmp_path_factory.mktemp("models") / "counter.onnx")


@pytest.fixture(scope="session")
def spyral() -> ModuleType:
    """Spyral's readers and phases; skips the test where Spyral is not installed."""
    pytest.importorskip("spyral", reason="needs attpc-spyral 1.1.2")
    from tests import spyral_tools

    return spyral_tools


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of stderr that report an error."""
        return [line for line in self.err.splitlines() if line.startswith(("error:", "attpc-filt"))]

    def the_error(self) -> str:
        """The one line on stderr that reports an error."""
        assert len(self.errors) == 1, self.err
        return self.errors[0]


Cli = Callable[..., Ended]


def command(*arguments: object) -> list[str]:
    """The command line of attpc-filter."""
    return [sys.executable, "-m", "attpc_filter.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment of the process, less what would make it another program's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run the real command line in a process of its own, to its end."""

    def run(
        *arguments: object, cwd: Path | None = None, prefix: Sequence[str] = (), timeout: float = 60
    ) -> Ended:
        done = subprocess.run(
            [*prefix, *command(*arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment(),
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """The command line called in this process: quicker, where no process of its own is needed."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        status = main([*map(str, arguments)])
        out, err = capfd.readouterr()
        return Ended(status, out, err)

    yield run
    signal.signal(signal.SIGTERM, handler)  # ``run`` leaves its own behind


def read_tag_table(path: Path) -> dict[int, dict[str, Any]]:
    """Rows of a tag table by event number, read with pyarrow alone."""
    rows = pq.read_table(path).to_pylist()
    by_event = {row["event"]: row for row in rows}
    assert len(by_event) == len(rows), "an event has two rows"
    return by_event


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of an output folder."""
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def files_below(folder: Path) -> set[str]:
    """Paths of all files below a folder, hidden ones included."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}
