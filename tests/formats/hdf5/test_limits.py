"""The largest and the smallest that is read, and the next beyond, which is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5s, h5t

from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from attpc_filter.records import Record
from tests import miniatures
from tests.formats.hdf5.test_streams import write_stream

ROWS = np.zeros((3, 517), np.int64)


def rows_with(value: float, dtype: Any) -> np.ndarray[Any, Any]:
    """A matrix of three traces with this value in it."""
    rows = ROWS.astype(dtype)
    rows[1, 100] = value
    return rows


def event_4(path: Path) -> Record:
    """Event 4 of a run, as read."""
    with open_run(path) as run:
        return run.read(4, dict(run.events)[4])


def with_traces(tmp_path: Path, write: Callable[[h5py.Group, str], object]) -> Record:
    """Event 4 of a legacy run, with other traces, as read."""
    path = miniatures.write_run("merger_legacy", tmp_path / "run_0046.h5")
    with h5py.File(path, "r+") as file:
        del file["get/evt4_data"]
        write(file["get"], "evt4_data")
    return event_4(path)


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [
        (32767, np.int32, ""),
        (32768, np.int32, "beyond 16 bits"),
        (-32768, np.int32, ""),
        (-32769, np.int32, "beyond 16 bits"),
        (32767, np.uint16, ""),
        (32768, np.uint16, "beyond 16 bits"),
        (12, np.float32, ""),
        (32768, np.float64, "beyond 16 bits"),
        (np.nan, np.float64, "not finite"),
        (-np.inf, np.float32, "not finite"),
    ],
)
def test_samples_of_other_types(value: float, dtype: Any, reason: str, tmp_path: Path) -> None:
    rows = rows_with(value, dtype)
    record = with_traces(tmp_path, lambda get, name: get.create_dataset(name, data=rows))
    if reason:
        assert reason in record.reason
        return
    assert record.reason == ""
    np.testing.assert_array_equal(record.traces, rows.astype(np.int16))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.full((3, 517), b"12"), "expected integers"),
        (np.zeros((3, 517), complex), "expected integers"),
        (np.zeros((3, 516), np.int16), "(3, 516), expected (n, 517)"),
        (np.zeros((3, 518), np.int16), "(3, 518), expected (n, 517)"),
        (np.zeros(517, np.int16), "(517,), expected (n, 517)"),
        (np.zeros((1, 3, 517), np.int16), "(1, 3, 517), expected (n, 517)"),
    ],
)
def test_what_is_no_matrix_of_traces(rows: Any, reason: str, tmp_path: Path) -> None:
    record = with_traces(tmp_path, lambda get, name: get.create_dataset(name, data=rows))
    assert reason in record.reason
    assert record.traces is None


@pytest.mark.parametrize(("n_rows", "is_read"), [(100_000, True), (100_001, False)])
def test_rows_at_most(n_rows: int, is_read: bool, tmp_path: Path) -> None:
    """More rows than any event has are a damaged header; the file need not hold them."""
    record = with_traces(
        tmp_path, lambda get, name: get.create_dataset(name, (n_rows, 517), np.int16)
    )
    assert (record.reason == "") == is_read
    assert is_read or "100,001 rows: a damaged header" in record.reason


def test_bytes_at_most(tmp_path: Path) -> None:
    """A register of more than a gigabyte is none; nothing of that size is read."""
    path = miniatures.write_run("merger_legacy", tmp_path / "run_0046.h5")
    with h5py.File(path, "r+") as file:
        del file["frib/evt/evt4_977"]
        file.create_dataset("frib/evt/evt4_977", ((1 << 29) + 1,), np.uint16)
    assert "claims 1.1 GB: a damaged header" in event_4(path).reason


def test_integers_of_fewer_bits_than_their_bytes(tmp_path: Path) -> None:
    """No program writes them: a damaged header, whose numbers HDF5 would take at their word."""

    def write(get: h5py.Group, name: str) -> None:
        kind = h5t.STD_I16LE.copy()
        kind.set_precision(12)
        h5d.create(get.id, name.encode(), kind, h5s.create_simple((3, 517)))

    assert "strange type" in with_traces(tmp_path, write).reason


def with_cloud(tmp_path: Path, cloud: Any) -> Record:
    """Event 4 of a run of point clouds, with another cloud, as read."""
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0046.h5")
    with h5py.File(path, "r+") as file:
        del file["cloud/cloud_4"]
        file["cloud/cloud_4"] = cloud
    return event_4(path)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, float(np.finfo(np.float32).max), ""),
        (0, 3.5e38, "1 of 3 points are not finite"),
        (2, np.nan, "1 of 3 points are not finite"),
        (3, -np.inf, "1 of 3 points are not finite"),
    ],
)
def test_points_that_are_no_numbers(column: int, value: float, reason: str, tmp_path: Path) -> None:
    cloud = np.ones((3, 8))
    cloud[1, column] = value
    record = with_cloud(tmp_path, cloud)
    assert reason in record.reason
    assert bool(record.reason) == bool(reason)


@pytest.mark.parametrize(
    ("pad", "expected"), [(-2, -1), (-1, -1), (0, 0), (32767, 32767), (32768, -1)]
)
def test_pad_numbers(pad: float, expected: int, tmp_path: Path) -> None:
    """What fits 16 bits is a pad's number; anything else becomes -1, no pad."""
    cloud = np.ones((3, 8))
    cloud[1, 5] = pad
    record = with_cloud(tmp_path, cloud)
    assert record.reason == ""
    assert record.points is not None
    assert record.points[:, 6].tolist() == [1, expected, 1]


