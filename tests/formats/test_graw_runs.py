"""Runs of GET frames through the command line, against merger files of the same events.

The frames are written by an independent writer; the real ones were written by GET's own DAQ.
"""

import csv
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from attpc_filter.formats.graw import GrawRun
from attpc_filter.rebuild.hits import HitSettings
from tests import graw_files, miniatures
from tests.conftest import SHARED, Cli, read_manifest, shared
from tests.graw_files import Style, write_run
from tests.rebuild.test_hits_against_spyral import compare

Events = dict[int, NDArray[np.int16]]


def attpc_channels() -> NDArray[np.int16]:
    """CoBo, AsAd, AGET and channel of each of the AT-TPC's pads, read with csv alone."""
    text = resources.files("attpc_filter.detectors").joinpath("at-tpc.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    names = ("cobo", "asad", "aget", "channel")
    return np.array([[int(row[name]) for name in names] for row in rows], np.int16)


def as_read_out(traces: NDArray[np.int16]) -> NDArray[np.int16]:
    """A matrix with a row for each pad, its channel in the first columns, in their order."""
    _, first = np.unique(traces[:, 4], return_index=True)
    rows = traces[first[(traces[first, 4] >= 0) & (traces[first, 4] < 10240)]].copy()
    rows[:, :4] = attpc_channels()[rows[:, 4]]
    return rows[np.lexsort(rows[:, 3::-1].T)]


def write_merger(path: Path, events: Events) -> Path:
    """An attpc_merger 2.0 file: events counted from 0."""
    with h5py.File(path, "w") as file:
        group = file.create_group("events")
        group.attrs["version"] = "libattpc_merger:2.0"
        group.attrs["min_event"], group.attrs["max_event"] = 0, len(events) - 1
        for index, traces in enumerate(events.values()):
            group.create_dataset(f"event_{index}/get/pads", data=traces)
    return path


def both(folder: Path, events: Events, style: Style) -> tuple[Path, Path]:
    asads = sorted({(int(row[0]), int(row[1])) for row in attpc_channels()})
    frames = write_run(folder / "run_0046", events, style, asads=asads)
    return frames, write_merger(folder / "run_0046.h5", events)


def mini_events() -> Events:
    return {10 + event.number: as_read_out(event.traces) for event in miniatures.events()}


def filtered(call: Cli, run: Path, out: Path, *options: object) -> Path:
    ended = call("run", run, "--out", out, "--keep-hits", "--no-picture", *options)
    assert ended.status == 0, ended.err
    return out


def hits_and_tags(out: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    with h5py.File(next((out / "hits").iterdir())) as file:
        hits = {name: file["hits"][name][()].tobytes() for name in file["hits"]}
    table = pq.read_table(next((out / "tags").iterdir())).to_pydict()
    scores = [name for name in table if name.startswith("score_")]
    bits = {name: np.array(table[name], np.float32).tobytes() for name in scores}
    return hits, {"tags": table["tag"], "events": table["event"], "n": table["n_hits"], **bits}


@pytest.mark.parametrize("readout", ["partial", "full"])
def test_miniatures_have_the_hits_and_tags_of_the_merger_file(
    call: Cli, counter_model: Path, tmp_path: Path, readout: Any
) -> None:
    frames, merged = both(tmp_path, mini_events(), Style(readout))
    found = [
        hits_and_tags(filtered(call, run, tmp_path / name, "--model", counter_model))
        for name, run in (("frames", frames), ("merged", merged))
    ]
    assert found[0] == found[1]
    assert "proton" in found[0][1]["tags"]


def test_the_shared_raw_run_has_the_hits_and_tags_of_the_merger_file(
    call: Cli, tmp_path: Path
) -> None:
    """Simulated events of 46Ar with the model that ships; what differs in no bit."""
    with h5py.File(shared("train/raw/run_0101.h5")) as file:
        traces = [file[f"events/event_{number}/get/pads"][()] for number in range(12)]
    for matrix in traces:
        np.testing.assert_array_equal(matrix[:, :4], attpc_channels()[matrix[:, 4]])
    events = {500 + index: as_read_out(matrix) for index, matrix in enumerate(traces)}
    frames, merged = both(tmp_path, events, Style())
    found = [
        hits_and_tags(filtered(call, run, tmp_path / name))
        for name, run in (("frames", frames), ("merged", merged))
    ]
    assert found[0] == found[1]


def test_copies_are_merger_files_that_spyral_opens(
    call: Cli, counter_model: Path, tmp_path: Path, spyral: ModuleType
) -> None:
    events = mini_events()
    frames, _ = both(tmp_path, events, Style())
    options = ("--model", counter_model, "--streams", "copy")
    out = filtered(call, frames, tmp_path / "out", *options)
    reader = spyral.create_reader(out / "proton" / "run_0046.h5", 46)
    by_number = dict(enumerate(events.values()))
    found = list(reader.event_range())
    with h5py.File(out / "proton" / "run_0046.h5") as file:
        numbers = sorted(int(name.removeprefix("event_")) for name in file["events"])
        for number in numbers:
            get = file[f"events/event_{number}/get"]
            np.testing.assert_array_equal(get["pads"][()], by_number[number])
            assert get.attrs["id"] == list(events)[number]
    assert numbers
    assert set(numbers) <= set(found)
    reader.file.close()


def test_lists_and_how_they_are_tagged_anew(call: Cli, counter_model: Path, tmp_path: Path) -> None:
    frames, _ = both(tmp_path, mini_events(), Style())
    out = filtered(call, frames, tmp_path / "out", "--model", counter_model)
    manifest = read_manifest(out)
    (run,) = manifest["runs"]
    assert any("downscale triggers" in note for note in run["notes"])
    for label, stream in run["streams"].items():
        lines = (out / stream["path"]).read_text().splitlines()
        listed = [line.split() for line in lines if not line.startswith("#")]
        assert len(listed) == stream["events"] == run["counts"][label]
    ended = call("retag", out, "--thresholds", "proton=0.3")
    assert ended.status == 0, ended.err
    moved = (out / "uncertain" / "run_0046.txt").read_text().splitlines()
    events = [line.split()[0] for line in moved if not line.startswith("#")]
    table = pq.read_table(out / "tags" / "run_0046.parquet").to_pydict()
    expected = [
        str(event)
        for event, tag in zip(table["event"], table["tag"], strict=True)
        if tag == "uncertain"
    ]
    assert events == expected
    assert len(events) < run["counts"]["uncertain"]


def test_the_files_of_a_run_given_one_by_one_are_one_run(
    call: Cli, counter_model: Path, tmp_path: Path
) -> None:
    frames, _ = both(tmp_path, mini_events(), Style())
    ended = call(
        *("run", *sorted(frames.iterdir()), "--out", tmp_path / "out", "--model", counter_model),
        *("--no-picture", "--streams", "none"),
    )
    assert ended.status == 0, ended.err
    (run,) = read_manifest(tmp_path / "out")["runs"]
    assert run["n_events"] == len(mini_events())
    assert run["run"] == 46
    assert ended.err.count("downscale triggers") == 1


def test_a_detector_without_channels_is_refused(
    call: Cli, counter_model: Path, tmp_path: Path
) -> None:
    frames, _ = both(tmp_path, mini_events(), Style())
    (tmp_path / "pads.csv").write_text("pad,x,y\n0,1,2\n1,3,4\n")
    (tmp_path / "d.yaml").write_text(
        "{name: two, pads: pads.csv, n_pads: 2, n_samples: 512,"
        " z: {micromegas_time_bucket: 1, window_time_bucket: 2, length_mm: 3}}"
    )
    ended = call(
        *("run", frames, "--out", tmp_path / "out", "--model", counter_model),
        *("--detector", tmp_path / "d.yaml"),
    )
    assert ended.status == 2
    assert "columns cobo, asad, aget and channel" in ended.err


class TestRealFiles:
    """Frames of a real detector, which lie beside the repository only."""

    FOLDER = SHARED / "data" / "real"

    @pytest.fixture(autouse=True)
    def _require(self) -> None:
        if not self.FOLDER.exists():
            pytest.skip(f"needs the real files beside the repository: {self.FOLDER}")

    def test_spyrals_hits(self, spyral: ModuleType) -> None:
        """One run of 10 events: every hit of Spyral's, and none besides."""
        channels = [c for c in range(68) if c not in graw_files.FPN]
        keys = [(0, asad, aget, c) for asad in range(4) for aget in range(4) for c in channels]
        pads = np.column_stack([keys, np.arange(len(keys))]).astype(np.int64)
        file = next((self.FOLDER / "get").glob("CoBo0_AsAd2_*.graw"))
        with GrawRun(file, pads) as run:
            assert [run.event_id(number) for number, _ in run.events] == list(range(80, 90))
            records = [run.read(*event) for event in run.events]
        traces = [record.traces for record in records if record.traces is not None]
        assert [len(matrix) for matrix in traces] == 10 * [1024]
        result = compare(spyral, traces, HitSettings())
        assert result.n_found == result.n_spyral == result.n_ours == 667
        assert result.n_tied <= 7

    @pytest.mark.parametrize(
        ("name", "n_traces"), [("partial_readout_frame", 1), ("GoodFrame", 29)]
    )
    def test_single_frames(self, name: str, n_traces: int) -> None:
        """Against a decoder of a few lines: the last sample of a channel and bucket counts."""
        path = self.FOLDER / "get" / f"{name}.graw"
        content = path.read_bytes()
        begin = int.from_bytes(content[8:10], "big") * 2 ** content[0]
        count = int.from_bytes(content[12:16], "big")
        words = np.frombuffer(content, ">u4", count, begin).astype(np.int64)
        samples = {
            (int(word >> 30), int(word >> 23 & 127), int(word >> 14 & 511)): int(word & 4095)
            for word in words
            if (word >> 23 & 127) not in graw_files.FPN
        }
        with GrawRun(path) as run:
            (record,) = run.records()
        assert record.traces is not None
        found = {
            (int(row[2]), int(row[3]), bucket): int(value)
            for row in record.traces
            for bucket, value in enumerate(row[5:].tolist())
        }
        assert len(record.traces) == n_traces
        assert {key: found[key] for key in samples} == samples
        assert not any(value for key, value in found.items() if key not in samples)

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("get/geometry_ELITPC.dat", "geometry of a detector with strips"),
            ("other/data85_9.dat", "JSON"),
            ("other/attpcroot_text/eX17_event.dat", "attpc-filter import"),
            ("other/attpcroot_text/e15250_event.dat", "attpc-filter import"),
            ("other/CAL410424dEE.root", "no AtRawEvent and no AtEvent"),
            ("other/SimpleTree410424.root", "not closed properly"),
            ("other/precal_outTree.root", "not closed properly"),
            ("clouds/Ar46_4D.hdf5", "attpc-filter import"),
            ("get", "of 3 runs; give one file"),
            ("other", "only a folder of .graw files is a run"),
        ],
    )
    def test_others_are_refused_by_name(self, path: str, said: str, call: Cli) -> None:
        ended = call("inspect", self.FOLDER / path)
        assert ended.status == 2
        assert said in ended.the_error()
