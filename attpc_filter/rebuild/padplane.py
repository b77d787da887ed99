"""The pad plane: where each pad lies, its corrections, and the channel that reads it.

A table of pads is a CSV file with a header and a row a pad, in any order; columns count by their
names (:data:`COLUMNS`).
"""

import csv
import difflib
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import UsageError

#: Columns of a table of pads, and what they hold.
COLUMNS = {
    "pad": "pad number, from 0 to the number of pads less 1",
    "x": "centre of the pad [mm]",
    "y": "centre of the pad [mm]",
    "size": "size of the pad relative to a big one; left out: 1",
    "cobo": "CoBo that reads the pad; left out, with the next three: .graw files cannot be read",
    "asad": "its AsAd",
    "aget": "its AGET, 0 to 3",
    "channel": "its channel, 0 to 67 without 11, 22, 45 and 56",
    "gain": "factor that the charge is multiplied with; left out: 1",
    "time_offset": "added to the time bucket of a hit; left out: 0",
    "beam": "1 for pads of the beam region, whose hits a model may leave out; left out: 0",
}
_NEEDED = ("pad", "x", "y")
_CHANNEL = ("cobo", "asad", "aget", "channel")
_FPN_CHANNELS = (11, 22, 45, 56)
_WHOLE = ("pad", *_CHANNEL, "beam")
#: Pads are numbered in 16 bits, and lie in a detector.
_MOST_PADS = 1 << 15
_LIMITS = {"pad": _MOST_PADS - 1, "cobo": 255, "asad": 255, "aget": 3, "channel": 67, "beam": 1}
_FARTHEST_MM = 5000.0
_SHIPPED = Path(__file__).parents[1] / "detectors" / "at-tpc.csv"


@dataclass(frozen=True, slots=True)
class PadPlane:
    """The pads in columns; the row is the pad number.

    Attributes
    ----------
    x, y : ndarray of float32, shape (n_pads,)
        Centre of the pad [mm].
    scale : ndarray of float32, shape (n_pads,)
        Size of the pad relative to a big one (0.5 small, 1 big).
    gain : ndarray of float32, shape (n_pads,)
        Factor that the charge is multiplied with.
    time_offset : ndarray of float32, shape (n_pads,)
        Added to the time bucket of a hit.
    beam : ndarray of bool, shape (n_pads,)
        Pads of the beam region.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    scale: NDArray[np.float32]
    gain: NDArray[np.float32]
    time_offset: NDArray[np.float32]
    beam: NDArray[np.bool_]

    @property
    def sha256(self) -> str:
        """SHA-256 of all that decides what hits the pads give."""
        digest = hashlib.sha256()
        for column in (self.x, self.y, self.gain, self.time_offset, self.beam):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class PadTable:
    """What a table of pads says.

    Attributes
    ----------
    plane : PadPlane
        The pads.
    channels : ndarray of int64, shape (n_pads, 5), or None
        CoBo, AsAd, AGET, channel and pad, a row a pad; None if the table has no such columns.
    absent : tuple of str
        Optional columns that the table does not have.
    """

    plane: PadPlane
    channels: NDArray[np.int64] | None
    absent: tuple[str, ...]


def load_padplane() -> PadPlane:
    """Load the AT-TPC's pads."""
    return read_pad_table(_SHIPPED).plane


def read_pad_table(path: Path, n_pads: int | None = None) -> PadTable:
    """Read a table of pads.

    Parameters
    ----------
    path : Path
        The CSV file.
    n_pads : int, optional
        How many pads it must have; left out: as many as it has rows.

    Raises
    ------
    UsageError
        If the table cannot be read, a column is missing or unknown, or a row is wrong, missing or
        there twice. The message says which row, and what to do.
    """
    names, rows = _read_rows(path)
    columns = _numbers(path, names, rows)
    lines = np.array([line for line, _ in rows])
    for name in _WHOLE:
        if name in columns:
            _check_whole(path, name, columns[name], lines)
    pad = columns["pad"].astype(np.int64)
    _check_pads(path, pad, lines, n_pads)
    for name in ("gain", "size"):
        if name in columns and (bad := np.flatnonzero(columns[name] <= 0)).size:
            raise UsageError(
                f"{path}: row {lines[bad[0]]}: {name} {columns[name][bad[0]]:g} is not positive;"
                " leave the column out if it is not known"
            )
    order = np.argsort(pad)
    columns = {name: values[order] for name, values in columns.items()}
    channels = _channels(path, columns, lines[order])

    def column(name: str, neutral: float) -> NDArray[np.float32]:
        return columns.get(name, np.full(len(pad), neutral)).astype(np.float32)

    plane = PadPlane(
        x=column("x", 0.0),
        y=column("y", 0.0),
        scale=column("size", 1.0),
        gain=column("gain", 1.0),
        time_offset=column("time_offset", 0.0),
        beam=column("beam", 0.0) != 0,
    )
    _check_places(path, plane, lines[order])
    absent = tuple(name for name in COLUMNS if name not in columns)
    return PadTable(plane, channels, absent)


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns; the rows with their lines in the file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a CSV file: {error}") from error
    if not rows:
        raise UsageError(f"{path}: empty; it needs a header with {', '.join(_NEEDED)}")
    (_, names), *rows = rows
    for name, count in Counter(names).items():
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1, 0.0)[0]
            raise UsageError(
                f"{path}: unknown column {name!r}; the nearest known one is {near!r}, all are:"
                f" {', '.join(COLUMNS)}"
            )
        if count > 1:
            raise UsageError(f"{path}: the column {name!r} is there {count} times; remove one")
    for name in _NEEDED:
        if name not in names:
            raise UsageError(f"{path}: no column {name!r}; a table of pads needs pad, x and y")
    if not rows:
        raise UsageError(f"{path}: a header without rows; it needs a row a pad")
    return names, rows