@pytest.mark.parametrize(
    ("cloud", "reason"),
    [
        (np.ones((3, 7)), "(3, 7), expected (n, 8 or more)"),
        (np.full((3, 8), b"1"), "expected numbers"),
        (np.ones(8), "(8,), expected (n, 8 or more)"),
    ],
)
def test_what_is_no_cloud(cloud: Any, reason: str, tmp_path: Path) -> None:
    assert reason in with_cloud(tmp_path, cloud).reason


class TestEventRange:
    """A stream's first and last event are the run's, or farther apart if the run says so."""

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ([3, 7, 20, 8], [3, 7, 20, 8]),
            ([10, 7, 11, 8], [3, 7, 20, 8]),
            ([0, 7, 99, 8], [0, 7, 99, 8]),
            ([0, 7, 11, 8], [0, 7, 20, 8]),
            ([10, 7, 99, 8], [3, 7, 99, 8]),
            (None, [3, 0, 20, 0]),
        ],
    )
    def test_of_legacy_runs(
        self, written: list[int] | None, expected: list[int], tmp_path: Path
    ) -> None:
        path = miniatures.write_run("merger_legacy", tmp_path / "run_0046.h5")
        with h5py.File(path, "r+") as file:
            del file["meta/meta"]
            if written is not None:
                file["meta/meta"] = np.array(written, np.uint64)
        stream = write_stream(path, tmp_path / "proton" / "run_0046.h5", "copy", (4, 12))
        with h5py.File(stream) as file:
            assert file["meta/meta"][()].tolist() == expected

    @pytest.mark.parametrize(("written", "expected"), [(5, 3), (3, 3), (1, 1), (None, 0)])
    def test_of_versioned_runs(self, written: int | None, expected: int, tmp_path: Path) -> None:
        path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
        with h5py.File(path, "r+") as file:
            file["events"].attrs.pop("min_event")
            if written is not None:
                file["events"].attrs["min_event"] = written
        stream = write_stream(path, tmp_path / "proton" / "run_0046.h5", "link", (4, 12))
        with h5py.File(stream) as file:
            attributes = file["events"].attrs
            assert attributes["min_event"] == expected
            assert (attributes["max_event"], attributes["attpc_filter_last_event"]) == (21, 20)


class TestHitStore:
    """A store whose columns do not fit each other is refused, whichever does not."""

    @pytest.mark.parametrize(
        "column", ["number", "name", "passthrough", "reason", "origin", "first_hit"]
    )
    @pytest.mark.parametrize("rows", ["shorter", "longer"])
    def test_columns_of_events(self, column: str, rows: str, tmp_path: Path) -> None:
        path = store(tmp_path)
        with h5py.File(path, "r+") as file:
            values = file[f"events/{column}"][()]
            del file[f"events/{column}"]
            # the first row is left out or doubled: the last hit stays the last
            file[f"events/{column}"] = np.concatenate(
                [values[1:2] if rows == "shorter" else values[:2], values[1:][rows == "shorter" :]]
            )
        with pytest.raises(InputError, match=r"run_0001\.h5: "):
            open_run(path)

    @pytest.mark.parametrize("column", ["pad", "x", "y", "z", "time_bucket", "charge", "integral"])
    @pytest.mark.parametrize("change", [-1, 1])
    def test_columns_of_hits(self, column: str, change: int, tmp_path: Path) -> None:
        path = store(tmp_path)
        with h5py.File(path, "r+") as file:
            hits = file[f"hits/{column}"]
            hits.resize(len(hits) + change, axis=0)
        with pytest.raises(InputError, match="columns do not fit each other"):
            open_run(path)

    def test_hits_that_go_backwards(self, tmp_path: Path) -> None:
        path = store(tmp_path)
        with h5py.File(path, "r+") as file:
            first_hit = file["events/first_hit"]
            first_hit[1], first_hit[2] = 3, 1
        with pytest.raises(InputError, match="columns do not fit each other"):
            open_run(path)


def store(folder: Path) -> Path:
    """A hit store of three events with six hits, written with h5py alone."""
    path = folder / "run_0001.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"attpc_filter_hits": 1, "run": 1, "made": "{}", "calibration": "{}"})
        file["events/number"] = np.array([1, 2, 3], np.int64)
        file["events/name"] = np.array([b"event_1", b"event_2", b"event_3"])
        file["events/passthrough"] = np.zeros(3, np.uint8)
        file["events/reason"] = np.zeros(3, "S1")
        file["events/origin"] = np.ones(3, np.uint8)
        file["events/first_hit"] = np.array([0, 1, 3, 6], np.int64)
        for name in ("pad", "x", "y", "z", "time_bucket", "charge", "integral"):
            kind = np.int32 if name == "pad" else np.float32
            file.create_dataset(f"hits/{name}", data=np.arange(6, dtype=kind), maxshape=(None,))
    return path


def test_a_store_that_fits(tmp_path: Path) -> None:
    with open_run(store(tmp_path)) as run:
        assert [record.event for record in run.records()] == [1, 2, 3]
