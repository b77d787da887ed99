"""Every format is recognised by its content, and every event in it is read as it was written."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from tests import miniatures
from tests.conftest import shared

LAYOUTS = list(miniatures.LAYOUTS)
NUMBERS = [3, 4, 7, 12, 13, 15, 20]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recognised_by_content_not_by_name(layout: str, tmp_path: Path) -> None:
    path = miniatures.write_run(layout, tmp_path / "anything.dat")
    with open_run(path) as run:
        assert run.format_name == miniatures.FORMAT_NAMES[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_event_that_is_there_with_its_gaps(
    layout: str, miniature: Callable[[str], Path]
) -> None:
    with open_run(miniature(layout)) as run:
        assert [number for number, _ in run.events] == NUMBERS
        assert [record.event for record in run.records()] == NUMBERS
        assert run.number == 46


@pytest.mark.parametrize("layout", list(miniatures.RAW))
def test_traces_are_those_written(layout: str, miniature: Callable[[str], Path]) -> None:
    with open_run(miniature(layout)) as run:
        for record, event in zip(run.records(), miniatures.events(), strict=True):
            assert record.reason == ""
            assert record.traces is not None
            assert record.traces.dtype == np.int16
            np.testing.assert_array_equal(record.traces, event.traces)


@pytest.mark.parametrize("layout", list(miniatures.RAW))
def test_ion_chamber_triggers_are_known(layout: str, miniature: Callable[[str], Path]) -> None:
    with open_run(miniature(layout)) as run:
        triggers = {record.event for record in run.records() if record.passthrough}
    assert triggers == ({12} if layout in miniatures.WITH_FRIB else set())


@pytest.mark.parametrize("layout", list(miniatures.HITS))
def test_hits_are_those_written(layout: str, miniature: Callable[[str], Path]) -> None:
    with open_run(miniature(layout)) as run:
        for record, event in zip(run.records(), miniatures.events(), strict=True):
            assert record.points is not None
            x, y, z, charge, integral, pad, time_bucket, _ = event.points.T
            read = record.points.T
            np.testing.assert_array_equal(read[0], x)
            np.testing.assert_array_equal(read[1], y)
            np.testing.assert_array_equal(read[4], charge)
            if layout.startswith("attpcroot"):
                np.testing.assert_array_equal(read[3], np.trunc(time_bucket))  # an integer there
            else:
                np.testing.assert_array_equal(read[3], time_bucket)
                np.testing.assert_array_equal(read[6], pad)
            if layout == "pytpc_clean":  # holds no z: it comes from the time bucket later
                assert np.isnan(read[2]).all()
            else:
                np.testing.assert_array_equal(read[2], z)
            if layout == "spyral_cloud":
                np.testing.assert_array_equal(read[5], integral)


@pytest.mark.parametrize("layout", miniatures.WITH_FRIB)
def test_crashed_merge_loses_no_event(layout: str, tmp_path: Path) -> None:
    """The range in the file says 0 to 0, or is missing: the groups are what counts."""
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5", crashed=True)
    with open_run(path) as run:
        assert [record.event for record in run.records() if not record.reason] == NUMBERS


@pytest.mark.parametrize(
    ("folder", "name", "events"),
    [
        ("merger_legacy", "attpc_merger legacy", 8),
        ("merger_1.0", "attpc_merger 1.0", 8),
        ("merger_2.0", "attpc_merger 2.0", 8),
        ("merger_2.0_spyral_names", "attpc_merger 2.0", 8),
        ("harmonizer_0.1.0", "harmonizer 0.1.0", 8),
        ("spyral_cloud", "Spyral point clouds", 130),
    ],
)
def test_simulated_runs_of_the_field(folder: str, name: str, events: int) -> None:
    """Files that another program wrote; the traces against h5py alone."""
    path = shared(f"layouts/{folder}/run_0101.h5")
    with open_run(path) as run, h5py.File(path) as file:
        assert run.format_name == name
        assert [number for number, _ in run.events] == list(range(events))
        for record in run.records():
            assert record.reason == ""
            if record.points is not None:
                cloud = file[f"cloud/cloud_{record.event}"][()]
                np.testing.assert_array_equal(record.points[:, [0, 1, 2, 4]], cloud[:, :4])
            else:
                held = file[miniatures.traces_path(folder, record.event)][()]
                np.testing.assert_array_equal(record.traces, held)


def _refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_run(path).close()
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


class TestRefused:
    """What is no run is refused with one line that names the file."""

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "no such file" in _refused(tmp_path / "run_0001.h5")

    def test_folder(self, tmp_path: Path) -> None:
        assert "a folder" in _refused(tmp_path)

    def test_not_hdf5(self, tmp_path: Path) -> None:
        path = tmp_path / "run_0001.h5"
        path.write_bytes(b"\x00\x01root" * 1000)
        assert "not an HDF5 file" in _refused(path)

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "run_0001.h5"
        path.touch()
        assert "an empty file" in _refused(path)

    def test_truncated(self, tmp_path: Path, miniature: Callable[[str], Path]) -> None:
        path = tmp_path / "run_0001.h5"
        whole = miniature("merger_2.0").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        text = _refused(path)
        assert "truncated" in text
        assert f"{len(whole) // 2:,} of {len(whole):,} bytes" in text

    def test_a_run_that_is_still_being_written(self, tmp_path: Path) -> None:
        """The merger's process holds a lock on it."""
        path = miniatures.write_run("merger_2.0", tmp_path / "run_0001.h5")
        code = (
            "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            assert "another program has it open" in _refused(path)
            writer.communicate(b"\n")
        open_run(path).close()

    def test_another_hdf5_file(self, tmp_path: Path) -> None:
        path = tmp_path / "run_0001.h5"
        with h5py.File(path, "w") as file:
            file["spectrum"] = np.arange(10)
        text = _refused(path)
        assert "spectrum" in text
        assert "attpc_merger 2.0" in text

    def test_unknown_version_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "run_0001.h5"
        with h5py.File(path, "w") as file:
            file.create_group("events").attrs["version"] = "libattpc_merger:7.0"
        assert "libattpc_merger:7.0" in _refused(path)

    @pytest.mark.parametrize("layout", ["pytpc_get", "merger_1.0", "merger_2.0", "spyral_cloud"])
    def test_without_events(self, layout: str, tmp_path: Path) -> None:
        path = miniatures.write_run(layout, tmp_path / "run_0001.h5")
        with h5py.File(path, "a") as file:
            for event in miniatures.events():
                for part in miniatures.event_paths(layout, event.number):
                    if part in file:
                        del file[part]
        assert "without a single event" in _refused(path)
