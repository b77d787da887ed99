"""Point sets against plain numpy, and the choice of hits where there are too many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attpc_filter.rebuild.point_set import PointSetSettings, gather_points
from tests.rebuild.test_projection import make_hits

SETTINGS = PointSetSettings(n_points=32)


def events_of(counts: list[int], seed: int) -> list[NDArray[np.float32]]:
    """Rows x, y, z, charge; some outside the ranges or without charge."""
    rng = np.random.default_rng(seed)
    low, high = np.array([-300, -300, -90, -20]), np.array([300, 300, 1090, 400])
    return [rng.uniform(low, high, (n, 4)).astype(np.float32) for n in counts]


def inside(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The hits that a point set may hold, with the logarithm of their charge."""
    x, y, z, charge = rows.astype(np.float64).T
    kept = rows[(np.hypot(x, y) <= 280) & (z >= -50) & (z <= 1050) & (charge > 0)]
    return np.column_stack([kept[:, :3], np.log1p(kept[:, 3])]).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 90), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_points_are_the_hits(counts: list[int], seed: int) -> None:
    events = events_of(counts, seed)
    points = gather_points(make_hits(events), SETTINGS)
    assert points.shape == (len(counts), 32, 5)
    for found, rows in zip(points, events, strict=True):
        expected = inside(rows)
        n = min(32, len(expected))
        assert found[:, 4].tolist() == [1.0] * n + [0.0] * (32 - n)
        assert not found[n:].any()
        if len(expected) <= 32:
            np.testing.assert_allclose(found[:n, :4], expected, rtol=1e-6)
        else:  # some of them, each once, in their order
            distance = np.abs(found[:, None, :4] - expected[None]).max(axis=2)
            taken = distance.argmin(axis=1)
            assert distance.min(axis=1).max() < 1e-5
            assert (np.diff(taken) > 0).all()


def test_which_hits_are_taken_does_not_depend_on_their_order() -> None:
    (rows,) = events_of([500], 1)
    order = np.random.default_rng(2).permutation(len(rows))
    one, other = (gather_points(make_hits([r]), SETTINGS)[0] for r in (rows, rows[order]))
    assert sorted(map(tuple, one.tolist())) == sorted(map(tuple, other.tolist()))


def test_hits_are_taken_evenly() -> None:
    """Each octant of an event loses the same share, and so do high and low charges."""
    rows = np.concatenate([part[part[:, 3] > 0] for part in events_of([400] * 60, 3)])
    rows[:, :3] *= 0.5
    events = np.array_split(rows, 60)
    taken = gather_points(make_hits(events), SETTINGS).reshape(-1, 5)
    for column, middle in ((0, 0.0), (1, 0.0), (2, 250.0), (3, float(np.log1p(200.0)))):
        values = rows[:, column] if column < 3 else np.log1p(rows[:, 3])
        expected = (values > middle).mean()
        spread = np.sqrt(expected * (1 - expected) / len(taken))
        assert abs((taken[:, column] > middle).mean() - expected) < 4 * spread


def test_some_events_of_a_batch() -> None:
    hits = make_hits(events_of([20, 0, 60, 5], 4))
    every = gather_points(hits, SETTINGS)
    rows = np.array([3, 0])
    np.testing.assert_array_equal(gather_points(hits, SETTINGS, rows), every[rows])


def test_equal_hits_fill_no_more_than_there_is_room_for() -> None:
    rows = np.tile(np.array([[10, 20, 300, 50]], np.float32), (100, 1))
    points = gather_points(make_hits([rows]), SETTINGS)
    assert (points[0, :, 4] == 1).all()


@pytest.mark.parametrize("wrong", [{"n_points": 0}, {"radius_mm": 0.0}, {"z_low_mm": 2000.0}])
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a point set needs"):
        PointSetSettings(**wrong)  # type: ignore[arg-type]
