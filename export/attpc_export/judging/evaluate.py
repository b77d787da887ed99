"""Judges bundles on labelled runs, through the same steps as filtering takes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_export.data.labelled import Events, load_events, take_events
from attpc_export.metrics import (
    Judgement,
    calibration_error,
    judge,
    purity_at,
    tag_scores,
)
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import Bundle, load_bundle
from attpc_filter.score.scorer import Scorer

#: Efficiency at which purities are reported.
EFFICIENCY = 0.95
_CSV_HEADER = ("bundle", "sha256", "data_set", "quantity", "class", "value")


@dataclass(frozen=True, slots=True)
class Scored:
    """What a bundle makes of runs.

    Attributes
    ----------
    bundle : Bundle
        The bundle.
    events : Events
        All events of the runs.
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores.
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    novelty : ndarray of float32, shape (n_events,), or None
        How unlike the training events an event is, if the bundle says so.
    tags : ndarray of int64, shape (n_events,)
        Index of the class; :data:`~attpc_export.metrics.NO_CLASS` for none.
    """

    bundle: Bundle
    events: Events
    scores: NDArray[np.float32]
    latent: NDArray[np.float32]
    novelty: NDArray[np.float32] | None
    tags: NDArray[np.int64]

    @property
    def classes(self) -> list[str]:
        """Names of the bundle's classes."""
        return [event_class.name for event_class in self.bundle.contract.classes]

    def class_scores(self) -> NDArray[np.float32]:
        """Scores, but 0 of events whose scores do not count: too few hits, or too novel."""
        contract = self.bundle.contract
        counts = self.events.hits.counts >= contract.hits.min_hits
        if self.novelty is not None and contract.novelty_threshold is not None:
            counts &= self.novelty <= contract.novelty_threshold
        return np.where(counts[:, None], self.scores, np.float32(0.0))

    def labelled(self, data_set: int) -> NDArray[np.int64]:
        """Events of a data set that have a label, by their number."""
        return np.flatnonzero((self.events.data_set == data_set) & (self.events.label >= 0))


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
    return [
        result
        for model in models
        for result in judge_scored(score_runs(load_bundle(model), data, labels, device))
    ]


def score_runs(
    bundle: Bundle, data: Sequence[Path], labels: Sequence[Path], device: str = "auto"
) -> Scored:
    """Score and tag all events of runs as filtering does.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    data, labels, device
        As for :func:`evaluate`.

    Returns
    -------
    Scored
        Events in the order of the paths, the files' names and the event numbers.

    Raises
    ------
    UsageError
        If no event has a label.
    """
    contract = bundle.contract
    names = [event_class.name for event_class in contract.classes]
    events = load_events(data, labels, names, contract.hits, contract.detector)
    if not (events.label >= 0).any():
        raise UsageError("--labels: none of the events of --data has a label there")
    scorer = Scorer(bundle, device)
    threshold = contract.novelty_threshold
    outputs = ["scores", "latent", *([] if threshold is None else ["novelty"])]
    parts = []
    for start in range(0, len(events), scorer.batch_size):
        rows = np.arange(start, min(start + scorer.batch_size, len(events)))
        inputs = contract.make_inputs(take_events(events.hits, rows))
        parts.append(scorer.run(inputs, outputs))
    found = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
    novelty = found.get("novelty")
    tags = tag_scores(
        found["scores"], events.hits.counts, contract.classes, contract.hits, novelty, threshold
    )
    return Scored(bundle, events, found["scores"], found["latent"], novelty, tags)


def judge_scored(scored: Scored) -> list[Result]:
    """Compare what a bundle made of runs with the labels, each data set for itself."""
    names, class_scores, results = scored.classes, scored.class_scores(), []
    for name, judgement in judge(scored.events, scored.tags, names).items():
        rows = scored.labelled(scored.events.data_sets.index(name))
        label = scored.events.label[rows]
        purity = {
            names[k]: purity_at(class_scores[rows, k], label == k, EFFICIENCY)[0]
            for k in np.unique(label)
        }
        error = calibration_error(scored.scores[rows], label)
        results.append(Result(scored.bundle, name, judgement, error, purity))
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
