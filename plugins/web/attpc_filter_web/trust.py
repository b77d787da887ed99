"""The trust sample: some random events of every tag, labelled without the model's word.

It is drawn and judged as ``attpc-filter trust`` does it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attpc_filter import Estimate, Tagged, draw_sample, estimate_worth
from attpc_filter_web.agreement import Key
from attpc_filter_web.catalogue import Catalogue

_SEED = 0

#: Run, event, and the tag that the event was drawn from.
Drawn = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Worth:
    """What is known of a class so far.

    Attributes
    ----------
    name : str
        The class.
    purity, efficiency : Estimate or None
        Share of the events of this tag that are of the class, and of the events of the class that
        have this tag. None where labels are missing: for the purity of this tag, for the efficiency
        of any tag.
    """

    name: str
    purity: Estimate | None
    efficiency: Estimate | None


def draw(catalogue: Catalogue, per_tag: int, seed: int) -> list[Drawn]:
    """Draw the sample; the tags take turns, so that its first events are a sample of all tags too.

    Parameters
    ----------
    catalogue : Catalogue
        The events, with tags.
    per_tag : int
        Events of each tag, or all if it has fewer.
    seed : int
        The same seed gives the same sample.
    """
    rows = np.flatnonzero(catalogue.can_label)
    tagged = Tagged(
        catalogue.run[rows],
        catalogue.event[rows],
        catalogue.tag[rows].astype(np.str_),
        catalogue.classes,
        "",
    )
    drawn = draw_sample(tagged, per_tag, seed)
    keys = tagged.run[drawn].tolist(), tagged.event[drawn].tolist(), tagged.tag[drawn].tolist()
    return list(zip(*keys, strict=True))


def judge(
    sample: Sequence[Drawn],
    labels: Mapping[Key, str],
    tag_counts: Mapping[str, int],
    classes: Sequence[str],
) -> list[Worth]:
    """Purity and efficiency of each class that is a tag, with 95% intervals.

    Parameters
    ----------
    sample : sequence of (int, int, str)
        From :func:`draw`.
    labels : mapping of (int, int) to str
        Decided labels; what is no class, such as ``unsure``, does not count.
    tag_counts : mapping of str to int
        Events of each tag in all runs.
    classes : sequence of str
        The classes.
    """
    tags = [tag for tag, number in tag_counts.items() if number]
    population = np.array([tag_counts[tag] for tag in tags], np.int64)
    of_class = np.zeros((len(classes), len(tags)), np.int64)
    for run, event, tag in sample:
        label = labels.get((run, event))
        if label in classes and tag in tags:
            of_class[classes.index(label), tags.index(tag)] += 1
    n_labelled = of_class.sum(axis=0)
    rng = np.random.default_rng(_SEED)
    found = []
    for number, name in enumerate(classes):
        if name not in tags:
            continue
        own = tags.index(name)
        purity, efficiency = estimate_worth(of_class[number], n_labelled, population, own, rng)
        found.append(
            Worth(
                name,
                purity if n_labelled[own] else None,
                efficiency if n_labelled.all() and of_class[number].any() else None,
            )
        )
    return found


def to_csv(sample: Sequence[Drawn], labels: Mapping[Key, str]) -> str:
    """The sample with its labels as ``attpc-filter trust --labels`` takes it."""
    lines = [
        f"{run},{event},{labels.get((run, event), '')},{order}"
        for order, (run, event, _) in enumerate(sample, 1)
    ]
    return "\n".join(["run,event,label,order", *lines]) + "\n"
