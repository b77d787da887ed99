"""Properties of the formats, on runs drawn at random: what was written is what is read."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.hdf5 import kernels as hdf5_kernels
from attpc_filter.formats.registry import open_run
from attpc_filter.records import Record
from tests import miniatures
from tests.formats.hdf5.test_streams import write_stream

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: How other tools store what the merger writes contiguous, as int16 of this machine's byte order.
STORAGES = {
    "contiguous": miniatures.Storage(),
    "big-endian": miniatures.Storage(">i2"),
    "int32": miniatures.Storage(np.int32),
    "big-endian int32": miniatures.Storage(">i4"),
    "uint16": miniatures.Storage(np.uint16),
    "float64": miniatures.Storage(np.float64),
    "gzip": miniatures.Storage(options={"compression": "gzip", "shuffle": True}),
    "lzf": miniatures.Storage(options={"compression": "lzf"}),
    "fletcher32": miniatures.Storage(options={"fletcher32": True}),
    "small chunks": miniatures.Storage(options={"chunks": (1, 100)}),
    "resizable": miniatures.Storage(options={"maxshape": (None, 517), "chunks": (8, 517)}),
}


@st.composite
def trace_matrices(draw: st.DrawFn, low: int = 0) -> NDArray[np.int16]:
    """A matrix of up to 12 rows: any sample, pads inside the plane and outside."""
    n_rows = draw(st.integers(0, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    pads = draw(
        st.lists(
            st.one_of(st.integers(0, 10239), st.sampled_from([-1, -2, 10240, 10241, 32767])),
            min_size=n_rows,
            max_size=n_rows,
        )
    )
    rows = np.random.default_rng(seed).integers(low, 4096, (n_rows, 517)).astype(np.int16)
    rows[:, 4] = pads
    return rows


@st.composite
def runs(draw: st.DrawFn) -> list[miniatures.SimEvent]:
    """One to eight events; the numbers have gaps of any width."""
    numbers = draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=8, unique=True))
    empty = miniatures.simulate(0, 0)
    return [
        miniatures.SimEvent(
            number=number,
            n_lit=0,
            traces=draw(trace_matrices()),
            points=empty.points,
            trigger=draw(st.sampled_from([None, 0, 1, 2, 3])),
        )
        for number in sorted(numbers)
    ]


def _read_all(path: Path, n_rows: int | None = None) -> dict[int, Record]:
    """All events, one by one or in parts with room for so many rows."""
    with open_run(path) as run:
        if n_rows is None:
            return {record.event: record for record in run.records()}
        buffer = np.empty((n_rows, 517), np.int16)
        found: dict[int, Record] = {}
        for part in run.parts(run.events, buffer):
            for record in part:
                assert record.traces is not None, record.reason
                held = record.traces.copy()  # the buffer is used again for the next part
                found[record.event] = dataclasses.replace(record, traces=held)
        return found


@pytest.mark.parametrize("layout", list(miniatures.RAW))
@SETTINGS
@given(
    chosen=runs(),
    storage=st.sampled_from(sorted(STORAGES)),
    n_rows=st.none() | st.integers(1, 40),
    compiled=st.booleans(),
)
def test_any_run_in_any_storage_is_read_as_it_was_written(
    layout: str,
    chosen: list[miniatures.SimEvent],
    storage: str,
    n_rows: int | None,
    compiled: bool,
) -> None:
    """One by one and in parts; by compiled code and, where there is none, without."""
    if storage == "uint16":  # cannot hold a negative pad
        chosen = [miniatures.with_traces(event, np.abs(event.traces)) for event in chosen]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run_0001.h5"
        try:
            miniatures.write_run(layout, path, chosen, STORAGES[storage])
        except ValueError:  # h5py refuses chunks larger than the data
            miniatures.write_run(layout, path, chosen)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hdf5_kernels, "AVAILABLE", compiled and hdf5_kernels.AVAILABLE)
            records = _read_all(path, n_rows)
    assert list(records) == [event.number for event in chosen]
    for event in chosen:
        record = records[event.number]
        assert record.reason == ""
        assert record.traces is not None
        assert record.traces.dtype == np.int16
        np.testing.assert_array_equal(record.traces, event.traces)
        has_frib = layout in miniatures.WITH_FRIB
        assert record.passthrough == (has_frib and event.trigger == miniatures.IC_TRIGGER)


@pytest.mark.parametrize("layout", ["merger_legacy", "merger_2.0"])
@SETTINGS
@given(chosen=runs(), mode=st.sampled_from(["link", "copy"]), data=st.data())
def test_any_choice_of_events_makes_a_stream_of_them(
    layout: str, chosen: list[miniatures.SimEvent], mode: Any, data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.sampled_from([e.number for e in chosen]), unique=True))
    with tempfile.TemporaryDirectory() as folder:
        source = miniatures.write_run(layout, Path(folder) / "raw" / "run_0001.h5", chosen)
        stream = write_stream(source, Path(folder) / "out" / "run_0001.h5", mode, sorted(numbers))
        if not numbers:
            with h5py.File(stream) as file:
                assert len(file["get" if layout == "merger_legacy" else "events"]) == 0
            return
        records = _read_all(stream)
    assert list(records) == sorted(numbers)
    for event in chosen:
        if event.number in numbers:
            np.testing.assert_array_equal(records[event.number].traces, event.traces)


@SETTINGS
@given(
    rows=st.integers(0, 20),
    columns=st.integers(1, 12),
    dtype=st.sampled_from(["f8", ">f8", "f4", "i4", ">i2"]),
    seed=st.integers(0, 1000),
    layout=st.sampled_from(["spyral_cloud", "pytpc_clean"]),
)
def test_tables_of_hits_with_any_number_of_columns(
    rows: int, columns: int, dtype: str, seed: int, layout: str
) -> None:
    values = np.random.default_rng(seed).integers(0, 200, (rows, columns)).astype(dtype)
    group, name, least = ("cloud", "cloud_5", 8) if layout == "spyral_cloud" else ("clean", "5", 4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run_0001.h5"
        with h5py.File(path, "w") as file:
            file.create_group(group)[name] = values
        (record,) = _read_all(path).values()
    if columns < least:
        assert f"({rows}, {columns})" in record.reason
        assert record.points is None
    else:
        assert record.reason == ""
        assert record.points is not None
        np.testing.assert_array_equal(record.points[:, :2], values[:, :2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 40000.0, -40000.0])
@pytest.mark.parametrize("layout", ["pytpc_get", "merger_legacy", "merger_1.0", "merger_2.0"])
def test_numbers_that_fit_no_trace_make_one_event_unreadable(
    layout: str, bad: float, tmp_path: Path
) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    name = miniatures.traces_path(layout, 7)
    with h5py.File(path, "a") as file:
        values = file[name][()].astype(np.float64)
        values[11, 300] = bad
        del file[name]
        file[name] = values
    records = _read_all(path)
    assert [event for event, record in records.items() if record.reason] == [7]
    assert "not finite" in records[7].reason or "beyond 16 bits" in records[7].reason


#: The columns that are read of each table of hits.
READ_COLUMNS = [
    *(("spyral_cloud", column) for column in range(8)),
    *(("pytpc_clean", column) for column in range(4)),
    *((layout, name) for layout in ("attpcroot_hits", "attpcroot_hits_old") for name in "xyzA"),
]


def _spoil_hit(layout: str, path: Path, column: int | str, value: float) -> None:
    name = miniatures.event_paths(layout, 7)[0]
    with h5py.File(path, "a") as file:
        dataset = file[name + ("/HitArray" if layout == "attpcroot_hits" else "")]
        values = dataset[()]
        if isinstance(column, str):
            values[column][5] = value
        else:
            values[5, column] = value
        dataset[...] = values


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
@pytest.mark.parametrize(("layout", "column"), READ_COLUMNS)
def test_a_hit_that_is_not_finite_makes_one_event_unreadable(
    layout: str, column: int | str, value: float, tmp_path: Path
) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    _spoil_hit(layout, path, column, value)
    records = _read_all(path)
    assert [event for event, record in records.items() if record.reason] == [7]
    assert "1 of 60 points" in records[7].reason


@pytest.mark.parametrize(("layout", "column"), [("spyral_cloud", 5), ("pytpc_clean", 4)])
@pytest.mark.parametrize("value", [1e12, -3.0, 40000.0])
def test_a_pad_number_that_is_none_costs_no_hit(
    layout: str, column: int, value: float, tmp_path: Path
) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    _spoil_hit(layout, path, column, value)
    record = _read_all(path)[7]
    assert record.reason == ""
    assert record.points is not None
    assert len(record.points) == 60
    assert record.points[5, 6] == -1


@pytest.mark.parametrize("columns", [0, 1, 5, 512, 516, 518])
@pytest.mark.parametrize("layout", list(miniatures.RAW))
def test_a_matrix_of_other_than_517_columns_makes_one_event_unreadable(
    layout: str, columns: int, tmp_path: Path
) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    name = miniatures.traces_path(layout, 4)
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = np.zeros((30, columns), np.int16)
    records = _read_all(path)
    assert [event for event, record in records.items() if record.reason] == [4]
    assert f"(30, {columns})" in records[4].reason
    assert "517" in records[4].reason


@pytest.mark.parametrize(
    "value",
    [
        np.arange(517, dtype=np.int16),
        np.zeros((2, 3, 517), np.int16),
        np.int16(3),
        "text",
        np.zeros(4, [("a", "i2")]),
        h5py.Empty("i2"),
        np.array([["x"] * 517], dtype="S1"),
    ],
    ids=["vector", "cube", "number", "text", "table", "null", "letters"],
)
@pytest.mark.parametrize("layout", ["pytpc_get", "merger_legacy", "merger_1.0", "merger_2.0"])
def test_what_is_no_matrix_makes_one_event_unreadable(
    layout: str, value: Any, tmp_path: Path
) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    name = miniatures.traces_path(layout, 4)
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value
    records = _read_all(path)
    assert [event for event, record in records.items() if record.reason] == [4]
    assert "\n" not in records[4].reason


@pytest.mark.parametrize("link", ["soft", "external"])
@pytest.mark.parametrize("layout", list(miniatures.LAYOUTS))
def test_an_event_whose_link_leads_nowhere(layout: str, link: str, tmp_path: Path) -> None:
    path = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5")
    (name,) = miniatures.event_paths(layout, 13)[:1]
    with h5py.File(path, "a") as file:
        del file[name]
        if link == "soft":
            file[name] = h5py.SoftLink("/nowhere")
        else:
            file[name] = h5py.ExternalLink(path.name, "/nowhere")
    records = _read_all(path)
    assert list(records) == [event.number for event in miniatures.events()]
    assert [event for event, record in records.items() if record.reason] == [13]
    for mode in ("link", "copy"):
        stream = write_stream(path, tmp_path / mode / "run_0046.h5", mode, (4, 13, 20))
        again = _read_all(stream)
        assert list(again) == [4, 13, 20]
        assert [event for event, record in again.items() if record.reason] == [13]


@pytest.mark.parametrize("layout", list(miniatures.LAYOUTS))
def test_a_link_to_a_file_that_is_not_there_fails_the_run(layout: str, tmp_path: Path) -> None:
    """The file may have been moved: that is no reason to tag the event for good."""
    path = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5")
    (name,) = miniatures.event_paths(layout, 13)[:1]
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink("absent.h5", "/x")
    with pytest.raises(InputError, match=r"absent\.h5, which is not there"):
        _read_all(path)


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize("layout", list(miniatures.RAW))
def test_any_version_of_the_hdf5_file_format(layout: str, libver: str, tmp_path: Path) -> None:
    source = miniatures.write_run(layout, tmp_path / "old.h5")
    path = tmp_path / "run_0046.h5"
    with h5py.File(source) as old, h5py.File(path, "w", libver=libver) as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
    for event in miniatures.events():
        np.testing.assert_array_equal(_read_all(path)[event.number].traces, event.traces)
