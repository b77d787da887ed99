"""Filters noise hits out of events: lonely ones, and those off every line and spiral.

As the thesis made its *filtered* data (section 6.3.4): a cut on the number of neighbours, and a cut
by the Hough transform after Bradt et al. 2017 (NIM A 875, 65). A track in a magnetic field is an
arc about some centre; seen from there, its arc length grows in proportion to z, so that a spiral
is a few straight lines, which a second transform finds.
"""

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attpc_filter.rebuild import clean_kernels
from attpc_filter.records import Hits

Mode = Literal["none", "neighbours", "hough"]


@dataclass(frozen=True, slots=True)
class CleanSettings:
    """Which hits are left out before the model sees an event. Part of a model's contract.

    Attributes
    ----------
    mode : {"none", "neighbours", "hough"}
        Nothing; the cut on neighbours; that one and then the Hough cut.
    neighbours : int
        A hit stays if so many others lie around it.
    radius_mm : float
        They lie no farther than this in x, y and z [mm].
    lines : int
        The Hough cut keeps hits near so many lines of the spiral at most (a turn is one), or near
        one straight track if more hits lie there.
    line_hits : int
        A line needs so many hits.
    distance_mm : float
        A hit stays if it lies no farther than this from a line [mm].
    """

    mode: Mode = "none"
    neighbours: int = 2
    radius_mm: float = 25.0
    lines: int = 4
    line_hits: int = 10
    distance_mm: float = 20.0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"clean.mode: {self.mode!r} is none of {', '.join(get_args(Mode))}")
        if self.neighbours < 1 or self.lines < 1 or self.line_hits < 2:
            raise ValueError("clean: neighbours and lines must be positive, line_hits at least 2")
        if not (self.radius_mm > 0 and self.distance_mm > 0):
            raise ValueError("clean: radius_mm and distance_mm must be positive")


def clean_hits(hits: Hits, settings: CleanSettings) -> Hits:
    """Leave noise hits out of a batch of events.

    Parameters
    ----------
    hits : Hits
        The batch.
    settings : CleanSettings
        Which hits are noise.

    Returns
    -------
    Hits
        The same events, in the same order, with the hits that stay, in the same order.
    """
    if settings.mode == "none":
        return hits
    kept = find_signal(hits, settings)
    counts = np.add.reduceat(np.append(kept, False).astype(np.int64), hits.offsets[:-1])
    counts[hits.counts == 0] = 0  # reduceat gives the next element where a range is empty
    columns = {f.name: getattr(hits, f.name)[kept] for f in fields(Hits)[1:]}
    return Hits(offsets=np.concatenate([[0], np.cumsum(counts)]), **columns)


def find_signal(hits: Hits, settings: CleanSettings) -> NDArray[np.bool_]:
    """Find the hits that are no noise.

    Parameters
    ----------
    hits : Hits
        A batch.
    settings : CleanSettings
        Which hits are noise.

    Returns
    -------
    ndarray of bool, shape (n_hits,)
        True for hits that stay. Hits without a position never do, unless the mode is ``none``.
    """
    kept = np.ones(len(hits.x), np.bool_)
    if settings.mode == "none":
        return kept
    place = np.stack([hits.x, hits.y, hits.z]).astype(np.float64)
    kept = np.asarray(np.isfinite(place).all(axis=0))
    clean_kernels.cut_lonely(hits.offsets, place, settings.radius_mm, settings.neighbours, kept)
    if settings.mode == "hough":
        clean_kernels.cut_off_lines(
            hits.offsets,
            place,
            settings.lines,
            settings.line_hits,
            settings.distance_mm,
            kept,
        )
    return kept
