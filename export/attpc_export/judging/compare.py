"""Trains many models on several data sets with several seeds, and makes one table of them."""

import csv
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, confusion_matrix, f1_score

from attpc_export.config import Config, load_config, read_settings
from attpc_export.data.classes import find_noise
from attpc_export.data.labelled import Events, load_events
from attpc_export.heads.clusters import ClusterScores
from attpc_export.judging.latent_worth import anomaly_auc, anomaly_scores, few_label_f1, fold_f1
from attpc_export.models.backbone import kept_features, with_weights
from attpc_export.models.base import LatentModel
from attpc_export.training.fit import CHECKPOINT_NAME, CURVES_NAME, Inputs, apply_in_batches
from attpc_export.training.run_folder import CONFIG_NAME, SCORES_NAME, load_run
from attpc_export.training.train import score, train
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging, write_json
from attpc_filter.rebuild.clean import CleanSettings

COST_NAME = "cost.json"
CSV_NAME = "accuracy.csv"
TABLE_NAME = "accuracy.md"

_FEW_LABELS = 100
_AUC = "noise_auc_"
_TITLES = {
    "fold_f1": "five folds",
    "few_label_f1": f"{_FEW_LABELS} labels",
    "cpu_seconds": "CPU s",
}
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Level:
    """A data set that models are trained and judged on.

    Attributes
    ----------
    name : str
        Its name.
    train, test : tuple of str
        Run files, and folders of them, below the folder of the data. One without a test is only
        trained on.
    train_labels, test_labels : tuple of str
        Their tables of labels.
    clean : CleanSettings
        How its hits are cleaned.
    """

    name: str = ""
    train: tuple[str, ...] = ()
    train_labels: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    test_labels: tuple[str, ...] = ()
    clean: CleanSettings = field(default_factory=CleanSettings)


@dataclass(frozen=True, slots=True)
class Cell:
    """A preset on a level.

    Attributes
    ----------
    row : str
        Line of the table.
    level : str
        Column of the table: whose test it is judged on.
    preset : str
        Configuration, beside the plan or at a path relative to it.
    trained_on : str
        Another level that it is trained on; empty: its own. Cells of one preset that are trained on
        the same level share the training.
    thesis : str
        The thesis' number for it, as text: macro f1, or accuracy / ARI of a clustering.
    seeds : tuple of int
        In place of the plan's; empty: the plan's.
    epochs : int
        In place of the preset's; 0: as many as it says [epochs].
    size : int
        Side of the projections; 0: the preset's [pixels]. Of more layers than can halve it down to
        2 pixels, the outermost are left out.
    """

    row: str = ""
    level: str = ""
    preset: str = ""
    trained_on: str = ""
    thesis: str = ""
    seeds: tuple[int, ...] = ()
    epochs: int = 0
    size: int = 0

    @property
    def source(self) -> str:
        """Name of the level that it is trained on."""
        return self.trained_on or self.level


