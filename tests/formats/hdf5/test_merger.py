"""The merger's layouts: Spyral opens their streams and its PointcloudPhase sees every event."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from attpc_filter.formats.hdf5 import kernels as hdf5_kernels
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Run, StreamMode
from attpc_filter.records import Record
from tests import miniatures
from tests.conftest import shared
from tests.formats.hdf5.test_streams import MODES, write_stream

NUMBERS = [event.number for event in miniatures.events()]


def _in_one_part(run: Run, number: int) -> list[Record]:
    """An event, read as a job reads it, after the one before it."""
    first = next(index for index, event in enumerate(run.events) if event[0] == number)
    (records,) = run.parts(run.events[first - 1 : first + 1], np.empty((500, 517), np.int16))
    return records[1:]


def _lit_pads(event: miniatures.SimEvent) -> list[int]:
    return sorted(event.points[:, 5].astype(int))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", miniatures.OPENED_BY_SPYRAL)
class TestSpyral:
    """Spyral 1.1.2 on streams of the miniatures."""

    def test_reader_sees_every_event_the_last_included(
        self,
        layout: str,
        mode: StreamMode,
        miniature: Callable[[str], Path],
        tmp_path: Path,
        spyral: ModuleType,
    ) -> None:
        stream = write_stream(miniature(layout), tmp_path / "run_0046.h5", mode, NUMBERS)
        reader = spyral.create_reader(stream, 46)
        assert reader is not None
        try:
            assert set(NUMBERS) <= set(reader.event_range())
            for event in miniatures.events():
                raw = reader.read_raw_get_event(event.number)
                np.testing.assert_array_equal(raw, event.traces)
                frib = reader.read_raw_frib_event(event.number)
                if event.frib_traces is not None:
                    np.testing.assert_array_equal(frib, event.frib_traces)
                elif event.trigger is not None and layout != "merger_legacy":
                    assert frib.shape == (2048, 8)  # 1903 of zeros in place of none
                    assert not frib.any()
            scalers = reader.read_scalers()
            if layout.startswith("harmonizer"):
                assert scalers is None
            else:
                assert scalers.scalers["clock_live"][0] == 100
        finally:
            reader.file.close()

    def test_pointcloud_phase_processes_every_event(
        self,
        layout: str,
        mode: StreamMode,
        miniature: Callable[[str], Path],
        tmp_path: Path,
        spyral: ModuleType,
    ) -> None:
        stream = write_stream(miniature(layout), tmp_path / "run_0046.h5", mode, NUMBERS)
        result = spyral.run_pointcloud_phase(stream, 46, tmp_path / "workspace")
        assert result.ic_count == 1, "the ion-chamber trigger normalises"
        assert sorted(result.clouds) == [n for n in NUMBERS if n != 12]
        for event in miniatures.events():
            if event.trigger != miniatures.IC_TRIGGER:
                pads = result.clouds[event.number][:, 5].astype(int)
                assert sorted(set(pads)) == _lit_pads(event)
        originals = {n: a["orig_event"] for n, a in result.attributes.items()}
        shift = 1000 if layout.startswith("harmonizer") else 0
        assert originals == {number: number + shift for number in result.clouds}
        assert result.has_scalers == (not layout.startswith("harmonizer"))

    def test_crashed_merge(
        self, layout: str, mode: StreamMode, tmp_path: Path, spyral: ModuleType
    ) -> None:
        """No event range in the input; its streams have one, and the phase goes to its end."""
        source = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5", crashed=True)
        stream = write_stream(source, tmp_path / "run_0046.h5", mode, NUMBERS)
        result = spyral.run_pointcloud_phase(stream, 46, tmp_path / "workspace")
        assert sorted(result.clouds) == [n for n in NUMBERS if n != 12]

    def test_stream_of_few_events(
        self,
        layout: str,
        mode: StreamMode,
        miniature: Callable[[str], Path],
        tmp_path: Path,
        spyral: ModuleType,
    ) -> None:
        stream = write_stream(miniature(layout), tmp_path / "run_0046.h5", mode, (4, 12))
        result = spyral.run_pointcloud_phase(stream, 46, tmp_path / "workspace")
        assert sorted(result.clouds) == [4]
        assert result.ic_count == 1


def _add_frib_only_events(layout: str, path: Path, triggers: dict[int, int]) -> None:
    """Events that only FRIBDAQ recorded, as the merger writes them when the two disagree."""
    rng = np.random.default_rng(5)
    with h5py.File(path, "a") as file:
        for number, trigger in triggers.items():
            traces = miniatures.frib_traces(rng, trigger == miniatures.IC_TRIGGER)
            register = np.array([trigger], np.uint16)
            if layout == "merger_legacy":
                evt = file["frib/evt"]
                evt[f"evt{number}_header"] = np.array([number, 0], np.uint32)
                evt[f"evt{number}_977"], evt[f"evt{number}_1903"] = register, traces
            else:
                frib = file["events"].create_group(f"event_{number}/frib_physics")
                frib.attrs["id"] = np.uint32(number)
                frib["977"], frib["1903"] = register, traces
                if layout.startswith("harmonizer"):
                    frib.parent.attrs["orig_run"] = 46
                    frib.parent.attrs["orig_event"] = number


@pytest.mark.parametrize("layout", miniatures.WITH_FRIB)
class TestEventsWithoutTraces:
    """FRIBDAQ and GET do not always agree on the number of events."""

    def test_ion_chamber_triggers_normalise_all_the_same(self, layout: str, tmp_path: Path) -> None:
        path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
        _add_frib_only_events(layout, path, {14: miniatures.IC_TRIGGER, 21: miniatures.IC_TRIGGER})
        with open_run(path) as run:
            records = {record.event: record for record in run.records()}
        assert sorted(records) == sorted([*NUMBERS, 14, 21])
        for number in (12, 14, 21):
            assert records[number].passthrough
            assert records[number].reason == ""

    def test_physics_triggers_say_why_they_cannot_be_read(
        self, layout: str, tmp_path: Path
    ) -> None:
        path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
        _add_frib_only_events(layout, path, {14: miniatures.MESH_TRIGGER})
        with open_run(path) as run:
            reasons = {record.event: record.reason for record in run.records() if record.reason}
        assert list(reasons) == [14]
        assert "no trace matrix" in reasons[14]

    @pytest.mark.parametrize("mode", MODES)
    def test_spyral_counts_them_in_a_stream(
        self, layout: str, mode: StreamMode, tmp_path: Path, spyral: ModuleType
    ) -> None:
        source = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5")
        triggers = {14: miniatures.IC_TRIGGER, 16: miniatures.MESH_TRIGGER, 21: 2}
        _add_frib_only_events(layout, source, triggers)
        numbers = sorted([*NUMBERS, *triggers])
        stream = write_stream(source, tmp_path / "run_0046.h5", mode, numbers)
        result = spyral.run_pointcloud_phase(stream, 46, tmp_path / "workspace")
        assert result.ic_count == 3
        assert set(NUMBERS) - {12} <= set(result.clouds)


@pytest.mark.parametrize("layout", miniatures.WITH_FRIB)
@pytest.mark.parametrize(
    ("register", "passthrough"),
    [([2], True), ([2, 1], True), ([1, 2], False), ([3], False), ([0], False)],
)
def test_the_first_value_of_the_register_decides(
    layout: str, register: list[int], passthrough: bool, tmp_path: Path
) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    name = "frib/evt/evt4_977" if layout == "merger_legacy" else "events/event_4/frib_physics/977"
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = np.array(register, np.uint16)
    with open_run(path) as run:
        records = [run.read(4, dict(run.events)[4]), *_in_one_part(run, 4)]
    for record in records:
        assert record.passthrough is passthrough
        assert record.reason == ""


@pytest.mark.parametrize("layout", miniatures.VERSIONED)
@pytest.mark.parametrize("register", [None, [], [np.nan]], ids=["absent", "empty", "no number"])
def test_frib_data_without_a_register_are_not_taken_for_physics(
    layout: str, register: list[float] | None, tmp_path: Path
) -> None:
    """It might be an ion-chamber trigger, and Spyral demands the register too."""
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        del file["events/event_12/frib_physics/977"]
        if register is not None:
            file["events/event_12/frib_physics/977"] = np.array(register)
    with open_run(path) as run:
        records = [run.read(12, dict(run.events)[12]), *_in_one_part(run, 12)]
    for record in records:
        assert record.reason
        assert not record.passthrough


@pytest.mark.parametrize("version", ["synchronizer:0.1.0", b"libattpc_merger:1.0"])
def test_other_spellings_of_version_1(version: str | bytes, tmp_path: Path) -> None:
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        file["events"].attrs["version"] = version
    with open_run(path) as run:
        assert run.format_name == "attpc_merger 1.0"


def test_silicon_matrices_under_both_names(
    miniature: Callable[[str], Path], tmp_path: Path
) -> None:
    for mode in MODES:
        stream = write_stream(miniature("merger_2.0"), tmp_path / f"{mode}.h5", mode, (4, 7, 20))
        with h5py.File(stream) as file:
            for event in miniatures.events():
                if event.number in (4, 7, 20):
                    get = file[f"events/event_{event.number}/get"]
                    for part in miniatures.SILICON:
                        written, expected = get[f"si_{part}"], get[f"silicon_{part}"]
                        np.testing.assert_array_equal(written[()], expected[()])
                    np.testing.assert_array_equal(get["silicon_upstream_front"][()], event.silicon)


def test_silicon_matrices_that_are_missing(tmp_path: Path, spyral: ModuleType) -> None:
    """An experiment without silicon: Spyral demands the matrices all the same."""
    source = miniatures.write_run("merger_2.0", tmp_path / "raw" / "run_0046.h5")
    with h5py.File(source, "a") as file:
        for number in NUMBERS:
            for part in miniatures.SILICON:
                del file[f"events/event_{number}/get/si_{part}"]
    stream = write_stream(source, tmp_path / "run_0046.h5", "link", NUMBERS)
    result = spyral.run_pointcloud_phase(stream, 46, tmp_path / "workspace")
    assert sorted(result.clouds) == [n for n in NUMBERS if n != 12]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "folder",
    ["merger_legacy", "merger_1.0", "merger_2.0", "merger_2.0_spyral_names", "harmonizer_0.1.0"],
)
def test_spyral_on_streams_of_simulated_runs(
    folder: str, mode: StreamMode, tmp_path: Path, spyral: ModuleType
) -> None:
    """Files that another program wrote; the phase's clouds are those of the input's traces."""
    source = shared(f"layouts/{folder}/run_0101.h5")
    numbers = (1, 5, 7)  # 7 is the run's last, which Spyral's own range leaves out
    stream = write_stream(source, tmp_path / "run_0101.h5", mode, numbers)
    result = spyral.run_pointcloud_phase(stream, 101, tmp_path / "workspace")
    assert sorted(result.clouds) == list(numbers)
    for number in numbers:
        with h5py.File(source) as file:
            expected = spyral.point_cloud(file[miniatures.traces_path(folder, number)][()])
        found = result.clouds[number]
        assert len(found) == len(expected) > 20
        order = np.lexsort((expected[:, 6], expected[:, 5]))
        other = np.lexsort((found[:, 6], found[:, 5]))
        # centroids are smeared by up to a thousandth of a bucket
        np.testing.assert_allclose(found[other], expected[order], atol=0.02)


def test_the_functions_of_hdf5_are_found() -> None:
    """Where h5py is a wheel of Linux they are; without them all is read, only slower."""
    if not sys.platform.startswith("linux"):
        pytest.skip("says something of Linux")
    assert hdf5_kernels.AVAILABLE


def _needs_nothing(layout: str, event: h5py.Group) -> bool:
    """Whether Spyral finds in an event of the file all that it demands."""
    demanded = {"get_traces"}
    if layout.startswith("merger_2.0"):
        demanded = {"get/pads", *(f"get/silicon_{part}" for part in miniatures.SILICON)}
    if "frib_physics" in event:
        demanded |= {"frib_physics/977", "frib_physics/1903"}
    return all(name in event for name in demanded)


@pytest.mark.parametrize("layout", miniatures.VERSIONED)
def test_events_seen_to_be_complete_while_they_are_read(layout: str, tmp_path: Path) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    with h5py.File(path, "r+") as file:
        taken = "get/silicon_upstream_back"
        if taken in file["events/event_7"]:
            del file["events/event_7"][taken]
    with h5py.File(path) as file:
        expected = {n: _needs_nothing(layout, file[f"events/event_{n}"]) for n in NUMBERS}
    assert len(set(expected.values())) == (1 if layout == "merger_2.0" else 2)
    with open_run(path) as run:
        for part in run.parts(run.events, np.empty((100, 517), np.int16)):
            assert {r.event: r.is_complete for r in part}.items() <= expected.items()
        assert {n: run.is_complete(b"event_%d" % n) for n in NUMBERS} == expected


def _other_electronics(layout: str, path: Path) -> None:
    """Other CoBos, digitizers 1904 to 1906, a 1903 of fewer samples: as attpc_merger writes."""
    with h5py.File(path, "a") as file:
        for event, traces in ((4, (1024, 8)), (7, None)):  # event 7 has no 1903
            if layout == "merger_legacy":
                frib, name = file["frib/evt"], f"evt{event}_%d"
            else:
                frib, name = file[f"events/event_{event}/frib_physics"], "%d"
            if traces is not None:
                del frib[name % 1903]
                frib[name % 1903] = np.ones(traces, np.uint16)
            for digitizer in (1904, 1905, 1906):
                frib[name % digitizer] = np.full((100, 3), digitizer, np.uint16)
        inner = "get/pads" if layout.startswith("merger_2.0") else "get_traces"
        matrix = file["get/evt4_data" if layout == "merger_legacy" else f"events/event_4/{inner}"]
        matrix[:, 0] = 17


@pytest.mark.parametrize("layout", miniatures.WITH_FRIB)
@pytest.mark.parametrize("mode", ["link", "copy"])
def test_other_electronics(layout: str, mode: StreamMode, tmp_path: Path) -> None:
    # Spyral 1.1.2 takes 1903 of 2048 samples only, from the run as from the stream
    run = miniatures.write_run(layout, tmp_path / "in" / "run_0046.h5")
    _other_electronics(layout, run)
    stream = write_stream(run, tmp_path / "out" / "run_0046.h5", mode, (4, 7))
    with h5py.File(stream) as file:
        legacy = layout == "merger_legacy"
        for event in (4, 7):
            place = f"frib/evt/evt{event}_" if legacy else f"events/event_{event}/frib_physics/"
            for digitizer in (1904, 1905, 1906):
                assert (file[f"{place}{digitizer}"][()] == digitizer).all()
        if legacy:
            assert not [name for name in file["frib/evt"] if name.startswith("evt12_")]
        else:
            assert file["events/event_7/frib_physics/1903"].shape == (1024, 8)
            assert not file["events/event_7/frib_physics/1903"][()].any()
    with open_run(stream) as copied:
        records = {record.event: record for record in copied.records()}
    assert records[4].traces is not None
    assert set(records[4].traces[:, 0]) == {17}
