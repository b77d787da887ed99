"""Runs and labels to hits: what a model is trained on and judged by."""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from attpc_export.notes import note
from attpc_filter.errors import UsageError
from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.detector import Detector, ZCalibration
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.rebuild.hits import HitSettings, rebuild_hits
from attpc_filter.records import Hits, Record

#: Label of an event that has none.
UNLABELLED = -1

_RUN_SUFFIXES = (".h5", ".hdf5", ".root")
_RECORDS_A_BATCH = 256
_REQUIRED_COLUMNS = ("run", "event", "label")


@dataclass(frozen=True, slots=True)
class Events:
    """Events with their hits and labels; one row an event.

    Attributes
    ----------
    hits : Hits
        Hits of all events.
    run, event : ndarray of int64, shape (n_events,)
        Run and event number.
    label : ndarray of int64, shape (n_events,)
        Index of the class; -1 where there is none.
    kind : ndarray of str, shape (n_events,)
        Column ``kind`` of the labels; empty where there is none.
    group : ndarray of int64, shape (n_events,)
        Events with equal numbers come from one physics event.
    data_set : ndarray of int64, shape (n_events,)
        Which of ``data_sets`` an event is from.
    data_sets : tuple of str
        Names of the paths that the events were read from.
    """

    hits: Hits
    run: NDArray[np.int64]
    event: NDArray[np.int64]
    label: NDArray[np.int64]
    kind: NDArray[np.str_]
    group: NDArray[np.int64]
    data_set: NDArray[np.int64]
    data_sets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, events: NDArray[np.int64]) -> "Events":
        """Copy some events, in any order."""
        rows = {f.name: getattr(self, f.name)[events] for f in fields(Events)[1:-1]}
        return Events(take_events(self.hits, events), **rows, data_sets=self.data_sets)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that events or labels were read from.

    Attributes
    ----------
    name : str
        Its name and its folder's.
    sha256 : str
        Of its contents.
    """

    name: str
    sha256: str


def load_events(
    data: Sequence[Path],
    labels: Sequence[Path],
    classes: Sequence[str],
    hits: HitSettings,
    detector: Detector | ZCalibration,
    group_column: str = "",
    label_map: Mapping[str, str] | None = None,
    skip_unknown: bool = False,
) -> Events:
    """Read runs, rebuild their hits and join their labels by run and event number.

    Ion-chamber triggers are left out: they are not classified. Events that cannot be read stay in,
    without hits.

    Parameters
    ----------
    data : sequence of Path
        Run files, and folders of run files; each path is a data set.
    labels : sequence of Path
        CSV tables with the columns run, event, label, and optionally kind.
    classes : sequence of str
        Names of the classes; every label must be one of them.
    hits : HitSettings
        How hits are made.
    detector : Detector or ZCalibration
        The runs' detector; of the AT-TPC the z calibration is enough.
    group_column : str
        Column of the labels with the number of the physics event; empty: none. In a table without
        it every event stands for itself.
    label_map : mapping of str to str, optional
        Class of labels that have another name; an empty one leaves the event without a label.
    skip_unknown : bool
        Events whose label is none of the classes have no label, and a note says how many there
        are; otherwise such a label is an error.

    Returns
    -------
    Events
        In the order of the paths, the files' names and the event numbers.

    Raises
    ------
    UsageError
        If a path does not exist, a folder has no runs, or a table has not what it needs.
    InputError
        If a run cannot be opened.
    """
    table = read_labels(labels, classes, group_column, label_map, skip_unknown)
    if isinstance(detector, ZCalibration):
        detector = replace(load_detector(), calibration=detector)
    parts: list[Hits] = []
    rows: list[tuple[int, int, int]] = []
    for number, path in enumerate(data):
        for file in run_files(path):
            with open_run(file, channels=detector.channels) as run:
                run.require_detector(detector.name, detector.n_samples)
                for records in _batches(run.records()):
                    used = [record for record in records if not record.passthrough]
                    parts.append(rebuild_hits(used, detector, hits))
                    rows += [(run.number, record.event, number) for record in used]
    run_number, event_number, data_set = np.array(rows, np.int64).reshape(-1, 3).T
    joined = [table.get((int(r), int(e))) for r, e in zip(run_number, event_number, strict=True)]
    return Events(
        hits=concatenate_hits(parts),
        run=run_number,
        event=event_number,
        label=np.array([row.label if row else UNLABELLED for row in joined], np.int64),
        kind=np.array([row.kind if row else "" for row in joined], np.str_),
        group=groups_of(joined),
        data_set=data_set,
        data_sets=tuple(path.stem if path.is_file() else path.name for path in data),
    )


def run_files(path: Path) -> list[Path]:
    """List a path's run files: itself, or all in the folder, by name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder")
    files = sorted(p for p in path.iterdir() if p.suffix in _RUN_SUFFIXES)
    if not files:
        raise UsageError(f"{path}: no run files ({', '.join(_RUN_SUFFIXES)}) in this folder")
    return files


def hash_files(paths: Iterable[Path]) -> list[DataFile]:
    """Take the SHA-256 of each file's contents.

    Raises
    ------
    UsageError
        If a file cannot be read.
    """
    found = []
    for path in paths:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        found.append(DataFile(f"{path.resolve().parent.name}/{path.name}", digest))
    return found


