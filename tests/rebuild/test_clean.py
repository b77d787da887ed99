"""Cleaning: neighbours counted by SciPy, tracks with known noise, the simulator's own labels."""

import csv
import json
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from attpc_filter.rebuild.clean import CleanSettings, clean_hits, find_signal
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.records import Hits, join_hits
from attpc_filter.score.bundle import Contract
from tests import tiny_models
from tests.conftest import shared

NEIGHBOURS = CleanSettings("neighbours")
HOUGH = CleanSettings("hough")


def hits_of(*events: NDArray[np.float64]) -> Hits:
    """A batch of events given by their places, shape (n, 3) each [mm]."""
    place = np.concatenate([*events, np.empty((0, 3))]).astype(np.float32)
    n = len(place)
    return Hits(
        offsets=np.cumsum([0, *(len(event) for event in events)]),
        pad=np.arange(n, dtype=np.int32),
        x=place[:, 0],
        y=place[:, 1],
        z=place[:, 2],
        time_bucket=np.zeros(n, np.float32),
        charge=np.arange(1, n + 1, dtype=np.float32),
        integral=np.ones(n, np.float32),
    )


def noise(n: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return rng.uniform([-270, -270, 0], [270, 270, 1000], (n, 3))


def helix(n: int, turns: float = 1.4, radius: float = 90.0) -> NDArray[np.float64]:
    """A track that starts at the beam axis and turns inward, as it loses energy."""
    turn = np.linspace(0.0, 2 * np.pi * turns, n)
    shrinking = radius * (1 - 0.1 * turn / turn[-1])
    x = radius - shrinking * np.cos(turn)
    return np.stack([x, shrinking * np.sin(turn), 200 + 500 * turn / turn[-1]], 1)


def line(n: int) -> NDArray[np.float64]:
    along = np.linspace(0.0, 1.0, n)
    return np.stack([-250 + 450 * along, -100 + 260 * along, 100 + 300 * along], 1)


places = st.lists(st.tuples(*[st.floats(-200, 200, width=32)] * 3), max_size=30).map(
    lambda rows: np.array(rows).reshape(-1, 3)
)


def test_without_cleaning_nothing_changes() -> None:
    hits = hits_of(noise(20), np.empty((0, 3)))
    assert clean_hits(hits, CleanSettings()) is hits


@given(places, st.integers(1, 4), st.floats(5.0, 150.0))
def test_neighbours_are_counted_as_scipy_counts_them(
    event: NDArray[np.float64], neighbours: int, radius: float
) -> None:
    settings = CleanSettings("neighbours", neighbours, radius)
    found = find_signal(hits_of(event), settings)
    if not len(event):
        assert len(found) == 0
        return
    place = event.astype(np.float32).astype(np.float64)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    if (np.abs(distance - radius) < 1e-6).any():  # on the edge rounding decides
        return
    counts = cKDTree(place).query_ball_point(place, radius, return_length=True) - 1
    np.testing.assert_array_equal(found, counts >= neighbours)


@given(st.lists(places, min_size=1, max_size=4), st.sampled_from([NEIGHBOURS, HOUGH]))
def test_events_are_cleaned_each_for_itself(
    events: list[NDArray[np.float64]], settings: CleanSettings
) -> None:
    settings = replace(settings, radius_mm=120.0, line_hits=4)
    together = clean_hits(hits_of(*events), settings)
    alone = join_hits([clean_hits(hits_of(event), settings) for event in events])
    assert together.n_events == len(events)
    np.testing.assert_array_equal(together.offsets, alone.offsets)
    for name in ("x", "y", "z"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))


