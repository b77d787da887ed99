"""The compiled loops of rebuilding: one pass a trace, no temporary arrays, no Python loop.

Not typed: numba compiles each for the arrays that its caller hands over. All release the GIL, so
that threads can share the events of a batch.
"""

import numpy as np
from numba import njit

from attpc_filter.records import N_HARDWARE_COLUMNS, N_TIME_BUCKETS, PAD_COLUMN

_N = N_TIME_BUCKETS
_MAX_CANDIDATES = _N // 2
BLOCK = 32
#: Blocks that stay this far below the threshold by the plain average hold no peak.
_NEAR_ADC = 25.0
LARGE = 1.0e9
_N_BLOCKS = _N // BLOCK


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def hits_of_traces(
    traces,
    plane_x,
    plane_y,
    gain,
    time_offset,
    beam,
    drop_beam_pads,
    multi,
    taps,
    width,
    separation,
    prominence,
    max_width,
    threshold,
    max_peaks,
    pad_out,
    columns,
    used,
):
    """Append the hits of an event from ``used`` on; returns where the next event's begin."""
    samples = np.empty(_N, np.float32)
    base = np.empty(_N + 2 * len(taps) - 2, np.float32)
    running = np.empty(len(base) + 1, np.int32)
    smooth = np.empty(BLOCK, np.float32)
    signal = np.empty(_N, np.float32)
    peaks = np.empty(_MAX_CANDIDATES, np.int32)
    order = np.empty(_MAX_CANDIDATES, np.int32)
    keep = np.empty(_MAX_CANDIDATES, np.bool_)
    lows = np.empty(_N_BLOCKS, np.float32)
    highs = np.empty(_N_BLOCKS, np.float32)
    left = np.empty(_MAX_CANDIDATES, np.int32)
    right = np.empty(_MAX_CANDIDATES, np.int32)
    for row in range(traces.shape[0]):
        pad = traces[row, PAD_COLUMN]
        if pad < 0 or pad >= plane_x.shape[0] or (drop_beam_pads and beam[pad]):
            continue
        trace = traces[row, N_HARDWARE_COLUMNS:]
        if multi:
            if not subtract_baseline(
                trace,
                taps,
                width,
                samples,
                base,
                running,
                smooth,
                signal,
                lows,
                highs,
                threshold,
            ):
                continue
            n = find_peaks(
                signal,
                separation,
                prominence,
                max_width,
                threshold,
                peaks,
                order,
                keep,
                left,
                right,
                lows,
                highs,
            )
            if n > max_peaks:
                continue
        else:
            n = largest_sample(trace, threshold, signal, peaks, left, right)
        for k in range(n):
            at = peaks[k]
            total = np.float32(0.0)
            for i in range(left[k], right[k]):
                total += abs(signal[i])
            pad_out[used] = pad
            columns[0, used] = plane_x[pad]
            columns[1, used] = plane_y[pad]
            columns[3, used] = at + time_offset[pad]
            columns[4, used] = signal[at] * gain[pad]
            columns[5, used] = total * gain[pad]
            used += 1
    return used


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def subtract_baseline(
    trace, taps, width, samples, base, running, smooth, signal, lows, highs, threshold
):
    """Write the trace less its baseline to ``signal``; False if nothing can exceed ``threshold``.

    Baseline: samples above mean + 1.5 sigma are replaced by the mean of the others, then smoothed.
    The first and the last sample are noisy and replaced by their neighbour. Cut to integers,
    towards zero, where Spyral's arrays are integers: the mean that fills the base, and the signal.

    Blocks that come near the threshold are smoothed with ``taps``, as Spyral does; the others, of
    which only the lowest sample matters, with a plain average over ``width`` samples from a running
    sum. ``lows`` and ``highs`` get the extremes of each block of the signal. Scratch: ``samples``;
    ``base``, the samples with ``len(taps) - 1`` more on either side; ``running``, one longer;
    ``smooth``, a block.
    """
    margin = len(taps) - 1
    centre = base[margin:]
    for i in range(_N):
        samples[i] = trace[i]
    samples[0] = samples[1]
    samples[_N - 1] = samples[_N - 2]
    # sums of differences to one sample stay small, so that float32 holds them
    origin = samples[0]
    total = np.float32(0.0)
    squares = np.float32(0.0)
    for i in range(_N):
        above = samples[i] - origin
        total += above
        squares += above * above
    lowest = trace[1]
    highest = trace[1]
    for i in range(1, _N - 1):
        lowest = min(lowest, trace[i])
        highest = max(highest, trace[i])
    if np.int32(highest) - np.int32(lowest) <= threshold:  # the baseline lies between them
        return False
    mean = total / _N
    sigma = np.sqrt(max(squares / _N - mean * mean, 0.0))
    # samples are integers: x - mean > 1.5 sigma is x > floor(mean + 1.5 sigma)
    cut = np.int32(np.floor(origin + mean + 1.5 * sigma))
    kept = np.int32(0)
    kept_total = np.int32(0)
    for i in range(_N):
        sample = np.int32(samples[i])
        below = sample <= cut
        kept += np.int32(1) if below else np.int32(0)
        kept_total += sample if below else np.int32(0)
    filler = np.int32(kept_total / kept) if kept > 0 else np.int32(0)
    whole = running[margin + 1 :]
    for i in range(_N):
        sample = np.int32(samples[i])
        sample = sample if sample <= cut else filler
        whole[i] = sample
        centre[i] = np.float32(sample)
    for i in range(margin):
        base[i] = base[_N + i]
        base[margin + _N + i] = base[margin + i]
        running[i + 1] = running[_N + i + 1]
        running[margin + _N + i + 1] = running[margin + i + 1]
    summed = np.int32(0)
    running[0] = summed
    for i in range(1, len(running)):
        summed += running[i]
        running[i] = summed
    half = int((width - 1.0) / 2.0)
    fraction = np.float32((width - 1.0) / 2.0 - half)
    norm = np.float32(1.0 / width)
    # views, so that no index is negative: numba's check for that would stop the vectoriser
    low_end = running[margin - half :]
    high_end = running[margin + half + 1 :]
    before = base[margin - half - 1 :]
    after = base[margin + half + 1 :]
    for i in range(_N):
        window = np.float32(high_end[i] - low_end[i]) + fraction * (before[i] + after[i])
        signal[i] = np.float32(np.int32(samples[i] - window * norm))

    near = threshold - _NEAR_ADC
    for block in range(_N_BLOCKS):
        low = signal[block * BLOCK]
        high = low
        for i in range(block * BLOCK, block * BLOCK + BLOCK):
            low = min(low, signal[i])
            high = max(high, signal[i])
        if high > near:
            start = block * BLOCK
            for i in range(BLOCK):
                smooth[i] = taps[0] * centre[start + i]
            # eight taps a pass keep the sum in a register: the compiler vectorises over i
            for k in range(1, len(taps), 8):
                t0, t1, t2, t3 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
                t4, t5, t6, t7 = taps[k + 4], taps[k + 5], taps[k + 6], taps[k + 7]
                left = base[margin + start - k - 7 :]
                right = base[margin + start + k :]
                for i in range(BLOCK):
                    smooth[i] += (
                        t0 * (left[i + 7] + right[i])
                        + t1 * (left[i + 6] + right[i + 1])
                        + t2 * (left[i + 5] + right[i + 2])
                        + t3 * (left[i + 4] + right[i + 3])
                        + t4 * (left[i + 3] + right[i + 4])
                        + t5 * (left[i + 2] + right[i + 5])
                        + t6 * (left[i + 1] + right[i + 6])
                        + t7 * (left[i] + right[i + 7])
                    )
            low = np.float32(LARGE)
            high = np.float32(-LARGE)
            for i in range(BLOCK):
                here = np.float32(np.int32(samples[start + i] - smooth[i]))
                signal[start + i] = here
                low = min(low, here)
                high = max(high, here)
        lows[block] = low
        highs[block] = high
    return True


