"""Detector files: those that ship, and wrong ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.detector import Detector, ZCalibration
from attpc_filter.rebuild.detector_file import load_detector, shipped_detectors

PADS = "pad,x,y\n0,1,2\n1,3,4\n"
GOOD: dict[str, Any] = {
    "name": "two pads",
    "pads": "pads.csv",
    "n_pads": 2,
    "n_samples": 256,
    "z": {"micromegas_time_bucket": 20, "window_time_bucket": 220, "length_mm": 500},
}


def write(folder: Path, **changes: Any) -> Path:
    """A detector file with entries replaced, or left out (None); its pads beside it."""
    entries = {name: value for name, value in (GOOD | changes).items() if value is not None}
    (folder / "pads.csv").write_text(PADS)
    path = folder / "detector.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


def test_all_that_ship_can_be_loaded() -> None:
    for name in shipped_detectors():
        detector = load_detector(name)
        assert detector.name == name
        assert detector.frame.is_plain


def test_the_attpc() -> None:
    detector = load_detector("at-tpc")
    assert (len(detector.plane.x), detector.n_samples) == (10240, 512)
    assert detector.channels is not None
    assert detector.calibration == ZCalibration(38.0, 278.0, 1000.0)


def test_the_square_plane_is_what_its_file_says() -> None:
    detector = load_detector("square-1024")
    row, column = np.divmod(np.arange(1024), 32)
    np.testing.assert_array_equal(detector.plane.x, (column - 15.5) * 8)
    np.testing.assert_array_equal(detector.plane.y, (row - 15.5) * 8)
    assert detector.calibration.window_time_bucket == pytest.approx(140.0)


def test_a_detector_of_ones_own(tmp_path: Path) -> None:
    beam = {"tilt_deg": 6, "azimuth_deg": 90, "x_mm": 1, "y_mm": 2, "enters_at_micromegas": True}
    field = {"tesla": 2, "reversed": True}
    detector = load_detector(write(tmp_path, beam=beam, field=field, noise_adc=4.5))
    frame = detector.frame
    assert (frame.tilt_deg, frame.azimuth_deg, frame.x_mm, frame.y_mm) == (6, 90, 1, 2)
    assert frame.is_mirrored
    assert frame.z_is_reversed
    assert (detector.field_t, detector.noise_adc) == (2, 4.5)


def test_drift_velocity_and_clock_give_the_window(tmp_path: Path) -> None:
    """10 mm/us and 12.5 MHz: 500 mm take 50 us, which are 625 time buckets."""
    z = {"micromegas_time_bucket": 20, "length_mm": 500}
    z |= {"drift_velocity_mm_per_us": 10, "clock_mhz": 12.5}
    assert load_detector(write(tmp_path, z=z)).calibration == ZCalibration(20, 645, 500)


def sha(path: Path) -> str:
    detector: Detector = load_detector(path)
    return detector.sha256


def test_the_hash_is_of_what_decides_the_hits(tmp_path: Path) -> None:
    original = sha(write(tmp_path))
    assert sha(write(tmp_path, name="another")) == original
    assert sha(write(tmp_path, noise_adc=3)) == original
    for change in (
        {"n_samples": 512},
        {"z": GOOD["z"] | {"length_mm": 501}},
        {"beam": {"tilt_deg": 1}},
        {"field": {"reversed": True}},
    ):
        assert sha(write(tmp_path, **change)) != original


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_pads": 10240}, "pads.csv: 2 rows, the detector has 10240 pads"),
        ({"pads": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"pads": None}, "no entry 'pads'; it needs name, pads, n_pads, n_samples, z"),
        ({"n_sample": 512}, "unknown entry 'n_sample'; the nearest known one is 'n_samples'"),
        ({"n_samples": 5000}, "n_samples: 5000 is not between 32 and 4096"),
        ({"n_samples": "512"}, "n_samples is '512', it must be a whole number"),
        ({"z": {"length_mm": 500}}, "z: no entry 'micromegas_time_bucket'"),
        (
            {"z": GOOD["z"] | {"clock_mhz": 12.5}},
            "z: give window_time_bucket, or drift_velocity_mm_per_us and clock_mhz, not both",
        ),
        ({"z": GOOD["z"] | {"window_time_bucket": 20}}, "are equal: no drift time"),
        ({"z": GOOD["z"] | {"length_mm": -1}}, "z: length_mm -1 is not positive"),
        ({"beam": {"tilt": 6}}, "beam: unknown entry 'tilt'; the nearest known one is 'tilt_deg'"),
        ({"beam": {"tilt_deg": 95}}, "beam: tilt_deg 95 is not in 0 to 90"),
        ({"field": {"reversed": 1}}, "field: reversed is 1, it must be true or false"),
        ({"noise_adc": float("nan")}, "noise_adc is not finite"),
    ],
)
def test_wrong_files(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_detector(write(tmp_path, **changes))
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [("a: [", "not YAML"), ("3", "detector new")])
def test_no_detector_file_at_all(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_detector(path)


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="there are AT-TPC, square-1024, or give a file"):
        load_detector("ATTPC")
