"""Traces to hits: baseline, peak search, pad positions, z.

Two ways. ``multi`` finds what Spyral's PointcloudPhase finds (baseline by a moving average, SciPy's
``find_peaks``); ``peak`` takes one hit a pad, the largest sample above the local base, as the data
of the thesis were made.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from attpc_filter.rebuild import kernels, signal_kernels
from attpc_filter.rebuild.detector import (
    DEFAULT_SAMPLES,
    Detector,
    check_samples,
    z_of_time_bucket,
)
from attpc_filter.records import N_HARDWARE_COLUMNS, Hits, Point, Record, join_hits

_RIPPLE_SAMPLES = 12
_MOST_WINDOW_SCALE = 512
_MOST_PEAKS = 1024

Mode = Literal["multi", "peak"]


@dataclass(frozen=True, slots=True)
class HitSettings:
    """How traces become hits. Part of a model's contract: the model saw hits made this way.

    Attributes
    ----------
    mode : {"multi", "peak"}
        All peaks of a trace, or the largest sample only.
    baseline_window_scale : float
        The baseline is a moving average over n_samples / scale time buckets (``multi``).
    peak_separation : float
        Smallest distance between two peaks [time buckets].
    peak_prominence : float
        Smallest prominence of a peak [ADC].
    peak_max_width : float
        Largest width of a peak at 95% of its depth [time buckets].
    peak_threshold : float
        A hit's amplitude must exceed this [ADC] (both modes).
    max_peaks : int
        Traces with more peaks are dropped whole.
    drop_beam_pads : bool
        Leave out the pads of the beam region.
    min_hits : int
        Events with fewer hits are not scored.
    """

    mode: Mode = "multi"
    baseline_window_scale: float = 20.0
    peak_separation: float = 50.0
    peak_prominence: float = 20.0
    peak_max_width: float = 50.0
    peak_threshold: float = 40.0
    max_peaks: int = 5
    drop_beam_pads: bool = True
    min_hits: int = 5

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"unknown hits mode {self.mode!r}")
        if not 1 <= self.baseline_window_scale <= _MOST_WINDOW_SCALE:
            raise ValueError(f"hits: baseline_window_scale is not in 1 to {_MOST_WINDOW_SCALE}")
        if not (1 <= self.peak_separation < math.inf and 0 < self.peak_max_width < math.inf):
            raise ValueError("hits: peak_separation must be 1 or more, peak_max_width positive")
        if not (0 <= self.peak_prominence < math.inf and 0 <= self.peak_threshold < math.inf):
            raise ValueError("hits: peak_prominence and peak_threshold must not be negative")
        if not 1 <= self.max_peaks <= _MOST_PEAKS or self.min_hits < 0:
            raise ValueError(f"hits: max_peaks must be in 1 to {_MOST_PEAKS}, min_hits 0 or more")


def rebuild_hits(records: list[Record], detector: Detector, settings: HitSettings) -> Hits:
    """Rebuild the hits of a batch of events.

    Parameters
    ----------
    records : list of Record
        Events with a trace matrix, with points, or with neither (unreadable: no hits).
        All trace matrices have the same number of columns.
    detector : Detector
        Pads and drift; traces of pads outside the plane give no hit. The number of samples is that
        of the matrices. Points that have only a time bucket get their z from the calibration.
    settings : HitSettings
        How traces become hits. Points were made elsewhere: they only come into the models' frame.

    Returns
    -------
    Hits
        Hits of event ``i`` in the order of its traces (and of its points).

    Raises
    ------
    ValueError
        If there are fewer than 32 samples, or more than 4096.
    """
    plane, calibration = detector.plane, detector.calibration
    matrices = [record.traces for record in records if record.traces is not None]
    if not matrices:
        return _hits_of_points(records, detector)
    if any(record.points is not None for record in records):
        each = [rebuild_hits([record], detector, settings) for record in records]
        return join_hits(each)
    rows = [0 if record.traces is None else len(record.traces) for record in records]
    most_hits = sum(rows) * (settings.max_peaks if settings.mode == "multi" else 1)
    # pad, x, y, z, time bucket, charge, integral: filled by the kernels, cut to size at the end
    pad = np.empty(most_hits, np.int32)
    columns = np.empty((6, most_hits), np.float32)
    offsets = np.empty(len(records) + 1, np.int64)
    traces = _one_matrix(matrices)
    n_samples = traces.shape[1] - N_HARDWARE_COLUMNS
    check_samples(n_samples)
    taps = baseline_taps(settings.baseline_window_scale, n_samples)
    scratch = signal_kernels.make_scratch(len(taps), n_samples)
    common = (
        traces,
        np.concatenate([[0], np.cumsum(rows)]),
        plane.x,
        plane.y,
        plane.gain,
        plane.time_offset,
        plane.beam,
        settings.drop_beam_pads,
        settings.peak_threshold,
        pad,
        columns,
        offsets,
    )
    usual = n_samples == DEFAULT_SAMPLES
    if settings.mode == "multi":
        fill = kernels.multi_hits_of_usual_traces if usual else kernels.multi_hits_of_traces
        fill(
            scratch,
            *common,
            taps,
            n_samples / settings.baseline_window_scale,
            settings.peak_separation,
            settings.peak_prominence,
            settings.peak_max_width,
            settings.max_peaks,
        )
    else:
        fill = kernels.peak_hits_of_usual_traces if usual else kernels.peak_hits_of_traces
        fill(scratch, *common)
    used = int(offsets[-1])
    columns[2, :used] = z_of_time_bucket(columns[3, :used], calibration)
    x, y, z, time_bucket, charge, integral = columns[:, :used]
    x, y, z = detector.frame.to_model(x, y, z, calibration.detector_length)
    return Hits(offsets, pad[:used], x, y, z, time_bucket, charge, integral)


def _one_matrix(matrices: list[NDArray[np.int16]]) -> NDArray[np.int16]:
    """The rows of all matrices; no copy if they lie behind one another, as a reader puts them."""
    filled = [matrix for matrix in matrices if len(matrix)] or matrices[:1]
    ends = [matrix.__array_interface__["data"][0] + matrix.nbytes for matrix in filled]
    begins = [matrix.__array_interface__["data"][0] for matrix in filled[1:]]
    base = filled[0].base
    if (
        base is None
        or any(m.base is not base or not m.flags.c_contiguous for m in filled)
        or begins != ends[:-1]
    ):
        return np.concatenate(filled)
    shape = (sum(map(len, filled)), filled[0].shape[1])
    return as_strided(filled[0], shape)


def _hits_of_points(records: list[Record], detector: Detector) -> Hits:
    """Hits of events that come with points; z made of the time bucket if it lacks."""
    calibration = detector.calibration
    none = np.empty((0, len(Point)))
    tables = [none if r.points is None else r.points[:, : len(Point)] for r in records]
    offsets = np.concatenate([[0], np.cumsum([len(table) for table in tables])]).astype(np.int64)
    points = np.concatenate(tables) if tables else none
    columns = np.ascontiguousarray(points[:, : Point.PAD].T, np.float32)
    for index in range(len(records)):  # an event has its z, or has none
        part = slice(offsets[index], offsets[index + 1])
        if np.isnan(columns[Point.Z, part]).any():
            time_buckets = columns[Point.TIME_BUCKET, part]
            columns[Point.Z, part] = z_of_time_bucket(time_buckets, calibration)
    if not detector.frame.is_plain:
        in_detector = np.repeat([not r.in_model_frame for r in records], np.diff(offsets))
        x, y, z = columns[:3, in_detector]
        columns[:3, in_detector] = detector.frame.to_model(x, y, z, calibration.detector_length)
    x, y, z, time_bucket, charge, integral = columns
    return Hits(
        offsets, points[:, Point.PAD].astype(np.int32), x, y, z, time_bucket, charge, integral
    )


@functools.lru_cache
def baseline_taps(window_scale: float, n_samples: int) -> NDArray[np.float32]:
    """Taps of the baseline's moving average, one side.

    Spyral multiplies the Fourier transform of the base with sinc(k / scale), k = -256 .. 255 for
    512 samples. That is a circular moving average over 512 / scale samples whose edges ripple,
    because the transform is cut at the Nyquist frequency. The ripple decides where a saturated,
    flat-topped peak has its largest sample, so the taps follow it for 12 samples beyond the edge
    (0.1% of the hits then differ; 1% without it).

    Parameters
    ----------
    window_scale : float
        Spyral's ``baseline_window_scale``.
    n_samples : int
        Samples of a trace.

    Returns
    -------
    ndarray of float32, shape (1 + a multiple of 5,)
        Centre tap, then the taps at distance 1, 2, ...; each holds for both sides; their sum is 1.
    """
    frequencies = np.arange(n_samples) - n_samples // 2
    kernel = np.fft.ifft(np.fft.ifftshift(np.sinc(frequencies / window_scale))).real
    reach = min(int(np.ceil(n_samples / window_scale / 2)) + _RIPPLE_SAMPLES, n_samples // 2 - 5)
    taps = np.zeros(1 + -(-reach // 5) * 5)
    taps[: reach + 1] = kernel[: reach + 1]
    normalised: NDArray[np.float32] = (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)
    return normalised


def subtract_baseline(trace: NDArray[np.int16], window_scale: float) -> NDArray[np.float32]:
    """A trace less its baseline, as the peak search of ``multi`` sees it (for pictures, tests).

    Parameters
    ----------
    trace : ndarray of int16, shape (n_samples,)
        The ADC samples.
    window_scale : float
        The moving average runs over n_samples / scale time buckets.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Samples above the baseline [ADC], cut to integers.
    """
    taps = baseline_taps(window_scale, len(trace))
    scratch = signal_kernels.make_scratch(len(taps), len(trace))
    signal_kernels.signal_of_trace(
        np.ascontiguousarray(trace, np.int16),
        taps,
        len(trace) / window_scale,
        -signal_kernels.LARGE,
        scratch,
    )
    signal: NDArray[np.float32] = scratch.blocks.reshape(-1)[: len(trace)].astype(np.float32)
    return signal
