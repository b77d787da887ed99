"""Which event is shown next.

The choice follows from the answers in the database and the events that are already on the page: a
server that was killed and started again shows the same event.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attpc_filter import UsageError
from attpc_filter_web.agreement import disagreements
from attpc_filter_web.catalogue import Catalogue
from attpc_filter_web.filters import select
from attpc_filter_web.store import Answer, Round
from attpc_filter_web.suggest import Suggester

#: An event is shown again after this many other answers at the earliest.
_REPEAT_AFTER = 15
#: Share of the events that another labeller has answered already, so that agreement can be told.
_SHARED = 0.2

#: Names of the policies and what they do.
POLICIES = {
    "suggest": "events whose labels would help the model most",
    "random": "in random order, the same for every labeller",
    "margin": "smallest difference of the two best scores first",
    "novel": "most unlike the training events first",
    "flips": "events that the other tagging tags otherwise",
    "csv": "the events of the list that was given at the start",
    "filter": "the events that the filter keeps",
    "trust": "the trust sample: a random part of every tag",
    "settle": "events that were labelled differently",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """An event to show.

    Attributes
    ----------
    row : int
        Row of the catalogue.
    round : {"first", "repeat", "settle"}
        Why; the page does not tell the labeller.
    policy : str
        How it was chosen.
    """

    row: int
    round: Round
    policy: str


class Chooser:
    """Chooses the next event for a labeller.

    Parameters
    ----------
    catalogue : Catalogue
        The events.
    suggester : Suggester
        For the policy ``suggest``.
    repeats : float
        Share of the events that are shown again.
    seed : int
        Of all that is drawn.
    flips, listed : sequence of int
        Rows for the policies ``flips`` and ``csv``.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        suggester: Suggester,
        repeats: float,
        seed: int,
        flips: Sequence[int] = (),
        listed: Sequence[int] = (),
    ) -> None:
        self._catalogue = catalogue
        self._suggester = suggester
        self._repeats = repeats
        self._seed = seed
        self._flips, self._listed = list(flips), list(listed)
        order = np.random.default_rng(seed).permutation(len(catalogue))
        self._random = order[catalogue.can_label[order]].tolist()
        self._by_margin = self._ordered(catalogue.margin)
        self._by_novelty = self._ordered(-catalogue.novelty)

    def _ordered(self, key: NDArray[np.float32]) -> list[int]:
        rows = np.flatnonzero(np.isfinite(key) & self._catalogue.can_label)
        ordered: list[int] = rows[np.argsort(key[rows], kind="stable")].tolist()
        return ordered

    def available(self) -> dict[str, int]:
        """Policies that can be used here, and how many events each has (-1: it depends)."""
        counts = {
            "suggest": len(self._by_margin) if self._suggester.can_suggest else 0,
            "random": len(self._random),
            "margin": len(self._by_margin),
            "novel": len(self._by_novelty),
            "flips": len(self._flips),
            "csv": len(self._listed),
            "filter": -1,
            "trust": -1 if self._catalogue.tags else 0,
            "settle": -1,
        }
        return {name: number for name, number in counts.items() if number}

    def next(
        self,
        policy: str,
        labeller: str,
        answers: Sequence[Answer],
        on_page: Collection[int] = (),
        filter_text: str = "",
        sample: Sequence[tuple[int, int, str]] = (),
    ) -> Choice | None:
        """Choose the next event.

        Parameters
        ----------
        policy : str
            One of :data:`POLICIES`.
        labeller : str
            Whose turn it is.
        answers : sequence of Answer
            All answers of all labellers.
        on_page : collection of int
            Rows that the page shows or will show already; they count as answered.
        filter_text : str
            For the policy ``filter``.
        sample : sequence of (int, int, str)
            The trust sample.

        Returns
        -------
        Choice or None
            None if there is nothing left.
        """
        if policy == "settle":
            return self._to_settle(answers, on_page)
        rows = self._catalogue.rows
        own = [a for a in answers if a.labeller == labeller and a.round != "settle"]
        done = {rows[a.key] for a in own if a.key in rows} | set(on_page)
        draw = np.random.default_rng(
            [self._seed, zlib.crc32(labeller.encode()), len(own) + len(on_page)]
        )
        if draw.random() < self._repeats:
            again = self._to_repeat(own, on_page)
            if again:
                return Choice(int(draw.choice(again)), "repeat", policy)
        if policy == "suggest" and draw.random() < _SHARED:
            others = {rows[a.key] for a in answers if a.labeller != labeller and a.key in rows}
            shared = sorted(others - done)
            if shared:
                return Choice(int(draw.choice(shared)), "first", policy)
        for row in self._candidates(policy, answers, filter_text, sample):
            if row not in done:
                return Choice(row, "first", policy)
        return None

    def _candidates(
        self,
        policy: str,
        answers: Sequence[Answer],
        filter_text: str,
        sample: Sequence[tuple[int, int, str]],
    ) -> Sequence[int]:
        rows = self._catalogue.rows
        if policy == "filter":
            kept = select(filter_text, self._catalogue, labels_by_row(self._catalogue, answers))
            return [row for row in kept.tolist() if self._catalogue.can_label[row]]
        if policy == "trust":
            return [rows[run, event] for run, event, _ in sample if (run, event) in rows]
        known: dict[str, Sequence[int]] = {
            "suggest": [*self._suggester.ranking, *self._random],
            "random": self._random,
            "margin": self._by_margin,
            "novel": self._by_novelty,
            "flips": self._flips,
            "csv": self._listed,
        }
        if policy not in known:
            raise UsageError(f"policy {policy!r}: there are {', '.join(POLICIES)}")
        return known[policy]

    def _to_repeat(self, own: Sequence[Answer], on_page: Collection[int]) -> list[int]:
        """Rows of the labeller's early answers that were not shown again yet."""
        rows = self._catalogue.rows
        again = {a.key for a in own if a.round == "repeat"}
        early = own[: max(len(own) - _REPEAT_AFTER, 0)]
        keys = [a.key for a in early if a.round == "first" and a.key not in again]
        return [rows[key] for key in keys if key in rows and rows[key] not in on_page]

    def _to_settle(self, answers: Sequence[Answer], on_page: Collection[int]) -> Choice | None:
        for key, _ in disagreements(answers):
            row = self._catalogue.rows.get(key)
            if row is not None and row not in on_page:
                return Choice(row, "settle", "settle")
        return None


def labels_by_row(catalogue: Catalogue, answers: Sequence[Answer]) -> Mapping[int, str]:
    """The last label that anybody gave to each row; a settled one wins."""
    labels: dict[int, str] = {}
    settled = {}
    for answer in answers:
        row = catalogue.rows.get(answer.key)
        if row is None:
            continue
        if answer.round == "settle":
            settled[row] = answer.label
        elif answer.round == "first":
            labels[row] = answer.label
    return labels | settled
