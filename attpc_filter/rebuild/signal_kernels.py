"""Compiled loops of one trace: the signal, which is the trace less its baseline.

Not typed: numba compiles each for the arrays that its caller hands over.
"""

from typing import Any, NamedTuple

import numpy as np

from attpc_filter.compiled import njit

#: The loops go over a trace in blocks of this many samples.
BLOCK = 32
#: Blocks that stay this far below the threshold by the plain average hold no peak.
NEAR_ADC = 25.0
LARGE = 1.0e9
_MOST = np.iinfo(np.int16).max
#: In place of samples beyond the end of a trace, where its last block is not full.
_BELOW_ALL = -(1 << 20)
_N_LEVELS = 3  # sums over 5, 25 and 125 samples

# How the loops are compiled. An entry is called from Python. Everything else is taken into the
# entries: passing an array to a function costs seven numbers, and the scratch buffers would cost a
# hundred a call. numba puts `inline` functions into their caller before it compiles, so that each
# is compiled once, as part of that caller. `subtract_baseline` and `largest_sample` stay functions
# of their own, because only their sums may be reordered (`fastmath`); LLVM takes them into the
# entry. No loop makes an array, so numba need not count references (`_nrt`).
_FAST_SUMS = {"contract", "nsz", "reassoc"}
entry = njit(_nrt=False, nogil=True, cache=True, no_cfunc_wrapper=True)
inline = njit(inline="always", _nrt=False, nogil=True)
_inline_sums = njit(inline="always", _nrt=False, nogil=True, fastmath=_FAST_SUMS)
sums_in_any_order = njit(
    forceinline=True,
    _nrt=False,
    nogil=True,
    cache=True,
    fastmath=_FAST_SUMS,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)


class Scratch(NamedTuple):
    """Buffers that the loops over the traces of an event use again and again.

    Attributes
    ----------
    samples : ndarray of int16, shape (n_blocks * BLOCK,)
        A trace; the last block is full.
    kept : ndarray of int16, shape (n_samples,)
        Those of its samples that belong to the base.
    narrow, wide : ndarray of int16 and of int32, shape (n_levels, ...)
        The base less its mean, with a margin on either side, and its sums over 5, 25, ... samples;
        the last row is for the sums over the window.
    near, smooth : ndarray of float32
        The base of a block with a margin on either side, and that base smoothed.
    blocks : ndarray of int32, shape (n_blocks, BLOCK)
        The signal: the trace less its baseline.
    highs : ndarray of int32, shape (n_blocks,)
        Highest sample of each block of the signal.
    peaks, order, left, right : ndarray of int32, shape (n_samples / 2,)
        Positions of the peaks, their order by height, the first sample of each and the one after
        its last.
    keep : ndarray of bool, shape (n_samples / 2,)
        Which of the candidates are peaks.
    """

    samples: Any
    kept: Any
    narrow: Any
    wide: Any
    near: Any
    smooth: Any
    blocks: Any
    highs: Any
    peaks: Any
    order: Any
    left: Any
    right: Any
    keep: Any


