"""Parts joined: the job that one ``attpc-filter run`` would do, with tags that are there already.

Joining is an executor: where others read and score events, it gives the batches that the parts
hold. All else, from tables and streams to books and picture, is done as in any job.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from attpc_filter.config import Config
from attpc_filter.errors import InputError, UsageError
from attpc_filter.execute.base import Executor
from attpc_filter.formats.run import Events, Run
from attpc_filter.interrupts import check_interrupted
from attpc_filter.observe import Observer
from attpc_filter.output.manifest import RunOutcome
from attpc_filter.parts.parts_list import PartsList, part_folder
from attpc_filter.parts.result import read_result
from attpc_filter.parts.work import (
    ERROR_NAME,
    RESULT_NAME,
    read_progress,
    read_report,
    require_result,
)
from attpc_filter.pipeline import Job, run_job
from attpc_filter.tagging.batch import Batch
from attpc_filter.tagging.plan import Plan


@dataclass(frozen=True, slots=True)
class Lack:
    """A part without a result that can be joined.

    Attributes
    ----------
    number : int
        The part.
    reason : str
        Why there is none, in words.
    """

    number: int
    reason: str


class StoredParts(Executor):
    """Gives the batches that parts hold.

    Parameters
    ----------
    config : Config
        Options.
    parts : PartsList
        The list.
    out : Path
        Output folder.
    """

    name = "parts"

    def __init__(self, config: Config, parts: PartsList, out: Path) -> None:
        super().__init__(config)
        self._parts, self._out = parts, out
        self._index = {Path(run.path).stem: index for index, run in enumerate(parts.runs)}
        reports = [
            read_report(part_folder(out, parts, number), part)
            for number, part in enumerate(parts.parts)
        ]
        self.device = ", ".join(sorted({report.device for report in reports if report}))

    def load(self, plan: Plan) -> None:
        """Refuse a plan that is not that of the parts."""
        self._parts.require_same(plan)

    @contextlib.contextmanager
    def tag(self, run: Run, batches: list[Events]) -> Iterator[Iterator[Batch]]:
        """Give the batches of a run's parts."""
        yield self._tag(run, batches)

    def _tag(self, run: Run, batches: list[Events]) -> Iterator[Batch]:
        numbers = self._parts.parts_of(self._index[run.path.stem])
        stored = chain.from_iterable(map(self._read, numbers))
        for events in batches:
            check_interrupted()
            batch = next(stored, None)
            if batch is None or [(r.event, r.name) for r in batch.records] != events:
                raise InputError(f"{run.path}: its parts hold other events; {self._parts.again}")
            yield batch
        if next(stored, None) is not None:
            raise InputError(f"{run.path}: its parts hold more events; {self._parts.again}")

    def _read(self, number: int) -> Iterator[Batch]:
        folder = part_folder(self._out, self._parts, number)
        report = read_report(folder, self._parts.parts[number])
        if report is None:
            raise InputError(f"{folder}: holds no result any more")
        return read_result(require_result(folder, report))

    def describe(self) -> str:
        """Say what it is."""
        return f"{len(self._parts.parts)} parts, joined"


def find_lacks(parts: PartsList, out: Path) -> list[Lack]:
    """Parts without a result that can be joined; the results are read to be checked."""
    lacks = []
    for number, part in enumerate(parts.parts):
        folder = part_folder(out, parts, number)
        report = read_report(folder, part)
        if report is None:
            lacks.append(Lack(number, why_not_done(folder, part.key)))
            continue
        try:
            require_result(folder, report)
        except InputError:
            lacks.append(Lack(number, "its result is damaged"))
    return lacks


def why_not_done(folder: Path, key: str) -> str:
    """Why a part has no result that can be joined, in words."""
    failed = read_progress(folder, ERROR_NAME)
    if failed is not None and failed.key == key:
        return f"failed: {failed.error}"
    if (folder / RESULT_NAME).is_file():
        return "stale: made of another input, model, detector or options"
    return "missing"


def join(
    parts: PartsList, out: Path, lacks: Sequence[Lack], observer: Observer, command: str
) -> tuple[int, Job | None, list[RunOutcome]]:
    """Join the runs that lack no part.

    Parameters
    ----------
    parts : PartsList
        The list.
    out : Path
        Output folder.
    lacks : sequence of Lack
        See :func:`find_lacks`.
    observer : Observer
        Told how it goes.
    command : str
        The command line, for the manifest.

    Returns
    -------
    status, job, outcomes
        As of :func:`attpc_filter.pipeline.run_job`.

    Raises
    ------
    UsageError
        If every run lacks a part, or model or detector have changed.
    """
    without = {parts.parts[lack.number].run for lack in lacks}
    paths = [Path(run.path) for index, run in enumerate(parts.runs) if index not in without]
    if not paths:
        raise UsageError(f"{out}: every run lacks a part, so there is nothing to join")
    config = replace(parts.make_config(), restart=False)
    return run_job(paths, out, config, observer, command, StoredParts(config, parts, out))


def command_for(numbers: Sequence[int], out: Path) -> str:
    """The command that does parts, their numbers as Slurm writes them: ``3-7,9``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"attpc-filter run --part {text} {out}"
