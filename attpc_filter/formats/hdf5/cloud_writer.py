"""Clouds of other programs' written as a run: in the layout of Spyral's point clouds."""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from attpc_filter import __version__
from attpc_filter.errors import InputError, OutputError

_Cloud = tuple[int | None, NDArray[np.float64]]

#: What :func:`write_clouds` takes of each point.
CLOUD_COLUMNS = ("x_mm", "y_mm", "z_mm", "time_bucket", "charge_adc")
#: No detector reaches so far [mm]; -9999 stands for a pad that is not mapped.
_FARTHEST_MM = 5000.0


def write_clouds(path: Path, clouds: Iterable[tuple[int, NDArray[np.float64]]]) -> int:
    """Write clouds as a run that ``attpc-filter run`` and Spyral read.

    Parameters
    ----------
    path : Path
        HDF5 file to write.
    clouds : iterable of (int, ndarray of float64, shape (n, 5))
        Event number and points: x, y, z [mm], time bucket, charge [ADC]. Points come sorted by z in
        the file; their integrals are 0, their pads -1: nobody knows them.

    Returns
    -------
    int
        Events written.

    Raises
    ------
    InputError
        If an event is there twice, or its points are no finite numbers.
    OutputError
        If the file cannot be written.
    """
    numbers: list[int] = []
    try:
        with h5py.File(path, "w") as file:
            group = file.create_group("cloud")
            for number, points in clouds:
                if points.ndim != 2 or points.shape[1] != len(CLOUD_COLUMNS):
                    raise InputError(f"event {number}: points of shape {points.shape}, not (n, 5)")
                if not np.isfinite(points).all():
                    raise InputError(f"event {number}: a number that is not finite")
                if f"cloud_{number}" in group:
                    raise InputError(f"event {number} is there twice")
                table = np.zeros((len(points), 8))
                table[:, :3], table[:, 3], table[:, 6] = points[:, :3], points[:, 4], points[:, 3]
                table[:, 5], table[:, 7] = -1, 1
                group[f"cloud_{number}"] = table[np.argsort(table[:, 2], kind="stable")]
                numbers.append(number)
            if not numbers:
                raise InputError("no event")
            group.attrs["min_event"], group.attrs["max_event"] = min(numbers), max(numbers)
            file.attrs["attpc_filter"] = __version__
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error
    return len(numbers)


def read_foreign_clouds(path: Path) -> list[_Cloud]:
    """Read clouds from a text file or a ``.npy`` array.

    Parameters
    ----------
    path : Path
        A text with rows ``x y z bucket charge``, each event below a line ``Event ID : N`` (without
        such a line the file is one event); or a NumPy array (n, 5) or (n_events, n, 5), whose rows
        that are not finite are left out.

    Returns
    -------
    list of (int or None, ndarray of float64, shape (n, 5))
        Number, if the file says one, and points of each event. Points at x or y = -9999, which have
        no pad, are left out.

    Raises
    ------
    InputError
        If the file cannot be read, or a row is no point.
    """
    try:
        if path.suffix == ".npy":
            events = _of_array(path, np.load(path, allow_pickle=False))
        else:
            events = _of_text(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: neither text nor a .npy array of numbers: {error}") from error
    return [
        (number, points[(np.abs(points[:, :2]) < _FARTHEST_MM).all(axis=1)])
        for number, points in events
    ]


def _of_array(path: Path, array: NDArray[np.float64]) -> list[_Cloud]:
    if array.ndim not in (2, 3) or array.shape[-1] != len(CLOUD_COLUMNS):
        raise InputError(
            f"{path}: an array of shape {array.shape}; give (n, 5) or (n_events, n, 5):"
            f" {', '.join(CLOUD_COLUMNS)}"
        )
    tables = np.asarray(array, np.float64).reshape(-1, *array.shape[-2:])
    return [(None, table[np.isfinite(table).all(axis=1)]) for table in tables]


def _of_text(path: Path, text: str) -> list[_Cloud]:
    events: list[tuple[int | None, list[list[float]]]] = []
    for line, row in enumerate(text.splitlines(), 1):
        cells = row.replace(",", " ").split()
        if not cells or cells[0].startswith("#"):
            continue
        if cells[0] == "Event":
            number = cells[-1]
            if not number.isdigit():
                raise InputError(f"{path}: row {line}: {row.strip()!r} names no event number")
            events.append((int(number), []))
            continue
        if not events:
            events.append((None, []))
        try:
            point = [float(cell) for cell in cells]
        except ValueError:
            point = []
        if len(point) != len(CLOUD_COLUMNS) or not np.isfinite(point).all():
            raise InputError(
                f"{path}: row {line}: {row.strip()!r:.60} is not x, y, z, time bucket, charge"
            )
        events[-1][1].append(point)
    return [(number, np.array(rows, np.float64).reshape(-1, 5)) for number, rows in events]
