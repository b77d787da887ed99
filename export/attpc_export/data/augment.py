"""Varies events anew each epoch: rotation, synthetic pile-up, overlays, hits lost and added.

Everything is done on the hits, before they are projected by the function that filtering uses.
Events are rotated freely about the beam axis but never mirrored: the magnetic field fixes the
sense in which tracks turn. Only where a model is to learn without labels to tell what was done to
a track (:func:`change`) is being mirrored one of the answers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_export.config import AugmentSettings
from attpc_export.data.labelled import Events, offsets_of, select_hits
from attpc_export.data.tracks import Change, find_tracks
from attpc_filter.rebuild.point_set import PointSetSettings
from attpc_filter.rebuild.projection import ProjectionSettings
from attpc_filter.records import Hits

_ALONE = -1
#: A track that is moved comes to lie so far from where it was [mm].
_NEAREST_MM, _FARTHEST_MM = 50.0, 150.0
#: A track that is cut keeps between so many hits, and not more than half of them.
_FEWEST_HITS, _MOST_HITS = 5, 25


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
        Class of pile-up, and of tracks that were moved or cut.
    is_track : ndarray of bool, shape (n_hits,)
        Which hits of all events are their tracks'; empty where no track is to be changed.
    """

    reactions: NDArray[np.int64]
    overlays: NDArray[np.int64]
    pile_up_label: int
    is_track: NDArray[np.bool_]


def make_pools(
    events: Events,
    rows: NDArray[np.int64],
    settings: AugmentSettings,
    classes: list[str],
    pile_up_class: str,
) -> Pools:
    """Find the events of ``rows`` that others may be overlaid with.

    ``pile_up_class`` is the name of the class that pile-up becomes; empty: there is none.
    """
    label, kind = events.label[rows], events.kind[rows]
    overlays = rows[np.isin(kind, np.array(settings.overlay_kinds, np.str_))]
    is_track = np.empty(0, np.bool_)
    if not pile_up_class:
        return Pools(np.empty(0, np.int64), overlays, _ALONE, is_track)
    if settings.moved or settings.cut:
        is_track = find_tracks(events.hits)
    pile_up = classes.index(pile_up_class)
    return Pools(rows[(label >= 0) & (label != pile_up)], overlays, pile_up, is_track)


