"""Judges bundles on labelled runs, through the same steps as filtering takes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attpc_export.data import load_events, take_events
from attpc_export.metrics import (
    NO_CLASS,
    Judgement,
    calibration_error,
    judge,
    purity_at,
    tag_scores,
)
from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import Bundle, load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.staging import Staging

#: Efficiency at which purities are reported.
EFFICIENCY = 0.95
_CSV_HEADER = ("bundle", "sha256", "data_set", "quantity", "class", "value")


@dataclass(frozen=True, slots=True)
class Result:
    """A bundle's judgement on one data set.

    Attributes
    ----------
    bundle : Bundle
        The bundle.
    data_set : str
        Name of the data set.
    judgement : Judgement
        Its tags against the labels.
    calibration_error : float
        Expected calibration error of its scores.
    purity : dict of str to float
        Purity of each class that the data set has, other events being there, where the threshold
        on its score leaves an efficiency of :data:`EFFICIENCY`.
    """

    bundle: Bundle
    data_set: str
    judgement: Judgement
    calibration_error: float
    purity: dict[str, float]


def evaluate(
    models: Sequence[str], data: Sequence[Path], labels: Sequence[Path], device: str = "auto"
) -> list[Result]:
    """Judge bundles on labelled runs.

    Parameters
    ----------
    models : sequence of str
        Names of bundles that ship, or paths of ONNX files.
    data : sequence of Path
        Run files, and folders of run files; each path is a data set of its own.
    labels : sequence of Path
        Tables of labels.
    device : {"auto", "cpu", "cuda"}
        Where the bundles run.

    Returns
    -------
    list of Result
        By bundle, then by data set. An event without a class counts as a miss.

    Raises
    ------
    UsageError
        If a bundle cannot be used or no event has a label.
    """
    results = []
    for model in models:
        bundle = load_bundle(model)
        results += _evaluate_bundle(bundle, data, labels, device)
    if not results:
        raise UsageError("--labels: none of the events of --data has a label there")
    return results


def describe(result: Result) -> str:
    """Put a judgement into a few lines of text."""
    judgement = result.judgement
    names = [event_class.name for event_class in result.bundle.contract.classes]
    width = max(len(name) for name in [*names, "no class"]) + 2
    lines = [
        f"{result.bundle.contract.name} ({result.bundle.path.name},"
        f" sha256 {result.bundle.sha256[:12]}) on {result.data_set}:"
        f" {judgement.n_events} labelled events",
        f"  macro f1 {judgement.macro_f1:.4f}   "
        + "  ".join(f"{name} {f1:.4f}" for name, f1 in judgement.f1.items()),
        f"  calibration error {result.calibration_error:.4f}   purity at an efficiency of"
        f" {EFFICIENCY:.0%}: "
        + "  ".join(f"{name} {value:.4f}" for name, value in result.purity.items()),
        "  label \\ tag".ljust(width + 4)
        + "".join(name.rjust(width) for name in [*names, "no class"]),
    ]
    for name, row in zip(names, judgement.confusion, strict=True):
        if row.any():
            lines.append(f"  {name}".ljust(width + 4) + "".join(str(n).rjust(width) for n in row))
    if judgement.recall:
        recall = "  ".join(f"{kind} {value:.3f}" for kind, value in judgement.recall.items())
        lines.append(f"  recall by kind: {recall}")
    return "\n".join(lines)


def write_results(results: Sequence[Result], path: Path) -> None:
    """Write judgements as CSV: bundle, its hash, data set, quantity, class or kind, value."""
    with Staging() as staging:
        with staging.path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_CSV_HEADER)
            for result in results:
                where = (result.bundle.contract.name, result.bundle.sha256, result.data_set)
                writer.writerows((*where, *row) for row in _rows_of(result))
        staging.commit()


def _rows_of(result: Result) -> list[tuple[str, str, str]]:
    judgement = result.judgement
    names = [event_class.name for event_class in result.bundle.contract.classes]
    rows = [("events", "", str(judgement.n_events)), ("macro_f1", "", f"{judgement.macro_f1:.6f}")]
    rows += [("f1", name, f"{f1:.6f}") for name, f1 in judgement.f1.items()]
    rows.append(("calibration_error", "", f"{result.calibration_error:.6f}"))
    rows += [
        (f"purity_at_efficiency_{EFFICIENCY:g}", name, f"{value:.6f}")
        for name, value in result.purity.items()
    ]
    rows += [("recall_of_kind", kind, f"{value:.6f}") for kind, value in judgement.recall.items()]
    for name, counts in zip(names, judgement.confusion, strict=True):
        for tag, count in zip([*names, "no class"], counts, strict=True):
            rows.append((f"confusion: tagged {tag}", name, str(count)))
    return rows


def _evaluate_bundle(
    bundle: Bundle, data: Sequence[Path], labels: Sequence[Path], device: str
) -> list[Result]:
    contract = bundle.contract
    names = [event_class.name for event_class in contract.classes]
    events = load_events(data, labels, names, contract.hits, contract.detector)
    scorer = Scorer(bundle, device)
    outputs = ["scores"] if contract.novelty_threshold is None else ["scores", "novelty"]
    parts = []
    for start in range(0, len(events), scorer.batch_size):
        rows = np.arange(start, min(start + scorer.batch_size, len(events)))
        inputs = contract.make_inputs(take_events(events.hits, rows))
        parts.append(scorer.run(inputs, outputs))
    found = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
    tags = tag_scores(
        found["scores"],
        events.hits.counts,
        contract.classes,
        contract.hits,
        found.get("novelty"),
        contract.novelty_threshold,
    )
    results = []
    for name, judgement in judge(events, tags, names).items():
        number = events.data_sets.index(name)
        rows = np.flatnonzero((events.data_set == number) & (events.label >= 0))
        scores, label = found["scores"][rows], events.label[rows]
        purity = {}
        for index in np.unique(label):
            of_class = np.where(tags[rows] == NO_CLASS, 0.0, scores[:, index]).astype(np.float32)
            purity[names[index]], _ = purity_at(of_class, label == index, EFFICIENCY)
        error = calibration_error(scores, label)
        results.append(Result(bundle, name, judgement, error, purity))
    return results
