"""The compiled loops of :mod:`attpc_filter.rebuild.clean`."""

import math

import numpy as np

from attpc_filter.compiled import njit

#: Centres of arcs are looked for up to this far from the beam axis, in squares of this side [mm].
CENTRE_REACH = 500.0
CENTRE_SIDE = 20.0
_N_CENTRES = int(2 * CENTRE_REACH / CENTRE_SIDE)
#: Two hits whose middle normal goes through the centre of their arc: how far apart in x-y [mm], and
#: how many hits apart in the order of z at most.
_SHORTEST, _LONGEST = 20.0, 200.0
_PARTNERS = 8
#: Lines in a plane: angles of their normals, and bins of their distance [mm].
_N_ANGLES = 90
_DISTANCE_BIN = 8.0


@njit(cache=True, nogil=True)
def cut_lonely(offsets, place, radius, neighbours, kept):
    """Clear ``kept`` of hits with fewer neighbours within ``radius`` among those kept."""
    for event in range(len(offsets) - 1):
        start, stop = offsets[event], offsets[event + 1]
        rows = start + np.flatnonzero(kept[start:stop])
        order = rows[np.argsort(place[2, rows])]
        x, y, z = place[0, order], place[1, order], place[2, order]
        count = np.zeros(len(order), np.int64)
        for i in range(len(order)):
            j = i + 1
            while j < len(order) and z[j] - z[i] <= radius:
                if (x[j] - x[i]) ** 2 + (y[j] - y[i]) ** 2 + (z[j] - z[i]) ** 2 <= radius**2:
                    count[i] += 1
                    count[j] += 1
                j += 1
        for i in range(len(order)):
            if count[i] < neighbours:
                kept[order[i]] = False


@njit(cache=True, nogil=True)
def cut_off_lines(offsets, place, lines, line_hits, distance, kept):
    """Clear ``kept`` of hits that lie on no line of a spiral and on no straight track."""
    votes = np.zeros((_N_CENTRES, _N_CENTRES), np.int32)
    for event in range(len(offsets) - 1):
        start, stop = offsets[event], offsets[event + 1]
        rows = start + np.flatnonzero(kept[start:stop])
        if len(rows) == 0:
            continue
        order = rows[np.argsort(place[2, rows])]
        x, y, z = place[0, order], place[1, order], place[2, order]
        straight = np.zeros(len(order), np.bool_)
        near = np.zeros(len(order), np.bool_)
        keep_near_lines(x, y, 1, line_hits, distance, straight)
        centre_x, centre_y = find_centre(x, y, votes)
        radius = np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2)
        azimuth = np.arctan2(y - centre_y, x - centre_x)
        keep_near_lines(z, np.median(radius) * azimuth, lines, line_hits, distance, near)
        if straight.sum() > near.sum():
            near = straight
        for i in range(len(order)):
            kept[order[i]] = near[i]


@njit(cache=True, nogil=True)
def find_centre(x, y, votes):
    """Find the point on most middle normals of pairs of hits, which are in the order of z."""
    votes[:] = 0
    for i in range(len(x)):
        for j in range(i + 1, min(i + 1 + _PARTNERS, len(x))):
            across, up = x[j] - x[i], y[j] - y[i]
            length = math.sqrt(across**2 + up**2)
            if length < _SHORTEST or length > _LONGEST:
                continue
            # the middle normal, a cell a step
            step_x, step_y = -up / length * CENTRE_SIDE, across / length * CENTRE_SIDE
            middle_x, middle_y = (x[i] + x[j]) / 2, (y[i] + y[j]) / 2
            for sign in (-1, 1):
                for k in range(0 if sign > 0 else 1, 2 * _N_CENTRES):
                    column = int((middle_x + sign * k * step_x + CENTRE_REACH) / CENTRE_SIDE)
                    row = int((middle_y + sign * k * step_y + CENTRE_REACH) / CENTRE_SIDE)
                    if column < 0 or row < 0 or column >= _N_CENTRES or row >= _N_CENTRES:
                        break
                    votes[row, column] += 1
    best = np.argmax(votes)
    row, column = best // _N_CENTRES, best % _N_CENTRES
    return (
        (column + 0.5) * CENTRE_SIDE - CENTRE_REACH,
        (row + 0.5) * CENTRE_SIDE - CENTRE_REACH,
    )


@njit(cache=True, nogil=True)
def keep_near_lines(x, y, lines, line_hits, distance, near):
    """Set ``near`` for points near the lines with the most points, one line after the other."""
    reach = 0.0
    for i in range(len(x)):
        reach = max(reach, math.sqrt(x[i] ** 2 + y[i] ** 2))
    n_bins = int(2 * reach / _DISTANCE_BIN) + 2
    votes = np.zeros((_N_ANGLES, n_bins), np.int32)
    bins = np.empty((_N_ANGLES, len(x)), np.int32)
    for angle in range(_N_ANGLES):
        cosine = math.cos(math.pi * angle / _N_ANGLES)
        sine = math.sin(math.pi * angle / _N_ANGLES)
        for i in range(len(x)):
            bins[angle, i] = int((x[i] * cosine + y[i] * sine + reach) / _DISTANCE_BIN)
            votes[angle, bins[angle, i]] += 1
    for _ in range(lines):
        best = np.argmax(votes)
        angle, found = best // n_bins, best % n_bins
        cosine = math.cos(math.pi * angle / _N_ANGLES)
        sine = math.sin(math.pi * angle / _N_ANGLES)
        at = (found + 0.5) * _DISTANCE_BIN - reach
        on_line = np.empty(len(x), np.int64)
        n_on_line = 0
        for i in range(len(x)):
            if not near[i] and abs(x[i] * cosine + y[i] * sine - at) <= distance:
                on_line[n_on_line] = i
                n_on_line += 1
        if n_on_line < line_hits:
            return
        near[on_line[:n_on_line]] = True
        for other in range(_N_ANGLES):
            for k in range(n_on_line):
                votes[other, bins[other, on_line[k]]] -= 1
