"""One part done: a share of a run's events tagged, the result and a report about it written.

The folder of a part holds ``result.parquet`` (:mod:`attpc_filter.parts.result`) and, written after
it, ``report.json`` with the key of the part and the result's SHA-256: a report that does not fit
the result beside it, or the list, counts as none. While a process works on the part, the folder is
locked and ``progress.json`` says how far it is; ``error.json`` says why the last one failed.
"""

import contextlib
import hashlib
import json
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from attpc_filter.errors import AttpcFilterError, InputError, OutputError, debugging
from attpc_filter.execute.base import Executor, tag_events
from attpc_filter.formats.registry import open_run
from attpc_filter.interrupts import check_interrupted
from attpc_filter.observe import Observer
from attpc_filter.output.inputs import fingerprint, require_unchanged
from attpc_filter.output.lock import FolderLock
from attpc_filter.output.manifest import RunOutcome
from attpc_filter.output.resume import made_of
from attpc_filter.output.staging import Staging, write_json
from attpc_filter.parts.parts_list import Part, PartsList, key_of_part, part_folder
from attpc_filter.parts.result import ResultWriter
from attpc_filter.tag import UNREADABLE
from attpc_filter.tagging.plan import Plan

RESULT_NAME = "result.parquet"
REPORT_NAME = "report.json"
PROGRESS_NAME = "progress.json"
ERROR_NAME = "error.json"
#: How often a process says how far it is [s].
PROGRESS_EVERY_S = 10.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Report:
    """What was made of a part.

    Attributes
    ----------
    key : str
        Of the part, see :func:`attpc_filter.parts.parts_list.key_of_part`.
    sha256 : str
        Of the result.
    n_events : int
        Events in it.
    events : list of int
        Number of the first and of the last; empty if there are none.
    counts : dict of str to int
        Events by tag.
    seconds : float
        How long it took [s].
    device, machine, finished : str
        Where and when it was made.
    """

    key: str
    sha256: str
    n_events: int
    events: list[int]
    counts: dict[str, int]
    seconds: float
    device: str
    machine: str
    finished: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a process is with a part, or why it failed.

    Attributes
    ----------
    key : str
        Of the part.
    n_done, n_events : int
        Events that are tagged, and all of the part.
    seconds : float
        How long it has worked [s].
    machine, when : str
        Where, and when this was written.
    error : str
        The line that says why the part failed.
    """

    key: str
    n_done: int = 0
    n_events: int = 0
    seconds: float = 0.0
    machine: str = field(default_factory=platform.node)
    when: str = field(default_factory=lambda: _now())
    error: str = ""


def do_parts(
    parts: PartsList,
    numbers: Sequence[int],
    plan: Plan,
    executor: Executor,
    out: Path,
    observer: Observer,
    *,
    restart: bool = False,
) -> int:
    """Do some parts; those that are done already are left as they are.

    Parameters
    ----------
    parts : PartsList
        The list.
    numbers : sequence of int
        Which of its parts.
    plan : Plan
        How to tag, see :meth:`PartsList.make_plan`.
    executor : Executor
        With the plan loaded.
    out : Path
        Output folder.
    observer : Observer
        Told how it goes.
    restart : bool
        Do again what is done already.

    Returns
    -------
    int
        How many parts failed.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C or SIGTERM; parts that are done stay.
    """
    n_failed = 0
    for number in numbers:
        check_interrupted()
        folder = part_folder(out, parts, number)
        if not restart and read_report(folder, parts.parts[number]) is not None:
            observer.note(f"{parts.title(number)}: done already")
            continue
        try:
            _do_part(parts, number, plan, executor, out, observer)
        except AttpcFilterError as error:
            if debugging():
                raise
            observer.note(f"error: part {number}, {parts.title(number)}: {error}")
            n_failed += 1
    return n_failed


def read_report(folder: Path, part: Part) -> Report | None:
    """The report about a part; None if the part is not done, or is of something else by now."""
    report = _read(folder / REPORT_NAME, Report)
    if report is None or report.key != part.key or not (folder / RESULT_NAME).is_file():
        return None
    return report


def read_progress(folder: Path, name: str) -> Progress | None:
    """What a process says of its work on a part; None if there is no such file."""
    return _read(folder / name, Progress)


def require_result(folder: Path, report: Report) -> Path:
    """The file of a part's result.

    Raises
    ------
    InputError
        If it is not what the report is about.
    """
    path = folder / RESULT_NAME
    if _sha256(path) != report.sha256:
        raise InputError(f"{path}: not what was written; do the part again")
    return path


def _do_part(
    parts: PartsList, number: int, plan: Plan, executor: Executor, out: Path, observer: Observer
) -> None:
    """Do a part; what fails is noted in its folder."""
    folder, part = part_folder(out, parts, number), parts.parts[number]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}") from error
    lock = FolderLock(folder)
    try:
        for left in folder.glob(".*.partial"):  # of a process that was killed
            left.unlink(missing_ok=True)
        try:
            _tag_part(parts, number, plan, executor, out, observer)
        except AttpcFilterError as error:
            with contextlib.suppress(OutputError):
                write_json(folder / ERROR_NAME, asdict(Progress(part.key, error=str(error))))
            raise
        (folder / ERROR_NAME).unlink(missing_ok=True)
    finally:
        (folder / PROGRESS_NAME).unlink(missing_ok=True)
        lock.release()


def _tag_part(
    parts: PartsList, number: int, plan: Plan, executor: Executor, out: Path, observer: Observer
) -> None:
    started = time.perf_counter()
    folder, part = part_folder(out, parts, number), parts.parts[number]
    path = parts.path_of(part)
    before = fingerprint(path)
    if key_of_part(path, made_of(path, out, before, plan), part.share, part.of) != part.key:
        raise InputError(f"{path}: changed since the parts were listed; {parts.again}")
    counts: Counter[str] = Counter()
    with (
        Staging() as staging,
        open_run(path, plan.config.root_options, channels=plan.detector.channels) as run,
    ):
        events = part.events(run.events)
        outcome = RunOutcome(parts.title(number), n_events=len(events))
        said = 0.0
        if events:
            observer.run_started(parts.title(number), len(events), part.n_bytes)
        staged = staging.path(folder / RESULT_NAME)
        writer = ResultWriter(staged)
        with tag_events(run, plan, executor, events) as batches:
            for batch in batches:
                writer.add(batch)
                counts.update(batch.tags)
                for record, tag, reason in zip(
                    batch.records, batch.tags, batch.reasons, strict=True
                ):
                    if tag == UNREADABLE:
                        observer.event_unreadable(str(path), record.event, reason)
                observer.advanced(len(batch.records))
                if time.perf_counter() - said >= PROGRESS_EVERY_S:
                    said = time.perf_counter()
                    done = counts.total(), len(events), round(said - started, 1)
                    write_json(folder / PROGRESS_NAME, asdict(Progress(part.key, *done)))
        writer.close()
        if counts.total() != len(events):
            raise OutputError(f"{path}: {len(events)} events, {counts.total()} tags")
        require_unchanged(path, before)
        check_interrupted()  # the last time
        sha256 = _sha256(staged)
        staging.commit()
    outcome.counts = dict(counts)
    outcome.seconds = round(time.perf_counter() - started, 3)
    outcome.events_per_s = round(len(events) / outcome.seconds, 1)
    report = Report(
        key=part.key,
        sha256=sha256,
        n_events=len(events),
        events=[events[0][0], events[-1][0]] if events else [],
        counts=outcome.counts,
        seconds=outcome.seconds,
        device=executor.device,
        machine=platform.node(),
        finished=_now(),
    )
    write_json(folder / REPORT_NAME, asdict(report))
    if events:
        observer.run_finished(outcome)


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _read(path: Path, kind: type[_T]) -> _T | None:
    """A dataclass from a JSON file; None if it is not there, or not whole."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
        return kind(**{name: value for name, value in content.items() if name in names})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