def _numbers(
    path: Path, names: list[str], rows: list[tuple[int, list[str]]]
) -> dict[str, NDArray[np.float64]]:
    try:
        values = np.array([cells for _, cells in rows], np.float64)  # 10 times faster than below
        is_table = values.shape == (len(rows), len(names))
    except ValueError:
        values, is_table = np.empty((len(rows), len(names))), False
    for index, (line, cells) in enumerate([] if is_table else rows):
        if len(cells) != len(names):
            raise UsageError(
                f"{path}: row {line}: {len(cells)} values for {len(names)} columns; give each"
                " column a value"
            )
        for column, cell in enumerate(cells):
            try:
                values[index, column] = float(cell)
            except ValueError:
                raise UsageError(
                    f"{path}: row {line}: {names[column]} {cell!r} is no number"
                ) from None
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise UsageError(f"{path}: row {rows[row][0]}: {names[column]} is not finite")
    return dict(zip(names, values.T.copy(), strict=True))


def _check_pads(
    path: Path, pad: NDArray[np.int64], lines: NDArray[np.int64], n_pads: int | None
) -> None:
    expected = len(pad) if n_pads is None else n_pads
    if not 0 < expected <= _MOST_PADS:
        raise UsageError(f"{path}: {expected} pads, at most {_MOST_PADS:,} can be numbered")
    order = np.argsort(pad, kind="stable")
    if (twice := np.flatnonzero(np.diff(pad[order]) == 0)).size:
        first, second = order[twice[0]], order[twice[0] + 1]
        raise UsageError(
            f"{path}: row {lines[second]}: pad {pad[second]} stands in row {lines[first]} already;"
            " remove one of the two"
        )
    if len(pad) != expected:
        raise UsageError(
            f"{path}: {len(pad)} rows, the detector has {expected} pads; complete the table, or"
            " correct n_pads"
        )
    if (off := np.flatnonzero((pad < 0) | (pad >= expected))).size:
        missing = np.setdiff1d(np.arange(expected), pad)[0]
        raise UsageError(
            f"{path}: row {lines[off[0]]}: pad {pad[off[0]]} is none of 0 to {expected - 1}, and"
            f" pad {missing} is missing; number the pads from 0 without gaps"
        )


def _check_whole(
    path: Path, name: str, values: NDArray[np.float64], lines: NDArray[np.int64]
) -> None:
    most = _LIMITS[name]
    if (bad := np.flatnonzero((values != np.floor(values)) | (values < 0) | (values > most))).size:
        raise UsageError(
            f"{path}: row {lines[bad[0]]}: {name} {values[bad[0]]:g} is no whole number from 0 to"
            f" {most}"
        )


def _channels(
    path: Path, columns: dict[str, NDArray[np.float64]], lines: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    there = [name for name in _CHANNEL if name in columns]
    if not there:
        return None
    if len(there) < len(_CHANNEL):
        lacks = ", ".join(name for name in _CHANNEL if name not in columns)
        raise UsageError(
            f"{path}: {', '.join(there)} without {lacks}; a channel needs all four columns"
        )
    channels = np.column_stack([columns[name] for name in (*_CHANNEL, "pad")]).astype(np.int64)
    if (fpn := np.flatnonzero(np.isin(channels[:, 3], _FPN_CHANNELS))).size:
        raise UsageError(
            f"{path}: row {lines[fpn[0]]}: channel {channels[fpn[0], 3]} follows the fixed pattern"
            " noise and reads no pad; correct the channel"
        )
    _, first, of = np.unique(channels[:, :4], axis=0, return_index=True, return_inverse=True)
    if (twice := np.flatnonzero(first[of.ravel()] != np.arange(len(of.ravel())))).size:
        other = first[of.ravel()[twice[0]]]
        raise UsageError(
            f"{path}: rows {lines[other]} and {lines[twice[0]]}: one channel reads two pads,"
            f" {other} and {twice[0]}; correct one of them"
        )
    return channels


def _check_places(path: Path, plane: PadPlane, lines: NDArray[np.int64]) -> None:
    far = np.flatnonzero(np.maximum(np.abs(plane.x), np.abs(plane.y)) > _FARTHEST_MM)
    if far.size:
        pad = far[0]
        raise UsageError(
            f"{path}: row {lines[pad]}: pad {pad} at ({plane.x[pad]:g}, {plane.y[pad]:g}) mm lies"
            " off the plane; leave out pads that do not exist, and number the others from 0"
        )
    places = np.column_stack([plane.x, plane.y])
    _, first, of = np.unique(places, axis=0, return_index=True, return_inverse=True)
    if (twice := np.flatnonzero(first[of.ravel()] != np.arange(len(of.ravel())))).size:
        other = first[of.ravel()[twice[0]]]
        raise UsageError(
            f"{path}: rows {lines[other]} and {lines[twice[0]]}: pads {other} and {twice[0]} lie at"
            " the same place; correct one of them"
        )
