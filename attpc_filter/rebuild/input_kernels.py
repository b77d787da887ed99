"""The compiled loops that make a model's inputs of hits: projections and point sets.

Not typed: numba compiles each for the arrays that its caller hands over. All release the GIL.
"""

import numpy as np

from attpc_filter.compiled import njit


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
