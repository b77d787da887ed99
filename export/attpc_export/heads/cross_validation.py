"""How good a head is, by labelled events that did not fit it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

from attpc_export.heads.kernel import KernelHead
from attpc_export.heads.linear import Head, temperature_of
from attpc_filter.errors import UsageError

_FOLDS = 5

#: Fits a head on the given rows of the labelled events.
FitOn = Callable[[NDArray[np.int64]], Head | KernelHead]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """What heads that were fitted without an event make of it.

    Attributes
    ----------
    events_by_class : dict of str to int
        Labelled events.
    folds : int
        Parts of the cross-validation: each was scored by a head that the others fitted.
    f1 : dict of str to float
        f1 score of each class, an event being of the class with the highest score.
    temperature : float
        Logits divided by it give honest scores.
    """

    events_by_class: dict[str, int]
    folds: int
    f1: dict[str, float]
    temperature: float

    def describe(self) -> str:
        """A few lines of text."""
        by_class = ", ".join(f"{n} {name}" for name, n in self.events_by_class.items())
        return (
            f"labelled: {by_class}\nf1, cross-validated in {self.folds} parts:"
            f" {describe_f1(self.f1)}"
        )


def cross_validate(
    fit: FitOn,
    latent: NDArray[np.float32],
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    names: Sequence[str],
) -> CrossValidation:
    """Fit heads without a part of the events each, and judge them on that part.

    Parameters
    ----------
    fit : callable
        Fits a head on some rows.
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents of the labelled events.
    label : ndarray of int64, shape (n_events,)
        Their classes, 0 to n_classes - 1.
    group : ndarray of int64, shape (n_events,)
        Events with equal numbers are never divided.
    names : sequence of str
        Names of the classes.

    Raises
    ------
    UsageError
        If a class has too few events.
    """
    groups = Counter({index: 0 for index in range(len(names))})
    groups.update(kind for kind, _ in set(zip(label.tolist(), group.tolist(), strict=True)))
    fewest = min(groups, key=lambda kind: groups[kind])
    folds = min(_FOLDS, groups[fewest])
    splitter = StratifiedGroupKFold(max(folds, 2), shuffle=True, random_state=0)
    parts = list(splitter.split(latent, label, group)) if folds > 1 else []
    if not parts or any(len(np.unique(label[rows])) < len(names) for rows, _ in parts):
        raise UsageError(
            f"--labels: {groups[fewest]} labelled {names[fewest]} among the scored events, too few"
            " for a cross-validation; label more"
        )
    logits = np.zeros((len(label), len(names)))
    for rows, others in parts:
        logits[others] = fit(rows).logits(latent[others])
    return CrossValidation(
        dict(zip(names, np.bincount(label, minlength=len(names)).tolist(), strict=True)),
        folds,
        f1_by_class(label, logits.argmax(axis=1), names),
        temperature_of(logits, label),
    )


def f1_by_class(
    label: NDArray[np.int64], tag: NDArray[np.int64], names: Sequence[str]
) -> dict[str, float]:
    """Score each class that occurs among the labels."""
    present = np.unique(label)
    f1 = f1_score(label, tag, labels=present, average=None, zero_division=0.0)
    return {names[index]: float(value) for index, value in zip(present, f1, strict=True)}


def describe_f1(f1: dict[str, float]) -> str:
    """Macro f1 and that of each class, on one line."""
    each = "  ".join(f"{name} {value:.4f}" for name, value in f1.items())
    return f"macro {np.mean(list(f1.values())):.4f}   {each}"
