"""What tags are worth on one's own runs: a random sample to label, and what its labels say.

Each tag is a stratum: of each, the same number of events is drawn, and what their labels say counts
as much as the tag has events. So the rare tags are known as well as the frequent ones, and shares
of all events come out right.
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.manifest import read_manifest
from attpc_filter.output.staging import Staging
from attpc_filter.output.tag_table import read_tags
from attpc_filter.score.bundle import load_bundle
from attpc_filter.tag import PASSTHROUGH, UNREADABLE

#: Labelled events that are added to each answer before it is counted. 0.5 is Jeffreys' prior for
#: one share; of efficiencies, which sum shares over several tags, it finds too many misses.
#: benchmarks/accuracy/trust_coverage.py measures what the intervals cover.
PRIOR = 0.4
#: Drawn values behind an interval.
_DRAWS = 4000
_COLUMNS = ("run", "event", "label", "order")
#: Tags of events that nobody can label, or that were never to be classified.
_NOT_DRAWN = (UNREADABLE, PASSTHROUGH)


@dataclass(frozen=True, slots=True)
class Tagged:
    """The tags of all runs of an output folder; one row an event.

    Attributes
    ----------
    run, event : ndarray of int64, shape (n_events,)
        Run and event number.
    tag : ndarray of str, shape (n_events,)
        Tags; events that cannot be labelled are left out.
    classes : list of str
        The model's classes.
    model_sha256 : str
        SHA-256 of the model.
    """

    run: NDArray[np.int64]
    event: NDArray[np.int64]
    tag: NDArray[np.str_]
    classes: list[str]
    model_sha256: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95% interval.

    Attributes
    ----------
    value, low, high : float
        The share and the ends of the interval; ``value`` is NaN if nothing was labelled.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value = "   -  " if np.isnan(self.value) else f"{self.value:6.1%}"
        return f"{value} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True, slots=True)
class Trust:
    """What the labels of a sample say about a tag.

    Attributes
    ----------
    runs : str
        Number of the run; ``all`` for all together.
    tag : str
        The class.
    events, labelled : int
        Events with this tag, and those of them with a label.
    purity : Estimate
        Share of the events with this tag that are of the class.
    efficiency : Estimate
        Share of the events of the class that have this tag.
    """

    runs: str
    tag: str
    events: int
    labelled: int
    purity: Estimate
    efficiency: Estimate


def load_tags(out: Path) -> Tagged:
    """Read the tag tables of an output folder.

    Raises
    ------
    UsageError
        If the folder holds no run that was filtered.
    """
    entries = [entry for entry in read_manifest(out).runs if not entry.error]
    if not entries:
        raise UsageError(f"{out}: no run in it was filtered")
    runs, events, tags = [], [], []
    metadata: dict[str, str] = {}
    for entry in entries:
        table, metadata = read_tags(out / entry.tag_table)
        runs.append(table.column("run").to_numpy().astype(np.int64))
        events.append(table.column("event").to_numpy())
        tags.append(np.array(table.column("tag").to_pylist(), np.str_))
    tag = np.concatenate(tags)
    kept = ~np.isin(tag, _NOT_DRAWN)
    return Tagged(
        np.concatenate(runs)[kept],
        np.concatenate(events)[kept],
        tag[kept],
        json.loads(metadata["classes"]),
        metadata["model_sha256"],
    )


def draw_sample(tagged: Tagged, n_events: int, seed: int) -> NDArray[np.int64]:
    """Draw events of each tag at random, without replacement.

    Parameters
    ----------
    tagged : Tagged
        All events.
    n_events : int
        Events of each tag; of a tag with fewer, all.
    seed : int
        The same seed draws the same events.

    Returns
    -------
    ndarray of int64
        Rows, the tags taking turns: any number of the first ones is a sample of all tags too.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        rng.permutation(np.flatnonzero(tagged.tag == name))[:n_events]
        for name in np.unique(tagged.tag)
    ]
    turn = np.concatenate([np.arange(len(rows)) for rows in drawn])
    order = np.lexsort((rng.random(len(turn)), turn))
    rows: NDArray[np.int64] = np.concatenate(drawn)[order]
    return rows


