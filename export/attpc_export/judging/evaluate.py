"""Judges bundles on labelled runs, through the same steps as filtering takes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from attpc_export.data.labelled import run_files
from attpc_export.data.seen import find_seen
from attpc_export.judging.run_bundle import ReadOptions, ScoredEvents, score_runs
from attpc_export.metrics import Judgement, calibration_error, judge, purity_at
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import Bundle, load_bundle

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
    seen : str
        What of the data the bundle was trained on; empty: nothing.
    """

    bundle: Bundle
    data_set: str
    judgement: Judgement
    calibration_error: float
    purity: dict[str, float]
    seen: str = ""


def evaluate(
    models: Sequence[str],
    data: Sequence[Path],
    labels: Sequence[Path],
    device: str = "auto",
    options: ReadOptions | None = None,
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
    options : ReadOptions, optional
        How runs and labels are read, where that is not as the contracts say.

    Returns
    -------
    list of Result
        By bundle, then by data set. An event without a class counts as a miss.

    Raises
    ------
    UsageError
        If a bundle cannot be used or no event has a label.
    """
    return [
        result
        for model in models
        for result in judge_scored(
            score_labelled_runs(load_bundle(model), data, labels, device, options), data
        )
    ]


def score_labelled_runs(
    bundle: Bundle,
    data: Sequence[Path],
    labels: Sequence[Path],
    device: str = "auto",
    options: ReadOptions | None = None,
) -> ScoredEvents:
    """Score all events of runs, some of which must have a label.

    Raises
    ------
    UsageError
        If no event has a label.
    """
    options = replace(options or ReadOptions(), skip_unknown=True)
    scored = score_runs(bundle, data, labels, options, device, with_enough_hits=False)
    if not (scored.events.label >= 0).any():
        raise UsageError("--labels: none of the events of --data has a label there")
    return scored


def judge_scored(scored: ScoredEvents, data: Sequence[Path]) -> list[Result]:
    """Compare what a bundle made of runs with the labels, each data set for itself.

    Parameters
    ----------
    scored : ScoredEvents
        What the bundle made of them.
    data : sequence of Path
        The runs, to say which of them the bundle was trained on.
    """
    names, class_scores, results = scored.classes, scored.class_scores(), []
    for name, judgement in judge(scored.events, scored.tags(), names).items():
        rows = scored.labelled(scored.events.data_sets.index(name))
        label = scored.events.label[rows]
        purity = {
            names[k]: purity_at(class_scores[rows, k], label == k, EFFICIENCY)[0]
            for k in np.unique(label)
        }
        error = calibration_error(scored.scores[rows], label)
        path = data[scored.events.data_sets.index(name)]
        run, event = scored.events.run[rows], scored.events.event[rows]
        keys = set(zip(run.tolist(), event.tolist(), strict=True))
        seen = find_seen(scored.bundle.contract, [path], keys).describe(len(run_files(path)))
        results.append(Result(scored.bundle, name, judgement, error, purity, seen))
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
        *([f"  NOTE: {result.seen}"] if result.seen else []),
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
