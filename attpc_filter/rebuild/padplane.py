"""The pad plane: where each pad lies, and its corrections."""

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import UsageError

_DEFAULT_TABLE = Path(__file__).with_name("padplane.csv")


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


def load_padplane(
    geometry: Path | None = None, gains: Path | None = None, time_offsets: Path | None = None
) -> PadPlane:
    """Load the pad plane, each table from the user's file or the package's.

    Parameters
    ----------
    geometry : Path, optional
        CSV with a header and a row a pad: ``x_mm, y_mm`` (or ``x, y``), and optionally
        ``scale``, ``gain``, ``time_offset_tb`` and ``beam`` (0 or 1). Columns that it lacks are
        neutral. Default: the AT-TPC's 10,240 pads.
    gains, time_offsets : Path, optional
        CSV with a header and one number a pad (its last column): gains, and time offsets [time
        buckets]. They replace what the geometry table says.

    Raises
    ------
    UsageError
        If a table cannot be read, or has another number of pads than the geometry.
    """
    table = _read_columns(geometry or _DEFAULT_TABLE)
    table = {{"x": "x_mm", "y": "y_mm"}.get(name, name): values for name, values in table.items()}
    if "x_mm" not in table or "y_mm" not in table:
        raise UsageError(
            f"{geometry}: a pad table needs the columns x_mm and y_mm, it has: {', '.join(table)}"
        )
    n_pads = len(table["x_mm"])

    def column(name: str, neutral: float) -> NDArray[np.float32]:
        return table.get(name, np.full(n_pads, neutral)).astype(np.float32)

    plane = PadPlane(
        x=column("x_mm", 0.0),
        y=column("y_mm", 0.0),
        scale=column("scale", 1.0),
        gain=column("gain", 1.0),
        time_offset=column("time_offset_tb", 0.0),
        beam=column("beam", 0.0) != 0,
    )
    if gains is not None:
        plane = replace(plane, gain=_read_last_column(gains, n_pads))
    if time_offsets is not None:
        plane = replace(plane, time_offset=_read_last_column(time_offsets, n_pads))
    return plane


def _read_columns(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        with open(path, newline=None, encoding="utf-8") as file:
            header, *rows = [row for row in csv.reader(file) if row]
        values = np.array([[float(cell) for cell in row if cell != ""] for row in rows])
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: not a table of numbers under one header line: {error}"
        ) from error
    names = [name.strip() for name in header if name.strip()]
    if values.ndim != 2 or values.shape[1] != len(names):
        raise UsageError(f"{path}: every row needs {len(names)} numbers, as the header has columns")
    if not np.isfinite(values).all():
        raise UsageError(
            f"{path}: row {int(np.argwhere(~np.isfinite(values))[0, 0]) + 2} is not finite"
        )
    return dict(zip(names, values.T, strict=True))


def _read_last_column(path: Path, n_pads: int) -> NDArray[np.float32]:
    values = list(_read_columns(path).values())[-1]
    if len(values) != n_pads:
        raise UsageError(f"{path}: {len(values)} rows for {n_pads} pads")
    return values.astype(np.float32)
