"""How far an output folder is: its parts, or the runs of a plain job."""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from attpc_filter.output.journal import HIDDEN_NAME
from attpc_filter.output.lock import LOCK_NAME
from attpc_filter.output.manifest import MANIFEST_NAME, read_manifest
from attpc_filter.parts.join import why_not_done
from attpc_filter.parts.parts_list import (
    LIST_NAME,
    PartsList,
    part_folder,
    parts_folder,
    read_parts_list,
)
from attpc_filter.parts.work import PROGRESS_EVERY_S, PROGRESS_NAME, read_progress, read_report

#: A process that has not said anything for so long is taken for dead [s].
SILENCE_S = 18 * PROGRESS_EVERY_S
DONE, RUNNING, FAILED, WAITING = "done", "running", "failed", "waiting"


@dataclass(slots=True)
class Status:
    """How far an output folder is.

    Attributes
    ----------
    what : str
        ``parts`` or ``runs``.
    states : Counter of str
        How many are done, running, failed, waiting.
    n_events : int
        Events that are tagged.
    n_bytes, n_bytes_left : int
        Size of what is done, and of what is not [bytes]; 0 if that is not known.
    seconds : float
        Time that processes have worked on what is done, all together [s].
    errors : list of str
        A line for each that failed.
    unfinished : list of str
        A line for each that is being worked on.
    """

    what: str
    states: Counter[str] = field(default_factory=Counter)
    n_events: int = 0
    n_bytes: int = 0
    n_bytes_left: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all is done, 1 not yet, 2 something failed."""
        if self.states[FAILED]:
            return 2
        return 1 if self.states[RUNNING] or self.states[WAITING] else 0

    @property
    def seconds_left(self) -> float | None:
        """Time until all is done with as many processes as work now [s]; None if not known."""
        if not self.n_bytes or not self.states[RUNNING]:
            return None
        return self.n_bytes_left * self.seconds / self.n_bytes / self.states[RUNNING]


def status_of(out: Path) -> Status:
    """Look at an output folder; nothing in it is locked or changed.

    Raises
    ------
    UsageError
        If it is no output folder.
    """
    if (parts_folder(out) / LIST_NAME).exists():
        return _of_parts(read_parts_list(out), out)
    return _of_runs(out)


def _of_parts(parts: PartsList, out: Path) -> Status:
    status = Status("parts")
    for run in parts.runs:
        if run.error:
            status.states[FAILED] += 1
            status.errors.append(run.error)
    for number, part in enumerate(parts.parts):
        folder = part_folder(out, parts, number)
        if report := read_report(folder, part):
            status.states[DONE] += 1
            status.n_events += report.n_events
            status.n_bytes += part.n_bytes
            status.seconds += report.seconds
            continue
        status.n_bytes_left += part.n_bytes
        title = f"part {number}, {parts.title(number)}"
        if _is_recent(folder / PROGRESS_NAME) and (
            progress := read_progress(folder, PROGRESS_NAME)
        ):
            status.states[RUNNING] += 1
            status.n_events += progress.n_done
            status.unfinished.append(
                f"{title}: {progress.n_done} of {progress.n_events} events, on {progress.machine}"
            )
        elif (reason := why_not_done(folder, part.key)).startswith(FAILED):
            status.states[FAILED] += 1
            status.errors.append(f"{title}: {reason}")
        else:
            status.states[WAITING] += 1
    return status


def _of_runs(out: Path) -> Status:
    """Runs that the books list; those that are still to come are not known there."""
    status = Status("runs")
    books = read_manifest(out)
    for entry in books.runs:
        error = entry.error or entry.last_error
        status.states[FAILED if error else DONE] += 1
        status.n_events += entry.n_events
        status.n_bytes += entry.fingerprint.get("bytes", 0)
        status.seconds += entry.seconds
        if error:
            status.errors.append(error)
    if books.exit_status is None:
        is_locked = os.path.lexists(out / HIDDEN_NAME / LOCK_NAME)
        status.states[RUNNING if is_locked else WAITING] += 1
        since = f"since {books.started}"
        status.unfinished.append(
            f"{books.command}: {since}" if is_locked else f"{books.command}: {since}, was killed"
        )
    elif books.exit_status == 130:
        status.states[WAITING] += 1
        status.unfinished.append(f"{books.command}: interrupted")
    return status


def joined(out: Path) -> bool:
    """Whether the parts of a folder have been joined, all of them."""
    if not (out / MANIFEST_NAME).exists():
        return False
    stems = {Path(run.path).stem for run in read_parts_list(out).runs if not run.error}
    return stems <= {entry.stem for entry in read_manifest(out).runs if not entry.error}


def _is_recent(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < SILENCE_S
    except OSError:
        return False
