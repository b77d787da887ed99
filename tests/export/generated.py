"""Point clouds of made-up events that a tiny model can learn, with their labels."""

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LABELS = ("proton", "carbon", "noise")
#: The classes, as a configuration has them.
CLASSES = [
    {"name": "proton", "pdg": 2212, "threshold": 0.4},
    {"name": "carbon", "pdg": 1000060120, "threshold": 0.4},
    {"name": "noise", "role": "noise", "threshold": 0.4},
]


def write_run(folder: Path, run: int, n_events: int, seed: int) -> tuple[Path, Path]:
    """Write a run in Spyral's layout and its labels; the classes take turns."""
    rng = np.random.default_rng(seed)
    path = folder / f"run_{run:04d}.h5"
    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("cloud")
        group.attrs["min_event"], group.attrs["max_event"] = 0, n_events - 1
        for event in range(n_events):
            label = LABELS[event % 3]
            group.create_dataset(f"cloud_{event}", data=_cloud(label, rng))
            kind = "random" if label == "noise" else label
            rows.append([run, event, label, kind, event // 2 if event % 7 else -1])
    labels = folder / f"labels_{run}.csv"
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "event", "label", "kind", "source_event"])
        writer.writerows(rows)
    return path, labels


def _cloud(label: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Columns x, y, z [mm], amplitude, integral, pad, time bucket, scale."""
    n = int(rng.integers(40, 80))
    along = np.sort(rng.random(n))
    azimuth: Any = rng.uniform(-np.pi, np.pi)
    z_0 = rng.uniform(100.0, 800.0)
    charge = rng.uniform(80.0, 300.0, n)
    if label == "proton":  # long and curved
        radius, azimuth = 220.0 * along, azimuth + 2.0 * along
        z = z_0 + 150.0 * along
    elif label == "carbon":  # short and dense
        radius, z = 60.0 * along, z_0 + 40.0 * along
        charge = charge * 12.0
    else:  # anywhere
        radius, azimuth = 260.0 * np.sqrt(along), rng.uniform(-np.pi, np.pi, n)
        z = rng.uniform(0.0, 1000.0, n)
    x, y = radius * np.cos(azimuth), radius * np.sin(azimuth)
    bucket = 278.0 - z * 0.24
    columns = [x, y, z, charge, charge * 8.0, rng.integers(0, 10240, n), bucket, np.ones(n)]
    return np.column_stack(columns)
