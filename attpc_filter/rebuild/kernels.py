"""The compiled loops of rebuilding: one pass a trace, no temporary arrays, no Python loop.

Not typed: numba compiles each for the arrays that its caller hands over. All release the GIL.
"""

from typing import Any, NamedTuple

import numpy as np

from attpc_filter.compiled import njit
from attpc_filter.rebuild.detector import DEFAULT_SAMPLES
from attpc_filter.records import N_HARDWARE_COLUMNS, PAD_COLUMN

#: The loops go over a trace in blocks of this many samples.
BLOCK = 32
USUAL_SAMPLES = DEFAULT_SAMPLES
#: Blocks that stay this far below the threshold by the plain average hold no peak.
NEAR_ADC = 25.0
LARGE = 1.0e9
_MOST = np.iinfo(np.int16).max
#: In place of samples beyond the end of a trace, where its last block is not full.
_BELOW_ALL = -(1 << 20)
_N_LEVELS = 3  # sums over 5, 25 and 125 samples
#: Multiplied with a number of one bit, this sequence of de Bruijn's has highest 5 bits that say
#: which bit it is.
_DE_BRUIJN = 0x077CB531
_PLACE_OF_BIT = np.argsort([(_DE_BRUIJN << bit & 0xFFFFFFFF) >> 27 for bit in range(BLOCK)])


# How the loops are compiled. An entry is called from Python. Everything else is taken into the
# entries: passing an array to a function costs seven numbers, and the scratch buffers would cost a
# hundred a call. numba puts `inline` functions into their caller before it compiles, so that each
# is compiled once, as part of that caller. `subtract_baseline` and `largest_sample` stay functions
# of their own, because only their sums may be reordered (`fastmath`); LLVM takes them into the
# entry. No loop makes an array, so numba need not count references (`_nrt`).
_FAST_SUMS = {"contract", "nsz", "reassoc"}
_entry = njit(_nrt=False, nogil=True, cache=True, no_cfunc_wrapper=True)
_inline = njit(inline="always", _nrt=False, nogil=True)
_inline_sums = njit(inline="always", _nrt=False, nogil=True, fastmath=_FAST_SUMS)
_sums = njit(
    forceinline=True,
    _nrt=False,
    nogil=True,
    cache=True,
    fastmath=_FAST_SUMS,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)


