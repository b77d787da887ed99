"""GET's own frames, as an independent writer writes them, against the traces they were made of."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.graw import GrawRun
from attpc_filter.formats.registry import open_run
from attpc_filter.records import Record
from tests import graw_files
from tests.graw_files import Style, frame, split, write_run

STYLES = [
    Style(readout, unit, order)
    for readout, unit, order in product(("partial", "full"), (64, 256), ("big", "little"))
]

#: CoBo and AsAd of the miniatures: CoBo 10 is the one with the other clock.
ASADS = [(0, 0), (0, 3), (10, 1)]


def channel_map() -> NDArray[np.int64]:
    """CoBo, AsAd, AGET, channel and pad of every channel that has a pad."""
    channels = [c for c in range(68) if c not in graw_files.FPN]
    keys = [(*asad, aget, c) for asad in ASADS for aget in range(4) for c in channels]
    pads = np.random.default_rng(3).permutation(len(keys))
    return np.column_stack([keys, pads]).astype(np.int64)


def simulate(seed: int, n_traces: int = 60) -> NDArray[np.int16]:
    """A trace matrix of some of the channels, every sample of 12 bits."""
    rng = np.random.default_rng([5, seed])
    rows = channel_map()[rng.choice(len(channel_map()), n_traces, replace=False)]
    samples = rng.integers(1, 4096, (n_traces, 512))
    return np.column_stack([rows, samples]).astype(np.int16)


def by_pad(traces: NDArray[np.int16]) -> NDArray[np.int16]:
    return traces[np.argsort(traces[:, 4], kind="stable")]


def read(path: Path, channels: NDArray[np.int64] | None = None) -> list[Record]:
    with GrawRun(path, channel_map() if channels is None else channels) as run:
        return [record_with_own_traces(record) for record in run.records()]


def record_with_own_traces(record: Record) -> Record:
    if record.traces is not None:
        record.traces = record.traces.copy()
    return record


EVENTS = {number: simulate(number) for number in (7, 8, 9, 12)}


def expected(traces: NDArray[np.int16], style: Style) -> NDArray[np.int16]:
    """What an event must read as: in full readout every channel, zeros where nothing was."""
    if style.readout == "partial":
        return by_pad(traces)
    all_rows = np.zeros((len(channel_map()), 517), np.int16)
    all_rows[:, :5] = channel_map()
    all_rows = by_pad(all_rows)
    all_rows[traces[:, 4], 5:] = traces[:, 5:]
    return all_rows


@pytest.mark.parametrize("style", STYLES, ids=lambda s: f"{s.readout} {s.unit} {s.order}")
def test_traces_are_those_that_were_written(style: Style, tmp_path: Path) -> None:
    records = read(write_run(tmp_path / "run_0007", EVENTS, style))
    assert [record.event for record in records] == [0, 1, 2, 3]
    for record, traces in zip(records, EVENTS.values(), strict=True):
        assert record.traces is not None, record.reason
        np.testing.assert_array_equal(by_pad(record.traces), expected(traces, style))


def test_missing_buckets_are_zero(tmp_path: Path) -> None:
    traces = simulate(1)
    traces[:, 5:][np.random.default_rng(1).random((len(traces), 512)) < 0.7] = 0
    (record,) = read(write_run(tmp_path / "run", {1: traces}, Style(suppress=True)))
    assert record.traces is not None
    np.testing.assert_array_equal(by_pad(record.traces), by_pad(traces))


def test_several_files_an_asad(tmp_path: Path) -> None:
    records = read(write_run(tmp_path / "run", EVENTS, files_an_asad=3))
    assert [by_pad(r.traces).tobytes() for r in records if r.traces is not None] == [
        by_pad(traces).tobytes() for traces in EVENTS.values()
    ]


def test_one_file_stands_for_the_files_that_were_opened_with_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", EVENTS, files_an_asad=2)
    (tmp_path / "run" / "frame.graw").write_bytes(frame(1, 0, 0, {}))
    for file in folder.glob("CoBo*"):
        assert [by_pad(r.traces).tobytes() for r in read(file) if r.traces is not None] == [
            by_pad(traces).tobytes() for traces in EVENTS.values()
        ]


def test_a_folder_of_two_runs_is_refused_and_a_file_of_each_is_read(tmp_path: Path) -> None:
    write_run(tmp_path, {1: EVENTS[7]})
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_name(file.name.replace("03_04_05", "03_59_59")))
    write_run(tmp_path, {2: EVENTS[8]})
    with pytest.raises(InputError, match="of 2 runs; give one file"):
        GrawRun(tmp_path)
    for number, time in ((7, "03_59_59"), (8, "03_04_05")):
        (record,) = read(next(tmp_path.glob(f"CoBo0_AsAd3*{time}*")))
        assert record.traces is not None
        np.testing.assert_array_equal(by_pad(record.traces), by_pad(EVENTS[number]))


def test_folders_of_cobos_are_one_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run_0042", EVENTS)
    for file in list(folder.iterdir()):
        cobo = file.name[4 : file.name.index("_")]
        below = folder / f"mm{cobo}"
        below.mkdir(exist_ok=True)
        file.rename(below / file.name.partition("_")[2])
    with GrawRun(folder, channel_map()) as run:
        assert run.number == 42
        assert all(record.traces is not None for record in run.records())


def test_times_and_numbers_as_the_merger_makes_them(tmp_path: Path) -> None:
    with GrawRun(write_run(tmp_path / "run", EVENTS), channel_map()) as run:
        assert [run.event_id(number) for number in range(4)] == [7, 8, 9, 12]
        assert run.times(3) == (12_000, 12_007)


def test_event_numbers_that_wrap(tmp_path: Path) -> None:
    numbers = [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]
    events = {n: traces for n, traces in zip(numbers, EVENTS.values(), strict=True)}
    with GrawRun(write_run(tmp_path / "run", events), channel_map()) as run:
        assert [run.event_id(number) for number in range(4)] == numbers
        for record, traces in zip(run.records(), EVENTS.values(), strict=True):
            assert record.traces is not None
            np.testing.assert_array_equal(by_pad(record.traces), by_pad(traces))


@pytest.fixture
def frames(tmp_path: Path) -> Callable[..., list[Record]]:
    """Read a run of these frames, by AsAd."""

    def reads(frames: dict[tuple[int, int], list[bytes]]) -> list[Record]:
        for (cobo, asad), parts in frames.items():
            (tmp_path / f"CoBo{cobo}_AsAd{asad}_x_0000.graw").write_bytes(b"".join(parts))
        return read(tmp_path)

    return reads


def frames_of(events: dict[int, NDArray[np.int16]]) -> dict[tuple[int, int], list[bytes]]:
    return {
        asad: [frame(n, *asad, split(traces, ASADS)[asad]) for n, traces in events.items()]
        for asad in ASADS
    }


Frames = Callable[[dict[tuple[int, int], list[bytes]]], list[Record]]


def test_frames_out_of_order(frames: Frames) -> None:
    written = frames_of(EVENTS)
    written[0, 3] = [written[0, 3][i] for i in (2, 0, 3, 1)]
    for record, traces in zip(frames(written), EVENTS.values(), strict=True):
        assert record.traces is not None
        np.testing.assert_array_equal(by_pad(record.traces), by_pad(traces))


def test_a_missing_frame_is_said(frames: Frames) -> None:
    written = frames_of(EVENTS)
    del written[0, 3][1]
    reasons = [record.reason for record in frames(written)]
    assert reasons == ["", "no frame of CoBo 0 AsAd 3", "", ""]


def test_a_frame_without_samples_is_no_missing_one(frames: Frames) -> None:
    written = frames_of(EVENTS)
    written[0, 3][1] = frame(8, 0, 3, {})
    record = frames(written)[1]
    rows = EVENTS[8]
    assert record.traces is not None
    kept = rows[(rows[:, 0] != 0) | (rows[:, 1] != 3)]
    np.testing.assert_array_equal(by_pad(record.traces), by_pad(kept))


def test_the_same_frame_twice_is_taken_once(frames: Frames) -> None:
    written = frames_of(EVENTS)
    written[0, 0].insert(1, written[0, 0][2])
    for record, traces in zip(frames(written), EVENTS.values(), strict=True):
        assert record.traces is not None
        np.testing.assert_array_equal(by_pad(record.traces), by_pad(traces))


def test_two_frames_that_differ_are_said(frames: Frames) -> None:
    written = frames_of(EVENTS)
    written[0, 0].append(frame(9, 0, 0, split(EVENTS[7], ASADS)[0, 0]))
    assert [record.reason for record in frames(written)] == [
        *("", "", "two frames of CoBo 0 AsAd 0 that differ", "")
    ]


def test_a_cut_file_and_damage_within(frames: Frames, tmp_path: Path) -> None:
    written = frames_of(EVENTS)
    broken = bytearray(written[10, 1][1])
    broken[1:4] = b"\xff\xff\xff"  # the frame's length
    written[10, 1][1] = bytes(broken)
    written[0, 0][-1] = written[0, 0][-1][:-256]
    assert [record.reason for record in frames(written)] == [
        "damaged bytes follow the frame of CoBo 10 AsAd 1",
        "no frame of CoBo 10 AsAd 1",
        "",
        "no frame of CoBo 0 AsAd 0",
    ]
    with GrawRun(tmp_path, channel_map()) as run:
        lost = len(written[10, 1][1]) + len(written[0, 0][-1])
        assert any(f"{lost:,} damaged bytes" in note for note in run.notes)


def test_full_readout_with_a_damaged_aget_is_said(frames: Frames) -> None:
    written = frames_of(EVENTS)
    full = bytearray(frame(8, 0, 0, {}, Style("full")))
    full[256 + 1000] ^= 0x40  # of another AGET
    written[0, 0][1] = bytes(full)
    assert "AGETs do not have the same samples" in frames(written)[1].reason


def test_channels_without_a_pad_are_no_traces(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {1: EVENTS[7]})
    kept = channel_map()[::2]
    (record,) = read(folder, kept)
    assert record.traces is not None
    wanted = EVENTS[7][np.isin(EVENTS[7][:, 4], kept[:, 4])]
    np.testing.assert_array_equal(by_pad(record.traces), by_pad(wanted))


def test_asads_that_the_map_does_not_know(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {1: EVENTS[7]})
    channels = channel_map()
    with GrawRun(folder, channels[channels[:, 0] == 10]) as run:
        assert any("no pads for CoBo 0 AsAd 0, CoBo 0 AsAd 3" in note for note in run.notes)
    channels[:, 0] = 5
    with pytest.raises(InputError, match="knows none; give the detector"):
        GrawRun(folder, channels)


def test_no_frame_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.graw").write_bytes(bytes(100_000))
    with pytest.raises(InputError, match=r"a\.graw: GET frames without a single event"):
        GrawRun(tmp_path / "a.graw")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"a folder without \.graw files"):
        GrawRun(tmp_path / "empty")


def test_an_asad_without_any_frame_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", EVENTS)
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(InputError, match=f"no GET frame in {last.name}"):
        GrawRun(folder, channel_map())


def test_an_empty_last_file_is_none(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", EVENTS)
    last = sorted(folder.iterdir())[-1]
    last.with_name(last.name.replace("_0000", "_0001")).touch()
    assert all(record.traces is not None for record in read(folder))


def test_an_asad_that_stops_after_its_first_frame(frames: Frames) -> None:
    written = frames_of(EVENTS)
    del written[0, 3][1:]
    reasons = [record.reason for record in frames(written)]
    assert reasons == ["", *3 * ["no frame of CoBo 0 AsAd 3"]]


def test_copies_are_merger_files(tmp_path: Path) -> None:
    written = frames_of(EVENTS)
    del written[0, 3][1]
    for (cobo, asad), parts in written.items():
        (tmp_path / f"CoBo{cobo}_AsAd{asad}_x_0000.graw").write_bytes(b"".join(parts))
    with open_run(tmp_path, channels=channel_map()) as run:
        stream = run.create_stream(tmp_path / "s.h5", "copy", "proton")
        for number in (1, 3):
            stream.add(Record(number, f"event_{number}"))
        stream.close()
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["events"].attrs["version"] == "libattpc_merger:2.0"
        assert sorted(file["events"]) == ["event_1", "event_3"]
        short = EVENTS[8][(EVENTS[8][:, 0] != 0) | (EVENTS[8][:, 1] != 3)]
        for number, event, traces in ((1, 8, short), (3, 12, EVENTS[12])):
            get = file[f"events/event_{number}/get"]
            assert get.attrs["id"] == event
            np.testing.assert_array_equal(by_pad(get["pads"][()]), by_pad(traces))


def test_lists_name_the_events(tmp_path: Path) -> None:
    with open_run(write_run(tmp_path / "run", EVENTS), channels=channel_map()) as run:
        stream = run.create_stream(tmp_path / "s.txt", "link", "proton")
        for number in (1, 3):
            stream.add(Record(number, f"event_{number}"))
        stream.close()
    lines = (tmp_path / "s.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["1 8", "3 12"]
