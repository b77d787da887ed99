"""Tags against labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score

from attpc_export.data.labelled import Events
from attpc_filter.rebuild.hits import HitSettings
from attpc_filter.score.bundle import EventClass
from attpc_filter.tag import assign_tags

#: What an event was tagged with that got no class.
NO_CLASS = -1


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the tags of labelled events of one data set compare with their labels.

    Attributes
    ----------
    n_events : int
        Labelled events.
    f1 : dict of str to float
        f1 score of each class that the data set has.
    confusion : ndarray of int64, shape (n_classes, n_classes + 1)
        Rows: labels. Columns: tags, the last one those that are no class.
    recall : dict of str to float
        By kind of event, the fraction that got its class.
    """

    n_events: int
    f1: dict[str, float]
    confusion: NDArray[np.int64]
    recall: dict[str, float]

    @property
    def macro_f1(self) -> float:
        """Unweighted mean of the f1 scores."""
        return float(np.mean(list(self.f1.values())))


def tag_scores(
    scores: NDArray[np.float32],
    n_hits: NDArray[np.int64],
    classes: tuple[EventClass, ...],
    hits: HitSettings,
    novelty: NDArray[np.float32] | None = None,
    novelty_threshold: float | None = None,
) -> list[str]:
    """Tag events as filtering does: thresholds, and too few hits for a score.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores.
    n_hits : ndarray of int64, shape (n_events,)
        Hits of each event.
    classes : tuple of EventClass
        Classes with their thresholds.
    hits : HitSettings
        Its ``min_hits`` is what an event needs to be scored.
    novelty : ndarray of float32, shape (n_events,), optional
        How unlike the training events an event is.
    novelty_threshold : float, optional
        Above it, an event gets no class.

    Returns
    -------
    list of str
        Names of classes, ``uncertain`` or ``unreadable``.
    """
    names = [event_class.name for event_class in classes]
    tags, _ = assign_tags(
        scores,
        n_hits,
        np.zeros(len(scores), np.bool_),
        [""] * len(scores),
        names,
        [event_class.threshold for event_class in classes],
        hits.min_hits,
        novelty=novelty,
        novelty_threshold=novelty_threshold,
    )
    return tags


def index_tags(tags: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Turn tags into indices of classes; :data:`NO_CLASS` for events that got none."""
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number.get(tag, NO_CLASS) for tag in tags], np.int64)


def judge(events: Events, tags: NDArray[np.int64], classes: list[str]) -> dict[str, Judgement]:
    """Compare tags with labels, each data set for itself.

    Parameters
    ----------
    events : Events
        Events; those without a label are left out.
    tags : ndarray of int64, shape (n_events,)
        Index of the class; :data:`NO_CLASS` for none, which counts as a miss.
    classes : list of str
        Names of the classes.

    Returns
    -------
    dict of str to Judgement
        By the data set's name; data sets without a labelled event are left out.
    """
    found = {}
    for number, name in enumerate(events.data_sets):
        rows = np.flatnonzero((events.data_set == number) & (events.label >= 0))
        if len(rows):
            found[name] = _judge(events.label[rows], tags[rows], events.kind[rows], classes)
    return found


def calibration_error(
    scores: NDArray[np.float32], label: NDArray[np.int64], n_bins: int = 15
) -> float:
    """Expected calibration error of the highest scores (Guo et al., arXiv 1706.04599).

    Parameters
    ----------
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores.
    label : ndarray of int64, shape (n_events,)
        Classes.
    n_bins : int
        Bins of equal width.

    Returns
    -------
    float
        Mean distance between score and share of right ones, over the bins, by their events.
    """
    mean_score, share_right, n_events = calibration_bins(scores, label, n_bins)
    return float((n_events * np.abs(mean_score - share_right)).sum() / len(label))


def calibration_bins(
    scores: NDArray[np.float32], label: NDArray[np.int64], n_bins: int = 15
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean of the highest scores and share of right ones, in bins of the highest score.

    Parameters
    ----------
    scores, label, n_bins
        As for :func:`calibration_error`.

    Returns
    -------
    mean_score, share_right : ndarray of float64
        Of the bins that hold an event.
    n_events : ndarray of int64
        Events in these bins.
    """
    highest = scores.max(axis=1).astype(np.float64)
    right = scores.argmax(axis=1) == label
    bins = np.minimum((highest * n_bins).astype(np.int64), n_bins - 1)
    n_events = np.bincount(bins, minlength=n_bins)
    sums = np.bincount(bins, highest, n_bins), np.bincount(bins, right, n_bins)
    held = n_events > 0
    mean_score, share_right = (total[held] / n_events[held] for total in sums)
    return mean_score, share_right, n_events[held]


def purity_at(
    scores: NDArray[np.float32], is_class: NDArray[np.bool_], efficiency: float
) -> tuple[float, float]:
    """Purity of a class where the threshold on its score leaves a given efficiency.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_events,)
        Scores of the class; 0 for events that cannot get it.
    is_class : ndarray of bool, shape (n_events,)
        Whether an event is of the class.
    efficiency : float
        Least share of the events of the class that must be kept.

    Returns
    -------
    purity, threshold : float
        Share of the kept events that are of the class, and the threshold.
    """
    own = np.sort(scores[is_class])[::-1]
    threshold = own[int(np.ceil(efficiency * len(own))) - 1]
    kept = scores >= threshold
    return float(is_class[kept].mean()), float(threshold)


def _judge(
    label: NDArray[np.int64], tag: NDArray[np.int64], kind: NDArray[np.str_], classes: list[str]
) -> Judgement:
    present = np.unique(label)
    # only the classes that a data set has: a tag of another one is a miss of the event's own
    f1 = f1_score(label, tag, labels=present, average=None, zero_division=0.0)
    columns = np.where(tag == NO_CLASS, len(classes), tag)
    confusion = confusion_matrix(label, columns, labels=np.arange(len(classes) + 1))
    return Judgement(
        n_events=len(label),
        f1={classes[k]: float(score) for k, score in zip(present, f1, strict=True)},
        confusion=confusion[:-1],
        recall={str(k): float((tag == label)[kind == k].mean()) for k in np.unique(kind) if k},
    )
