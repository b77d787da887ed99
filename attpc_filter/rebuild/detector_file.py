"""Detector files: YAML about a detector, and beside it the table of its pads.

::

    name: AT-TPC
    pads: at-tpc.csv
    n_pads: 10240
    n_samples: 512
    z: {micromegas_time_bucket: 38, window_time_bucket: 278, length_mm: 1000}
    field: {tesla: 1.7, reversed: false}
    beam: {tilt_deg: 0, azimuth_deg: 0, x_mm: 0, y_mm: 0, enters_at_micromegas: false}
    noise_adc: 5

In place of the window's time bucket ``z`` can give ``drift_velocity_mm_per_us`` and ``clock_mhz``.
``field``, ``beam`` and ``noise_adc`` can be left out. What the pads' columns are:
:data:`attpc_filter.rebuild.padplane.COLUMNS`.
"""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.detector import BeamFrame, Detector, ZCalibration
from attpc_filter.rebuild.padplane import read_pad_table
from attpc_filter.yaml_file import read_yaml

DEFAULT_NAME = "AT-TPC"
_FOLDER = Path(__file__).parents[1] / "detectors"

_ENTRIES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "pads": str,
    "n_pads": int,
    "n_samples": int,
    "z": dict,
    "field": dict,
    "beam": dict,
    "noise_adc": (int, float),
}
_NEEDED = ("name", "pads", "n_pads", "n_samples", "z")
_NUMBER = (int, float)
_PARTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "z": {
        "micromegas_time_bucket": _NUMBER,
        "length_mm": _NUMBER,
        "window_time_bucket": _NUMBER,
        "drift_velocity_mm_per_us": _NUMBER,
        "clock_mhz": _NUMBER,
    },
    "field": {"tesla": _NUMBER, "reversed": bool},
    "beam": {
        "tilt_deg": _NUMBER,
        "azimuth_deg": _NUMBER,
        "x_mm": _NUMBER,
        "y_mm": _NUMBER,
        "enters_at_micromegas": bool,
    },
}


def shipped_detectors() -> dict[str, Path]:
    """The detector files that ship, by the detector's name."""
    names = {}
    for path in sorted(_FOLDER.glob("*.yaml")):
        names[str(read_yaml(path)["name"])] = path
    return names


def load_detector(which: str | Path = DEFAULT_NAME) -> Detector:
    """Load a detector.

    Parameters
    ----------
    which : str or Path
        Name of one that ships, in any case; or path of a detector file.

    Raises
    ------
    UsageError
        If there is no such detector, or its files are wrong: the message names file, row and
        remedy.
    """
    path = Path(which)
    if path.suffix.lower() not in (".yaml", ".yml"):
        shipped = shipped_detectors()
        by_name = {name.lower(): file for name, file in shipped.items()}
        if str(which).lower() not in by_name:
            raise UsageError(
                f"detector {str(which)!r}: there is none of that name; there are"
                f" {', '.join(shipped)}, or give a file that ends with .yaml"
            )
        path = by_name[str(which).lower()]
    return read_detector(path)


def read_detector(path: Path) -> Detector:
    """Read a detector file and its table of pads.

    Raises
    ------
    UsageError
        If one of them cannot be read or is wrong.
    """
    entries = read_yaml(path)
    if not isinstance(entries, dict):
        raise UsageError(
            f"{path}: no detector file; attpc-filter detector new writes one to begin with"
        )
    _check(path, "", entries, _ENTRIES, _NEEDED)
    for part, known in _PARTS.items():
        _check(path, f"{part}: ", entries.get(part, {}), known, ())
    table = read_pad_table(path.parent / entries["pads"], entries["n_pads"])
    field, beam = entries.get("field", {}), entries.get("beam", {})
    try:
        return Detector(
            entries["name"],
            table.plane,
            entries["n_samples"],
            _calibration(entries["z"]),
            BeamFrame(
                tilt_deg=float(beam.get("tilt_deg", 0)),
                azimuth_deg=float(beam.get("azimuth_deg", 0)),
                x_mm=float(beam.get("x_mm", 0)),
                y_mm=float(beam.get("y_mm", 0)),
                is_mirrored=field.get("reversed", False),
                z_is_reversed=beam.get("enters_at_micromegas", False),
            ),
            table.channels,
            field.get("tesla"),
            entries.get("noise_adc"),
            table.absent,
        )
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _check(
    path: Path,
    where: str,
    entries: Mapping[str, Any],
    known: Mapping[str, Any],
    needed: tuple[str, ...],
) -> None:
    for name, value in entries.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.0)[0]
            raise UsageError(
                f"{path}: {where}unknown entry {name!r}; the nearest known one is {near!r}"
            )
        if not isinstance(value, known[name]) or (
            isinstance(value, bool) and known[name] is not bool
        ):
            kinds = {str: "a text", int: "a whole number", dict: "a table", bool: "true or false"}
            wanted = kinds.get(known[name], "a number")
            raise UsageError(f"{path}: {where}{name} is {value!r}, it must be {wanted}")
        if isinstance(value, int | float) and not math.isfinite(value):
            raise UsageError(f"{path}: {where}{name} is not finite")
    for name in needed:
        if name not in entries:
            raise UsageError(f"{path}: {where}no entry {name!r}; it needs {', '.join(needed)}")


def _calibration(z: Mapping[str, Any]) -> ZCalibration:
    """The z calibration, by two time buckets or by drift velocity and clock."""
    by_drift = {"drift_velocity_mm_per_us", "clock_mhz"}
    lacks = {"micromegas_time_bucket", "length_mm"} - set(z)
    if lacks:
        raise ValueError(f"z: no entry {min(lacks)!r}")
    begin, length = float(z["micromegas_time_bucket"]), float(z["length_mm"])
    if length <= 0:
        raise ValueError(f"z: length_mm {length:g} is not positive")
    if "window_time_bucket" in z:
        if by_drift & set(z):
            raise ValueError(
                "z: give window_time_bucket, or drift_velocity_mm_per_us and clock_mhz, not both"
            )
        return ZCalibration(begin, float(z["window_time_bucket"]), length)
    if not by_drift <= set(z):
        raise ValueError("z: give window_time_bucket, or drift_velocity_mm_per_us and clock_mhz")
    velocity, clock = float(z["drift_velocity_mm_per_us"]), float(z["clock_mhz"])
    if velocity <= 0 or clock <= 0:
        raise ValueError("z: drift_velocity_mm_per_us and clock_mhz must be positive")
    return ZCalibration(begin, begin + length / velocity * clock, length)
