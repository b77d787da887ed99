"""How far labellers agree: Krippendorff's alpha and Cohen's kappa.

Both are 1 for full agreement and 0 for what chance gives. Answers ``unsure`` are no label: they are
left out and counted apart.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from attpc_filter_web.store import UNSURE, Answer

#: Run and event number.
Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """How two labellers, or one labeller at two times, agree.

    Attributes
    ----------
    a, b : str
        The labellers; equal for one labeller at two times.
    n_events : int
        Events that both have a label for.
    share : float
        Share of these with the same label; NaN without any.
    kappa : float
        Cohen's kappa; NaN if it is not defined.
    confused : list of (str, str, int)
        Label by a, label by b, and how many such events; only where the labels differ.
    """

    a: str
    b: str
    n_events: int
    share: float
    kappa: float
    confused: list[tuple[str, str, int]]


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float:
    """Krippendorff's alpha for names without an order.

    Parameters
    ----------
    units : sequence of sequence of str
        The labels that each event got, from any number of labellers. Events with fewer than two
        labels do not count.

    Returns
    -------
    float
        1 less observed over expected disagreement (Krippendorff, *Content Analysis*, 2004, chapter
        11); NaN if no event has two labels, or all labels are the same.
    """
    weights: dict[tuple[str, str], float] = {}
    for labels in units:
        if len(labels) < 2:
            continue
        counts = Counter(labels)
        for first, n_first in counts.items():
            for second, n_second in counts.items():
                weight = n_first * (n_second - (first == second)) / (len(labels) - 1)
                weights[first, second] = weights.get((first, second), 0.0) + weight
    totals: dict[str, float] = {}
    for (first, _), weight in weights.items():
        totals[first] = totals.get(first, 0.0) + weight
    n_labels = sum(totals.values())
    observed = sum(weight for (first, second), weight in weights.items() if first != second)
    expected = n_labels**2 - sum(value**2 for value in totals.values())
    if not expected:
        return float("nan")
    return 1.0 - (n_labels - 1) * observed / expected


def cohen_kappa(a: Sequence[str], b: Sequence[str]) -> float:
    """Cohen's kappa of two sequences of labels of the same events.

    Parameters
    ----------
    a, b : sequence of str
        Labels by either.

    Returns
    -------
    float
        Agreement beyond chance (Cohen, 1960); NaN without events, or if both gave one and the same
        label throughout.
    """
    if not a:
        return float("nan")
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
    counts_a, counts_b = Counter(a), Counter(b)
    by_chance = sum(counts_a[name] * counts_b[name] for name in counts_a) / len(a) ** 2
    return float("nan") if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def first_labels(answers: Sequence[Answer]) -> dict[str, dict[Key, str]]:
    """Label of each event by each labeller, of the first round; ``unsure`` included."""
    table: dict[str, dict[Key, str]] = {}
    for answer in answers:
        if answer.round == "first":
            table.setdefault(answer.labeller, {})[answer.key] = answer.label
    return table


def repeat_labels(answers: Sequence[Answer]) -> dict[str, dict[Key, str]]:
    """Label of each event that a labeller was shown again; ``unsure`` included."""
    table: dict[str, dict[Key, str]] = {}
    for answer in answers:
        if answer.round == "repeat":
            table.setdefault(answer.labeller, {})[answer.key] = answer.label
    return table


def compare_pair(a: str, labels_a: Mapping[Key, str], b: str, labels_b: Mapping[Key, str]) -> Pair:
    """Compare two sets of labels; ``unsure`` is left out."""
    keys = [
        key
        for key, label in labels_a.items()
        if label != UNSURE and labels_b.get(key, UNSURE) != UNSURE
    ]
    first, second = [labels_a[key] for key in keys], [labels_b[key] for key in keys]
    confused = Counter((x, y) for x, y in zip(first, second, strict=True) if x != y)
    share = 1 - confused.total() / len(keys) if keys else float("nan")
    return Pair(
        *(a, b, len(keys), share, cohen_kappa(first, second)),
        [(x, y, n) for (x, y), n in confused.most_common()],
    )


def between_labellers(answers: Sequence[Answer]) -> tuple[float, list[Pair]]:
    """Krippendorff's alpha of all labellers together, and each two of them compared."""
    table = first_labels(answers)
    units: dict[Key, list[str]] = {}
    for labels in table.values():
        for key, label in labels.items():
            if label != UNSURE:
                units.setdefault(key, []).append(label)
    pairs = [compare_pair(a, table[a], b, table[b]) for a, b in combinations(sorted(table), 2)]
    return krippendorff_alpha(list(units.values())), pairs


def within_labellers(answers: Sequence[Answer]) -> list[Pair]:
    """Each labeller compared with the own answers to events that were shown again."""
    first, again = first_labels(answers), repeat_labels(answers)
    return [
        compare_pair(name, first.get(name, {}), name, labels)
        for name, labels in sorted(again.items())
    ]


def disagreements(answers: Sequence[Answer]) -> list[tuple[Key, dict[str, str]]]:
    """Events with different labels that nobody has settled, and who said what.

    An event is settled by an answer of the round ``settle``. A labeller who gave two different
    answers to an event stands in it as ``NAME (again)`` too.
    """
    settled = {answer.key for answer in answers if answer.round == "settle"}
    said: dict[Key, dict[str, str]] = {}
    for answer in answers:
        if answer.round != "settle" and answer.label != UNSURE:
            again = " (again)" if answer.round == "repeat" else ""
            said.setdefault(answer.key, {})[answer.labeller + again] = answer.label
    return [
        (key, labels)
        for key, labels in said.items()
        if key not in settled and len(set(labels.values())) > 1
    ]
