"""Scores to tags: thresholds, uncertain, unreadable, pass-through."""

from collections.abc import Sequence

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
) -> tuple[list[str], list[str]]:
    """Derive the tag of each event, and the reason where the tag is no class.

    Of the classes whose score reaches its threshold, the one with the highest score; ``uncertain``
    if none does or the event has too few hits to be scored; ``unreadable`` if it could not be read
    or its score is not finite; ``passthrough`` for ion-chamber downscale triggers.

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

    Returns
    -------
    tags, reasons : list of str
        One each event.
    """
    reached = scores >= np.asarray(thresholds, np.float32)
    best = np.where(reached, scores, -1.0).argmax(axis=1)
    finite = np.isfinite(scores).all(axis=1)
    tags: list[str] = []
    why: list[str] = []
    for index, reason in enumerate(reasons):
        if reason:
            tag = UNREADABLE
        elif passthrough[index]:
            tag, reason = PASSTHROUGH, "ion-chamber downscale trigger"
        elif n_hits[index] < min_hits:
            tag, reason = UNCERTAIN, f"{n_hits[index]} hits, the model needs {min_hits}"
        elif not finite[index]:
            tag, reason = UNREADABLE, "the model's score is not finite"
        elif not reached[index].any():
            tag, reason = UNCERTAIN, "no class reaches its threshold"
        else:
            tag = classes[best[index]]
        tags.append(tag)
        why.append(reason)
    return tags, why