@given(places, st.sampled_from([NEIGHBOURS, HOUGH]))
def test_the_hits_that_stay_stay_as_they_are(
    event: NDArray[np.float64], settings: CleanSettings
) -> None:
    settings = replace(settings, radius_mm=120.0, line_hits=4)
    hits = hits_of(event)
    kept = find_signal(hits, settings)
    cleaned = clean_hits(hits, settings)
    for field in fields(Hits)[1:]:
        column = getattr(hits, field.name)
        np.testing.assert_array_equal(getattr(cleaned, field.name), column[kept])
        assert getattr(cleaned, field.name).dtype == column.dtype
    assert cleaned.counts.tolist() == [kept.sum()]
    again = find_signal(hits, replace(settings, mode="neighbours"))
    assert not (kept & ~again).any()  # the Hough cut only takes away


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_hits_does_not_matter(random: object) -> None:
    event = np.concatenate([helix(120), noise(150)])
    order = list(range(len(event)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for settings in (NEIGHBOURS, HOUGH):
        expected = find_signal(hits_of(event), settings)[order]
        np.testing.assert_array_equal(find_signal(hits_of(event[order]), settings), expected)


@pytest.mark.parametrize("track", [helix(200), helix(150, 0.6, 160.0), line(120)])
def test_a_track_stays_and_noise_goes(track: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(1)
    track = track + rng.normal(0.0, 2.0, track.shape)
    # besides scattered hits a clump off the track, which neighbours alone cannot tell from it
    clump = rng.normal([-200.0, 220.0, 900.0], 6.0, (9, 3))
    hits = hits_of(np.concatenate([track, noise(100), clump]))
    lonely, off_line = find_signal(hits, NEIGHBOURS), find_signal(hits, HOUGH)
    n = len(track)
    assert lonely[:n].mean() > 0.98
    assert lonely[n:-9].mean() < 0.25
    assert lonely[-9:].all()
    assert off_line[:n].mean() > 0.9
    assert off_line[n:-9].mean() < 0.2
    assert off_line[-9:].sum() <= 2


def test_hits_without_a_place_go() -> None:
    event = helix(50)
    event[7, 2] = np.nan
    event[9, 0] = np.inf
    for settings in (NEIGHBOURS, HOUGH):
        kept = find_signal(hits_of(event, np.empty((0, 3)), event), settings)
        assert not kept[[7, 9, 57, 59]].any()
        assert kept.sum() > 80


@pytest.mark.parametrize(
    ("mode", "kept", "left"), [("neighbours", 0.97, 0.5), ("hough", 0.93, 0.5)]
)
def test_simulated_reactions_keep_their_tracks_and_lose_noise(
    mode: str, kept: float, left: float
) -> None:
    with shared("test/labels_full.csv").open(newline="") as file:
        reactions = [
            int(row["event"])
            for row in csv.DictReader(file)
            if row["run"] == "211" and row["label"] in ("proton", "carbon")
        ][:100]
    with h5py.File(shared("test/full/run_0211.h5")) as file:
        clouds = [file[f"cloud/cloud_{event}"][()] for event in reactions]
        origin = np.concatenate([file[f"cloud/labels_{event}"][()] for event in reactions])
    settings = CleanSettings(mode)  # type: ignore[arg-type]
    found = find_signal(hits_of(*(cloud[:, :3] for cloud in clouds)), settings)
    assert found[origin == 3].mean() > kept  # the reaction's own hits
    assert found[origin < 3].mean() < left  # random hits, cross-talk, beam


def test_a_contract_says_how_hits_are_cleaned() -> None:
    text = tiny_models.contract()
    before = Contract.from_json(json.dumps(text))
    assert before.clean == CleanSettings()  # bundles made before there was cleaning
    after = Contract.from_json(json.dumps(text | {"clean": {"mode": "hough"}}))
    assert after.clean.mode == "hough"
    assert Contract.from_json(after.to_json()) == after
    hits = hits_of(np.concatenate([helix(100), noise(100)]), noise(30))
    assert isinstance(after.projection, ProjectionSettings)
    expected = project(clean_hits(hits, HOUGH), after.projection)
    np.testing.assert_array_equal(after.make_inputs(hits)["projection"], expected)
    assert (expected != before.make_inputs(hits)["projection"]).any()
    some = after.make_inputs(hits, np.array([1]))["projection"]
    np.testing.assert_array_equal(some, expected[1:])


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"mode": "soap"}, "'soap'"),
        ({"radius_mm": 0.0}, "radius_mm"),
        ({"neighbours": 0}, "neighbours"),
        ({"soap": 1}, "soap"),
    ],
)
def test_a_wrong_way_of_cleaning_is_refused(entries: dict[str, object], word: str) -> None:
    text = tiny_models.contract() | {"clean": entries}
    with pytest.raises(ValueError, match=word):
        Contract.from_json(json.dumps(text))
