"""Scores to tags: thresholds, uncertain, unreadable, pass-through."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

UNCERTAIN = "uncertain"
UNREADABLE = "unreadable"
PASSTHROUGH = "passthrough"


def assign_tags(
    scores: NDArray[np.float32],
    n_hits: NDArray[np.int64],
    passthrough: NDArray[np.bool_],
    reasons: Sequence[str],
    classes: Sequence[str],
    thresholds: Sequence[float],
    min_hits: int,
    wanted: Collection[str] | None = None,
    novelty: NDArray[np.float32] | None = None,
    novelty_threshold: float | None = None,
) -> tuple[list[str], list[str]]:
    """Derive the tag of each event, and the reason where the tag is no class.

    Of the classes whose score reaches its threshold, the one with the highest score; ``uncertain``
    if none does, if that class is not wanted, if the event is unlike those that the model was
    trained on or has too few hits to be scored; ``unreadable`` if it could not be read or its score
    is not finite; ``passthrough`` for ion-chamber downscale triggers.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores; ignored for events that were not scored.
    n_hits : ndarray of int64, shape (n_events,)
        Hits of each event.
    passthrough : ndarray of bool, shape (n_events,)
        Ion-chamber downscale triggers.
    reasons : sequence of str
        Why an event could not be read; empty if it could.
    classes, thresholds : sequence of str, of float
        Names of the classes and their thresholds, in the order of the score columns.
    min_hits : int
        Events with fewer hits are not scored.
    wanted : collection of str, optional
        Only these classes are given; all if left out.
    novelty : ndarray of float32, shape (n_events,), optional
        How unlike the training events an event is; ignored for events that were not scored.
    novelty_threshold : float, optional
        Events with a higher novelty are uncertain.

    Returns
    -------
    tags, reasons : list of str
        One each event.
    """
    reached = scores >= np.asarray(thresholds, np.float32)
    best = np.where(reached, scores, -1.0).argmax(axis=1)
    is_wanted = np.array([wanted is None or name in wanted for name in classes])
    names = np.array([*classes, UNCERTAIN, UNREADABLE, PASSTHROUGH], object)
    uncertain, unreadable, triggers = range(len(classes), len(names))
    why = np.array(reasons, object)

    # the first rule that holds decides
    not_read = why != ""
    few_hits = n_hits < min_hits
    not_finite = ~np.isfinite(scores).all(axis=1)
    is_novel = np.zeros(len(scores), np.bool_)
    if novelty is not None and novelty_threshold is not None:
        is_novel = ~(novelty <= novelty_threshold)  # one that is not finite is not known either
    none_reached = ~reached.any(axis=1)
    not_wanted = ~is_wanted[best]
    rules = (
        (not_read, unreadable),
        (passthrough, triggers),
        (few_hits, uncertain),
        (not_finite, unreadable),
        (is_novel, uncertain),
        (none_reached, uncertain),
        (not_wanted, uncertain),
    )
    rule = np.select([holds for holds, _ in rules], range(len(rules)), len(rules))
    tag = np.where(rule == len(rules), best, np.array([*(to for _, to in rules), 0])[rule])

    why[rule == 1] = "ion-chamber downscale trigger"
    for index in np.flatnonzero(rule == 2):
        why[index] = f"{n_hits[index]} hits, the model needs {min_hits}"
    why[rule == 3] = "the model's score is not finite"
    why[rule == 4] = "unlike the training events"
    why[rule == 5] = "no class reaches its threshold"
    for number, name in enumerate(classes):
        why[(rule == 6) & (best == number)] = f"{name} is not among the classes asked for"
    return names[tag].tolist(), why.tolist()
