"""A ROOT stream that does not hold what was added is no output: closing it says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from attpc_filter.errors import OutputError
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.root.stream import RootStream
from attpc_filter.records import Record
from tests.formats.root.root_truth import DATA


@pytest.fixture(params=["link", "copy"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RootStream]:
    """A stream with three events in it, not yet closed."""
    with open_run(DATA / "now_zlib.root") as run:
        made = run.create_stream(tmp_path / "stream.root", request.param, "proton")
        assert isinstance(made, RootStream)
        for event in run.events[:3]:
            made.add(Record(*event))
        yield made


def test_that_holds_all(stream: RootStream) -> None:
    stream.close()


def test_that_lost_an_event(stream: RootStream) -> None:
    for held in (stream._names, stream._events, stream._records, stream._points):
        del held[-1:]
    with pytest.raises(OutputError, match=r"stream\.root: 3 rows were written, it holds 2"):
        stream.close()


def test_that_lost_all_that_was_not_written_yet(stream: RootStream) -> None:
    for held in (stream._names, stream._events, stream._records, stream._points):
        held.clear()
    with pytest.raises(OutputError, match=r"stream\.root: 3 rows were written, it holds 0"):
        stream.close()


def test_with_an_event_that_was_not_counted(stream: RootStream) -> None:
    stream._n_added -= 1
    with pytest.raises(OutputError, match=r"stream\.root: 2 rows were written, it holds 3"):
        stream.close()
