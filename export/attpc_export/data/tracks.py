"""The largest pattern of each event, and what can be done to it."""

from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from attpc_filter.rebuild.clean import CleanSettings, find_signal
from attpc_filter.records import Hits

#: Lonely hits belong to no pattern.
_CUT = CleanSettings(mode="neighbours", neighbours=3, radius_mm=18.0)
#: Hits no farther apart than this belong together [mm] ...
_STEP_MM = 22.0
#: ... lengths along z being worth less: a track has gaps there.
_Z_SCALE = 0.7
#: A pattern has so many hits.
_LEAST_HITS = 8


class Change(IntEnum):
    """What can be done to a track."""

    NONE = 0
    #: Mirrored at a plane through the beam axis: it turns in the sense that the field forbids.
    MIRRORED = 1
    #: Moved off the beam axis.
    MOVED = 2
    #: Overlaid with the track of another event.
    OVERLAID = 3
    #: Cut to a piece.
    CUT = 4


def find_tracks(hits: Hits) -> NDArray[np.bool_]:
    """Find the hits of the largest pattern of each event.

    A pattern is a set of hits that are connected by small steps, after a cut on neighbours.

    Parameters
    ----------
    hits : Hits
        Events.

    Returns
    -------
    ndarray of bool, shape (n_hits,)
        True for hits of the largest pattern; an event without one of 8 hits or more has none.
    """
    signal = np.flatnonzero(find_signal(hits, _CUT))
    place = np.stack([hits.x, hits.y, hits.z * _Z_SCALE], axis=1).astype(np.float64)
    bounds = np.searchsorted(signal, hits.offsets)
    is_track = np.zeros(len(hits.x), np.bool_)
    for start, stop in pairwise(bounds.tolist()):
        rows = signal[start:stop]
        if len(rows) < _LEAST_HITS:
            continue
        pairs = cKDTree(place[rows]).query_pairs(_STEP_MM, output_type="ndarray")
        graph = coo_matrix((np.ones(len(pairs)), pairs.T), (len(rows), len(rows)))
        _, pattern = connected_components(graph, directed=False)
        largest = pattern == np.bincount(pattern).argmax()
        if largest.sum() >= _LEAST_HITS:
            is_track[rows[largest]] = True
    return is_track
