"""Varies events anew each epoch: rotation, synthetic pile-up, overlays, hits lost and added.

Everything is done on the hits, before they are projected by the function that filtering uses.
Events are rotated freely about the beam axis but never mirrored: the magnetic field fixes the
sense in which tracks turn.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_export.config import AugmentSettings
from attpc_export.data import Events, offsets_of, select_hits
from attpc_filter.rebuild.projection import ProjectionSettings
from attpc_filter.records import Hits

_ALONE = -1


@dataclass(frozen=True, slots=True)
class Pools:
    """Events that others can be overlaid with, as rows of :class:`Events`.

    Attributes
    ----------
    reactions : ndarray of int64
        Events of particles: two of them make pile-up.
    overlays : ndarray of int64
        Events that leave the class of what they lie over as it is.
    pile_up_label : int
        Class of pile-up.
    """

    reactions: NDArray[np.int64]
    overlays: NDArray[np.int64]
    pile_up_label: int


def make_pools(
    events: Events, rows: NDArray[np.int64], settings: AugmentSettings, classes: list[str]
) -> Pools:
    """Find the events of ``rows`` that others may be overlaid with."""
    label, kind = events.label[rows], events.kind[rows]
    overlays = rows[np.isin(kind, np.array(settings.overlay_kinds, np.str_))]
    if not settings.pile_up_class:
        return Pools(np.empty(0, np.int64), overlays, _ALONE)
    pile_up = classes.index(settings.pile_up_class)
    return Pools(rows[(label >= 0) & (label != pile_up)], overlays, pile_up)


def augment(
    events: Events,
    rows: NDArray[np.int64],
    pools: Pools,
    settings: AugmentSettings,
    view: ProjectionSettings,
    rng: np.random.Generator,
) -> tuple[Hits, NDArray[np.int64]]:
    """Draw a varied copy of some events.

    Parameters
    ----------
    events : Events
        All events.
    rows : ndarray of int64, shape (n,)
        Events to copy.
    pools : Pools
        Events to overlay them with.
    settings : AugmentSettings
        How much of each variation.
    view : ProjectionSettings
        Its ranges are where random hits lie.
    rng : Generator
        Source of all randomness.

    Returns
    -------
    hits : Hits
        Hits of the copies; pads and time buckets are those before the variation, and -1 and NaN for
        hits that were made up.
    label : ndarray of int64, shape (n,)
        Their labels: those of the originals but for synthetic pile-up.
    """
    partner, label = _choose_partners(events.label[rows], pools, settings, rng)
    source, copy, is_partner = _join_hits(events.hits.offsets, rows, partner)
    dropped = rng.uniform(0.0, settings.most_dropped, len(rows))
    kept = rng.random(len(source)) >= dropped[copy]
    source, copy, is_partner = source[kept], copy[kept], is_partner[kept]

    # an event and what lies over it are turned each by an angle of its own
    angle = rng.uniform(0.0, 2 * np.pi, (len(rows), 2))[copy, is_partner]
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = events.hits.x[source], events.hits.y[source]
    z_shift = rng.normal(0.0, settings.shift_z_mm, len(rows))[copy]
    log_gain = rng.normal(0.0, settings.gain_event, len(rows))[copy]
    gain = np.exp(log_gain + rng.normal(0.0, settings.gain_hit, len(source)))

    added, x_new, y_new, z_new = _random_hits(len(rows), settings.most_random_hits, view, rng)
    like = rng.integers(0, len(events.hits.x), len(added))  # a made-up hit has a real one's charge
    none = np.full(len(added), np.nan)
    order = np.argsort(np.concatenate([copy, added]), kind="stable")

    def column(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.float32]:
        joined: NDArray[np.float32] = np.concatenate([old, new]).astype(np.float32)[order]
        return joined

    hits = Hits(
        offsets=offsets_of(np.bincount(np.concatenate([copy, added]), minlength=len(rows))),
        pad=np.concatenate([events.hits.pad[source], np.full(len(added), -1, np.int32)])[order],
        x=column(cosine * x - sine * y, x_new),
        y=column(sine * x + cosine * y, y_new),
        z=column(events.hits.z[source] + z_shift, z_new),
        time_bucket=column(events.hits.time_bucket[source], none),
        charge=column(events.hits.charge[source] * gain, events.hits.charge[like]),
        integral=column(events.hits.integral[source] * gain, events.hits.integral[like]),
    )
    return hits, label


def _choose_partners(
    label: NDArray[np.int64], pools: Pools, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of the event that lies over each copy (or none), and the label that it then has."""
    partner = np.full(len(label), _ALONE, np.int64)
    draw = rng.random((2, len(label)))
    piled = np.zeros(len(label), np.bool_)
    if len(pools.reactions):
        is_reaction = (label >= 0) & (label != pools.pile_up_label)
        piled = is_reaction & (draw[0] < settings.pile_up)
        partner[piled] = rng.choice(pools.reactions, piled.sum())
    if len(pools.overlays):
        overlaid = ~piled & (draw[1] < settings.overlay)
        partner[overlaid] = rng.choice(pools.overlays, overlaid.sum())
    return partner, np.where(piled, pools.pile_up_label, label)


def _join_hits(
    offsets: NDArray[np.int64], rows: NDArray[np.int64], partner: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Index of each hit, which copy it goes to, and whether (1) or not (0) it is the partner's."""
    has_partner = np.flatnonzero(partner != _ALONE)
    own, own_counts = select_hits(offsets, rows)
    other, other_counts = select_hits(offsets, partner[has_partner])
    copy = np.concatenate(
        [np.repeat(np.arange(len(rows)), own_counts), np.repeat(has_partner, other_counts)]
    )
    is_partner = np.repeat([0, 1], [len(own), len(other)])
    return np.concatenate([own, other]), copy, is_partner


def _random_hits(
    n_events: int, most: int, view: ProjectionSettings, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Event, x, y and z [mm] of hits spread evenly over the chamber, for every other event."""
    counts = rng.integers(0, most + 1, n_events) * rng.integers(0, 2, n_events)
    total = int(counts.sum())
    radius = view.radius_mm * np.sqrt(rng.random(total))
    azimuth = rng.uniform(-np.pi, np.pi, total)
    z = rng.uniform(view.z_low_mm, view.z_high_mm, total)
    event = np.repeat(np.arange(n_events), counts)
    return event, radius * np.cos(azimuth), radius * np.sin(azimuth), z
