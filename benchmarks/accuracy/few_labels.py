"""What few labels are worth: 100 of the train part, the rest of it without labels.

    python benchmarks/accuracy/few_labels.py --shared ar46 --out FOLDER [--seeds 1 2 3]
        [--draws 3] [--labels 100] [--students 1] [--part validation]

For each seed: an encoder that learned without labels (``unlabelled.yaml``; kept in FOLDER/seed_N).
For each draw of labels: heads on its latent (kernel machine, logistic regression); the same kernel
machine with half of the labels drawn and half suggested; and, for the first draws, a student
(``student.yaml``) of each of the two kernel machines, trained on with the labels that it is sure
of. Judged as
`attpc-export evaluate` does: an event without a class is a miss. Writes ``few_labels.csv``.

``--part validation`` judges on 15% of the train part, whose labels are then never used: for
choosing among settings.
"""

import argparse
import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from attpc_export.bundles.bundle_head import Kind, fit_on_latents, scores_of_head
from attpc_export.cli import main as attpc_export
from attpc_export.config import load_config
from attpc_export.data.labelled import UNLABELLED, Events, split_events
from attpc_export.judging.run_bundle import ReadOptions, ScoredEvents, score_runs
from attpc_export.labels.suggest import choose_events, choose_sure
from attpc_export.metrics import index_tags, judge, tag_scores
from numpy.typing import NDArray
from torch import nn

from attpc_filter.score.bundle import Bundle, load_bundle

CONFIGS = Path(__file__).parents[2] / "export" / "configs"
GROUP_COLUMN = "source_event"
KINDS: tuple[Kind, ...] = ("logistic", "kernel")
COLUMNS = ["seed", "draw", "method", "labels", "part", "macro_f1", "proton", "carbon", "noise"]


@dataclass(frozen=True)
class Case:
    """Where the events of a measurement are.

    Attributes
    ----------
    shared : Path
        Folder with train and test.
    out : Path
        Where trainings are kept.
    part : {"test", "validation"}
        What is judged on.
    """

    shared: Path
    out: Path
    part: str

    @property
    def data(self) -> Path:
        """Runs of the train part."""
        return self.shared / "train" / "full"

    @property
    def labels(self) -> Path:
        """Labels of the train part."""
        return self.shared / "train" / "labels_full.csv"

    def pretrain(self, seed: int) -> tuple[Path, Path]:
        """Run folder and bundle of the encoder that learned without labels."""
        folder = self.out / f"seed_{seed}"
        bundle = folder.with_suffix(".onnx")
        if not bundle.exists():
            arguments = ["--data", str(self.data), "--out", str(folder), "--seed", str(seed)]
            arguments += ["--resume"] if (folder / "last.pt").exists() else []
            run("train", str(CONFIGS / "unlabelled.yaml"), *arguments, "--device", "cpu")
            run("export", str(folder), "--out", str(bundle))
        return folder, bundle

    def encode(self, bundle: Bundle) -> tuple[ScoredEvents, ScoredEvents]:
        """Events whose labels may be used, and those that are judged."""
        train = score_runs(
            bundle, [self.data], [self.labels], ReadOptions(group_column=GROUP_COLUMN)
        )
        if self.part == "test":
            test = self.shared / "test"
            return train, score_runs(
                bundle,
                [test / "full"],
                [test / "labels_full.csv"],
                ReadOptions(group_column=GROUP_COLUMN),
            )
        kept = split_events(train.events.group, 0.15, 1)
        return take(train, ~kept), take(train, kept)


def run(*arguments: str) -> None:
    """Run a command of attpc-export."""
    if attpc_export(arguments):
        raise SystemExit(f"attpc-export {' '.join(arguments)}: failed")


def take(scored: ScoredEvents, chosen: NDArray[np.bool_]) -> ScoredEvents:
    """Some of the events."""
    rows = np.flatnonzero(chosen)
    return scored.take(rows)


def judge_scores(
    bundle: Bundle, judged: ScoredEvents, scores: NDArray[np.float32]
) -> dict[str, float]:
    """Macro f1 and f1 of each class."""
    contract, events = bundle.contract, judged.events
    names = [c.name for c in contract.classes]
    tags = index_tags(
        tag_scores(scores, events.hits.counts, contract.classes, contract.hits), names
    )
    (found,) = judge(events, tags, names).values()
    return {"macro_f1": found.macro_f1, **found.f1}


def fit_scores(
    scored: ScoredEvents, rows: NDArray[np.int64], names: list[str], kind: Kind
) -> nn.Module:
    """A head of some events' labels, as a module that maps latents to scores."""
    label = np.full(len(scored.events), UNLABELLED, np.int64)
    label[rows] = scored.events.label[rows]
    few = replace(scored, events=replace(scored.events, label=label))
    strength = 0.1 if kind == "logistic" else None
    head, _ = fit_on_latents(few, names, kind, strength)
    return scores_of_head(head).eval()


