"""Hits to point sets: a fixed number of hits an event, as rows of numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attpc_filter.rebuild import input_kernels
from attpc_filter.records import Hits

#: Columns of a point: position [mm], log(1 + charge [ADC]), and 1 (0 where there is no hit).
POINT_FEATURES = ("x_mm", "y_mm", "z_mm", "log_charge", "is_hit")

_MOST_POINTS = 1 << 20


@dataclass(frozen=True, slots=True)
class PointSetSettings:
    """Which hits a point set holds. Part of a model's contract.

    Attributes
    ----------
    n_points : int
        Rows of a point set. An event with fewer hits has rows of zeros at the end, of one with more
        a part is taken.
    radius_mm : float
        Hits farther from the beam axis are left out.
    z_low_mm, z_high_mm : float
        Hits outside this range of z are left out.
    """

    n_points: int = 256
    radius_mm: float = 280.0
    z_low_mm: float = -50.0
    z_high_mm: float = 1050.0

    def __post_init__(self) -> None:
        if not 1 <= self.n_points <= _MOST_POINTS:
            raise ValueError(f"a point set needs 1 to {_MOST_POINTS} points")
        if not (self.radius_mm > 0 and self.z_low_mm < self.z_high_mm):
            raise ValueError("a point set needs points, a positive radius and an ascending z range")

    @property
    def shape(self) -> tuple[int, int]:
        """(points, features) of one event's point set."""
        return (self.n_points, len(POINT_FEATURES))


def gather_points(
    hits: Hits,
    settings: PointSetSettings,
    events: NDArray[np.int64] | None = None,
    buffer: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Gather the hits of a batch of events, or of some of them, into point sets.

    Hits outside the ranges, and those without positive charge, are left out. Of more hits than a
    point set has rows, an even share is taken: those with the smallest hashes of their position and
    charge. Which hits these are depends neither on the order in which a format keeps them nor on
    the batch, and no part of an event is preferred.

    Parameters
    ----------
    hits : Hits
        The batch.
    settings : PointSetSettings
        Number of rows and ranges.
    events : ndarray of int64, optional
        Indices in the batch of the events to gather; all if left out.
    buffer : ndarray of float32, optional
        Where to put the points, in its first rows; new memory if left out or too small.

    Returns
    -------
    ndarray of float32, shape (n_events, n_points, 5)
        Columns as in :data:`POINT_FEATURES`, hits in the order of the batch, then zeros.
    """
    starts, stops = hits.offsets[:-1], hits.offsets[1:]
    if events is not None:
        starts, stops = starts[events], stops[events]
    points = None if buffer is None or len(buffer) < len(starts) else buffer[: len(starts)]
    if points is None:
        points = np.empty((len(starts), *settings.shape), np.float32)
    input_kernels.gather_points(
        starts,
        stops,
        hits.x,
        hits.y,
        hits.z,
        hits.charge,
        np.float32(settings.radius_mm),
        np.float32(settings.z_low_mm),
        np.float32(settings.z_high_mm),
        points,
    )
    return points
