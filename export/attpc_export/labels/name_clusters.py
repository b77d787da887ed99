"""Clusters that a person names: found, shown on a contact sheet, made into a bundle."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from attpc_export.bundles.bundle_head import write_with_head
from attpc_export.heads.clusters import ClusterHead, ClusterScores, load_clusters, save_clusters
from attpc_export.heads.spectral import MOST_CLUSTERS, find_clusters, name_clusters
from attpc_export.judging.pictures import Row, write_contact_sheet
from attpc_export.judging.run_bundle import ReadOptions, score_runs
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import load_bundle

NAMES_NAME = "clusters.yaml"
SHEET_NAME = "clusters.png"
EVENTS_NAME = "clusters.csv"
HEAD_NAME = "clusters.json"

#: Events of a cluster that are shown: the most typical ones, and any others.
N_TYPICAL, N_RANDOM = 8, 12
_UNNAMED = "?"


@dataclass(frozen=True, slots=True)
class Clustering:
    """What :func:`write_clusters` found.

    Attributes
    ----------
    events : ndarray of int64, shape (n_clusters,)
        Events of each cluster.
    stability : dict of int to float
        See :class:`attpc_export.heads.spectral.Found`.
    agreement : float
        Mean adjusted Rand index between the clusters of several seeds.
    """

    events: NDArray[np.int64]
    stability: dict[int, float]
    agreement: float

    def describe(self) -> str:
        """A few lines of text."""
        tried = ", ".join(f"{number}: {value:.2f}" for number, value in self.stability.items())
        each = ", ".join(str(count) for count in self.events)
        return (
            f"clusters: {len(self.events)}, of {each} events\n"
            f"stability by number of clusters: {tried}\n"
            f"agreement between seeds: {self.agreement:.2f} (adjusted Rand index)"
        )


def write_clusters(
    model: str,
    data: Sequence[Path],
    out: Path,
    n_clusters: int = 0,
    seed: int = 1,
    options: ReadOptions | None = None,
) -> Clustering:
    """Find clusters in a bundle's latent, and write what a person needs to name them.

    The folder then holds a contact sheet (a row a cluster: typical events, then any), a file to put
    the names into, the cluster of each event, and the clusters themselves.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    data : sequence of Path
        Runs; no labels.
    out : Path
        Folder to write.
    n_clusters : int
        How many; 0: see :func:`attpc_export.heads.spectral.find_clusters`.
    seed : int
        Of all that is drawn.
    options : ReadOptions, optional
        The z calibration of the runs, and the classes to choose names from, where they are not the
        bundle's.

    Raises
    ------
    UsageError
        If the folder holds clusters already, or there are too few events.
    """
    if (out / NAMES_NAME).exists():
        raise UsageError(f"{out}: holds clusters already, perhaps named; choose another folder")
    if n_clusters and not 2 <= n_clusters <= MOST_CLUSTERS:
        raise UsageError(f"--clusters {n_clusters}: 2 to {MOST_CLUSTERS}")
    bundle = load_bundle(model)
    options = options or ReadOptions()
    scored = score_runs(bundle, data, options=options)
    found = find_clusters(scored.latent, n_clusters, seed)
    score = score_clusters(found.head, scored.latent)
    cluster = score.argmax(axis=1)
    others = [
        score_clusters(
            find_clusters(scored.latent, found.n_clusters, seed + more).head, scored.latent
        ).argmax(axis=1)
        for more in (1, 2)
    ]
    agreement = _agreement([cluster, *others])
    shown = choose_shown(score, seed)
    events = np.bincount(cluster, minlength=found.n_clusters)
    sheet = [
        Row(
            f"cluster {number + 1}: {events[number]} events; the first {N_TYPICAL} are typical",
            rows,
        )
        for number, rows in enumerate(shown)
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(scored.events, sheet, out / SHEET_NAME)
    classes = [event_class.name for event_class in options.apply(bundle.contract).classes]
    with Staging() as staging:
        with staging.path(out / EVENTS_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["run", "event", "cluster", "probability"])
            keys = zip(scored.events.run, scored.events.event, cluster, score.max(1), strict=True)
            writer.writerows([run, event, c + 1, f"{p:.3f}"] for run, event, c, p in keys)
        save_clusters(found.head, staging.path(out / HEAD_NAME))
        names = {number + 1: _UNNAMED for number in range(found.n_clusters)}
        text = (
            f"# Look at {SHEET_NAME} and put a class for each ?: {', '.join(classes)}. Then\n"
            f"#   attpc-export name-clusters MODEL {out.name} --data RUNS --out NAMED.onnx\n"
        )
        text += yaml.safe_dump({"model_sha256": bundle.sha256, "clusters": names}, sort_keys=False)
        staging.path(out / NAMES_NAME).write_text(text, encoding="utf-8")
        staging.commit()
    return Clustering(events, found.stability, agreement)


def name_and_write(
    model: str,
    folder: Path,
    data: Sequence[Path],
    out: Path,
    options: ReadOptions | None = None,
) -> None:
    """Make a bundle from clusters that were named.

    Parameters
    ----------
    model : str
        The bundle whose latent was clustered.
    folder : Path
        What :func:`write_clusters` wrote, names filled in.
    data : sequence of Path
        Runs; some events of theirs are scored by the new bundle and by PyTorch, and must agree.
    out : Path
        Bundle to write.
    options : ReadOptions, optional
        As for :func:`write_clusters`.

    Raises
    ------
    UsageError
        If a cluster has no name or none of the classes, or the folder belongs to another bundle.
    """
    bundle = load_bundle(model)
    options = options or ReadOptions()
    contract = options.apply(bundle.contract)
    classes = [event_class.name for event_class in contract.classes]
    path = folder / NAMES_NAME
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        head = load_clusters(folder / HEAD_NAME)
    except (OSError, yaml.YAMLError, json.JSONDecodeError) as error:
        raise UsageError(f"{folder}: holds no clusters: {error}") from error
    if not isinstance(entries, dict) or not isinstance(entries.get("clusters"), dict):
        raise UsageError(f"{path}: no entries 'clusters'")
    if entries.get("model_sha256") != bundle.sha256:
        raise UsageError(f"{path}: the clusters are of another bundle than {bundle.path}")
    names: list[str] = []
    for number in range(1, head.share.shape[1] + 1):
        name = entries["clusters"].get(number)
        if name not in classes:
            raise UsageError(
                f"{path}: cluster {number} is {name!r}, which is none of {', '.join(classes)}"
            )
        names.append(str(name))
    named = name_clusters(head, tuple(names), classes)
    made = {"kind": "mixture", "clusters": names}
    scored = score_runs(bundle, data, options=options)
    bundle = replace(bundle, contract=contract)
    write_with_head(bundle, ClusterScores(named), scored, out, made)


def score_clusters(head: ClusterHead, latent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of each cluster, shape (n_events, n_clusters)."""
    with torch.no_grad():
        found: NDArray[np.float32] = ClusterScores(head)(torch.from_numpy(latent)).numpy()
    return found


def choose_shown(score: NDArray[np.float32], seed: int) -> list[NDArray[np.int64]]:
    """Events of each cluster that its row of the contact sheet shows.

    Parameters
    ----------
    score : ndarray of float32, shape (n_events, n_clusters)
        Probabilities of the clusters.
    seed : int
        Of the random ones.

    Returns
    -------
    list of ndarray of int64
        The 8 with the highest probability, drawn among equals, then 12 others.
    """
    rng = np.random.default_rng(seed)
    cluster = score.argmax(axis=1)
    shown = []
    for number in range(score.shape[1]):
        rows = rng.permutation(np.flatnonzero(cluster == number))
        typical = rows[np.argsort(-score[rows, number], kind="stable")[:N_TYPICAL]]
        others = rows[~np.isin(rows, typical)][:N_RANDOM]
        shown.append(np.concatenate([typical, others]))
    return shown


def _agreement(clusterings: list[NDArray[np.int64]]) -> float:
    pairs = [(a, b) for i, a in enumerate(clusterings) for b in clusterings[:i]]
    return float(np.mean([adjusted_rand_score(a, b) for a, b in pairs]))