class Scratch(NamedTuple):
    """Room that the loops over the traces of an event use again and again.

    Attributes
    ----------
    samples : ndarray of int16, shape (n_blocks * BLOCK,)
        A trace, with room for a full last block.
    kept : ndarray of int16, shape (n_samples,)
        Those of its samples that belong to the base.
    narrow, wide : ndarray of int16 and of int32, shape (n_levels, ...)
        The base less its mean, with a margin on either side, and its sums over 5, 25, ... samples;
        the last row has room for the sums over the window.
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


@_inline
def _margin(reach):
    """Samples on either side of the base, for a filter that reaches so far: whole blocks."""
    return -(-reach // BLOCK) * BLOCK


# The entries: each is compiled when it is first called, so that nobody waits for a mode or a number
# of samples that the model does not use.


def _make_multi_hits(known_samples):
    """Make the entry for all hits of traces of a known number of samples; 0: of any number."""

    @_entry
    def fill_in(
        scratch,
        traces,
        first_rows,
        plane_x,
        plane_y,
        gain,
        time_offset,
        beam,
        drop_beam_pads,
        threshold,
        pad_out,
        columns,
        offsets,
        taps,
        width,
        separation,
        prominence,
        max_width,
        max_peaks,
    ):
        """Fill in the hits of a batch; its events begin at ``first_rows`` of the traces."""
        n_samples = known_samples if known_samples else len(scratch.kept)
        signal = scratch.blocks.reshape(-1)
        used = 0
        offsets[0] = 0
        for event in range(len(first_rows) - 1):
            for row in range(first_rows[event], first_rows[event + 1]):
                pad = traces[row, PAD_COLUMN]
                if pad < 0 or pad >= plane_x.shape[0] or (drop_beam_pads and beam[pad]):
                    continue
                trace = traces[row, N_HARDWARE_COLUMNS : N_HARDWARE_COLUMNS + n_samples]
                if not subtract_baseline(trace, n_samples, taps, width, threshold, scratch):
                    continue
                n = find_peaks(
                    signal, n_samples, separation, prominence, max_width, threshold, scratch
                )
                if n > max_peaks:
                    continue
                for k in range(n):
                    _fill_in_hit(
                        scratch,
                        signal,
                        k,
                        pad,
                        plane_x,
                        plane_y,
                        gain,
                        time_offset,
                        pad_out,
                        columns,
                        used,
                    )
                    used += 1
            offsets[event + 1] = used

    return fill_in


multi_hits_of_traces = _make_multi_hits(0)
#: A known length makes it a quarter faster.
multi_hits_of_usual_traces = _make_multi_hits(USUAL_SAMPLES)


def _make_peak_hits(known_samples):
    """Make the entry for the largest hit of each trace; ``known_samples`` as above."""

    @_entry
    def fill_in(
        scratch,
        traces,
        first_rows,
        plane_x,
        plane_y,
        gain,
        time_offset,
        beam,
        drop_beam_pads,
        threshold,
        pad_out,
        columns,
        offsets,
    ):
        """Fill in the largest hit of each trace; events begin at ``first_rows`` of the traces."""
        n_samples = known_samples if known_samples else len(scratch.kept)
        signal = scratch.blocks.reshape(-1)
        used = 0
        offsets[0] = 0
        for event in range(len(first_rows) - 1):
            for row in range(first_rows[event], first_rows[event + 1]):
                pad = traces[row, PAD_COLUMN]
                if pad < 0 or pad >= plane_x.shape[0] or (drop_beam_pads and beam[pad]):
                    continue
                trace = traces[row, N_HARDWARE_COLUMNS : N_HARDWARE_COLUMNS + n_samples]
                if largest_sample(trace, n_samples, threshold, scratch):
                    _fill_in_hit(
                        scratch,
                        signal,
                        0,
                        pad,
                        plane_x,
                        plane_y,
                        gain,
                        time_offset,
                        pad_out,
                        columns,
                        used,
                    )
                    used += 1
            offsets[event + 1] = used

    return fill_in


peak_hits_of_traces = _make_peak_hits(0)
peak_hits_of_usual_traces = _make_peak_hits(USUAL_SAMPLES)


@_inline
def _fill_in_hit(
    scratch, signal, peak, pad, plane_x, plane_y, gain, time_offset, pad_out, columns, row
):
    """Fill in a row: the hit of a trace's peak number ``peak``."""
    at = scratch.peaks[peak]
    part = signal[scratch.left[peak] : scratch.right[peak]]
    total = np.int32(0)  # at most 4096 samples of at most 65535 each
    for i in range(len(part)):
        total = np.int32(total + abs(part[i]))
    pad_out[row] = pad
    columns[0, row] = plane_x[pad]
    columns[1, row] = plane_y[pad]
    columns[3, row] = at + time_offset[pad]
    columns[4, row] = signal[at] * gain[pad]
    columns[5, row] = total * gain[pad]


@_sums
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
    lowest, highest = _extremes(samples)
    if np.int32(highest) - np.int32(lowest) <= threshold:  # the baseline lies between them
        return False
    cut, filler = _base_level(samples, scratch.kept)

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


@_inline
def _fill(values, value):
    for i in range(len(values)):
        values[i] = value


@_inline_sums
def _base_level(samples, kept):
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


@_inline
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


@_inline
def _add_five(one, two, three, four, five, total):
    for i in range(len(total)):
        total[i] = one[i] + two[i] + three[i] + four[i] + five[i]


@_inline
def _highest(signal):
    high = signal[0]
    for i in range(len(signal)):
        high = max(high, signal[i])
    return high


@_inline
def _lowest(signal):
    low = signal[0]
    for i in range(len(signal)):
        low = min(low, signal[i])
    return low


@_inline
def _extremes(signal):
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


@_entry
def signal_of_trace(trace, taps, width, threshold, scratch):
    """Write the trace less its baseline to the blocks (see :func:`subtract_baseline`)."""
    subtract_baseline(trace, len(scratch.kept), taps, width, threshold, scratch)


