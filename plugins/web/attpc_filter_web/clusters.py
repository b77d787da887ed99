"""The folder that ``attpc-export find-clusters`` wrote: shown as pictures, named, written back.

The names stand in its ``clusters.yaml``, where ``attpc-export name-clusters`` looks for them.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from attpc_filter import OutputError, UsageError
from attpc_filter_web.catalogue import Catalogue

_EVENTS_NAME = "clusters.csv"
_NAMES_NAME = "clusters.yaml"
_N_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Clusters:
    """Clusters of the catalogue's events.

    Attributes
    ----------
    folder : Path
        Where they stand.
    cluster : ndarray of int64, shape (n_events,)
        Number of each event's cluster, from 1; -1 for none.
    probability : ndarray of float32, shape (n_events,)
        That the event is of it.
    """

    folder: Path
    cluster: NDArray[np.int64]
    probability: NDArray[np.float32]

    @property
    def numbers(self) -> list[int]:
        """Numbers of the clusters."""
        return sorted(set(self.cluster.tolist()) - {-1})

    def typical(self, number: int) -> list[int]:
        """Rows of the events that are most surely of a cluster."""
        rows = np.flatnonzero(self.cluster == number)
        ordered = rows[np.argsort(-self.probability[rows], kind="stable")]
        shown: list[int] = ordered[:_N_SHOWN].tolist()
        return shown

    def names(self) -> dict[int, str]:
        """Names of the clusters, as the folder's file has them."""
        return _read_names(self.folder / _NAMES_NAME)[1]

    def name(self, number: int, name: str) -> None:
        """Write a name into the folder's file.

        Raises
        ------
        UsageError
            If there is no such cluster.
        OutputError
            If the file cannot be written.
        """
        path = self.folder / _NAMES_NAME
        entries, names = _read_names(path)
        if number not in names:
            raise UsageError(f"{path}: no cluster {number}")
        entries["clusters"] = names | {number: name}
        comments = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
        text = "\n".join([*comments, yaml.safe_dump(entries, sort_keys=False)])
        staged = path.with_name(f".{path.name}.partial")
        try:
            staged.write_text(text, encoding="utf-8")
            os.replace(staged, path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _read_names(path: Path) -> tuple[dict[str, object], dict[int, str]]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = {int(number): str(name) for number, name in entries["clusters"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{path}: no names of clusters in it: {error}") from error
    return entries, names


def load_clusters(folder: Path, catalogue: Catalogue) -> Clusters:
    """Read the clusters of the catalogue's events.

    Raises
    ------
    UsageError
        If the folder holds no clusters, or none of these events.
    """
    path = folder / _EVENTS_NAME
    cluster = np.full(len(catalogue), -1, np.int64)
    probability = np.zeros(len(catalogue), np.float32)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                row = catalogue.rows.get((int(line["run"]), int(line["event"])))
                if row is not None:
                    cluster[row] = int(line["cluster"])
                    probability[row] = float(line["probability"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: no table of clusters of attpc-export: {error}") from error
    if (cluster < 0).all():
        raise UsageError(f"{path}: none of its events is among those to label")
    _read_names(folder / _NAMES_NAME)
    return Clusters(folder, cluster, probability)
