"""What a bundle has seen: the runs and labels of its training, against those that are judged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attpc_export.data.labelled import UNLABELLED, Events, hash_files, run_files
from attpc_filter.score.bundle import Contract

#: Labelled events of a head that its contract lists one by one.
_MOST_LISTED = 5000


@dataclass(frozen=True, slots=True)
class Seen:
    """What of the given data a bundle was made from.

    Attributes
    ----------
    runs : list of str
        Names of runs that trained the encoder or the head.
    with_labels : bool
        Whether labels of these runs were used.
    events : int
        Labelled events of the runs that fitted the head; -1 if the contract does not list them.
    """

    runs: list[str]
    with_labels: bool
    events: int

    def describe(self, n_runs: int) -> str:
        """One line for a person; empty if nothing was seen."""
        if not self.runs:
            return ""
        some = ", ".join(self.runs[:3]) + (" ..." if len(self.runs) > 3 else "")
        where = f"{len(self.runs)} of these {n_runs} runs ({some})"
        if not self.with_labels:
            return f"the encoder was trained on {where}, without labels"
        which = f"{self.events} of the labelled events of" if self.events >= 0 else "labels of"
        return (
            f"the bundle was trained on {which} {where}: the numbers below are better than those of"
            " events that it has not seen"
        )


def describe_labelled(
    events: Events, data: Sequence[Path], labels: Sequence[Path]
) -> dict[str, Any]:
    """What a contract keeps of the events that fitted a head.

    Parameters
    ----------
    events : Events
        The events, with and without labels.
    data, labels : sequence of Path
        Their runs and tables.

    Returns
    -------
    dict of str to object
        ``files``: names and SHA-256 of runs and tables; ``labelled``: event numbers by run, unless
        there are more than 5,000.
    """
    files = [file for path in data for file in run_files(path)]
    made: dict[str, Any] = {
        "files": [asdict(file) for file in hash_files([*files, *labels])],
    }
    rows = events.label != UNLABELLED
    if rows.sum() <= _MOST_LISTED:
        listed: dict[str, list[int]] = {}
        for run, event in zip(events.run[rows].tolist(), events.event[rows].tolist(), strict=True):
            listed.setdefault(str(run), []).append(event)
        made["labelled"] = listed
    return made


def find_seen(
    contract: Contract, data: Sequence[Path], keys: set[tuple[int, int]] | None = None
) -> Seen:
    """Compare runs with those that a bundle was trained on, by their SHA-256.

    Parameters
    ----------
    contract : Contract
        The bundle's.
    data : sequence of Path
        Run files, and folders of run files.
    keys : set of (int, int), optional
        Run and event numbers of the events that are judged.
    """
    training = contract.training
    head = training.get("head", {})
    of_encoder = {entry["sha256"] for entry in training.get("files", ())}
    of_head = {entry["sha256"] for entry in head.get("files", ())}
    files = hash_files(file for path in data for file in run_files(path))
    in_encoder = [file.name for file in files if file.sha256 in of_encoder]
    in_head = [file.name for file in files if file.sha256 in of_head]
    encoder_had_labels = sum(training.get("events_by_class", {}).values()) > 0
    if in_encoder and encoder_had_labels:
        return Seen(in_encoder, True, -1)
    if in_head:
        listed = head.get("labelled")
        if listed is None:
            return Seen(in_head, True, -1)
        own = {(int(run), event) for run, events in listed.items() for event in events}
        count = len(own if keys is None else own & keys)
        if count:
            return Seen(in_head, True, count)
    return Seen(sorted({*in_encoder, *in_head}), False, 0)
