"""What lies just at a limit of rebuilding, and its neighbour on the other side."""

import numpy as np
import pytest
from numpy.typing import NDArray

from attpc_filter.rebuild.detector import Detector
from attpc_filter.rebuild.hits import HitSettings, rebuild_hits
from attpc_filter.rebuild.point_set import PointSetSettings, gather_points
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.records import Record
from tests import miniatures
from tests.rebuild.test_hits import hits_of, plain_plane
from tests.rebuild.test_projection import make_hits


def pulses(*centres: float, height: float = 500.0) -> NDArray[np.int16]:
    """A trace with pulses on a base of 300 ADC."""
    total = sum(miniatures.pulse(centre, height) for centre in centres)
    return (300 + total).astype(np.int16)


def test_a_prominence_equal_to_the_limit_is_enough() -> None:
    """As SciPy has it. The signal is whole ADC counts, and so is the prominence of a peak."""
    samples = pulses(200.0)

    def n_hits(prominence: float) -> int:
        return len(hits_of(samples, HitSettings(peak_prominence=prominence)).x)

    enough = [limit for limit in range(400, 600) if n_hits(limit)]
    assert enough == list(range(400, max(enough) + 1))
    assert n_hits(max(enough) + 0.001) == 0
    # of the height itself, and of what the baseline swings to below zero
    charge = int(hits_of(samples).charge[0])
    assert charge <= max(enough) <= charge + 30


@pytest.mark.parametrize(
    ("separation", "n_hits"), [(49.0, 2), (50.0, 2), (50.001, 1), (51.0, 1), (51.001, 1)]
)
def test_a_distance_equal_to_the_separation_is_enough(separation: float, n_hits: int) -> None:
    """Of two peaks that are 50 time buckets apart, and not one less."""
    shown = HitSettings(peak_separation=separation)
    assert len(hits_of(pulses(200.0, 250.0), shown).x) == n_hits
    buckets = hits_of(pulses(200.0, 250.0), HitSettings(peak_separation=2.0)).time_bucket
    assert buckets.tolist() == [200, 250]


@pytest.mark.parametrize("mode", ["multi", "peak"])
def test_an_amplitude_must_exceed_the_threshold(mode: str) -> None:
    samples = pulses(200.0)
    (charge,) = hits_of(samples, HitSettings(mode=mode)).charge.tolist()  # type: ignore[arg-type]
    for threshold, n_hits in ((charge - 0.5, 1), (charge, 0), (charge + 0.5, 0)):
        shown = HitSettings(mode=mode, peak_threshold=threshold)  # type: ignore[arg-type]
        assert len(hits_of(samples, shown).x) == n_hits, threshold


def test_one_hit_without_z_and_all_hits_with() -> None:
    """An event has its z or has none: one that lacks it takes all from the time bucket."""
    points = np.zeros((2, 3, 7))
    points[:, :, 2], points[:, :, 3] = 111.0, 158.0
    points[1, 2, 2] = np.nan
    records = [Record(n, "", points=event) for n, event in enumerate(points)]
    hits = rebuild_hits(records, Detector("", plain_plane()), HitSettings())
    assert hits.event(0).z.tolist() == [111.0] * 3
    np.testing.assert_allclose(hits.event(1).z, [500.0] * 3)  # half way from 38 to 278


@pytest.mark.parametrize("charge", [-1.0, 0.0, np.nan])
def test_without_charge_there_is_no_point(charge: float) -> None:
    hits = make_hits([np.array([[1, 2, 3, charge], [4, 5, 6, 1e-3]], np.float32)])
    (points,) = gather_points(hits, PointSetSettings(n_points=4))
    assert points[:, 4].tolist() == [1, 0, 0, 0]
    assert points[0, :3].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("x", "z", "is_in"),
    [
        (280.0, 0.0, True),
        (280.1, 0.0, False),
        (0.0, -50.0, True),
        (0.0, -50.1, False),
        (0.0, 1050.0, True),
        (0.0, 1050.1, False),
    ],
)
def test_the_ranges_of_a_point_set(x: float, z: float, is_in: bool) -> None:
    """Both ends belong to it."""
    hits = make_hits([np.array([[x, 0, z, 5]], np.float32)])
    assert gather_points(hits, PointSetSettings())[0, 0, 4] == is_in


@pytest.mark.parametrize("settings", [ProjectionSettings, PointSetSettings])
def test_ranges_of_z_that_are_one_number(settings: type) -> None:
    settings(z_low_mm=7.0, z_high_mm=7.5)
    for low, high in ((7.0, 7.0), (7.5, 7.0)):
        with pytest.raises(ValueError, match="ascending z range"):
            settings(z_low_mm=low, z_high_mm=high)


def test_the_least_that_settings_may_be() -> None:
    assert ProjectionSettings(size=1, scale=1e-9).shape == (1, 1, 1)
    assert PointSetSettings(n_points=1, radius_mm=1e-9).shape == (1, 5)


def test_given_buffer_is_used_from_its_beginning() -> None:
    """Rows that are not asked for stay as they were; buffer that is too small is not used."""
    rows = np.array([[10, 20, 30, 40]], np.float32)
    hits = make_hits([rows, rows * 2])
    shown, points = ProjectionSettings(size=8), PointSetSettings(n_points=2)
    images = np.full((3, *shown.shape), -7, np.float32)
    sets = np.full((3, *points.shape), -7, np.float32)
    made, gathered = project(hits, shown, buffer=images), gather_points(hits, points, buffer=sets)
    np.testing.assert_array_equal(made, project(hits, shown))
    np.testing.assert_array_equal(gathered, gather_points(hits, points))
    for buffer, taken in ((images, made), (sets, gathered)):
        np.testing.assert_array_equal(buffer[:2], taken)
        assert np.shares_memory(buffer, taken)
        assert (buffer[2] == -7).all()
    small = np.full((1, *shown.shape), -7, np.float32)
    np.testing.assert_array_equal(project(hits, shown, buffer=small), made)
    assert (small == -7).all()
    exact = np.empty((2, *shown.shape), np.float32)
    assert np.shares_memory(project(hits, shown, buffer=exact), exact)