def score(head: nn.Module, scored: ScoredEvents) -> NDArray[np.float32]:
    """Scores of a head."""
    with torch.no_grad():
        found: NDArray[np.float32] = head(torch.from_numpy(scored.latent)).numpy()
    return found


def write_labels(path: Path, events: Events, label: NDArray[np.int64], names: list[str]) -> None:
    """A table of the labels of those events that have one."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "event", "label"])
        for row in np.flatnonzero(label != UNLABELLED):
            writer.writerow([events.run[row], events.event[row], names[label[row]]])


def draw_labels(label: NDArray[np.int64], n_labels: int, seed: int, draw: int) -> NDArray[np.int64]:
    """Rows drawn at random; drawn again while a class has fewer than two."""
    rng = np.random.default_rng((seed, draw))
    while True:
        rows = rng.permutation(np.flatnonzero(label != UNLABELLED))[:n_labels]
        if np.bincount(label[rows], minlength=label.max() + 1).min() >= 2:
            return rows


def suggest_half(
    train: ScoredEvents, rows: NDArray[np.int64], names: list[str]
) -> NDArray[np.int64]:
    """The first half of the labels, and as many that the head of these suggests."""
    half = rows[: len(rows) // 2]
    if np.bincount(train.events.label[half], minlength=len(names)).min() < 2:
        return rows  # no head can be made of the half
    scores = score(fit_scores(train, half, names, "kernel"), train)
    is_labelled = np.isin(np.arange(len(train.events)), half)
    chosen = choose_events(train.latent, scores, is_labelled, len(rows) - len(half))
    return np.concatenate([half, [suggestion.row for suggestion in chosen]])


def train_student(
    train: ScoredEvents,
    label: NDArray[np.int64],
    scores: NDArray[np.float32],
    case: Case,
    start: Path,
    seed: int,
    folder: Path,
) -> Path:
    """The bundle of a student of labels and of those that scores are sure of."""
    bundle, table = folder.with_suffix(".onnx"), folder.with_suffix(".csv")
    if not bundle.exists():
        names = load_config(CONFIGS / "student.yaml").class_names
        sure = np.where(label != UNLABELLED, label, choose_sure(scores, label, 0.8))
        write_labels(table, train.events, sure, names)
        arguments = ["--start", str(start), "--out", str(folder), "--seed", str(seed)]
        arguments += ["--data", str(case.data), "--labels", str(table), "--device", "cpu"]
        run("train", str(CONFIGS / "student.yaml"), *arguments)
        run("export", str(folder), "--out", str(bundle))
    return bundle


def write_rows(path: Path, rows: list[dict[str, object]], columns: list[str]) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with train and test")
    parser.add_argument("--out", type=Path, required=True, help="keeps trainings")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--students", type=int, default=1, help="of so many of the draws")
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = Case(options.shared, options.out, options.part)
    options.out.mkdir(parents=True, exist_ok=True)
    names = load_config(CONFIGS / "unlabelled.yaml").class_names
    rows: list[dict[str, object]] = []

    for seed in options.seeds:
        folder, path = case.pretrain(seed)
        bundle = load_bundle(str(path))
        train, judged = case.encode(bundle)
        for draw in range(options.draws):
            chosen = draw_labels(train.events.label, options.labels, seed, draw)
            place = {"seed": seed, "draw": draw, "labels": options.labels, "part": case.part}
            heads = {kind: fit_scores(train, chosen, names, kind) for kind in KINDS}
            half = suggest_half(train, chosen, names)
            heads["kernel, half suggested"] = fit_scores(train, half, names, "kernel")
            for method, head in heads.items():
                quality = judge_scores(bundle, judged, score(head, judged))
                rows.append(place | {"method": method, **quality})
            of_student = {"kernel": chosen, "kernel, half suggested": half}
            for method, known in of_student.items() if draw < options.students else ():
                label = np.full(len(train.events), UNLABELLED, np.int64)
                label[known] = train.events.label[known]
                suffix = "" if method == "kernel" else "_suggested"
                name = f"student_{case.part}_{options.labels}_{seed}_{draw}{suffix}"
                scores = score(heads[method], train)
                made = train_student(train, label, scores, case, folder, seed, options.out / name)
                student = load_bundle(str(made))
                _, tested = case.encode(student)
                quality = judge_scores(student, tested, tested.scores)
                rows.append(place | {"method": f"student of {method}", **quality})
            write_rows(options.table, rows, COLUMNS)
            print(*(row for row in rows if row | place == row), sep="\n", flush=True)


if __name__ == "__main__":
    main()
