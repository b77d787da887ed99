"""Hits in the models' frame: a beam that is tilted, off axis, in a reversed field."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from attpc_filter.rebuild.detector import BeamFrame
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.rebuild.hits import HitSettings, rebuild_hits
from attpc_filter.records import Hits, Record

LENGTH = 1000.0


def moved(points: NDArray[np.float64], frame: BeamFrame) -> NDArray[np.float64]:
    """Points of an event with a plain beam, as the detector of the frame sees them.

    Written with vectors, for the beam's direction and Rodrigues' formula: not how the code goes.
    """
    x, y, z = points.T
    if frame.is_mirrored:
        y = -y
    tilt, azimuth = np.radians(frame.tilt_deg), np.radians(frame.azimuth_deg)
    axis = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])  # z x (direction of the lean)
    places = np.column_stack([x, y, z])
    turned = (
        places * np.cos(tilt)
        + np.cross(axis, places) * np.sin(tilt)
        + np.outer(places @ axis, axis) * (1 - np.cos(tilt))
    )
    turned += [frame.x_mm, frame.y_mm, 0]
    if frame.z_is_reversed:
        turned[:, 2] = LENGTH - turned[:, 2]
    return turned


FRAMES = [
    BeamFrame(),
    BeamFrame(tilt_deg=6.2),
    BeamFrame(tilt_deg=6.2, azimuth_deg=120),
    BeamFrame(x_mm=10, y_mm=-4),
    BeamFrame(is_mirrored=True),
    BeamFrame(z_is_reversed=True),
    BeamFrame(6.2, 120, 10, -4, True, True),
]


def hits_of(points: NDArray[np.float64], frame: BeamFrame, **record: bool) -> Hits:
    n = len(points)
    table = np.column_stack([points, np.full((n, 4), 50.0)])
    detector = replace(load_detector(), frame=frame)
    return rebuild_hits([Record(0, "", points=table, **record)], detector, HitSettings())


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_hits_come_back_into_the_frame_of_the_beam(frame: BeamFrame) -> None:
    points = np.random.default_rng(2).uniform([-250, -250, 0], [250, 250, 900], (100, 3))
    hits = hits_of(moved(points, frame), frame)
    found = np.column_stack([hits.x, hits.y, hits.z])
    np.testing.assert_allclose(found, points, atol=1e-3)
    assert hits.x.dtype == np.float32


def test_the_beam_itself_lies_on_the_axis() -> None:
    """A beam that leans 6.2 degrees towards +y goes up 10.86 mm in y for 100 mm in z."""
    beam = np.array([[3.0, 4.0 + z * 0.108638, z] for z in (0.0, 100.0, 900.0)])
    hits = hits_of(beam, BeamFrame(tilt_deg=6.2, azimuth_deg=90, x_mm=3, y_mm=4))
    np.testing.assert_allclose([hits.x, hits.y], 0, atol=1e-2)


def test_hits_of_traces_too() -> None:
    traces = np.full((1, 517), 300, np.int16)
    traces[0, 4] = 5000
    traces[0, 200:206] = [600, 1200, 2000, 2000, 1200, 600]
    plain = load_detector()
    (before,) = [rebuild_hits([Record(0, "", traces)], plain, HitSettings())]
    turned = replace(plain, frame=BeamFrame(tilt_deg=6.2, x_mm=10))
    after = rebuild_hits([Record(0, "", traces)], turned, HitSettings())
    assert len(before.x) == len(after.x) == 1
    place = np.array([[before.x[0], before.y[0], before.z[0]]], np.float64)
    back = moved(np.array([[after.x[0], after.y[0], after.z[0]]], np.float64), turned.frame)
    np.testing.assert_allclose(back, place, atol=1e-3)
    np.testing.assert_array_equal(before.time_bucket, after.time_bucket)


def test_a_plain_frame_changes_no_bit() -> None:
    points = np.random.default_rng(3).uniform(-250, 250, (50, 3))
    hits = hits_of(points, BeamFrame(azimuth_deg=40))  # azimuth of no tilt
    for axis, column in enumerate((hits.x, hits.y, hits.z)):
        assert column.tobytes() == points[:, axis].astype(np.float32).tobytes()


def test_hits_that_were_turned_when_they_were_made_stay() -> None:
    points = np.random.default_rng(3).uniform(-250, 250, (50, 3))
    hits = hits_of(points, FRAMES[-1], in_model_frame=True)
    assert hits.x.tobytes() == points[:, 0].astype(np.float32).tobytes()


@pytest.mark.parametrize("wrong", [{"tilt_deg": -1}, {"tilt_deg": 90}, {"x_mm": np.inf}])
def test_no_frame(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="beam: "):
        BeamFrame(**wrong)  # type: ignore[arg-type]
