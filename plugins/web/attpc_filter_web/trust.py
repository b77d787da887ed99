"""The trust sample: some random events of every tag, labelled without the model's word.

It says what the tags are worth on these very runs. Of every tag the same number of events is drawn,
whatever the tag's size; each drawn event then stands for ``events of the tag / events drawn``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attpc_filter_web.agreement import Key
from attpc_filter_web.catalogue import Catalogue
from attpc_filter_web.store import UNSURE

_N_DRAWS = 4000
_SEED = 20
#: Jeffreys' prior of a share.
_PRIOR = 0.5


@dataclass(frozen=True, slots=True)
class Worth:
    """What is known of a class so far.

    Attributes
    ----------
    name : str
        The class.
    purity : tuple of float
        Share of the events of this tag that are of the class: estimate, and both ends of the 95%
        interval. NaN where no event of the tag has a label.
    efficiency : tuple of float
        Share of the events of the class that have this tag, as purity. NaN while a tag is without
        labels.
    """

    name: str
    purity: tuple[float, float, float]
    efficiency: tuple[float, float, float]


def draw_sample(catalogue: Catalogue, per_tag: int, seed: int) -> list[tuple[int, int, str]]:
    """Draw the sample: run, event and tag of each event, all tags mixed.

    Parameters
    ----------
    catalogue : Catalogue
        The events, with tags.
    per_tag : int
        Events of each tag, or all if it has fewer.
    seed : int
        The same seed gives the same sample.
    """
    rng = np.random.default_rng(seed)
    drawn: list[NDArray[np.int64]] = []
    for tag in catalogue.tags:
        rows = np.flatnonzero((catalogue.tag == tag) & catalogue.can_label)
        drawn.append(rng.permutation(rows)[:per_tag])
    mixed = rng.permutation(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)
    return [
        (int(catalogue.run[row]), int(catalogue.event[row]), str(catalogue.tag[row]))
        for row in mixed
    ]


def estimate(
    sample: Sequence[tuple[int, int, str]],
    labels: Mapping[Key, str],
    tag_counts: Mapping[str, int],
    classes: Sequence[str],
) -> list[Worth]:
    """Purity and efficiency of each class, with 95% intervals.

    Parameters
    ----------
    sample : sequence of (int, int, str)
        Run, event and the tag that the event was drawn from.
    labels : mapping of (int, int) to str
        Decided labels; ``unsure`` counts as not labelled.
    tag_counts : mapping of str to int
        Events of each tag in all runs.
    classes : sequence of str
        The classes.

    Returns
    -------
    list of Worth
        One a class. The intervals are quantiles of the posterior under Jeffreys' prior, each tag by
        itself, weighted with the events of the tag.
    """
    tags = [tag for tag, number in tag_counts.items() if number]
    counts = np.array([tag_counts[tag] for tag in tags], np.float64)
    n_labelled = np.zeros(len(tags))
    of_class = np.zeros((len(classes), len(tags)))
    for run, event, tag in sample:
        label = labels.get((run, event), UNSURE)
        if label in classes and tag in tags:
            n_labelled[tags.index(tag)] += 1
            of_class[list(classes).index(label), tags.index(tag)] += 1
    rng = np.random.default_rng(_SEED)
    found = []
    for index, name in enumerate(classes):
        yes = of_class[index]
        share = rng.beta(yes + _PRIOR, n_labelled - yes + _PRIOR, (_N_DRAWS, len(tags)))
        # events of the class in each tag: those that were seen, and some of the rest
        number = yes + rng.binomial((counts - n_labelled).astype(np.int64), share)
        best = yes * counts / np.where(n_labelled > 0, n_labelled, np.nan)
        at = tags.index(name) if name in tags else -1
        purity = efficiency = (np.nan, np.nan, np.nan)
        if at >= 0 and n_labelled[at]:
            purity = _with_interval(best[at] / counts[at], number[:, at] / counts[at])
        if at >= 0 and (n_labelled > 0).all() and yes.any():
            total = number.sum(axis=1)
            efficiency = _with_interval(
                best[at] / best.sum(), number[total > 0, at] / total[total > 0]
            )
        found.append(Worth(name, purity, efficiency))
    return found


def _with_interval(value: float, draws: NDArray[np.float64]) -> tuple[float, float, float]:
    """The value and the 95% interval, which has the value in it."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(value), float(min(low, value)), float(max(high, value))
