"""Detector files that differ from the AT-TPC's as a test wants them to."""

import csv
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

_SHIPPED = resources.files("attpc_filter.detectors")


def write_attpc(
    folder: Path,
    columns: dict[str, Any] | None = None,
    pads: Sequence[int] | None = None,
    **entries: Any,
) -> Path:
    """Write a detector file like the AT-TPC's, and its pads.

    Parameters
    ----------
    folder : Path
        Where; made if it is not there.
    columns : dict, optional
        Columns of the pads to add or replace: one value, or one a pad.
    pads : sequence of int, optional
        The pads that there are, numbered anew from 0.
    **entries
        Entries of the detector file to add or replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(_SHIPPED.joinpath("at-tpc.csv").read_text().splitlines()))
    if pads is not None:
        rows = [rows[pad] | {"pad": str(number)} for number, pad in enumerate(pads)]
    for name, values in (columns or {}).items():
        for index, row in enumerate(rows):
            row[name] = values[index] if isinstance(values, Sequence) else values
    with open(folder / "pads.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shipped = yaml.safe_load(_SHIPPED.joinpath("at-tpc.yaml").read_text())
    own = {"name": "another", "pads": "pads.csv", "n_pads": len(rows)}
    path = folder / "detector.yaml"
    path.write_text(yaml.safe_dump(shipped | own | entries))
    return path