def write_sample(out: Path, path: Path, n_events: int, seed: int) -> int:
    """Write the table of events to label; return how many there are.

    Parameters
    ----------
    out : Path
        Output folder of ``attpc-filter run``.
    path : Path
        CSV to write: run, event, an empty label, and the order in which to label. The tag is left
        out, so that it does not sway who labels.
    n_events : int
        Events of each tag.
    seed : int
        Of the draw.

    Raises
    ------
    UsageError
        If the file exists: it may hold labels.
    """
    if n_events < 1:
        raise UsageError(f"--events {n_events}: must be at least 1")
    if path.exists():
        raise UsageError(f"--draw {path}: exists, perhaps with labels; choose another name")
    tagged = load_tags(out)
    rows = draw_sample(tagged, n_events, seed)
    try:
        with Staging() as staging:
            with staging.path(path).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(_COLUMNS)
                for order, row in enumerate(rows.tolist(), 1):
                    writer.writerow([tagged.run[row], tagged.event[row], "", order])
            staging.commit()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return len(rows)


def judge_sample(out: Path, labels: Sequence[Path], model: str = "", seed: int = 0) -> list[Trust]:
    """Say what the labels of a sample are evidence of.

    Parameters
    ----------
    out : Path
        Output folder of ``attpc-filter run``.
    labels : sequence of Path
        Tables that :func:`write_sample` wrote, labels filled in; events without one are left out.
    model : str
        The bundle that tagged, where it no longer lies where the manifest says.
    seed : int
        Of the intervals' draws.

    Returns
    -------
    list of Trust
        All runs together, then each run if there are several; each class in turn.

    Raises
    ------
    UsageError
        If the labels are not a sample of these events, or trained the model.
    """
    tagged = load_tags(out)
    place = {
        key: row
        for row, key in enumerate(zip(tagged.run.tolist(), tagged.event.tolist(), strict=True))
    }
    labelled: dict[int, str] = {}
    for path in labels:
        for key, name in _read_sample(path).items():
            if key not in place:
                raise UsageError(f"{path}: run {key[0]} event {key[1]} is not among those of {out}")
            labelled[place[key]] = name
    if not labelled:
        raise UsageError("--labels: no event has a label yet")
    rows = np.array(list(labelled))
    label = np.array(list(labelled.values()), np.str_)
    _require_unseen(out, tagged, rows, model)
    names = np.unique(tagged.tag)
    rng = np.random.default_rng(seed)
    found = []
    runs = np.unique(tagged.run)
    for run in [None, *(runs.tolist() if len(runs) > 1 else [])]:
        of_run = np.ones(len(tagged.run), np.bool_) if run is None else tagged.run == run
        population = np.array([(of_run & (tagged.tag == name)).sum() for name in names])
        own, tags = of_run[rows], tagged.tag[rows]
        sampled = np.array(
            [
                [(own & (tags == tag) & (label == name)).sum() for name in tagged.classes]
                for tag in names
            ]
        )
        n_labelled = np.array([(own & (tags == tag)).sum() for tag in names])
        for number, name in enumerate(tagged.classes):
            stratum = np.flatnonzero(names == name)
            if not len(stratum):
                continue
            index = int(stratum[0])
            purity, efficiency = estimate_worth(
                sampled[:, number], n_labelled, population, index, rng
            )
            found.append(
                Trust(
                    "all" if run is None else str(run),
                    name,
                    int(population[index]),
                    int(n_labelled[index]),
                    purity,
                    efficiency,
                )
            )
    return found