@njit(nogil=True, cache=True)
def find_peaks(
    signal,
    separation,
    prominence,
    max_width,
    threshold,
    peaks,
    order,
    keep,
    left,
    right,
    lows,
    highs,
):
    """Find peaks above a threshold as SciPy's ``find_peaks`` does.

    The same as ``find_peaks(signal, distance, prominence, width=(1, max), rel_height=0.95)``.

    Only local maxima above the threshold are looked at: lower ones can neither be kept nor, being
    lower, remove one that is. Returns the number of peaks; positions in ``peaks``, the samples from
    ``left`` to ``right`` (excluded) make the integral. ``lows`` and ``highs`` are the extremes of
    the signal's blocks: most blocks hold no peak, and the search for the lowest sample between a
    peak and the next higher one goes a block at a step.
    """
    distance = np.int32(np.ceil(separation))
    found = 0
    for block in range(_N_BLOCKS):
        if highs[block] <= threshold:
            continue
        for i in range(max(block * BLOCK, 1), min((block + 1) * BLOCK, _N - 1)):
            if signal[i] > threshold and signal[i - 1] < signal[i] and signal[i + 1] <= signal[i]:
                ahead = i + 1
                while ahead < _N - 1 and signal[ahead] == signal[i]:
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
        left_lowest = height
        i = at
        while i >= 0 and signal[i] <= height:
            if i % BLOCK == BLOCK - 1 and highs[i // BLOCK] <= height:
                left_lowest = min(left_lowest, lows[i // BLOCK])
                i -= BLOCK
            else:
                left_lowest = min(left_lowest, signal[i])
                i -= 1
        right_lowest = height
        i = at
        while i < _N and signal[i] <= height:
            if i % BLOCK == 0 and highs[i // BLOCK] <= height:
                right_lowest = min(right_lowest, lows[i // BLOCK])
                i += BLOCK
            else:
                right_lowest = min(right_lowest, signal[i])
                i += 1
        depth = height - max(left_lowest, right_lowest)
        if depth < prominence or depth == 0:
            continue
        level = height - depth * 0.95  # above the lowest sample on either side
        i = at
        while level < signal[i]:
            i -= 1
        left_cross = float(i)
        if signal[i] < level:
            left_cross += (level - signal[i]) / (signal[i + 1] - signal[i])
        i = at
        while level < signal[i]:
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


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def largest_sample(trace, threshold, signal, peaks, left, right):
    """One hit a pad, the largest sample above the local base: 1 if there is one, else 0.

    The base is the mean of the samples that do not exceed mean + 1.5 sigma, the same samples that
    ``multi`` takes for its baseline; the integral runs while the signal stays positive.
    """
    total = np.int64(0)
    squares = np.int64(0)
    highest = np.int32(trace[1])
    for i in range(1, _N - 1):
        sample = np.int32(trace[i])
        total += sample
        squares += np.int64(sample * sample)
        highest = max(highest, sample)
    mean = total / (_N - 2)
    if highest - mean <= 0.0:
        return 0
    sigma = np.sqrt(max(squares / (_N - 2) - mean * mean, 0.0))
    cut = np.int32(np.floor(mean + 1.5 * sigma))
    kept = 0
    kept_total = np.int64(0)
    for i in range(1, _N - 1):
        sample = np.int32(trace[i])
        below = sample <= cut
        kept += below
        kept_total += sample if below else 0
    base = np.int32(kept_total / kept) if kept > 0 else np.int32(mean)
    if highest - base <= threshold:
        return 0
    at = 1
    while trace[at] != highest:
        at += 1
    i = at
    while i > 0 and trace[i] > base:
        signal[i] = np.int32(trace[i]) - base
        i -= 1
    left[0] = i + 1
    i = at
    while i < _N - 1 and trace[i] > base:
        signal[i] = np.int32(trace[i]) - base
        i += 1
    right[0] = i
    peaks[0] = at
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
