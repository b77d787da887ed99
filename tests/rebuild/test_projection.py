"""Projections against ``numpy.histogram2d`` of the same hits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attpc_filter.rebuild.projection import VIEWS, ProjectionSettings, project
from attpc_filter.records import Hits

SETTINGS = settings(max_examples=60, deadline=None)


def make_hits(events: list[NDArray[np.float32]]) -> Hits:
    """Hits of a batch from rows x, y, z, charge."""
    rows = np.concatenate([np.zeros((0, 4)), *events]).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(event) for event in events])]).astype(np.int64)
    none = np.zeros(len(rows), np.float32)
    x, y, z, charge = (np.ascontiguousarray(column) for column in rows.T)
    return Hits(offsets, np.full(len(rows), -1, np.int32), x, y, z, none, charge, none)


def by_histogram(rows: NDArray[np.float32], shown: ProjectionSettings) -> NDArray[np.float64]:
    """The image of one event: log(1 + summed charge) / scale, by numpy."""
    x, y, z, charge = rows.astype(np.float64).T
    values = {"x": x, "y": y, "z": z, "r": np.hypot(x, y), "p": np.arctan2(y, x)}
    radius = shown.radius_mm
    ranges = {
        "x": (-radius, radius),
        "y": (-radius, radius),
        "z": (shown.z_low_mm, shown.z_high_mm),
        "r": (0.0, radius),
        "p": (-np.pi, np.pi),
    }
    images = []
    lit = charge > 0
    for across, up in shown.views:
        summed, _, _ = np.histogram2d(
            values[up][lit],
            values[across][lit],
            bins=shown.size,
            range=[ranges[up], ranges[across]],
            weights=charge[lit],
        )
        images.append(np.log1p(summed) / shown.scale)
    return np.array(images)


def away_from_edges(rows: NDArray[np.float32], shown: ProjectionSettings) -> NDArray[np.float32]:
    """Leave out hits so near a pixel's edge that float32 may put them on its other side."""
    x, y, z, _ = rows.astype(np.float64).T
    radius, size = shown.radius_mm, shown.size
    pixels = [
        (x + radius) * size / (2 * radius),
        (y + radius) * size / (2 * radius),
        (z - shown.z_low_mm) * size / (shown.z_high_mm - shown.z_low_mm),
        np.hypot(x, y) * size / radius,
        (np.arctan2(y, x) + np.pi) * size / (2 * np.pi),
    ]
    near = np.any([np.abs(pixel - np.round(pixel)) < 1e-3 for pixel in pixels], axis=0)
    return rows[~near]


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[NDArray[np.float32]], ProjectionSettings]:
    """Up to four events of up to 60 hits, some out of range, some without charge."""
    shown = ProjectionSettings(
        views=tuple(draw(st.lists(st.sampled_from(VIEWS), min_size=1, max_size=4))),
        size=draw(st.sampled_from([1, 7, 64, 128])),
        radius_mm=draw(st.sampled_from([50.0, 280.0])),
        z_low_mm=draw(st.sampled_from([-50.0, 0.0])),
        z_high_mm=draw(st.sampled_from([500.0, 1050.0])),
        scale=draw(st.sampled_from([1.0, 10.0, 12.5])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    events = []
    for _ in range(draw(st.integers(0, 4))):
        n_hits = draw(st.integers(0, 60))
        rows = rng.uniform([-300, -300, -200, -100], [300, 300, 1300, 5000], (n_hits, 4))
        if n_hits > 5:  # several hits in one pixel: the logarithm is that of their sum
            rows[:3] = rows[3]
        events.append(away_from_edges(rows.astype(np.float32), shown))
    return events, shown


@SETTINGS
@given(batch=batches())
def test_is_numpys_histogram(
    batch: tuple[list[NDArray[np.float32]], ProjectionSettings],
) -> None:
    events, shown = batch
    images = project(make_hits(events), shown)
    assert images.dtype == np.float32
    assert images.shape == (len(events), *shown.shape)
    for image, rows in zip(images, events, strict=True):
        np.testing.assert_allclose(image, by_histogram(rows, shown), rtol=1e-4, atol=1e-6)


@SETTINGS
@given(batch=batches(), data=st.data())
def test_a_choice_of_events(
    batch: tuple[list[NDArray[np.float32]], ProjectionSettings], data: st.DataObject
) -> None:
    events, shown = batch
    chosen = data.draw(
        st.lists(st.sampled_from(range(len(events))), unique=True) if events else st.just([])
    )
    hits = make_hits(events)
    some = project(hits, shown, np.array(chosen, np.int64))
    np.testing.assert_array_equal(some, project(hits, shown)[np.array(chosen, np.int64)])


@SETTINGS
@given(batch=batches(), seed=st.integers(0, 100))
def test_the_order_of_hits_does_not_matter(
    batch: tuple[list[NDArray[np.float32]], ProjectionSettings], seed: int
) -> None:
    events, shown = batch
    rng = np.random.default_rng(seed)
    shuffled = [rows[rng.permutation(len(rows))] for rows in events]
    one, other = (project(make_hits(rows), shown) for rows in (events, shuffled))
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 64, 127])
def test_the_edges_of_the_range(size: int) -> None:
    """The low edge is inside, the high edge outside; nothing is ever written out of bounds."""
    shown = ProjectionSettings(size=size)
    for x, y, inside in [
        (-280, -280, True),
        (280, 0, False),
        (0, 280, False),
        (279.99, 0, True),
        (-280.01, 0, False),
        (np.nan, 0, False),
        (0, np.inf, False),
        (-np.inf, np.nan, False),
        (3e38, -3e38, False),
    ]:
        hits = make_hits([np.array([[x, y, 10, 100]], np.float32)])
        image = project(hits, shown)
        assert np.count_nonzero(image) == inside, (x, y)
        assert np.isfinite(image).all()


def test_only_positive_charge_leaves_a_mark() -> None:
    rows = np.array([[0.1, 0.1, 10, 0], [9.1, 9.1, 10, -5], [90, 90, 10, np.nan]], np.float32)
    assert not project(make_hits([rows]), ProjectionSettings()).any()


def test_row_0_is_the_low_end_of_the_vertical_axis() -> None:
    shown = ProjectionSettings(views=("xy", "zr"), size=8)
    xy, zr = project(make_hits([np.array([[30, -270, 1000, 50]], np.float32)]), shown)[0]
    assert np.argwhere(xy).tolist() == [[0, 4]]
    assert np.argwhere(zr).tolist() == [[7, 7]], "r up, z across"
    xy, zr = project(make_hits([np.array([[-5, 5, 0, 50]], np.float32)]), shown)[0]
    assert np.argwhere(xy).tolist() == [[4, 3]]
    assert np.argwhere(zr).tolist() == [[0, 0]]


def test_the_azimuth_is_a_circle() -> None:
    """A hit on the negative x axis has the azimuth pi, which is as good as -pi."""
    shown = ProjectionSettings(views=("zp",), size=16)
    image = project(make_hits([np.array([[-100, 0, 500, 50]], np.float32)]), shown)
    assert np.count_nonzero(image) == 1


@pytest.mark.parametrize(
    "bad", [{"size": 0}, {"scale": 0.0}, {"z_low_mm": 2e3}, {"views": ("xq",)}]
)
def test_settings_that_make_no_picture(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"view|needs"):
        ProjectionSettings(**bad)  # type: ignore[arg-type]
