"""Hits to projections: images of log charge, one channel a view."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attpc_filter.rebuild import input_kernels
from attpc_filter.records import Hits

#: Axes that a view can join: x, y, z [mm], and r and phi about the beam axis [mm, rad].
AXES = ("x", "y", "z", "r", "p")
#: A view names its horizontal and its vertical axis: ``rz`` has r across and z up.
VIEWS = tuple(across + up for across in AXES for up in AXES if across != up)

_MOST_PIXELS = 4096


@dataclass(frozen=True, slots=True)
class ProjectionSettings:
    """What a projection shows. Part of a model's contract.

    Attributes
    ----------
    views : tuple of str
        One channel a view, each of :data:`VIEWS`: ``xy``, ``xz``, ``yz``; ``zr`` and ``zp`` join z
        with the radius and the azimuth about the beam axis.
    size : int
        Pixels along a side.
    radius_mm : float
        x and y run from -radius to radius, r from 0 to radius.
    z_low_mm, z_high_mm : float
        Range of z. The azimuth runs from -pi to pi.
    scale : float
        A pixel is log(1 + charge) / scale: the largest value of the training data, so that pixels
        lie in [0, 1] there. Fixed with the model, never taken from the run that is filtered.
    """

    views: tuple[str, ...] = ("xy",)
    size: int = 128
    radius_mm: float = 280.0
    z_low_mm: float = -50.0
    z_high_mm: float = 1050.0
    scale: float = 10.0

    def __post_init__(self) -> None:
        for view in self.views:
            if view not in VIEWS:
                raise ValueError(f"unknown view {view!r}: choose from {', '.join(VIEWS)}")
        if not self.views or not 1 <= self.size <= _MOST_PIXELS:
            raise ValueError(f"a projection needs views and 1 to {_MOST_PIXELS} pixels a side")
        if not (self.radius_mm > 0 and self.scale > 0 and self.z_low_mm < self.z_high_mm):
            raise ValueError("a projection needs a radius and a scale > 0, an ascending z range")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of one event's projection."""
        return (len(self.views), self.size, self.size)


def project(
    hits: Hits,
    settings: ProjectionSettings,
    events: NDArray[np.int64] | None = None,
    buffer: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Project the hits of a batch of events, or of some of them.

    A pixel holds log(1 + q) / scale with q the charge summed over its hits (thesis, section 6.2:
    x-y projections of log charge, scaled to [0, 1]). Hits outside the ranges, and those without
    positive charge, leave no mark.

    Parameters
    ----------
    hits : Hits
        The batch.
    settings : ProjectionSettings
        Views, size, ranges and scale.
    events : ndarray of int64, optional
        Indices in the batch of the events to project; all if left out.
    buffer : ndarray of float32, optional
        Where to put the images, in its first rows; new memory if left out or too small.

    Returns
    -------
    ndarray of float32, shape (n_events, channels, size, size)
        The images; row 0 is the low end of the vertical axis.
    """
    starts, stops = hits.offsets[:-1], hits.offsets[1:]
    if events is not None:
        starts, stops = starts[events], stops[events]
    images = None if buffer is None or len(buffer) < len(starts) else buffer[: len(starts)]
    if images is None:
        images = np.empty((len(starts), *settings.shape), np.float32)
    axes = np.array([[AXES.index(axis) for axis in view] for view in settings.views], np.int64)
    low, pixels_per_unit = axis_scales(settings)
    input_kernels.project(
        starts,
        stops,
        hits.x,
        hits.y,
        hits.z,
        hits.charge,
        axes,
        low,
        pixels_per_unit,
        np.float32(1.0 / settings.scale),
        images,
    )
    return images


def axis_scales(settings: ProjectionSettings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Low end of each of :data:`AXES` [mm, rad], and pixels a mm or rad."""
    low = np.array(
        [-settings.radius_mm, -settings.radius_mm, settings.z_low_mm, 0.0, -np.pi], np.float32
    )
    high = np.array(
        [settings.radius_mm, settings.radius_mm, settings.z_high_mm, settings.radius_mm, np.pi],
        np.float32,
    )
    return low, (settings.size / (high - low)).astype(np.float32)
