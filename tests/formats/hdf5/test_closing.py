"""A file that does not hold what was added is no output: closing it, or moving events, says so.

Each test makes a writer lose something on purpose, between what it was told and the file.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.errors import OutputError
from attpc_filter.formats.hdf5 import moves
from attpc_filter.formats.hdf5.hit_store import HitWriter
from attpc_filter.formats.hdf5.moves import Move, move_events
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Stream, StreamMode
from attpc_filter.records import Hits, Record
from tests.formats.hdf5.test_streams import write_stream

MODES: tuple[StreamMode, ...] = ("link", "copy")
#: Events that a miniature has and that can be read.
CHOSEN = (3, 4, 12)


@pytest.fixture(params=MODES)
def stream(
    request: pytest.FixtureRequest, tmp_path: Path, miniature: Callable[[str], Path]
) -> Iterator[Stream]:
    """A stream of a 1.0 run with three events in it, not yet closed."""
    with open_run(miniature("merger_1.0")) as run:
        names = dict(run.events)
        made = run.create_stream(tmp_path / "stream.h5", request.param, "proton")
        for number in CHOSEN:
            made.add(Record(number, names[number]))
        yield made


def held(stream: Stream) -> h5py.File:
    """The file that a stream writes."""
    return stream._file  # type: ignore[attr-defined, no-any-return]


def test_a_stream_that_holds_all(stream: Stream) -> None:
    stream.close()


def test_a_stream_that_lost_an_event(stream: Stream) -> None:
    del held(stream)["events/event_4"]
    with pytest.raises(OutputError, match=r"stream\.h5: 3 events were added, it holds 2"):
        stream.close()


def test_a_stream_with_an_event_that_was_not_added(stream: Stream) -> None:
    held(stream).create_group("events/event_99")
    with pytest.raises(OutputError, match=r"stream\.h5: 3 events were added, it holds 4"):
        stream.close()


@pytest.mark.parametrize("number", [CHOSEN[0], CHOSEN[-1]])
def test_a_stream_whose_link_leads_nowhere(stream: Stream, number: int) -> None:
    name = f"event_{number}"
    del held(stream)[f"events/{name}"]
    held(stream)[f"events/{name}"] = h5py.ExternalLink("elsewhere.h5", f"/events/{name}")
    with pytest.raises(OutputError, match=f"{name} cannot be opened through it"):
        stream.close()


class TestHitStore:
    """Events and hits are counted apart."""

    @pytest.fixture
    def writer(self, tmp_path: Path, miniature: Callable[[str], Path]) -> HitWriter:
        """A store of two events with three hits, not yet closed."""
        with open_run(miniature("merger_1.0")) as run:
            made = HitWriter(tmp_path / "hits.h5", run, {}, {})
            records = [Record(*event) for event in run.events[:2]]
        columns = [np.arange(3, dtype=np.float32) for _ in range(6)]
        hits = Hits(np.array([0, 1, 3]), np.arange(3, dtype=np.int32), *columns)
        made.add(records, np.ones(2, np.uint8), hits)
        return made

    def test_that_holds_all(self, writer: HitWriter) -> None:
        writer.close()

    def test_that_lost_a_hit(self, writer: HitWriter) -> None:
        writer._file["hits/pad"].resize(2, axis=0)
        with pytest.raises(OutputError, match="2 events with 3 hits were added, it holds 2 with 2"):
            writer.close()

    def test_that_lost_an_event(self, writer: HitWriter) -> None:
        writer._numbers.pop()
        with pytest.raises(OutputError, match="2 events with 3 hits were added, it holds 1 with 3"):
            writer.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lost", ["one that comes", "one that stays"])
def test_moves_that_lose_an_event(
    lost: str,
    mode: StreamMode,
    tmp_path: Path,
    miniature: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = miniature("merger_1.0")
    proton = write_stream(source, tmp_path / "proton" / "run_0046.h5", mode, (3, 4))
    noise = write_stream(source, tmp_path / "noise" / "run_0046.h5", mode, (12,))
    before = proton.read_bytes(), noise.read_bytes()
    enter = moves._enter

    def lose(file: h5py.File, come: list[tuple[str, str]], olds: dict[str, h5py.File]) -> None:
        if lost == "one that comes":
            come = come[1:]
        enter(file, come, olds)
        if lost == "one that stays" and "event_12" in file["events"]:
            del file["events/event_12"]

    monkeypatch.setattr(moves, "_enter", lose)
    with open_run(source) as run:
        kind = type(run)
    with pytest.raises(OutputError, match="2 objects should be in it, it holds 1"):
        move_events(
            kind,  # type: ignore[arg-type]
            {"proton": proton, "noise": noise},
            mode,
            [Move(4, "proton", "noise")],
            lambda path: path.with_suffix(".new"),
        )
    assert (proton.read_bytes(), noise.read_bytes()) == before
