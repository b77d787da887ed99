"""Compiled loops of one trace: the peaks of its signal, or its largest sample.

Not typed: numba compiles each for the arrays that its caller hands over.
"""

import numpy as np

from attpc_filter.rebuild.signal_kernels import (
    BLOCK,
    base_level,
    extremes,
    inline,
    lowest_of,
    sums_in_any_order,
)

#: Multiplied with a number of one bit, this sequence of de Bruijn's has highest 5 bits that say
#: which bit it is.
_DE_BRUIJN = 0x077CB531
_PLACE_OF_BIT = np.argsort([(_DE_BRUIJN << bit & 0xFFFFFFFF) >> 27 for bit in range(BLOCK)])


@inline
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
    return lowest_of(signal[i + 1 : at + 1])


@inline
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
    return lowest_of(signal[at:i])


@inline
def _maxima(here, before, after, highest_below):
    """Bits of the samples that exceed ``highest_below`` and where a maximum begins."""
    bits = np.int32(0)
    for i in range(len(here)):
        begins = (here[i] > highest_below) & (before[i] < here[i]) & (after[i] <= here[i])
        bits |= np.int32(np.int32(begins) << np.int32(i))
    return np.int64(bits) & 0xFFFFFFFF


@inline
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


@inline
def _place_of(samples, highest):
    """Index of the first sample of this height, which one of them has."""
    start = 0
    while extremes(samples[start : start + BLOCK])[1] < highest:
        start += BLOCK
    while samples[start] < highest:
        start += 1
    return start


@sums_in_any_order
def largest_sample(trace, n_samples, threshold, scratch):
    """One hit a pad, the largest sample above the local base: 1 if there is one, else 0.

    The base is the mean of the samples that do not exceed mean + 1.5 sigma, the same samples that
    ``multi`` takes for its baseline; the integral runs while the signal stays positive. The first
    and the last sample are noisy and left out.
    """
    signal = scratch.blocks.reshape(-1)
    inner = trace[1 : n_samples - 1]
    lowest, highest = extremes(inner)
    if np.int32(highest) - np.int32(lowest) <= threshold:  # the base lies between them
        return 0
    base = np.int32(base_level(inner, scratch.kept[: len(inner)])[1])
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