def fingerprint(files: Sequence[DataFile]) -> str:
    """Fingerprint of a set of files: a SHA-256 over theirs, whatever their order and names."""
    return hashlib.sha256("".join(sorted(file.sha256 for file in files)).encode()).hexdigest()


def split_events(group: NDArray[np.int64], validation: float, seed: int) -> NDArray[np.bool_]:
    """Draw the validation split, whole groups at a time.

    Parameters
    ----------
    group : ndarray of int64, shape (n_events,)
        Events with equal numbers stay together.
    validation : float
        Fraction of the groups that is kept back.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    ndarray of bool, shape (n_events,)
        True where an event is kept back.
    """
    groups, index = np.unique(group, return_inverse=True)
    chosen = np.zeros(len(groups), np.bool_)
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen[order[: max(1, round(validation * len(groups)))]] = True
    return chosen[index]


def select_hits(
    offsets: NDArray[np.int64], events: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of all hits of some events.

    Parameters
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Hits ``offsets[i]`` to ``offsets[i + 1]`` belong to event ``i``.
    events : ndarray of int64, shape (n_events,)
        Events in any order, also several times.

    Returns
    -------
    hits : ndarray of int64, shape (n_hits,)
        Indices of the hits, event by event.
    counts : ndarray of int64, shape (n_events,)
        Hits of each event.
    """
    counts = np.diff(offsets)[events]
    ends = np.cumsum(counts)
    first = np.repeat(offsets[events] - (ends - counts), counts)
    return first + np.arange(len(first)), counts


def take_events(hits: Hits, events: NDArray[np.int64]) -> Hits:
    """Copy the hits of some events, in any order."""
    index, counts = select_hits(hits.offsets, events)
    columns = {f.name: getattr(hits, f.name)[index] for f in fields(Hits)[1:]}
    return Hits(offsets=offsets_of(counts), **columns)


def concatenate_hits(parts: Sequence[Hits]) -> Hits:
    """Join batches of hits into one."""
    columns: dict[str, Any] = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Hits)[1:]
    }
    return Hits(offsets=offsets_of(np.concatenate([part.counts for part in parts])), **columns)


def offsets_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets, shape (n_events + 1,), of events with so many hits each."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


@dataclass(frozen=True, slots=True)
class _Label:
    label: int
    kind: str
    group: int


def groups_of(labels: Sequence[_Label | None]) -> NDArray[np.int64]:
    """Group of each event; those without one get a negative number of their own."""
    groups = [-1 if label is None else label.group for label in labels]
    alone = -1 - np.arange(len(groups))
    return np.where(np.array(groups, np.int64) >= 0, groups, alone)


def read_labels(
    paths: Sequence[Path],
    classes: Sequence[str],
    group_column: str,
    label_map: Mapping[str, str] | None = None,
    skip_unknown: bool = False,
) -> dict[tuple[int, int], _Label]:
    """Labels by run and event number, from tables; an event has one label in all of them.

    The arguments are those of :func:`load_events`.
    """
    label_map = label_map or {}
    if unknown := set(label_map.values()) - {"", *classes}:
        raise UsageError(f"--map: {min(unknown)!r} is none of the classes {', '.join(classes)}")
    skipped: Counter[str] = Counter()
    table: dict[tuple[int, int], _Label] = {}
    for path in paths:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                n_comments = _skip_comments(file)
                reader = csv.DictReader(file)
                found = reader.fieldnames or []
                if missing := [name for name in _REQUIRED_COLUMNS if name not in found]:
                    raise UsageError(
                        f"{path}: no column {', '.join(missing)}; it has: {', '.join(found)}"
                    )
                groups = group_column if group_column in found else ""
                if groups != group_column:
                    note(f"{path}: no column {group_column}; every event stands for itself")
                for row in reader:
                    where = f"{path}: line {reader.line_num + n_comments}"
                    row["label"] = label_map.get(row["label"], row["label"])
                    if skip_unknown and row["label"] not in ("", *classes):
                        skipped[row["label"]] += 1
                        row["label"] = ""
                    key, label = _read_label(row, classes, groups, where)
                    if table.setdefault(key, label) != label:
                        raise UsageError(
                            f"{where}: run {key[0]} event {key[1]} has a second, different label"
                        )
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{path}: not a CSV table: {error}") from error
    if skipped:
        each = ", ".join(f"{count} {name}" for name, count in skipped.items())
        note(
            f"events left out, the model has no such class: {each}"
            " (--map LABEL=CLASS says what they are)"
        )
    return table


def _skip_comments(file: TextIO) -> int:
    """Go to the first line that does not begin with #; gives the number of lines before it."""
    number, place = 0, file.tell()
    while file.readline().startswith("#"):
        number, place = number + 1, file.tell()
    file.seek(place)
    return number


def _read_label(
    row: dict[str, str], classes: Sequence[str], group_column: str, where: str
) -> tuple[tuple[int, int], _Label]:
    name = row["label"]
    if name and name not in classes:
        raise UsageError(
            f"{where}: label {name!r} is none of the classes {', '.join(classes)};"
            f" --map {name}=CLASS says what it is"
        )
    try:
        key = int(row["run"]), int(row["event"])
        group = int(row[group_column]) if group_column else -1
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: run, event and group must be whole numbers") from error
    return key, _Label(classes.index(name) if name else UNLABELLED, row.get("kind") or "", group)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == _RECORDS_A_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
