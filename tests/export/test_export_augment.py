"""Varied copies of events: what may change and what must not."""

from dataclasses import replace

import numpy as np
import pytest
from attpc_export.config import AugmentSettings
from attpc_export.data.augment import augment, make_pools
from attpc_export.data.labelled import Events, offsets_of
from numpy.typing import NDArray

from attpc_filter.rebuild.projection import ProjectionSettings
from attpc_filter.records import Hits

CLASSES = ["proton", "carbon", "noise"]
VIEW = ProjectionSettings()
#: Nothing but the rotation.
STILL = AugmentSettings(
    pile_up=0.0,
    overlay=0.0,
    most_dropped=0.0,
    most_random_hits=0,
    shift_z_mm=0.0,
    gain_event=0.0,
    gain_hit=0.0,
)


@pytest.fixture
def events() -> Events:
    """Three protons, a carbon and a noise event of 10 hits each."""
    rng = np.random.default_rng(0)
    n = 50
    x, y, z, bucket, charge, integral = rng.uniform(1.0, 200.0, (6, n)).astype(np.float32)
    label = np.array([0, 0, 0, 1, 2])
    return Events(
        hits=Hits(
            offsets_of(np.full(5, 10)),
            np.arange(n, dtype=np.int32),
            x,
            y,
            z,
            bucket,
            charge,
            integral,
        ),
        run=np.ones(5, np.int64),
        event=np.arange(5),
        label=label,
        kind=np.array([*(CLASSES[k] for k in label[:4]), "random"]),
        group=np.arange(5),
        data_set=np.zeros(5, np.int64),
        data_sets=("made up",),
    )


def vary(
    events: Events, settings: AugmentSettings, rows: NDArray[np.int64] | None = None
) -> tuple[Hits, NDArray[np.int64]]:
    every = np.arange(len(events))
    pools = make_pools(events, every, settings, CLASSES, "noise")
    rng = np.random.default_rng(1)
    return augment(events, every if rows is None else rows, pools, settings, VIEW, rng)


def test_events_are_turned_about_the_beam_and_never_mirrored(events: Events) -> None:
    hits, label = vary(events, STILL)
    assert (label == events.label).all()
    assert (hits.counts == events.hits.counts).all()
    before = events.hits.x + 1j * events.hits.y
    turn = ((hits.x + 1j * hits.y) / before).reshape(5, 10)
    # one angle an event: a mirrored event would need one a hit
    assert np.abs(np.abs(turn) - 1).max() < 1e-5
    assert np.abs(turn - turn[:, :1]).max() < 1e-5
    assert len(np.unique(np.angle(turn[:, 0]).round(3))) == 5
    for name in ("z", "charge", "pad", "time_bucket", "integral"):
        np.testing.assert_array_equal(getattr(hits, name), getattr(events.hits, name))


def test_pile_up_is_two_particles_and_gets_its_class(events: Events) -> None:
    hits, label = vary(events, replace(STILL, pile_up=0.999), np.repeat(np.arange(5), 40))
    noise = np.repeat(events.label, 40) == 2
    assert (label == 2).all()
    assert (hits.counts[noise] == 10).all()  # noise itself is not overlaid
    assert (hits.counts[~noise] == 20).all()
    assert not np.isin(hits.pad, np.arange(40, 50)).reshape(-1)[: 160 * 20].any()


def test_an_overlay_of_a_harmless_kind_keeps_the_class(events: Events) -> None:
    settings = replace(STILL, overlay=0.999, overlay_kinds=("random",))
    hits, label = vary(events, settings)
    assert (label == events.label).all()
    assert (hits.counts == 20).all()
    assert np.isin(np.arange(40, 50), hits.event(0).pad).all()


def test_unlabelled_events_are_never_piled_up(events: Events) -> None:
    unlabelled = replace(events, label=np.full(5, -1))
    hits, label = vary(unlabelled, replace(STILL, pile_up=0.999))
    assert (label == -1).all()
    assert (hits.counts == 10).all()


def test_hits_are_lost_and_added(events: Events) -> None:
    rows = np.repeat(np.arange(5), 100)
    fewer, _ = vary(events, replace(STILL, most_dropped=0.5), rows)
    assert 0.7 < fewer.counts.mean() / 10 < 0.8
    more, _ = vary(events, replace(STILL, most_random_hits=20), rows)
    assert (more.counts >= 10).all()
    assert 0.4 < (more.counts > 10).mean() < 0.55
    made_up = more.pad == -1
    assert np.hypot(more.x, more.y)[made_up].max() <= VIEW.radius_mm
    assert more.z[made_up].min() >= VIEW.z_low_mm
    assert np.isin(more.charge[made_up], events.hits.charge).all()


def test_the_same_seed_gives_the_same_copies(events: Events) -> None:
    settings = AugmentSettings(overlay_kinds=("random",))
    (one, label_one), (other, label_other) = vary(events, settings), vary(events, settings)
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(label_one, label_other)