def estimate_worth(
    of_class: NDArray[np.int64],
    n_labelled: NDArray[np.int64],
    population: NDArray[np.int64],
    own: int,
    rng: np.random.Generator,
) -> tuple[Estimate, Estimate]:
    """Estimate purity and efficiency of a class from a sample of each tag.

    The events of a tag that have no label are of the class with an unknown share, of which the
    labelled ones tell (Bayes, beta distribution with :data:`PRIOR`). Values are drawn from what is
    known, all tags at once; an interval holds the middle 95% of them.

    Parameters
    ----------
    of_class : ndarray of int64, shape (n_tags,)
        Labelled events of the class, by their tag.
    n_labelled, population : ndarray of int64, shape (n_tags,)
        Labelled events and all events of each tag.
    own : int
        The tag of the class.
    rng : Generator
        Source of the draws.

    Returns
    -------
    purity, efficiency : Estimate
        Shares 0 to 1.
    """
    missed = n_labelled - of_class
    share = rng.beta(of_class + PRIOR, missed + PRIOR, (_DRAWS, len(population)))
    total = of_class + rng.binomial(population - n_labelled, share)
    everywhere = total.sum(axis=1)
    purities = total[:, own] / max(int(population[own]), 1)
    efficiencies = total[:, own] / np.maximum(everywhere, 1)

    with np.errstate(invalid="ignore", divide="ignore"):
        likely = np.where(population > 0, population * of_class / n_labelled, 0.0)
        purity = float(of_class[own] / n_labelled[own])
        efficiency = float(likely[own] / likely.sum())
    none_found = of_class[own] == 0
    none_elsewhere = of_class.sum() == of_class[own]
    return (
        _interval(purity, purities, none_found, missed[own] == 0),
        _interval(efficiency, efficiencies, none_found, none_elsewhere),
    )


def write_trust(found: Sequence[Trust], path: Path) -> None:
    """Write estimates as CSV: a row a class and run."""
    columns = ["runs", "tag", "events", "labelled"]
    for what in ("purity", "efficiency"):
        columns += [what, f"{what}_low", f"{what}_high"]
    try:
        with Staging() as staging:
            with staging.path(path).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                for row in found:
                    shares = [
                        f"{value:.5f}"
                        for e in (row.purity, row.efficiency)
                        for value in (e.value, e.low, e.high)
                    ]
                    writer.writerow([row.runs, row.tag, row.events, row.labelled, *shares])
            staging.commit()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _interval(
    value: float, drawn: NDArray[np.float64], reaches_0: bool, reaches_1: bool
) -> Estimate:
    """The middle 95%; up to 1 if nothing speaks against it, down to 0 if nothing speaks for it."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, 0.0 if reaches_0 else float(low), 1.0 if reaches_1 else float(high))


def _read_sample(path: Path) -> dict[tuple[int, int], str]:
    """Labels of a sample by run and event number; events without a label are left out."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or [])]:
                raise UsageError(
                    f"{path}: no column {', '.join(missing)}: not a sample that attpc-filter trust"
                    " --draw wrote; events chosen otherwise say nothing about all events"
                )
            rows = [row for row in reader if (row["label"] or "").strip()]
        return {(int(row["run"]), int(row["event"])): row["label"].strip() for row in rows}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise UsageError(f"{path}: not a sample: {error}") from error


def _require_unseen(out: Path, tagged: Tagged, rows: NDArray[np.int64], model: str) -> None:
    """Refuse events whose labels the model was made from."""
    manifest = read_manifest(out)
    bundle = load_bundle(model or manifest.model["path"])
    if bundle.sha256 != tagged.model_sha256:
        raise UsageError(
            f"{bundle.path}: is not the model that tagged {out}; give that one with --model"
        )
    training: dict[str, Any] = bundle.contract.training
    listed = training.get("head", {}).get("labelled", {})
    seen = {(int(run), int(event)) for run, events in listed.items() for event in events}
    keys = set(zip(tagged.run[rows].tolist(), tagged.event[rows].tolist(), strict=True))
    if both := seen & keys:
        run, event = min(both)
        raise UsageError(
            f"--labels: {len(both)} of the events trained the model {bundle.contract.name} (run"
            f" {run} event {event}, ...): they say nothing about others; draw a sample of other"
            " events"
        )
    if sum(training.get("events_by_class", {}).values()) == 0:
        return
    names = {Path(entry["name"]).name for entry in training.get("files", ())}
    used = {int(run) for run in np.unique(tagged.run[rows])}
    for entry in manifest.runs:
        if (
            entry.run in used
            and Path(entry.input).name in names
            and _is_same(Path(entry.input), training["files"])
        ):
            raise UsageError(
                f"--labels: run {entry.run} trained the model {bundle.contract.name}; draw a"
                " sample of runs that it has not seen"
            )


def _is_same(path: Path, files: Sequence[dict[str, str]]) -> bool:
    """Whether the file is one of those that a contract lists; False if it is no longer there."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return any(entry["sha256"] == found for entry in files)
