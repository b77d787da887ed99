"""What the server does for its pages: events, answers and what is made of them, as plain data."""

import getpass
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from attpc_filter import UsageError
from attpc_filter_web import agreement, tables, trust
from attpc_filter_web.catalogue import Catalogue
from attpc_filter_web.choose import POLICIES, Choice, Chooser, labels_by_row
from attpc_filter_web.clusters import Clusters
from attpc_filter_web.events import EventReader
from attpc_filter_web.filters import select
from attpc_filter_web.store import UNSURE, Answer, Context, Round, Store
from attpc_filter_web.suggest import Suggester

_MOST_HISTORY = 500
_MOST_DISAGREEMENTS = 200
_LONGEST_NAME = 40


class Session:
    """A server's events, answers and what chooses the next event.

    Parameters
    ----------
    catalogue : Catalogue
        The events.
    reader : EventReader
        Reads them.
    store : Store
        The answers.
    context : Context
        What they are given with.
    chooser : Chooser
        Chooses the next event.
    suggester : Suggester
        Is told of new labels.
    geometry : dict
        What the page draws around the hits.
    flips : dict or None
        What the other tagging says; see :mod:`attpc_filter_web.flips`.
    clusters : Clusters or None
        Clusters to show and to name.
    seed : int
        Of the trust sample.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        reader: EventReader,
        store: Store,
        context: Context,
        chooser: Chooser,
        suggester: Suggester,
        geometry: dict[str, Any],
        flips: dict[str, Any] | None = None,
        clusters: Clusters | None = None,
        seed: int = 1,
    ) -> None:
        self.catalogue = catalogue
        self.reader = reader
        self._store = store
        self._context = context
        self._context_id: int | None = None
        self._chooser = chooser
        self.suggester = suggester
        self._geometry = geometry
        self._flips = flips
        self._clusters = clusters
        self._seed = seed
        self.suggester.consider(labels_by_row(catalogue, store.answers()))

    def setup(self) -> dict[str, Any]:
        """What a page needs to know before the first event."""
        available = self._chooser.available()
        return {
            "classes": list(self._context.classes),
            "unsure": UNSURE,
            "model": self._context.model,
            "detector": self._context.detector,
            "geometry": self._geometry,
            "clean": asdict(self.reader.clean),
            "n_events": len(self.catalogue),
            "n_runs": len(self.catalogue.sources),
            "has_scores": bool(self.catalogue.is_scored.any()),
            "tags": self.catalogue.tags,
            "policies": [
                {"name": name, "help": POLICIES[name], "n_events": number}
                for name, number in available.items()
            ],
            "labellers": self._store.labellers(),
            "user": getpass.getuser(),
            "has_comparison": self._flips is not None,
            "has_clusters": self._clusters is not None,
        }

    def scores(self, row: int) -> dict[str, Any]:
        """What the model says of an event."""
        catalogue = self.catalogue
        return {
            "tag": catalogue.tag[row],
            "reason": catalogue.reason[row],
            "scores": dict(zip(catalogue.classes, catalogue.scores[row].tolist(), strict=True)),
            "novelty": float(catalogue.novelty[row]),
        }

    def next(self, labeller: str, policy: str, filter_text: str) -> dict[str, Any]:
        """The event to show a labeller, the one after it, and how far the labeller is."""
        self._require_name(labeller)
        answers = self._store.answers()
        choose = self._chooser.next
        sample = self._store.sample() if policy == "trust" else ()
        given = (policy, labeller, answers)
        task = choose(*given, (), filter_text, sample)
        after = None if task is None else choose(*given, (task.row,), filter_text, sample)
        own = [answer for answer in answers if answer.labeller == labeller]
        said = self._said(task, answers) if policy == "settle" else {}
        return {
            "task": None if task is None else {"row": task.row, "policy": task.policy},
            "said": said,
            "upcoming": None if after is None else after.row,
            "n_answers": len(own),
            "suggestions": self.suggester.n_made,
            "suggestions_error": self.suggester.error,
        }

    def _said(self, task: Choice | None, answers: Sequence[Answer]) -> dict[str, str]:
        for key, said in agreement.disagreements(answers):
            if task is not None and self.catalogue.rows.get(key) == task.row:
                return said
        return {}

    def answer(
        self,
        labeller: str,
        row: int,
        label: str,
        note: str,
        seconds: float,
        scores_shown: bool,
        policy: str,
        filter_text: str,
        corrects: str,
        correction: bool,
    ) -> dict[str, Any]:
        """Write an answer to the disk, then choose the next event.

        Parameters
        ----------
        labeller, row, label, note, seconds, scores_shown, policy, filter_text
            The answer.
        corrects : str
            Uuid of an earlier answer that it replaces.
        correction : bool
            It replaces the first answer to the event, if there is one.
        """
        self._require_name(labeller)
        if label not in (*self._context.classes, UNSURE):
            raise UsageError(f"label {label!r}: is none of {', '.join(self._context.classes)}")
        if policy not in (*POLICIES, "gallery"):
            raise UsageError(f"policy {policy!r}: there are {', '.join(POLICIES)}")
        view = self.reader.read(row)
        key = int(self.catalogue.run[row]), int(self.catalogue.event[row])
        written = self._store.add(
            Answer(
                *key,
                fingerprint=view.fingerprint,
                labeller=labeller,
                label=label,
                note=note,
                round=self._round(labeller, key, policy, corrects, correction),
                policy=policy,
                scores_shown=scores_shown,
                seconds=round(seconds, 3),
            ),
            self._context_number(),
        )
        self.suggester.consider(labels_by_row(self.catalogue, self._store.answers()))
        following = {} if policy == "gallery" else self.next(labeller, policy, filter_text)
        return {
            "uuid": written.uuid,
            "answered": {"row": row, "label": label} | self.scores(row),
            **following,
        }

    def _round(
        self, labeller: str, key: tuple[int, int], policy: str, corrects: str, correction: bool
    ) -> Round:
        """Why the event was shown, from what the database holds."""
        own = [a for a in self._store.answers(labeller) if a.key == key]
        for answer in own:
            if corrects and answer.uuid == corrects:
                return answer.round
        if policy == "settle":
            return "settle"
        has_first = any(answer.round == "first" for answer in own)
        return "repeat" if has_first and not correction else "first"

    def _context_number(self) -> int:
        if self._context_id is None:
            self._context_id = self._store.context(self._context)
        return self._context_id

    def undo(self, labeller: str) -> dict[str, Any]:
        """Withdraw the labeller's last answer, and say which event it was."""
        self._require_name(labeller)
        answer = self._store.withdraw_last(labeller)
        if answer is None:
            return {"row": None}
        return {"row": self.catalogue.rows.get(answer.key), "label": answer.label}

    def history(self, labeller: str) -> list[dict[str, Any]]:
        """The labeller's answers, the last one first."""
        answers = self._store.answers(labeller)[: -_MOST_HISTORY - 1 : -1]
        rows = self.catalogue.rows
        return [
            {"row": rows[a.key], "label": a.label, "note": a.note, "uuid": a.uuid}
            for a in answers
            if a.key in rows
        ]

    def listed(self, filter_text: str, offset: int, limit: int) -> dict[str, Any]:
        """A part of the events that a filter keeps."""
        labels = labels_by_row(self.catalogue, self._store.answers())
        clusters = None if self._clusters is None else self._clusters.cluster
        rows = select(filter_text, self.catalogue, labels, clusters)
        shown = rows[offset : offset + limit].tolist()
        return {
            "total": len(rows),
            "events": [self._entry(row, labels.get(row, "")) for row in shown],
        }

    def _entry(self, row: int, label: str) -> dict[str, Any]:
        catalogue = self.catalogue
        return {
            "row": row,
            "run": int(catalogue.run[row]),
            "event": int(catalogue.event[row]),
            "tag": catalogue.tag[row],
            "margin": float(catalogue.margin[row]),
            "label": label,
        }

    def comparison(self) -> dict[str, Any]:
        """The other tagging beside this one."""
        return {} if self._flips is None else self._flips

    def cluster_list(self) -> list[dict[str, Any]]:
        """The clusters: number, name, size, and events that are typical of them."""
        if self._clusters is None:
            return []
        names = self._clusters.names()
        sizes = Counter(self._clusters.cluster.tolist())
        labels = labels_by_row(self.catalogue, self._store.answers())
        return [
            {
                "cluster": number,
                "name": names.get(number, ""),
                "size": sizes[number],
                "events": [
                    self._entry(row, labels.get(row, "")) for row in self._clusters.typical(number)
                ],
            }
            for number in self._clusters.numbers
        ]

    def name_cluster(self, number: int, name: str) -> dict[str, Any]:
        """Name a cluster."""
        if self._clusters is None:
            raise UsageError("no clusters here; start with --clusters")
        if name not in self._context.classes:
            raise UsageError(f"{name!r}: is none of {', '.join(self._context.classes)}")
        self._clusters.name(number, name)
        return {"cluster": number, "name": name}

    def agreement(self) -> dict[str, Any]:
        """How far labellers agree with each other and with themselves, and where they do not."""
        answers = self._store.answers()
        alpha, pairs = agreement.between_labellers(answers)
        open_cases = agreement.disagreements(answers)
        by = Counter(answer.labeller for answer in answers)
        unsure = Counter(answer.labeller for answer in answers if answer.label == UNSURE)
        seconds = {
            name: float(np.median([a.seconds for a in answers if a.labeller == name]))
            for name in by
        }
        rows = self.catalogue.rows
        return {
            "labellers": [
                {"name": name, "answers": n, "unsure": unsure[name], "seconds": seconds[name]}
                for name, n in by.most_common()
            ],
            "alpha": alpha,
            "pairs": [asdict(pair) for pair in pairs],
            "within": [asdict(pair) for pair in agreement.within_labellers(answers)],
            "n_disagreements": len(open_cases),
            "disagreements": [
                {"row": rows.get(key), "run": key[0], "event": key[1], "said": said}
                for key, said in open_cases[:_MOST_DISAGREEMENTS]
            ],
            "n_settled": len({a.key for a in answers if a.round == "settle"}),
        }

    def labels_csv(self, keep_unsure: bool, by_labeller: bool) -> str:
        """The labels as the table that ``--labels`` takes."""
        return tables.to_csv(*tables.merge([self._store]), keep_unsure, by_labeller)

    def draw_trust(self, per_tag: int) -> dict[str, Any]:
        """Draw the trust sample, once; a sample that has answers stays as it is."""
        if not 1 <= per_tag <= 10_000:
            raise UsageError(f"{per_tag} events a tag: must be 1 to 10,000")
        if not self._chooser.available().get("trust"):
            raise UsageError("a trust sample needs tags; give an output folder of attpc-filter run")
        held = {(run, event) for run, event, _ in self._store.sample()}
        if any(a.policy == "trust" and a.key in held for a in self._store.answers()):
            raise UsageError("the sample has answers already, so it stays as it is")
        self._store.set_sample(trust.draw(self.catalogue, per_tag, self._seed))
        return self.trust()

    def trust(self) -> dict[str, Any]:
        """The trust sample's result so far."""
        sample = self._store.sample()
        labels = self._decided()
        counts = Counter(self.catalogue.tag[self.catalogue.can_label].tolist())
        drawn = Counter(tag for _, _, tag in sample)
        done = Counter(tag for run, event, tag in sample if (run, event) in labels)
        worth = trust.judge(sample, labels, counts, self._context.classes) if sample else []
        return {
            "tags": [
                {"tag": tag, "events": counts[tag], "drawn": drawn[tag], "labelled": done[tag]}
                for tag in self.catalogue.tags
                if counts[tag]
            ],
            "classes": [asdict(entry) for entry in worth],
        }

    def trust_csv(self) -> str:
        """The trust sample with its labels, for ``attpc-filter trust --labels``."""
        return trust.to_csv(self._store.sample(), self._decided())

    def _decided(self) -> dict[tuple[int, int], str]:
        decided = tables.decide(self._store.answers())
        return {(row.run, row.event): row.label for row in decided if row.label}

    @staticmethod
    def _require_name(labeller: str) -> None:
        if not 0 < len(labeller) <= _LONGEST_NAME:
            raise UsageError(f"labeller: give a name of 1 to {_LONGEST_NAME} letters")
