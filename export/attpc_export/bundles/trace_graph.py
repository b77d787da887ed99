"""Traces to projections as a graph: the runtime's rebuilding, for a batch of traces at a time.

The same rules as :mod:`attpc_filter.rebuild.kernels`: a baseline by a moving average, SciPy's
``find_peaks`` (Virtanen et al., Nature Methods 17, 261: peaks by distance, the highest first, then
by prominence, then by width), pad positions, z, images of log charge. What a loop over a trace does
there is done here to all traces at once, along their 512 samples. Only operations that ONNX
Runtime's CUDA provider has a kernel for (by its docs/OperatorKernels.md) are used, and, but for the
baseline, numbers that float32 holds exactly.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from attpc_filter.rebuild.hits import HitSettings, baseline_taps
from attpc_filter.rebuild.projection import ProjectionSettings, axis_scales
from attpc_filter.rebuild.signal_kernels import BLOCK, NEAR_ADC
from attpc_filter.rebuild.traces import PAD_FEATURES
from attpc_filter.records import N_TIME_BUCKETS

Matrix = NDArray[np.float32]

_N = N_TIME_BUCKETS
_MOST = float(np.iinfo(np.int16).max)
_FAR = 1.0e9
#: Part of a peak's depth at which its width is taken.
_WIDTH_DEPTH = 0.95


class TraceGraph(nn.Module):
    """Makes projections and hit counts of traces.

    Parameters
    ----------
    hits : HitSettings
        How traces become hits.
    projection : ProjectionSettings
        Views, size, ranges and scale.
    n_events : int
        Events of a batch.
    """

    plain: Tensor
    smooth: Tensor

    def __init__(self, hits: HitSettings, projection: ProjectionSettings, n_events: int) -> None:
        super().__init__()
        self.hits, self.projection, self.n_events = hits, projection, n_events
        for name, matrix in zip(("plain", "smooth"), averaging_matrices(hits), strict=True):
            self.register_buffer(name, torch.from_numpy(matrix))
        self.low, self.pixels_per_unit = (
            dict(zip("xyzrp", map(float, part), strict=True)) for part in axis_scales(projection)
        )

    def forward(
        self, traces: Tensor, event: Tensor, pads: Tensor, calibration: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Make the images of a batch of events.

        Parameters
        ----------
        traces, event, pads, calibration
            See :meth:`attpc_filter.rebuild.traces.TraceBatch.inputs`.

        Returns
        -------
        images : Tensor of float32, shape (n_events, channels, size, size)
            The projections.
        n_hits : Tensor of int64, shape (n_events,)
            Hits of each event.
        """
        samples = traces.float()
        find = self._find_all if self.hits.mode == "multi" else self._find_largest
        row, bucket, height, is_hit = find(samples, event >= 0)
        pad = dict(zip(PAD_FEATURES, pads[row].unbind(1), strict=True))
        of_event = event[row].clamp(min=0)
        time_bucket = bucket + pad["time_offset"]
        coordinate = pad | {"z": (calibration[0] - time_bucket) * calibration[1]}
        charge = height * pad["gain"]

        size = self.projection.size
        n_views = len(self.projection.views)
        flat = torch.zeros(self.n_events * n_views * size * size)
        for number, view in enumerate(self.projection.views):
            column, up = (
                torch.floor((coordinate[axis] - self.low[axis]) * self.pixels_per_unit[axis])
                for axis in view
            )
            inside = is_hit & (charge > 0) & (column >= 0) & (column < size)
            inside = inside & (up >= 0) & (up < size)
            pixel = ((of_event * n_views + number) * size + up.long()) * size + column.long()
            pixel = torch.where(inside, pixel, 0)
            flat = flat.scatter_add(0, pixel, torch.where(inside, charge, 0.0))
        images = torch.log(flat + 1.0) * float(np.float32(1.0 / self.projection.scale))
        n_hits = torch.zeros(self.n_events).scatter_add(0, of_event, is_hit.float())
        return images.reshape(self.n_events, n_views, size, size), n_hits.long()

    def _find_all(self, samples: Tensor, is_used: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All peaks: trace, time bucket and height of candidates, and which of them are hits."""
        signal = self.subtract_baseline(samples, is_used)
        row, bucket, height, is_peak = self.find_peaks(signal)
        n_peaks = torch.zeros(len(samples)).scatter_add(0, row, is_peak.float())
        return row, bucket, height, is_peak & (n_peaks[row] <= self.hits.max_peaks)

    def find_peaks(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Peaks as SciPy's ``find_peaks`` finds them.

        Parameters
        ----------
        signal : Tensor of float32, shape (n, 512)
            Whole numbers.

        Returns
        -------
        row, bucket, height, is_peak : Tensor, shape (n_candidates,)
            Row, place and height of those that distance leaves, and which are peaks.
        """
        middle, is_candidate = _find_maxima(signal)
        is_candidate = is_candidate & (signal > self.hits.peak_threshold)
        is_kept = _keep_highest(signal, middle, is_candidate, math.ceil(self.hits.peak_separation))
        row, end = torch.nonzero(is_kept).unbind(1)
        bucket, height = middle[row, end], signal[row, end]
        return row, bucket, height, self._is_peak(signal[row], bucket[:, None], height[:, None])

    def _find_largest(
        self, samples: Tensor, is_used: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One hit a trace, its largest sample; otherwise as :meth:`_find_all`."""
        inner = samples[:, 1:-1]
        lowest, highest = inner.amin(1), inner.amax(1)
        _, base = _base_level(inner)
        height = highest - base[:, 0]
        threshold = self.hits.peak_threshold
        is_hit = is_used & (highest - lowest > threshold) & (height > threshold)
        buckets = torch.arange(1.0, _N - 1.0)
        bucket = torch.where(inner == highest[:, None], buckets, _FAR).amin(1)
        return torch.arange(len(samples)), bucket, height, is_hit

    def subtract_baseline(self, samples: Tensor, is_used: Tensor) -> Tensor:
        """Samples less their baseline, cut to integers; zeros where no peak can be.

        Blocks of samples that come near the threshold are smoothed with the taps, the others with
        a plain average, as the runtime does.
        """
        # the first and the last are noisy
        samples = torch.cat([samples[:, 1:2], samples[:, 1:-1], samples[:, -2:-1]], 1)
        cut, filler = _base_level(samples)
        # without its own level the base is small, and its average exact
        base = torch.where(samples <= cut, samples - filler, 0.0)
        signal = torch.trunc(samples - (base @ self.plain + filler))
        highest = signal.reshape(-1, _N // BLOCK, BLOCK).amax(2, keepdim=True)
        is_near = (highest > self.hits.peak_threshold - NEAR_ADC).expand(-1, -1, BLOCK)
        smooth = torch.trunc(samples - (base @ self.smooth + filler))
        signal = torch.where(is_near.reshape(-1, _N), smooth, signal)
        span = samples.amax(1) - samples.amin(1)
        is_used = is_used & (span > self.hits.peak_threshold)
        return torch.where(is_used[:, None], signal, 0.0)

    def _is_peak(self, signal: Tensor, at: Tensor, height: Tensor) -> Tensor:
        """Which candidates are prominent and narrow enough; a row of ``signal`` each."""
        bucket = torch.arange(float(_N))
        is_before, is_after = bucket <= at, bucket >= at
        is_higher = signal > height
        # the lowest sample on the way to the next that is higher, on either side
        begin = torch.where(is_higher & is_before, bucket, -1.0).amax(1, keepdim=True)
        end = torch.where(is_higher & is_after, bucket, float(_N)).amin(1, keepdim=True)
        lowest_before = torch.where(is_before & (bucket > begin), signal, _FAR).amin(1)
        lowest_after = torch.where(is_after & (bucket < end), signal, _FAR).amin(1)
        depth = height[:, 0] - torch.maximum(lowest_before, lowest_after)

        level = height[:, 0].double() - depth.double() * _WIDTH_DEPTH
        is_low = signal <= torch.floor(level).float()[:, None]  # the samples are integers
        left = torch.where(is_low & is_before, bucket, 0.0).amax(1)
        right = torch.where(is_low & is_after, bucket, float(_N - 1)).amin(1)
        width = _crossing(signal, level, right, -1) - _crossing(signal, level, left, 1)
        return (
            (depth >= self.hits.peak_prominence)
            & (depth > 0)
            & (width >= 1.0)
            & (width <= self.hits.peak_max_width)
        )


def averaging_matrices(hits: HitSettings) -> tuple[Matrix, Matrix]:
    """The baseline's two moving averages as products with a matrix, float32 (512, 512).

    The plain one runs over 512 / scale samples, the outermost taken in part; the other has the
    ripple of Spyral's cut at the Nyquist frequency, see
    :func:`attpc_filter.rebuild.hits.baseline_taps`.
    """
    reach = (_N / hits.baseline_window_scale - 1.0) / 2.0
    part = np.clip(reach + 1.0 - np.arange(int(reach) + 2), 0.0, 1.0)
    plain = (part * (hits.baseline_window_scale / _N)).astype(np.float32)
    return _circulant(plain), _circulant(baseline_taps(hits.baseline_window_scale, _N))


def _circulant(taps: NDArray[np.float32]) -> Matrix:
    """Sums with a tap for each distance, on either side, round in a circle."""
    matrix = np.zeros((_N, _N), np.float32)
    bucket = np.arange(_N)
    for distance, tap in enumerate(taps):
        matrix[bucket, (bucket + distance) % _N] = tap
        matrix[bucket, (bucket - distance) % _N] = tap
    return matrix


def _base_level(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Highest sample of the base, mean + 1.5 sigma, and the base's mean as an integer; (n, 1)."""
    origin = samples[:, :1]
    above = (samples - origin).double()
    mean = above.mean(1, keepdim=True)
    sigma = torch.sqrt(((above * above).mean(1, keepdim=True) - mean * mean).clamp(min=0.0))
    cut = torch.floor(origin + mean + 1.5 * sigma).clamp(max=_MOST).float()
    is_base = samples <= cut
    total = torch.where(is_base, samples, 0.0).sum(1, keepdim=True)
    return cut, torch.trunc(total / is_base.float().sum(1, keepdim=True).clamp(min=1.0))


def _find_maxima(signal: Tensor) -> tuple[Tensor, Tensor]:
    """Local maxima, given at the last sample of each: the middle of its equal samples, and whether.

    A maximum is a run of equal samples with a lower one on either side.
    """
    bucket = torch.arange(1.0, float(_N))
    step = signal[:, 1:] - signal[:, :-1]
    # where a run begins, and whether upwards, in one number; then the last one before each sample
    begin = torch.where(step == 0, 0.0, 2.0 * bucket + (step > 0).float())
    begin = F.pad(begin, (1, 0))
    shift = 1
    while shift < _N:
        begin = torch.maximum(begin, F.pad(begin[:, :-shift], (shift, 0)))
        shift *= 2
    first = torch.floor(begin / 2.0)
    is_upwards = begin > 2.0 * first
    falls = F.pad((step < 0).float(), (0, 1)) > 0
    return torch.floor((first + torch.arange(float(_N))) / 2.0), is_upwards & falls


def _keep_highest(signal: Tensor, at: Tensor, is_candidate: Tensor, distance: int) -> Tensor:
    """Candidates, the highest first, that are not near a higher one; the earlier of equal ones."""
    # height and place in one number, below 2^24
    rank = torch.where(is_candidate, signal * _N + (_N - 1 - at), -1.0)
    is_kept = torch.zeros_like(is_candidate)
    for _ in range((_N - 3) // max(distance, 1) + 1):
        best = rank.amax(1, keepdim=True)
        is_kept = is_kept | ((rank == best) & (best > 0))
        place = _N - 1 - (best - torch.floor(best / _N) * _N)
        rank = torch.where((at - place).abs() < distance, -1.0, rank)
    return is_kept


def _crossing(signal: Tensor, level: Tensor, at: Tensor, towards: int) -> Tensor:
    """Where a line from the sample at ``at`` to its neighbour reaches the level; float64."""
    index = at.long()[:, None]
    here = signal.gather(1, index)[:, 0].double()
    next_to = signal.gather(1, (index + towards).clamp(0, _N - 1))[:, 0].double()
    part = torch.where(here < level, (level - here) / (next_to - here), 0.0)
    return at.double() + towards * part