@dataclass(frozen=True, slots=True)
class Plan:
    """A comparison.

    Attributes
    ----------
    levels : tuple of Level
        The data sets; those with a test are the columns of the table, and the last of them has
        tables of its own.
    cells : tuple of Cell
        What is trained on which; in this order, one seed after the other.
    seeds : tuple of int
        Seeds of the split, the weights and all variation.
    group_column : str
        Column of the labels whose equal numbers are copies of one physics event.
    """

    levels: tuple[Level, ...] = ()
    cells: tuple[Cell, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    group_column: str = ""

    def __post_init__(self) -> None:
        names = [level.name for level in self.levels]
        for cell in self.cells:
            for name in (cell.level, cell.source):
                if name not in names:
                    raise ValueError(f"cells: {cell.row}: no level {name!r}, there are {names}")
            if not self.level(cell.level).test:
                raise ValueError(f"cells: {cell.row}: level {cell.level} has no test")

    def level(self, name: str) -> Level:
        """The level of that name."""
        return next(level for level in self.levels if level.name == name)


def load_plan(path: Path) -> Plan:
    """Read a plan from YAML.

    Raises
    ------
    UsageError
        If the file cannot be read or makes no sense.
    """
    plan: Plan = read_settings(Plan, path)
    return plan


def compare(
    plan_path: Path,
    data: Path,
    out: Path,
    tables: Path,
    weights: Path | None = None,
    device: str = "auto",
    only: Sequence[str] = (),
) -> None:
    """Train and judge what a plan asks for; what is there already is not done again.

    Parameters
    ----------
    plan_path : Path
        The plan.
    data : Path
        Folder of the data.
    out : Path
        Folder of the run folders; an unfinished training goes on from its checkpoint.
    tables : Path
        Folder of the tables, written anew after each training.
    weights : Path, optional
        File of a frozen backbone's weights in place of the presets', or folder of theirs.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    only : sequence of str
        Rows to train; all if empty. The tables show all rows.
    """
    plan = load_plan(plan_path)
    if unknown := set(only) - {cell.row for cell in plan.cells}:
        raise UsageError(f"--only: {plan_path} has no row {min(unknown)!r}")
    longest = max(len(cell.seeds or plan.seeds) for cell in plan.cells)
    for turn in range(longest):
        for cell in plan.cells:
            seeds = cell.seeds or plan.seeds
            if turn >= len(seeds) or (only and cell.row not in only):
                continue
            folder = run_folder(out, cell, seeds[turn])
            if not (folder / judgement_name(cell)).exists():
                config = _configure(plan, cell, plan_path.parent, seeds[turn], weights, data)
                _train_and_judge(plan, cell, config, data, folder, out / "features", device)
                write_tables(plan, out, tables)
    write_tables(plan, out, tables)


def run_folder(out: Path, cell: Cell, seed: int) -> Path:
    """Folder of one training."""
    return out / f"{Path(cell.preset).stem}-{cell.source}-{seed}"


def judgement_name(cell: Cell) -> str:
    """Name of the file of a judgement in its run folder."""
    return f"test-{cell.level}.json"


def write_tables(plan: Plan, out: Path, tables: Path) -> None:
    """Write what was judged so far: a line a training as CSV, and a table beside the thesis'."""
    found = []
    for cell in plan.cells:
        for seed in cell.seeds or plan.seeds:
            path = run_folder(out, cell, seed) / judgement_name(cell)
            if path.exists():
                entries = json.loads(path.read_text(encoding="utf-8"))
                found.append((cell, {"row": cell.row, "level": cell.level, "seed": seed} | entries))
    columns = list(dict.fromkeys(name for _, entries in found for name in entries))
    with Staging() as staging:
        with staging.path(tables / CSV_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(entries for _, entries in found)
        table = _make_table(plan, [entries for _, entries in found])
        staging.path(tables / TABLE_NAME).write_text(table, encoding="utf-8")
        staging.commit()


def cluster_accuracy(cluster: NDArray[np.int64], label: NDArray[np.int64]) -> float:
    """Share of events in the cluster of their class, each class with the cluster that fits best.

    Classes and clusters are paired one to one (Kuhn 1955); further clusters count as wrong.
    """
    counts = confusion_matrix(label, cluster)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(label))


def _configure(
    plan: Plan, cell: Cell, presets: Path, seed: int, weights: Path | None, data: Path
) -> Config:
    """The preset, fitted to the level: its cleaning, and only the classes that it has."""
    config = load_config(presets / cell.preset)
    level = plan.level(cell.source)
    labels: set[str] = set()
    for name in level.train_labels:
        with (data / name).open(newline="", encoding="utf-8") as file:
            labels |= {row["label"] for row in csv.DictReader(file)}
    classes = tuple(c for c in config.classes if c.name in labels)
    augment = config.augment
    if augment.pile_up_class not in ("", *(c.name for c in classes)):
        augment = replace(augment, pile_up_class="")
    fit, projection, model = config.fit, config.projection, config.model
    if cell.epochs:
        fit = replace(fit, epochs=cell.epochs)
    if cell.size:
        projection = replace(projection, size=cell.size)
        model = _fit_layers(model, cell.size)
    return replace(
        config,
        seed=seed,
        clean=level.clean,
        classes=classes,
        augment=augment,
        fit=fit,
        projection=projection,
        model=with_weights(model, weights) if weights else model,
        split=replace(config.split, group_column=plan.group_column),
    )


def _fit_layers(model: Any, size: int) -> Any:
    """Leave out the outermost layers that are too many for images of a size."""
    if not hasattr(model, "convolutions"):
        return model
    most = max(1, size.bit_length() - 2)
    kept = replace(
        model.convolutions,
        filters=model.convolutions.filters[-most:],
        kernels=model.convolutions.kernels[-most:],
    )
    return replace(model, convolutions=kept)


def _train_and_judge(
    plan: Plan, cell: Cell, config: Config, data: Path, folder: Path, cache: Path, device: str
) -> None:
    source, level = plan.level(cell.source), plan.level(cell.level)
    if not (folder / SCORES_NAME).exists():
        paths = [data / name for name in source.train]
        labels = [data / name for name in source.train_labels]
        resume = (folder / CHECKPOINT_NAME).exists() and (folder / CONFIG_NAME).exists()
        started = time.process_time()
        train(config, paths, labels, folder, device, resume, cache)
        seconds = round(time.process_time() - started, 1)
        write_json(folder / COST_NAME, {"cpu_seconds": seconds})
    test = load_events(
        [data / name for name in level.test],
        [data / name for name in level.test_labels],
        config.class_names,
        config.hits,
        config.detector,
    )
    judgement = judge_run(folder, test, cache)
    judgement["epochs"] = _count_epochs(folder)
    if (folder / COST_NAME).exists():
        judgement |= json.loads((folder / COST_NAME).read_text(encoding="utf-8"))
    write_json(folder / judgement_name(cell), judgement)


def judge_run(folder: Path, events: Events, cache: Path) -> dict[str, Any]:
    """Judge a finished training on events that it has not seen.

    An event is of the class with the highest score: thresholds are left aside, as in the thesis.

    Parameters
    ----------
    folder : Path
        The run folder.
    events : Events
        Events with labels; those without, and those with fewer hits than a model scores, are left
        out.
    cache : Path
        Where the features of a frozen backbone are kept.

    Returns
    -------
    dict of str to number
        Events, macro f1, f1 of each class; of a clustering its accuracy and adjusted Rand index; of
        the latent, macro f1 over 5 folds of a logistic regression and of regressions on 100 labels,
        and the area under the ROC curve of the anomaly scores, noise being the anomaly.
    """
    scoring, contract = load_run(folder)
    names = [event_class.name for event_class in contract.classes]
    enough = events.hits.counts >= contract.hits.min_hits
    events = events.take(np.flatnonzero(enough & (events.label >= 0)))
    if not len(events):
        raise UsageError("--data: no event of the test runs has a label")
    inputs: Inputs = tuple(contract.make_inputs(events.hits).values())
    part = scoring.model.frozen_part()
    if part is not None:
        inputs = (*inputs, kept_features(part, inputs[0], _CPU, cache))
    label = events.label
    tag = score(scoring, inputs).argmax(axis=1)
    present = np.unique(label)
    f1 = f1_score(label, tag, labels=present, average=None, zero_division=0.0)
    found: dict[str, Any] = {"events": len(label), "macro_f1": round(float(f1.mean()), 5)}
    found |= {f"f1_{names[k]}": round(float(v), 5) for k, v in zip(present, f1, strict=True)}
    if isinstance(scoring.head, ClusterScores):
        head = scoring.head
        parts = apply_in_batches(
            lambda *batch: head.clusters(scoring.model.encode(*batch)), inputs, _CPU
        )
        cluster = torch.cat(parts).argmax(1).numpy()
        found["accuracy"] = round(cluster_accuracy(cluster, label), 5)
        found["ari"] = round(float(adjusted_rand_score(label, cluster)), 5)
        found["clusters_used"] = len(np.unique(cluster))
    if part is None or not isinstance(scoring.head, ClusterScores):
        # of a frozen latent, the row with the regression says it
        latent = torch.cat(apply_in_batches(scoring.model.encode, inputs, _CPU)).numpy()
        folds = fold_f1(latent, np.searchsorted(present, label)).mean(axis=1)
        found["fold_f1"], found["fold_f1_spread"] = round(folds.mean(), 5), round(folds.std(), 5)
        if len(label) >= 2 * _FEW_LABELS:
            few = few_label_f1(latent, np.searchsorted(present, label), _FEW_LABELS)
            found["few_label_f1"] = round(few.mean(), 5)
            found["few_label_f1_spread"] = round(few.std(), 5)
    noise = find_noise(contract.classes)
    is_noise = label == names.index(noise) if noise else np.zeros(len(label), bool)
    if is_noise.any() and type(scoring.model).reconstruct is not LatentModel.reconstruct:
        unusual = anomaly_auc(anomaly_scores(scoring.model, inputs, _CPU), is_noise)
        found |= {f"noise_auc_{name}": round(auc, 5) for name, auc in unusual.items()}
    return found


def _count_epochs(folder: Path) -> int:
    if not (folder / CURVES_NAME).exists():
        return 0
    return len((folder / CURVES_NAME).read_text(encoding="utf-8").splitlines()) - 1


def _make_table(plan: Plan, found: Sequence[dict[str, Any]]) -> str:
    levels = [level.name for level in plan.levels if level.test]
    rows = list(dict.fromkeys(cell.row for cell in plan.cells))
    thesis = {(cell.row, cell.level): cell.thesis for cell in plan.cells}
    lines = []
    for row in rows:
        texts = []
        for level in levels:
            text = _describe([e for e in found if (e["row"], e["level"]) == (row, level)])
            number = thesis.get((row, level))
            texts.append(f"{text} [{number}]" if number else text)
        lines.append([row, *texts])
    parts = [
        "Macro f1 (for clusterings: accuracy / adjusted Rand index) on events not trained on, mean"
        " ± standard deviation over the seeds (n); in brackets the thesis' number for its data.",
        _markdown(["", *levels], lines),
    ]
    of_last = {
        row: [e for e in found if (e["row"], e["level"]) == (row, levels[-1])] for row in rows
    }
    parts += _details(levels[-1], {row: results for row, results in of_last.items() if results})
    return "\n\n".join(parts) + "\n"


def _details(level: str, results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Tables of one level, means over the seeds: f1 of each class and effort; anomaly scores."""
    names = list(dict.fromkeys(name for r in results.values() for entries in r for name in entries))
    f1 = [name for name in names if name.startswith("f1_")]
    f1 += [name for name in ("fold_f1", "few_label_f1") if name in names]
    auc = [name for name in names if name.startswith(_AUC)]
    effort = [name for name in ("epochs", "cpu_seconds") if name in names]
    parts = []
    if f1:
        titles = [name.removeprefix("f1_") for name in f1]
        titles = [_TITLES.get(title, title) for title in [*titles, *effort]]
        lines = [
            [row, *(_mean(r, name, 3) for name in f1), *(_mean(r, name, 0) for name in effort)]
            for row, r in results.items()
        ]
        text = f"On *{level}*: f1 of each class; macro f1 of new regressions on the latent, over"
        text += f" five folds and with {_FEW_LABELS} labels; epochs; CPU seconds of a training."
        parts += [text, _markdown(["", *titles], lines)]
    if auc:
        text = f"On *{level}*: area under the ROC curve of anomaly scores, noise being the anomaly;"
        text += " 0.5 is chance, below it a low score is unusual."
        lines = [
            [row, *(_mean(r, name, 3) for name in auc)]
            for row, r in results.items()
            if any(name in entries for entries in r for name in auc)
        ]
        titles = [name.removeprefix(_AUC).replace("_", " ") for name in auc]
        parts += [text, _markdown(["", *titles], lines)]
    return parts


def _markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _mean(results: Sequence[dict[str, Any]], name: str, digits: int) -> str:
    values = [entries[name] for entries in results if name in entries]
    return f"{statistics.mean(values):.{digits}f}" if values else "-"


def _describe(results: Sequence[dict[str, Any]]) -> str:
    if not results:
        return "-"
    clustering = "ari" in results[0]
    names = ("accuracy", "ari") if clustering else ("macro_f1",)
    parts = []
    for name in names:
        values = [entries[name] for entries in results]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        parts.append(f"{statistics.mean(values):.3f}{spread}")
    return " / ".join(parts) + f" ({len(results)})"
