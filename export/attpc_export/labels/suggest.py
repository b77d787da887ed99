"""Chooses the events whose labels would help a bundle most, and gives labels it is sure of."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_export.data.labelled import UNLABELLED
from attpc_export.judging.pictures import Row, write_contact_sheet
from attpc_export.judging.run_bundle import ReadOptions, score_runs
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import load_bundle

#: Margin from which on a head is sure of an event.
_SURE = 0.95
#: Of so many times as many uncertain events as are wanted, those most unlike each other are taken.
_POOL = 10


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An event that is worth a label.

    Attributes
    ----------
    row : int
        Which one.
    margin : float
        Highest score less the second highest.
    distance : float
        In the standardised latent, from the nearest event that has a label or stands before it.
    """

    row: int
    margin: float
    distance: float


def choose_events(
    latent: NDArray[np.float32],
    scores: NDArray[np.float32],
    is_labelled: NDArray[np.bool_],
    n_wanted: int,
) -> list[Suggestion]:
    """Choose events that are uncertain and unlike each other and the labelled ones.

    Of the events with the smallest margins each next one is the farthest from all that have a label
    or were chosen (greedy k-centre; Sener and Savarese, arXiv 1708.00489). Where scores say
    nothing, the first half is drawn at random.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores.
    is_labelled : ndarray of bool, shape (n_events,)
        Which have a label already.
    n_wanted : int
        How many to choose.
    """
    two = np.sort(scores, axis=1)[:, -2:]
    margin = two[:, 1] - two[:, 0]
    # of an event that the head is sure of, a label says little
    is_sure = (margin > _SURE) if has_head(scores) else np.zeros(len(margin), np.bool_)
    place = (latent - latent.mean(0)) / (latent.std(0) + 1e-6)
    free = np.flatnonzero(~is_labelled & ~is_sure)
    most = _POOL * n_wanted if has_head(scores) else len(free)
    pool = free[np.argsort(margin[free], kind="stable")[:most]]
    chosen: list[Suggestion] = []
    if not has_head(scores):
        # distances find the rare kinds; half of the events say what the frequent ones are
        drawn = np.random.default_rng(0).permutation(free)[: n_wanted // 2].tolist()
        chosen = [Suggestion(row, float(margin[row]), 0.0) for row in drawn]
    known = [*np.flatnonzero(is_labelled).tolist(), *(suggestion.row for suggestion in chosen)]
    pool = pool[~np.isin(pool, known)]
    nearest = np.full(len(pool), np.inf)
    for row in known:
        nearest = np.minimum(nearest, np.linalg.norm(place[pool] - place[row], axis=1))
    n_wanted = min(n_wanted, len(chosen) + len(pool))
    while len(chosen) < n_wanted:
        first = not known and not chosen
        best = 0 if first else int(nearest.argmax())
        row = int(pool[best])
        distance = 0.0 if first else float(nearest[best])
        chosen.append(Suggestion(row, float(margin[row]), distance))
        nearest = np.minimum(nearest, np.linalg.norm(place[pool] - place[row], axis=1))
        nearest[best] = -1.0
    return chosen


def has_head(scores: NDArray[np.float32]) -> bool:
    """Whether a bundle's scores say anything: one without a head gives every class the same."""
    return bool(np.ptp(scores, axis=1).max(initial=0.0) > 1e-6)


def suggest(
    model: str,
    data: Sequence[Path],
    labels: Sequence[Path],
    n_wanted: int,
    out: Path,
    options: ReadOptions | None = None,
) -> Path:
    """Write a table of the events whose labels would help most, and a picture of them.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    data, labels : sequence of Path
        Runs, and the labels that are there already.
    n_wanted : int
        How many events to suggest.
    out : Path
        Table to write, with an empty column ``label`` to fill in; the picture stands beside it.
    options : ReadOptions, optional
        How runs and labels are read, where that is not as the contract says.

    Returns
    -------
    Path
        The picture.
    """
    if n_wanted < 1:
        raise UsageError(f"--events {n_wanted}: must be at least 1")
    bundle = load_bundle(model)
    names = [event_class.name for event_class in bundle.contract.classes]
    scored = score_runs(bundle, data, labels, options)
    events, scores = scored.events, scored.scores
    is_labelled = events.label != UNLABELLED
    if options is not None and options.classes and options.classes != bundle.contract.classes:
        scores = np.full_like(scores, 1.0 / scores.shape[1])  # of other classes they say nothing
    with_margin = has_head(scores)
    chosen = choose_events(scored.latent, scores, is_labelled, n_wanted)
    if not chosen:
        raise UsageError(
            "--data: every event has a label already, or is one that the bundle is sure of"
        )
    rows = np.array([suggestion.row for suggestion in chosen])
    with Staging() as staging:
        with staging.path(out).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["run", "event", "label", *(f"score_{n}" for n in names), "why"])
            for suggestion in chosen:
                row = suggestion.row
                second, first = np.argsort(scores[row], kind="stable")[-2:]
                reasons = []
                if with_margin:
                    reasons.append(
                        f"between {names[first]} and {names[second]}"
                        f" (margin {suggestion.margin:.2f})"
                    )
                if suggestion.distance:
                    reasons.append(
                        f"{suggestion.distance:.1f} from the nearest with a label or above"
                    )
                why = "; ".join(reasons) or "drawn at random"
                each = (f"{score:.3f}" for score in scores[row])
                writer.writerow([events.run[row], events.event[row], "", *each, why])
        staging.commit()
    picture = out.with_suffix(".png")
    sheet = [Row("the first would help most", rows)]
    write_contact_sheet(events, sheet, picture)
    return picture


def choose_sure(
    scores: NDArray[np.float32], label: NDArray[np.int64], share: float
) -> NDArray[np.int64]:
    """Pseudo-labels: the class with the highest score, for the surest events of each class.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores.
    label : ndarray of int64, shape (n_events,)
        Labels that are there; events that have one get none.
    share : float
        Of the other events that are scored as a class, so many get its label.

    Returns
    -------
    ndarray of int64, shape (n_events,)
        Classes; -1 for the others.
    """
    found = np.full(len(scores), UNLABELLED, np.int64)
    best = scores.argmax(axis=1)
    for index in range(scores.shape[1]):
        rows = np.flatnonzero((best == index) & (label == UNLABELLED))
        surest = rows[np.argsort(-scores[rows, index], kind="stable")]
        found[surest[: round(share * len(rows))]] = index
    return found


def write_pseudo_labels(
    model: str,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    share: float,
    options: ReadOptions | None = None,
) -> dict[str, int]:
    """Write a table of labels that a bundle gives to events which have none.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    data, labels : sequence of Path
        Runs, and the labels that are there already.
    out : Path
        Table to write.
    share : float
        See :func:`choose_sure`.
    options : ReadOptions, optional
        As for :func:`suggest`.

    Returns
    -------
    dict of str to int
        How many of each class.
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(f"--share {share:g}: is not in (0, 1]")
    bundle = load_bundle(model)
    names = [event_class.name for event_class in bundle.contract.classes]
    scored = score_runs(bundle, data, labels, options)
    found = choose_sure(scored.scores, scored.events.label, share)
    with Staging() as staging:
        with staging.path(out).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["run", "event", "label", "score"])
            for row in np.flatnonzero(found != UNLABELLED):
                score = f"{scored.scores[row, found[row]]:.3f}"
                event = scored.events.run[row], scored.events.event[row]
                writer.writerow([*event, names[found[row]], score])
        staging.commit()
    return {name: int((found == index).sum()) for index, name in enumerate(names)}
