"""The types that pass from step to step: a record as it was read, and hits.

Nothing here knows about files, models or tags.
"""

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

#: Columns of a trace matrix: CoBo, AsAd, AGET, channel, pad number, then the ADC samples.
N_HARDWARE_COLUMNS = 5
PAD_COLUMN = 4
#: Samples of a trace where a file says nothing else; a run's own: :attr:`Run.n_samples`.
N_TIME_BUCKETS = 512
N_TRACE_COLUMNS = N_HARDWARE_COLUMNS + N_TIME_BUCKETS

#: Columns of :attr:`Record.points` with their units.
POINT_COLUMNS = ("x_mm", "y_mm", "z_mm", "time_bucket", "charge_adc", "integral", "pad")


class Point(IntEnum):
    """Places of the columns of :attr:`Record.points`."""

    X = 0
    Y = 1
    Z = 2
    TIME_BUCKET = 3
    CHARGE = 4
    INTEGRAL = 5
    PAD = 6


class Origin(IntEnum):
    """Where the hits of an event come from."""

    NONE = 0
    TRACES = 1
    POINTS = 2
    #: Points with time buckets only: their z follows from the calibration.
    POINTS_WITHOUT_Z = 3


@dataclass(slots=True)
class Record:
    """One event as it was read.

    Attributes
    ----------
    event : int
        Event number in its file.
    name : str
        Name of the event's object in its file: a writer links or copies by it.
    traces : ndarray of int16, shape (n_traces, 5 + n_samples), or None
        The trace matrix, if the file holds traces.
    points : ndarray of float64, shape (n_points, 7), or None
        Hits in the columns of :data:`POINT_COLUMNS`, if the file holds hits. ``z_mm`` is NaN
        throughout where the file has only time buckets.
    passthrough : bool
        The event is an ion-chamber downscale trigger: it normalises, it is not classified.
    reason : str
        Why the event could not be read; empty if it could.
    is_complete : bool
        Reading confirmed every dataset that Spyral requires, so the event can be linked whole.
    in_model_frame : bool
        The points are in the models' frame already: hits that this program made and kept.
    """

    event: int
    name: str
    traces: NDArray[np.int16] | None = None
    points: NDArray[np.float64] | None = None
    passthrough: bool = False
    reason: str = ""
    is_complete: bool = False
    in_model_frame: bool = False

    @property
    def origin(self) -> Origin:
        """Where the event's hits come from."""
        if self.traces is not None:
            return Origin.TRACES
        if self.points is None:
            return Origin.NONE
        return Origin.POINTS_WITHOUT_Z if np.isnan(self.points[:, Point.Z]).any() else Origin.POINTS


@dataclass(slots=True)
class Hits:
    """The hits of a batch of events, as columns.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n_events + 1,)
        Hits ``offsets[i]`` to ``offsets[i + 1]`` belong to event ``i`` of the batch.
    pad : ndarray of int32, shape (n_hits,)
        Pad number; -1 where unknown.
    x, y, z : ndarray of float32, shape (n_hits,)
        Position [mm].
    time_bucket : ndarray of float32, shape (n_hits,)
        Time of the peak, the pad's time offset included.
    charge : ndarray of float32, shape (n_hits,)
        Amplitude above the baseline [ADC].
    integral : ndarray of float32, shape (n_hits,)
        Sum of the absolute samples under the peak [ADC x time buckets].
    """

    offsets: NDArray[np.int64]
    pad: NDArray[np.int32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    time_bucket: NDArray[np.float32]
    charge: NDArray[np.float32]
    integral: NDArray[np.float32]

    @property
    def n_events(self) -> int:
        """Number of events in the batch."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Hits of each event, shape (n_events,)."""
        return np.diff(self.offsets)

    def event(self, index: int) -> "Hits":
        """Hits of the event at ``index`` of the batch, as views."""
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        columns = {f.name: getattr(self, f.name)[start:stop] for f in fields(self)[1:]}
        return Hits(offsets=np.array([0, stop - start]), **columns)


def join_hits(parts: list[Hits]) -> Hits:
    """Join the hits of several batches into those of one, in their order."""
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([part.counts for part in parts])
    columns = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Hits)[1:]
    }
    return Hits(offsets=np.concatenate([[0], np.cumsum(counts)]), **columns)