@_inline
def _lowest_before(signal, highs, at):
    """Lowest sample on the way from ``at`` down to the first that is higher."""
    height = signal[at]
    i = at
    for block in range(at // BLOCK, -1, -1):
        begin = block * BLOCK
        if highs[block] <= height:
            i = begin - 1
            continue
        while i >= begin and signal[i] <= height:
            i -= 1
        if i >= begin:
            break
    return _lowest(signal[i + 1 : at + 1])


@_inline
def _lowest_after(signal, n_samples, highs, at):
    """Lowest sample on the way from ``at`` up to the first that is higher."""
    height = signal[at]
    i = at
    for block in range(at // BLOCK, len(highs)):
        end = (block + 1) * BLOCK
        if highs[block] <= height:
            i = end
            continue
        while i < end and signal[i] <= height:
            i += 1
        if i < end:
            break
    if n_samples % BLOCK:
        i = min(i, n_samples)
    return _lowest(signal[at:i])


@_inline
def _maxima(here, before, after, highest_below):
    """Bits of the samples that exceed ``highest_below`` and where a maximum begins."""
    bits = np.int32(0)
    for i in range(len(here)):
        begins = (here[i] > highest_below) & (before[i] < here[i]) & (after[i] <= here[i])
        bits |= np.int32(np.int32(begins) << np.int32(i))
    return np.int64(bits) & 0xFFFFFFFF


@_inline
def find_peaks(signal, n_samples, separation, prominence, max_width, threshold, scratch):
    """Find peaks above a threshold as SciPy's ``find_peaks`` does.

    The same as ``find_peaks(signal, distance, prominence, width=(1, max), rel_height=0.95)``.

    Only local maxima above the threshold are looked at: lower ones can neither be kept nor, being
    lower, remove one that is. Returns the number of peaks; positions in ``peaks``, the samples from
    ``left`` to ``right`` (excluded) make the integral. ``highs`` are the highest samples of the
    signal's blocks: most blocks hold no peak, and the search for the next higher sample goes a
    block at a step.
    """
    peaks, order, keep = scratch.peaks, scratch.order, scratch.keep
    left, right, highs = scratch.left, scratch.right, scratch.highs
    distance = np.int32(np.ceil(separation))
    highest_below = np.int32(np.floor(threshold))  # the samples are integers
    n_blocks = -(-n_samples // BLOCK)
    found = 0
    for block in range(n_blocks):
        if highs[block] <= highest_below:
            continue
        # the first and the last sample have no neighbour to exceed
        start = block * BLOCK + (block == 0)
        stop = min((block + 1) * BLOCK, n_samples - 1)
        maxima = _maxima(
            signal[start:stop], signal[start - 1 :], signal[start + 1 :], highest_below
        )
        while maxima:
            lowest_bit = maxima & -maxima
            maxima ^= lowest_bit
            i = start + _PLACE_OF_BIT[(lowest_bit * _DE_BRUIJN & 0xFFFFFFFF) >> 27]
            ahead = i + 1
            while ahead < n_samples - 1 and signal[ahead] == signal[i]:
                ahead += 1
            if signal[ahead] < signal[i]:
                peaks[found] = (i + ahead - 1) // 2
                keep[found] = True
                found += 1

    # highest first, each removes its neighbours; of equal ones the earlier goes first (SciPy's
    # order among equal ones is its sort's, which no one promises)
    for k in range(found):
        order[k] = k
    for k in range(1, found):  # insertion sort, ascending: there are few
        this = order[k]
        j = k - 1
        while j >= 0 and signal[peaks[order[j]]] >= signal[peaks[this]]:
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = this
    for position in range(found - 1, -1, -1):
        best = order[position]
        if not keep[best]:
            continue
        k = best - 1
        while k >= 0 and peaks[best] - peaks[k] < distance:
            keep[k] = False
            k -= 1
        k = best + 1
        while k < found and peaks[k] - peaks[best] < distance:
            keep[k] = False
            k += 1

    n = 0
    for k in range(found):
        if not keep[k]:
            continue
        at = peaks[k]
        height = signal[at]
        left_lowest = _lowest_before(signal, highs, at)
        right_lowest = _lowest_after(signal, n_samples, highs, at)
        depth = height - max(left_lowest, right_lowest)
        if depth < prominence or depth == 0:
            continue
        level = height - depth * 0.95  # above the lowest sample on either side
        whole_level = np.int32(np.floor(level))
        i = at
        while signal[i] > whole_level:
            i -= 1
        left_cross = float(i)
        if signal[i] < level:
            left_cross += (level - signal[i]) / (signal[i + 1] - signal[i])
        i = at
        while signal[i] > whole_level:
            i += 1
        right_cross = float(i)
        if signal[i] < level:
            right_cross -= (level - signal[i]) / (signal[i - 1] - signal[i])
        if not 1.0 <= right_cross - left_cross <= max_width:
            continue
        peaks[n] = at
        left[n] = int(np.floor(left_cross))
        right[n] = int(np.ceil(right_cross))
        n += 1
    return n


@_inline
def _place_of(samples, highest):
    """Index of the first sample of this height, which one of them has."""
    start = 0
    while _extremes(samples[start : start + BLOCK])[1] < highest:
        start += BLOCK
    while samples[start] < highest:
        start += 1
    return start


@_sums
def largest_sample(trace, n_samples, threshold, scratch):
    """One hit a pad, the largest sample above the local base: 1 if there is one, else 0.

    The base is the mean of the samples that do not exceed mean + 1.5 sigma, the same samples that
    ``multi`` takes for its baseline; the integral runs while the signal stays positive. The first
    and the last sample are noisy and left out.
    """
    signal = scratch.blocks.reshape(-1)
    inner = trace[1 : n_samples - 1]
    lowest, highest = _extremes(inner)
    if np.int32(highest) - np.int32(lowest) <= threshold:  # the base lies between them
        return 0
    base = np.int32(_base_level(inner, scratch.kept[: len(inner)])[1])
    if highest - base <= threshold:
        return 0
    at = 1 + _place_of(inner, highest)
    i = at
    while i > 0 and trace[i] > base:
        signal[i] = np.int32(trace[i]) - base
        i -= 1
    scratch.left[0] = i + 1
    i = at
    while i < n_samples - 1 and trace[i] > base:
        signal[i] = np.int32(trace[i]) - base
        i += 1
    scratch.right[0] = i
    scratch.peaks[0] = at
    return 1


@njit(nogil=True, cache=True)
def project(starts, stops, x, y, z, charge, axes, low, pixels_per_unit, factor, images):
    """Fill the image of each event; see :func:`attpc_filter.rebuild.projection.project`."""
    size = images.shape[2]
    coordinate = np.empty(5, np.float32)
    for event in range(len(starts)):
        image = images[event]
        image[:] = 0.0
        start = starts[event]
        stop = stops[event]
        pixel = np.empty((stop - start, len(axes)), np.int32)
        for hit in range(start, stop):
            coordinate[0] = x[hit]
            coordinate[1] = y[hit]
            coordinate[2] = z[hit]
            coordinate[3] = np.sqrt(x[hit] * x[hit] + y[hit] * y[hit])
            azimuth = np.arctan2(y[hit], x[hit])
            coordinate[4] = azimuth if azimuth < np.float32(np.pi) else -azimuth  # a circle
            for view in range(len(axes)):
                across = axes[view, 0]
                up = axes[view, 1]
                column = np.floor((coordinate[across] - low[across]) * pixels_per_unit[across])
                row = np.floor((coordinate[up] - low[up]) * pixels_per_unit[up])
                inside = 0 <= column < size and 0 <= row < size and charge[hit] > 0
                pixel[hit - start, view] = int(row) * size + int(column) if inside else -1
                if inside:
                    image[view, int(row), int(column)] += charge[hit]
        # the logarithm of each lit pixel once: a negative value marks those that have theirs
        for view in range(len(axes)):
            flat = image[view].reshape(-1)
            for hit in range(stop - start):
                at = pixel[hit, view]
                if at >= 0 and flat[at] > 0:
                    flat[at] = -np.log1p(flat[at]) * factor
            for hit in range(stop - start):
                at = pixel[hit, view]
                if at >= 0:
                    flat[at] = abs(flat[at])


@njit(nogil=True, cache=True)
def gather_points(starts, stops, x, y, z, charge, radius, z_low, z_high, points):
    """Fill the points of each event; see :func:`attpc_filter.rebuild.point_set.gather_points`."""
    n_points = points.shape[1]
    most = 0
    for event in range(len(starts)):
        most = max(most, stops[event] - starts[event])
    inside = np.empty(most, np.int64)
    hashes = np.empty(most, np.uint32)
    for event in range(len(starts)):
        n = 0
        for hit in range(starts[event], stops[event]):
            near = x[hit] * x[hit] + y[hit] * y[hit] <= radius * radius
            if near and z_low <= z[hit] <= z_high and charge[hit] > 0:
                inside[n] = hit
                n += 1
        if n > n_points:
            for i in range(n):
                hit = inside[i]
                hashes[i] = _hash(x[hit], y[hit], z[hit], charge[hit])
            limit = np.sort(hashes[:n])[n_points - 1]
        row = 0
        for i in range(n):
            if row == n_points:
                break
            if n > n_points and hashes[i] > limit:
                continue
            hit = inside[i]
            points[event, row, 0] = x[hit]
            points[event, row, 1] = y[hit]
            points[event, row, 2] = z[hit]
            points[event, row, 3] = np.log1p(charge[hit])
            points[event, row, 4] = 1.0
            row += 1
        points[event, row:] = 0.0


@njit(nogil=True, cache=True)
def _hash(x, y, z, charge):
    """Hash of a hit; positions to 0.1 mm and charges to 0.1 ADC, so that rounding does no harm."""
    mixed = np.uint32(2166136261)
    for value in (x, y, z, charge):
        mixed ^= np.uint32(np.int32(np.rint(value * np.float32(10.0))))
        mixed = np.uint32(mixed * np.uint32(16777619))
        mixed ^= mixed >> np.uint32(15)
        mixed = np.uint32(mixed * np.uint32(0x85EBCA6B))
        mixed ^= mixed >> np.uint32(13)
    return mixed
