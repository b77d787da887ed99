"""Traces as a graph reads them that makes the hits itself: a batch's rows, with what pads add."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.rebuild.detector import Detector
from attpc_filter.rebuild.padplane import PadPlane
from attpc_filter.records import N_HARDWARE_COLUMNS, PAD_COLUMN, Record

#: Columns of the input ``pads``: position [mm, mm, mm, rad], gain, time offset [time buckets].
PAD_FEATURES = ("x", "y", "r", "p", "gain", "time_offset")


@dataclass(frozen=True, slots=True)
class TraceBatch:
    """How much a graph reads at a time that makes hits of traces. Part of a model's contract.

    Attributes
    ----------
    n_events : int
        Events of a batch.
    n_traces : int
        Traces of all its events, and so of the largest event.
    """

    n_events: int = 64
    n_traces: int = 16_384

    def __post_init__(self) -> None:
        if not (1 <= self.n_events <= 1 << 16 and 1 <= self.n_traces <= 1 << 24):
            raise ValueError("traces: a batch needs 1 to 65,536 events and 1 to 16,777,216 traces")

    def inputs(self, n_samples: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of each of the graph's inputs, for traces of so many samples.

        ``traces``: the samples. ``event``: index in the batch of a trace's event; -1: no hit is
        made of it. ``pads``: columns of :data:`PAD_FEATURES`. ``calibration``: time bucket of the
        window, and mm a time bucket.
        """
        return {
            "traces": ((self.n_traces, n_samples), np.int16),
            "event": ((self.n_traces,), np.int64),
            "pads": ((self.n_traces, len(PAD_FEATURES)), np.float32),
            "calibration": ((2,), np.float32),
        }


def pad_features(plane: PadPlane) -> NDArray[np.float32]:
    """What a trace's pad adds to its hits, computed as the compiled projection does.

    Returns
    -------
    ndarray of float32, shape (n_pads, 6)
        Columns of :data:`PAD_FEATURES`.
    """
    radius = np.sqrt(plane.x * plane.x + plane.y * plane.y)
    azimuth = np.arctan2(plane.y, plane.x)
    azimuth = np.where(azimuth < np.float32(np.pi), azimuth, -azimuth)  # a circle
    columns = [plane.x, plane.y, radius, azimuth, plane.gain, plane.time_offset]
    return np.column_stack(columns).astype(np.float32)


def gather_traces(
    records: Sequence[Record],
    detector: Detector,
    features: NDArray[np.float32],
    drop_beam_pads: bool,
    buffers: Mapping[str, NDArray[Any]],
) -> None:
    """Fill in what the graph reads of a batch of events.

    Parameters
    ----------
    records : sequence of Record
        The events; not more events, and not more traces, than the batch holds.
    detector : Detector
        Traces of pads outside its plane give no hit. Its calibration goes to the graph.
    features : ndarray of float32
        Of :func:`pad_features`.
    drop_beam_pads : bool
        Traces of the beam region's pads give none either.
    buffers : mapping of str to ndarray
        Arrays of :attr:`TraceBatch.inputs`.
    """
    plane, calibration = detector.plane, detector.calibration
    traces, event, pads = buffers["traces"], buffers["event"], buffers["pads"]
    wanted = ~plane.beam if drop_beam_pads else np.ones(len(plane.x), np.bool_)
    used = 0
    for index, record in enumerate(records):
        if record.traces is None:
            continue
        rows = slice(used, used + len(record.traces))
        traces[rows] = record.traces[:, N_HARDWARE_COLUMNS:]
        pad = record.traces[:, PAD_COLUMN].astype(np.int64)
        on_plane = (pad >= 0) & (pad < len(wanted))
        pad[~on_plane] = 0
        event[rows] = np.where(on_plane & wanted[pad], index, -1)
        pads[rows] = features[pad]
        used = rows.stop
    event[used:] = -1
    span = calibration.window_time_bucket - calibration.micromegas_time_bucket
    buffers["calibration"][:] = calibration.window_time_bucket, calibration.detector_length / span
