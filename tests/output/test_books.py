"""The books of a job: every event once in the tag table, once in the stream of its tag.

A run whose books do not balance is not written. To see that, a writer or a reader loses or doubles
an event on purpose, or a manifest says another number than its files.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from attpc_filter.formats.hdf5.run import TraceRun
from attpc_filter.output.run_writer import RunWriter
from attpc_filter.output.tag_table import TagWriter
from tests import miniatures
from tests.conftest import Cli, files_below, read_manifest, read_tag_table

N_EVENTS = len(miniatures.events())


def options(out: Path, model: Path) -> list[object]:
    return ["--out", out, "--model", model, "--no-picture", "--threads", 1]


def _cut(column: Any, rows: slice) -> Any:
    """Some rows of a column, or of each of a table of columns."""
    if isinstance(column, dict):
        return {name: values[rows] for name, values in column.items()}
    return None if column is None else column[rows]


def lose_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row of a batch is not written."""
    add = TagWriter.add

    def wrong(self: TagWriter, run: int, *columns: Any) -> None:
        add(self, run, *(_cut(column, slice(None, -1)) for column in columns))

    monkeypatch.setattr(TagWriter, "add", wrong)


def double_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row of a batch is written twice."""
    add = TagWriter.add

    def wrong(self: TagWriter, run: int, *columns: Any) -> None:
        add(self, run, *columns)
        add(self, run, *(_cut(column, slice(-1, None)) for column in columns))

    monkeypatch.setattr(TagWriter, "add", wrong)


def lose_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader gives an event less than its run has: the table and the tags agree, the run not."""
    parts = TraceRun.parts

    def wrong(self: TraceRun, events: Any, *arguments: Any) -> Any:
        return parts(self, events[:-1], *arguments)

    monkeypatch.setattr(TraceRun, "parts", wrong)


def count_in_a_stream(change: int) -> Callable[[pytest.MonkeyPatch], None]:
    """The stream of a tag has more events than there are of that tag, or fewer."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        report = RunWriter.report

        def wrong(self: RunWriter, outcome: Any) -> None:
            report(self, outcome)
            outcome.streams["carbon"]["events"] += change

        monkeypatch.setattr(RunWriter, "report", wrong)

    return patch


WRONG = {
    "a row is lost": (lose_a_row, f"{N_EVENTS} events, {N_EVENTS - 1} rows, {N_EVENTS} tags"),
    "a row is doubled": (double_a_row, f"{N_EVENTS} events, {N_EVENTS + 1} rows, {N_EVENTS} tags"),
    "an event is lost": (
        lose_an_event,
        f"{N_EVENTS} events, {N_EVENTS - 1} rows, {N_EVENTS - 1} tags",
    ),
    "a stream has more": (count_in_a_stream(1), "stream carbon: "),
    "a stream has fewer": (count_in_a_stream(-1), "stream carbon: "),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_run_whose_books_do_not_balance_is_not_written(
    what: str,
    tmp_path: Path,
    counter_model: Path,
    call: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong, words = WRONG[what]
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
    wrong(monkeypatch)
    out = tmp_path / "out"
    ended = call("run", path, *options(out, counter_model))
    assert ended.status == 2
    assert f"the books do not balance: {words}" in ended.the_error()
    assert {name for name in files_below(out) if "run_0046" in name} == set()
    (entry,) = read_manifest(out)["runs"]
    assert not entry["books_balance"]
    assert "do not balance" in entry["error"]


def test_a_run_that_failed_is_in_no_total(
    tmp_path: Path, counter_model: Path, call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run's books do not balance; its events and tags are not counted."""
    paths = [
        miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5"),
        miniatures.write_run("merger_1.0", tmp_path / "run_0002.h5", miniatures.events()[:3]),
    ]
    report = RunWriter.report

    def wrong(self: RunWriter, outcome: Any) -> None:
        report(self, outcome)
        if outcome.run == 1:
            outcome.streams["carbon"]["events"] += 1

    monkeypatch.setattr(RunWriter, "report", wrong)
    out = tmp_path / "out"
    assert call("run", *paths, *options(out, counter_model)).status == 2
    manifest = read_manifest(out)
    assert manifest["n_events"] == 3
    tags = [event.tag for event in miniatures.events()[:3]]
    assert {tag: n for tag, n in manifest["counts"].items() if n} == {
        tag: tags.count(tag) for tag in tags
    }


@pytest.mark.parametrize(
    ("which", "strict", "status"),
    [
        ("whole", True, 0),
        ("unreadable", False, 0),
        ("unreadable", True, 1),
        ("broken", False, 2),
        ("unreadable broken", True, 2),
        ("broken unreadable", True, 2),
    ],
)
def test_the_worst_run_decides_the_status(
    which: str, strict: bool, status: int, tmp_path: Path, counter_model: Path, call: Cli
) -> None:
    paths = []
    for number, kind in enumerate(which.split()):
        path = miniatures.write_run("merger_legacy", tmp_path / f"run_{number:04d}.h5")
        if kind == "unreadable":
            with h5py.File(path, "r+") as file:
                del file["get/evt4_data"]
                file["get/evt4_data"] = np.zeros((3, 7), np.int16)
        elif kind == "broken":
            path.write_bytes(b"no run")
        paths.append(path)
    out = tmp_path / "out"
    more = ["--strict"] if strict else []
    assert call("run", *paths, *options(out, counter_model), *more).status == status
    if which == "broken":  # no input can be opened: nothing is written
        assert not out.exists()
    else:
        assert read_manifest(out)["exit_status"] == status


class TestRetag:
    """The books of what is tagged anew, with a manifest that is wrong."""

    @pytest.fixture
    def out(self, tmp_path: Path, counter_model: Path, call: Cli) -> Path:
        """An output folder."""
        path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
        assert call("run", path, *options(tmp_path / "out", counter_model)).status == 0
        return tmp_path / "out"

    def change(self, out: Path, what: str, by: int) -> None:
        """Let the manifest say another number."""
        manifest = read_manifest(out)
        (entry,) = manifest["runs"]
        if what == "events":
            entry["n_events"] += by
        else:
            entry["streams"][what]["events"] += by
        (out / "manifest.json").write_text(json.dumps(manifest))

    @pytest.mark.parametrize("by", [-1, 1])
    @pytest.mark.parametrize("what", ["events", "proton", "unreadable"])
    def test_nothing_changes(self, what: str, by: int, out: Path, call: Cli) -> None:
        self.change(out, what, by)
        before = out.with_name("before")
        shutil.copytree(out, before)
        ended = call("retag", out, "--thresholds", "proton=1")
        assert ended.status == 2
        assert "the books do not balance" in ended.the_error()
        names = files_below(out)
        assert names == files_below(before)
        assert all((out / name).read_bytes() == (before / name).read_bytes() for name in names)

    def test_the_table_says_the_new_thresholds(self, out: Path, call: Cli) -> None:
        """Not those that it was written with; all else that it says stays."""
        from attpc_filter.output.tag_table import read_tags

        path = out / "tags" / "run_0046.parquet"
        before = read_tags(path)[1]
        assert call("retag", out, "--thresholds", "proton=1").status == 0
        after = read_tags(path)[1]
        assert json.loads(before.pop("thresholds"))["proton"] != 1
        assert json.loads(after.pop("thresholds"))["proton"] == 1
        for metadata in (before, after):
            metadata.pop("only_classes", None)
        assert after == before
        assert "proton" not in {row["tag"] for row in read_tag_table(path).values()}