def augment(
    events: Events,
    rows: NDArray[np.int64],
    pools: Pools,
    settings: AugmentSettings,
    view: ProjectionSettings | PointSetSettings,
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
    view : ProjectionSettings or PointSetSettings
        Its ranges are where random hits lie.
    rng : Generator
        Source of all randomness.

    Returns
    -------
    hits : Hits
        Hits of the copies; pads and time buckets are those before the variation, and -1 and NaN for
        hits that were made up.
    label : ndarray of int64, shape (n,)
        Their labels: those of the originals but for synthetic pile-up and tracks moved or cut.
    """
    has_track = _have_track(events, rows, pools.is_track) if len(pools.is_track) else None
    partner, label, made = _choose_partners(events.label[rows], has_track, pools, settings, rng)
    return _vary(events, rows, partner, made, pools.is_track, settings, view, rng), label


def change(
    events: Events,
    rows: NDArray[np.int64],
    is_track: NDArray[np.bool_],
    settings: AugmentSettings,
    view: ProjectionSettings | PointSetSettings,
    rng: np.random.Generator,
) -> tuple[Hits, NDArray[np.int64]]:
    """Draw a varied copy of some events, with something done to the track of most of them.

    Which it was can be told only by who knows what tracks look like; no label is needed to learn
    it (as by Gidaris et al., arXiv 1803.07728, with pictures that were turned).

    Parameters
    ----------
    events : Events
        All events; labels play no part.
    rows : ndarray of int64, shape (n,)
        Events to copy.
    is_track : ndarray of bool, shape (n_hits,)
        See :func:`attpc_export.data.tracks.find_tracks`.
    settings, view, rng
        As in :func:`augment`; nothing is overlaid with whole events.

    Returns
    -------
    hits : Hits
        Hits of the copies.
    made : ndarray of int64, shape (n,)
        What was done, each a :class:`~attpc_export.data.tracks.Change`, all equally often; events
        without a track stay as they are.
    """
    has_track = _have_track(events, rows, is_track)
    made = np.where(has_track, rng.integers(0, len(Change), len(rows)), Change.NONE)
    overlaid = made == Change.OVERLAID
    partner = np.full(len(rows), _ALONE, np.int64)
    if overlaid.any():
        partner[overlaid] = rng.choice(rows[has_track], overlaid.sum())
    return _vary(events, rows, partner, made, is_track, settings, view, rng), made


def _vary(
    events: Events,
    rows: NDArray[np.int64],
    partner: NDArray[np.int64],
    made: NDArray[np.int64],
    is_track: NDArray[np.bool_],
    settings: AugmentSettings,
    view: ProjectionSettings | PointSetSettings,
    rng: np.random.Generator,
) -> Hits:
    """Hits of varied copies, some with a partner over them, some with a changed track."""
    source, copy, is_partner = _join_hits(events.hits.offsets, rows, partner)
    dropped = rng.uniform(0.0, settings.most_dropped, len(rows))
    kept = rng.random(len(source)) >= dropped[copy]
    source, copy, is_partner = source[kept], copy[kept], is_partner[kept]

    # an event and what lies over it are turned each by an angle of its own
    angle = rng.uniform(0.0, 2 * np.pi, (len(rows), 2))[copy, is_partner]
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = events.hits.x[source], events.hits.y[source]
    if len(is_track):
        x, y, stays = _change_tracks(
            x, y, events.hits.z[source], is_track[source], copy, is_partner, made, rng
        )
        source, copy, x, y = source[stays], copy[stays], x[stays], y[stays]
        cosine, sine = cosine[stays], sine[stays]
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

    return Hits(
        offsets=offsets_of(np.bincount(np.concatenate([copy, added]), minlength=len(rows))),
        pad=np.concatenate([events.hits.pad[source], np.full(len(added), -1, np.int32)])[order],
        x=column(cosine * x - sine * y, x_new),
        y=column(sine * x + cosine * y, y_new),
        z=column(events.hits.z[source] + z_shift, z_new),
        time_bucket=column(events.hits.time_bucket[source], none),
        charge=column(events.hits.charge[source] * gain, events.hits.charge[like]),
        integral=column(events.hits.integral[source] * gain, events.hits.integral[like]),
    )


def _have_track(
    events: Events, rows: NDArray[np.int64], is_track: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of some events have a track that can be changed."""
    hits, counts = select_hits(events.hits.offsets, rows)
    found = np.bincount(np.repeat(np.arange(len(rows)), counts), is_track[hits], len(rows))
    return found > 0


def _choose_partners(
    label: NDArray[np.int64],
    has_track: NDArray[np.bool_] | None,
    pools: Pools,
    settings: AugmentSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row of the event over each copy (or none), its label then, what is done to its track."""
    partner = np.full(len(label), _ALONE, np.int64)
    draw = rng.random((2, len(label)))
    piled = np.zeros(len(label), np.bool_)
    made = np.full(len(label), Change.NONE, np.int64)
    if len(pools.reactions):
        is_reaction = (label >= 0) & (label != pools.pile_up_label)
        piled = is_reaction & (draw[0] < settings.pile_up)
        partner[piled] = rng.choice(pools.reactions, piled.sum())
        if has_track is not None:
            cut = settings.pile_up + settings.cut
            rest = is_reaction & ~piled & has_track
            made[rest & (draw[0] < cut)] = Change.CUT
            made[rest & (draw[0] >= cut) & (draw[0] < cut + settings.moved)] = Change.MOVED
    if len(pools.overlays):
        overlaid = ~piled & (draw[1] < settings.overlay)
        partner[overlaid] = rng.choice(pools.overlays, overlaid.sum())
    other = piled | (made != Change.NONE)
    return partner, np.where(other, pools.pile_up_label, label), made


def _change_tracks(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    is_track: NDArray[np.bool_],
    copy: NDArray[np.int64],
    is_partner: NDArray[np.int64],
    made: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """New x and y [mm] of the hits of copies, and which of them stay."""
    own_track = is_track & (is_partner == 0)
    done = np.where(own_track, made[copy], Change.NONE)
    way = rng.uniform(_NEAREST_MM, _FARTHEST_MM, len(made))
    direction = rng.uniform(-np.pi, np.pi, len(made))
    moved, mirrored = done == Change.MOVED, done == Change.MIRRORED
    x = np.where(moved, x + (way * np.cos(direction))[copy], x)
    y = np.where(moved, y + (way * np.sin(direction))[copy], np.where(mirrored, -y, y))
    # of an overlaying event only the track: twice as many noise hits would tell it
    stays = (is_partner == 0) | is_track | (made[copy] != Change.OVERLAID)
    cut = np.flatnonzero(done == Change.CUT)
    if len(cut):
        piece = rng.integers(_FEWEST_HITS, _MOST_HITS + 1, len(made))
        stays[cut] = _keep_piece(x[cut], y[cut], z[cut], copy[cut], piece, rng)
    return x, y, stays


def _keep_piece(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    copy: NDArray[np.int64],
    piece: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Which hits of tracks are the nearest to one of them: so many, but half of them at most."""
    _, number, counts = np.unique(copy, return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    start = np.concatenate([[0], np.cumsum(counts)[:-1]])
    centre = order[start + (rng.random(len(counts)) * counts).astype(np.int64)][number]
    square = (x - x[centre]) ** 2 + (y - y[centre]) ** 2 + (z - z[centre]) ** 2
    rank = np.empty(len(x), np.int64)
    rank[np.lexsort((square, number))] = np.arange(len(x)) - np.repeat(start, counts)
    kept: NDArray[np.bool_] = rank < np.minimum(piece[copy], counts[number] // 2)
    return kept


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
    n_events: int,
    most: int,
    view: ProjectionSettings | PointSetSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Event, x, y and z [mm] of hits spread evenly over the chamber, for every other event."""
    counts = rng.integers(0, most + 1, n_events) * rng.integers(0, 2, n_events)
    total = int(counts.sum())
    radius = view.radius_mm * np.sqrt(rng.random(total))
    azimuth = rng.uniform(-np.pi, np.pi, total)
    z = rng.uniform(view.z_low_mm, view.z_high_mm, total)
    event = np.repeat(np.arange(n_events), counts)
    return event, radius * np.cos(azimuth), radius * np.sin(azimuth), z
