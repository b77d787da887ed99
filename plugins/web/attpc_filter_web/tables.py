"""The labels as the table that ``attpc-export --labels`` takes, of one or several databases."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from attpc_filter import UsageError
from attpc_filter_web.agreement import Key
from attpc_filter_web.store import UNSURE, Answer, Context, Store


@dataclass(frozen=True, slots=True)
class Labelled:
    """An event with what was said about it.

    Attributes
    ----------
    run, event : int
        Run and event number.
    label : str
        The settled label, else the majority's; empty where two labels have equally many.
    by : dict of str to str
        Label by labeller, of the first round.
    settled : bool
        The label was settled.
    notes : list of str
        All notes.
    """

    run: int
    event: int
    label: str
    by: dict[str, str]
    settled: bool
    notes: list[str]


def merge(stores: Sequence[Store]) -> tuple[list[Answer], list[Context]]:
    """All answers and contexts of several databases; an answer that two of them have counts once.

    Raises
    ------
    UsageError
        If two databases have an event of one number with different hits.
    """
    answers: dict[str, Answer] = {}
    contexts: dict[Context, None] = {}
    seen: dict[Key, tuple[str, Store]] = {}
    for store in stores:
        for answer in store.answers():
            answers[answer.uuid] = answer
            fingerprint, other = seen.setdefault(answer.key, (answer.fingerprint, store))
            if fingerprint != answer.fingerprint and other is not store:
                raise UsageError(
                    f"{store.path}: run {answer.run} event {answer.event} has other hits than in"
                    f" {other.path}: another run, detector or model; export them apart"
                )
        contexts |= dict.fromkeys(store.contexts())
    return sorted(answers.values(), key=lambda answer: answer.answered_at), list(contexts)


def decide(answers: Sequence[Answer], keep_unsure: bool = False) -> list[Labelled]:
    """Decide the label of every event.

    Parameters
    ----------
    answers : sequence of Answer
        In the order of time.
    keep_unsure : bool
        Let ``unsure`` count as a label; otherwise it is left out.

    Returns
    -------
    list of Labelled
        By run and event number. Repeated answers measure the labeller; they do not vote.
    """
    by: dict[Key, dict[str, str]] = {}
    settled: dict[Key, str] = {}
    notes: dict[Key, list[str]] = {}
    for answer in answers:
        if answer.round == "first":
            by.setdefault(answer.key, {})[answer.labeller] = answer.label
        elif answer.round == "settle":
            settled[answer.key] = answer.label
        if answer.note:
            notes.setdefault(answer.key, []).append(answer.note)
    decided = []
    for key in sorted(by.keys() | settled.keys()):
        votes = Counter(
            label for label in by.get(key, {}).values() if keep_unsure or label != UNSURE
        )
        label = settled.get(key, _majority(votes))
        if label == UNSURE and not keep_unsure:
            label = ""
        decided.append(Labelled(*key, label, by.get(key, {}), key in settled, notes.get(key, [])))
    return decided


def _majority(votes: Counter[str]) -> str:
    first = votes.most_common(2)
    if not first or (len(first) == 2 and first[0][1] == first[1][1]):
        return ""
    return first[0][0]


def to_csv(
    answers: Sequence[Answer],
    contexts: Sequence[Context],
    keep_unsure: bool = False,
    by_labeller: bool = False,
) -> str:
    """Write the table: comment lines that say what was labelled with what, then run, event, label.

    Parameters
    ----------
    answers, contexts
        From :func:`merge`.
    keep_unsure : bool
        See :func:`decide`.
    by_labeller : bool
        Add a column ``by_NAME`` a labeller.

    Returns
    -------
    str
        Events without a decided label are left out, unless there is a column a labeller.
    """
    rows = decide(answers, keep_unsure)
    names = sorted({name for row in rows for name in row.by}) if by_labeller else []
    file = io.StringIO()
    file.write(f"# labellers: {len({a.labeller for a in answers})}, answers:")
    file.write(f" {len(answers)}, written by attpc-filter label\n")
    for context in contexts:
        file.write(
            f"# model {_one_line(context.model)} {context.model_sha256[:16]}, detector"
            f" {_one_line(context.detector)} {context.detector_sha256[:16]}, classes"
            f" {_one_line(' '.join(context.classes))}\n"
        )
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", "event", "label", *(f"by_{_one_line(name)}" for name in names)])
    for row in rows:
        if row.label or names:
            writer.writerow(
                [row.run, row.event, row.label, *(row.by.get(name, "") for name in names)]
            )
    return file.getvalue()


def _one_line(text: str) -> str:
    return " ".join(text.split())