def make_scratch(n_taps, n_samples):
    """Make buffers for traces of so many samples whose baseline is made with so many taps."""
    margin = -(-(n_taps - 1) // BLOCK) * BLOCK
    n_blocks = -(-n_samples // BLOCK)
    most_candidates = n_samples // 2
    rows = (_N_LEVELS + 2, n_samples + 10 * margin)
    return Scratch(
        np.empty(n_blocks * BLOCK, np.int16),
        np.empty(n_samples, np.int16),
        np.empty(rows, np.int16),
        np.empty(rows, np.int32),
        np.empty(BLOCK + 2 * margin, np.float32),
        np.empty(BLOCK, np.float32),
        np.empty((n_blocks, BLOCK), np.int32),
        np.empty(n_blocks, np.int32),
        np.empty(most_candidates, np.int32),
        np.empty(most_candidates, np.int32),
        np.empty(most_candidates, np.int32),
        np.empty(most_candidates, np.int32),
        np.empty(most_candidates, np.bool_),
    )


@inline
def _margin(reach):
    """Samples on either side of the base, for a filter that reaches so far: whole blocks."""
    return -(-reach // BLOCK) * BLOCK


@sums_in_any_order
def subtract_baseline(trace, n_samples, taps, width, threshold, scratch):
    """Write the trace less its baseline to the blocks; False if nothing can exceed ``threshold``.

    Baseline: samples above mean + 1.5 sigma are replaced by the mean of the others, then smoothed.
    The first and the last sample are noisy and replaced by their neighbour. Cut to integers,
    towards zero, where Spyral's arrays are integers: the mean that fills the base, and the signal.

    Blocks that come near the threshold are smoothed with ``taps``, as Spyral does; the others, of
    which only the lowest sample matters, with a plain average over ``width`` samples.

    Loops go over the lengths of arrays and views, and each does one thing: that is what the
    compiler vectorises. A loop of known, small length it unrolls instead; an index that could be
    negative, numba checks.
    """
    samples = scratch.samples
    if n_samples % BLOCK:  # a view of unknown length costs the usual traces 5% of the time
        samples = samples[:n_samples]
    for i in range(len(samples)):
        samples[i] = trace[i]
    samples[0] = samples[1]
    samples[-1] = samples[-2]
    lowest, highest = extremes(samples)
    if np.int32(highest) - np.int32(lowest) <= threshold:  # the baseline lies between them
        return False
    cut, filler = base_level(samples, scratch.kept)

    half = int((width - 1.0) / 2.0)
    # how far the base goes from its mean decides what its sums need
    most = max(highest if highest <= cut else cut, filler) - np.int32(filler)
    least = np.int32(filler) - min(lowest, filler)
    if (2 * half + 1) * max(most, least) <= _MOST:
        _subtract(
            samples, n_samples, cut, filler, half, taps, width, threshold, scratch, scratch.narrow
        )
    else:
        _subtract(
            samples, n_samples, cut, filler, half, taps, width, threshold, scratch, scratch.wide
        )
    return True


@_inline_sums
def _subtract(samples, n_samples, cut, filler, half, taps, width, threshold, scratch, levels):
    """Write the signal, and the highest sample of each of its blocks.

    The sums are made in ``levels``: of 16 bits where they fit, which is twice as many at a time.
    """
    blocks, highs = scratch.blocks, scratch.highs
    signal = blocks.reshape(-1)
    beyond_trace = signal[n_samples:]
    if n_samples % BLOCK:
        signal = signal[:n_samples]
    base = levels[0]
    margin = _margin(len(taps) - 1)
    centre = base[margin : margin + n_samples]
    for i in range(len(centre)):
        centre[i] = np.int32(samples[i] - filler) if samples[i] <= cut else np.int32(0)
    # the average goes round in a circle
    before = base[:margin]
    last = base[n_samples : n_samples + margin]
    for i in range(len(before)):
        before[i] = last[i]
    after = base[margin + n_samples : 2 * margin + n_samples]
    first = base[margin : 2 * margin]
    for i in range(len(after)):
        after[i] = first[i]

    # with the mean added again all numbers are whole ones below 2^24: exact in float32
    row = _window_sums(levels, margin - half, 2 * half + 1, n_samples, 2 * margin + n_samples)
    fraction = np.float32((width - 1.0) / 2.0 - half)
    norm = np.float32(1.0 / width)
    window = levels[row, margin - half :]
    below = base[margin - half - 1 :]
    beyond = base[margin + half + 1 :]
    in_window = np.int32((2 * half + 1) * np.int32(filler))
    beside = np.int32(2 * np.int32(filler))
    for i in range(len(signal)):
        inner = np.float32(np.int32(window[i] + in_window))
        outer = np.float32(np.int32(below[i] + beyond[i] + beside))
        average = (inner + fraction * outer) * norm
        signal[i] = np.int32(np.float32(samples[i]) - average)
    if n_samples % BLOCK:
        _fill(beyond_trace, _BELOW_ALL)

    near = np.int32(np.floor(threshold - NEAR_ADC))  # the samples are integers
    around = scratch.near
    for block in range(len(blocks)):
        highs[block] = _highest(blocks[block])
    for block in range(len(blocks)):
        here = blocks[block]
        if highs[block] > near:
            start = block * len(here)
            part = base[start:]
            for i in range(len(around)):
                around[i] = np.float32(np.int32(part[i] + filler))
            _smooth_block(
                scratch.samples[start:],
                around[margin - (len(taps) - 1) :],
                taps,
                scratch.smooth,
                here,
            )
            if n_samples % BLOCK:
                _fill(beyond_trace, _BELOW_ALL)
            highs[block] = _highest(here)


@inline
def _fill(values, value):
    for i in range(len(values)):
        values[i] = value


@_inline_sums
def base_level(samples, kept):
    """Highest sample of the base, mean + 1.5 sigma, and the mean of the base as an integer."""
    # sums of differences to one sample stay small, so that float32 holds them
    origin = np.float32(samples[0])
    total = np.float32(0.0)
    squares = np.float32(0.0)
    for i in range(len(samples)):
        above = np.float32(samples[i]) - origin
        total += above
        squares += above * above
    mean = total / len(samples)
    sigma = np.sqrt(max(squares / len(samples) - mean * mean, 0.0))
    # samples are integers: x - mean > 1.5 sigma is x > floor(mean + 1.5 sigma)
    cut = np.int16(min(np.floor(origin + mean + 1.5 * sigma), np.float64(_MOST)))
    for i in range(len(samples)):
        kept[i] = samples[i] if samples[i] <= cut else np.int16(0)
    total_kept = np.int32(0)
    for i in range(len(kept)):
        total_kept = np.int32(total_kept + kept[i])
    n_kept = np.int16(0)  # as wide as the samples, for as many at a time
    for i in range(len(samples)):
        n_kept = np.int16(n_kept + np.int16(samples[i] <= cut))
    return cut, np.int16(total_kept / max(n_kept, 1))


@inline
def _window_sums(levels, start, length, n_sums, n_values):
    """Make ``n_sums`` sums of ``length`` successive values from ``start`` + i on, five by five.

    The ``n_values`` values stand in ``levels[0]``; returns the row in which the sums stand, each
    at the index of its first value.
    """
    size = 1
    row = 0
    while 5 * size <= length:
        here = levels[row]
        _add_five(
            here,
            here[size:],
            here[2 * size :],
            here[3 * size :],
            here[4 * size :],
            levels[row + 1, :n_values],
        )
        size *= 5
        row += 1
    if size == length:
        return row
    sums = levels[-1, start : start + n_sums]
    part = levels[row, start:]
    for i in range(len(sums)):
        sums[i] = part[i]
    begin = start + size
    left = length - size
    while left:
        while left < size:
            size //= 5
            row -= 1
        part = levels[row, begin:]
        for i in range(len(sums)):
            sums[i] += part[i]
        begin += size
        left -= size
    return len(levels) - 1


@inline
def _add_five(one, two, three, four, five, total):
    for i in range(len(total)):
        total[i] = one[i] + two[i] + three[i] + four[i] + five[i]


@inline
def _highest(signal):
    high = signal[0]
    for i in range(len(signal)):
        high = max(high, signal[i])
    return high


@inline
def lowest_of(signal):
    """Lowest sample."""
    low = signal[0]
    for i in range(len(signal)):
        low = min(low, signal[i])
    return low


@inline
def extremes(signal):
    """Lowest and highest sample."""
    low = signal[0]
    high = signal[0]
    for i in range(len(signal)):
        low = min(low, signal[i])
        high = max(high, signal[i])
    return low, high


@_inline_sums
def _smooth_block(samples, base, taps, smooth, signal):
    """Samples less the base smoothed with ``taps``; the base begins a margin before the samples."""
    margin = len(taps) - 1
    centre = base[margin:]
    for i in range(len(signal)):
        smooth[i] = taps[0] * centre[i]
    # five taps a pass keep the sum in a register: the compiler vectorises over i
    for k in range(1, len(taps), 5):
        t0, t1, t2, t3, t4 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3], taps[k + 4]
        left = base[margin - k - 4 :]
        right = base[margin + k :]
        for i in range(len(signal)):
            smooth[i] += (
                t0 * (left[i + 4] + right[i])
                + t1 * (left[i + 3] + right[i + 1])
                + t2 * (left[i + 2] + right[i + 2])
                + t3 * (left[i + 1] + right[i + 3])
                + t4 * (left[i] + right[i + 4])
            )
    for i in range(len(signal)):
        signal[i] = np.int32(np.float32(samples[i]) - smooth[i])


@entry
def signal_of_trace(trace, taps, width, threshold, scratch):
    """Write the trace less its baseline to the blocks (see :func:`subtract_baseline`)."""
    subtract_baseline(trace, len(scratch.kept), taps, width, threshold, scratch)
