"""How fast a run is filtered on this machine, step by step, and what limits it.

Every step is measured by itself on the same events, then all of them together. The steps before the
whole job are its ceilings: it cannot be faster than the slowest of them.
"""

import contextlib
import csv
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_filter import __version__
from attpc_filter.config import Config
from attpc_filter.errors import InputError, OutputError
from attpc_filter.execute.base import Executor, tag_events
from attpc_filter.execute.choose import make_executor
from attpc_filter.execute.memory import cpu_seconds as cpu_seconds_so_far
from attpc_filter.execute.memory import leave_out_numba_extensions, peak_memory_bytes
from attpc_filter.formats.hdf5.ceilings import bare_reads
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Run, allocate_new
from attpc_filter.output.folder import OutputFolder
from attpc_filter.output.inputs import fingerprint
from attpc_filter.output.manifest import RunOutcome
from attpc_filter.output.staging import Staging
from attpc_filter.pipeline import Job, filter_run, load_plan
from attpc_filter.records import N_HARDWARE_COLUMNS, N_TIME_BUCKETS, Hits, Record
from attpc_filter.tagging.plan import Plan, make_plan
from attpc_filter.tagging.stages import BATCH_EVENTS, BUFFER_TRACES, Stages

#: Bytes of traces that are held in memory to measure rebuilding alone.
_HELD_BYTES = 256 << 20

JOB = "whole job"
READ = "read"
_TAGS = "tags without writing"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a step goes through in each repeat.

    Attributes
    ----------
    n_events, n_traces : int
        Events, and the traces (or points) in them.
    n_bytes : int
        Bytes of their matrices.
    """

    n_events: int
    n_traces: int
    n_bytes: int


@dataclass(slots=True)
class Step:
    """A step of the filter, measured.

    Attributes
    ----------
    name : str
        What was done.
    sample : Sample
        What it was done to.
    seconds, cpu_seconds : list of float
        Time on the clock and processor time of all threads, a value a repeat [s].
    peak_memory : int
        Largest resident size of the process, where the step had one of its own [bytes]; else 0.
    """

    name: str
    sample: Sample
    seconds: list[float]
    cpu_seconds: list[float]
    peak_memory: int = 0

    @property
    def events_per_s(self) -> float:
        """Events a second, by the median of the repeats."""
        return self.sample.n_events / statistics.median(self.seconds)

    @property
    def traces_per_s(self) -> float:
        """Traces a second."""
        return self.sample.n_traces / statistics.median(self.seconds)

    @property
    def mb_per_s(self) -> float:
        """Raw data a second [MB]."""
        return self.sample.n_bytes / statistics.median(self.seconds) / 1e6

    @property
    def cpu_us_per_event(self) -> float:
        """Processor time an event [microseconds]."""
        return statistics.median(self.cpu_seconds) / self.sample.n_events * 1e6


def bench(
    path: Path, config: Config, n_events: int, repeats: int, told: Callable[[str], None]
) -> list[Step]:
    """Measure all steps on the first events of a run.

    Parameters
    ----------
    path : Path
        Run file.
    config : Config
        Options, as for a run.
    n_events : int
        Events to go through, at most.
    repeats : int
        Repeats of each step, after one that is not counted.
    told : callable
        Told what is being measured.

    Returns
    -------
    list of Step
        Bare reads (HDF5 only), reading with the page cache cold and warm, rebuilding, projecting,
        scoring, tagging without writing, the whole job.

    Raises
    ------
    InputError
        If the run cannot be opened or none of its events can be read.
    """
    plan = make_plan(config)
    stages = Stages(plan)
    with open_run(
        path, config.root_options, channels=plan.detector.channels, follow_links=config.follow_links
    ) as run:
        run.events = run.events[:n_events]
        sample, held = _look_at(run)
        part = _sample_of(held)
        steps = []

        def measure(name: str, of: Sample, work: Callable[[], object]) -> None:
            told(name)
            steps.append(_measure(name, of, work, repeats))

        buffer = stages.buffer
        for name, read in bare_reads(run, buffer).items():
            measure(name, sample, read)

        def read_cold() -> None:
            for file in run.files:
                _forget(file)
            _read_all(run, buffer)

        measure("read, page cache cold", sample, read_cold)
        measure(READ, sample, lambda: _read_all(run, buffer))
        parts = _in_parts(held)
        measure("rebuild", part, lambda: [stages.rebuild(records) for records in parts])
        batches = [held[i : i + BATCH_EVENTS] for i in range(0, len(held), BATCH_EVENTS)]
        hits = [stages.rebuild(batch) for batch in batches]
        measure("model inputs", part, lambda: [_inputs(batch, plan) for batch in hits])
        inputs = [_inputs(batch, plan) for batch in hits]
        measure("score", part, lambda: [stages.scorer.score(batch) for batch in inputs])
        with make_executor(config) as executor:
            executor.load(plan)
            executor.wait()
            measure(_TAGS, sample, lambda: _tag_all(run, plan, executor))
    told(JOB)
    steps.append(_measure_job(path, sample, config, repeats))
    return steps


def what_limits(steps: Sequence[Step], n_threads: int) -> str:
    """Say in a line which step takes most of the processor time, and how far the job is from it."""
    by_name = {step.name: step for step in steps}
    job = by_name.pop(JOB)
    costs = {
        name: by_name[name].cpu_us_per_event for name in (READ, "rebuild", "model inputs", "score")
    }
    costs["opening and writing files"] = job.cpu_us_per_event - by_name[_TAGS].cpu_us_per_event
    largest = max(costs, key=lambda name: costs[name])
    share = costs[largest] / job.cpu_us_per_event
    disk = by_name["read, page cache cold"]
    return (
        f"Of {job.cpu_us_per_event:,.0f} us of processor time an event, {share:.0%} go into"
        f" {largest}; {n_threads} core{'s'[: n_threads != 1]} could do"
        f" {n_threads * 1e6 / job.cpu_us_per_event:,.0f} events/s if nothing waited, the job does"
        f" {job.events_per_s:,.0f}. With the page cache cold, reading alone gives"
        f" {disk.events_per_s:,.0f} events/s ({disk.mb_per_s:,.0f} MB/s)."
    )


def write_csv(steps: Sequence[Step], path: Path, run: Path, config: Config) -> None:
    """Write a row a step, with the machine and the version, so that tables can be joined."""
    rows = [
        {
            "date": datetime.now(UTC).date().isoformat(),
            "version": __version__,
            "machine": f"{processor()}, {config.n_threads} of {os.cpu_count()} cores",
            "file": run.name,
            "step": step.name,
            "events": step.sample.n_events,
            "traces": step.sample.n_traces,
            "bytes": step.sample.n_bytes,
            "repeats": len(step.seconds),
            "events_per_s": round(step.events_per_s, 1),
            "events_per_s_lowest": round(step.sample.n_events / max(step.seconds), 1),
            "events_per_s_highest": round(step.sample.n_events / min(step.seconds), 1),
            "traces_per_s": round(step.traces_per_s),
            "mb_per_s": round(step.mb_per_s, 1),
            "cpu_us_per_event": round(step.cpu_us_per_event, 1),
            "peak_memory_mib": round(step.peak_memory / 2**20) or "",
        }
        for step in steps
    ]
    try:
        with Staging() as staging:
            with open(staging.path(path), "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            staging.commit()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


# ---------------------------------------------------------------------------------- the steps


class _Silence:
    """Says nothing; an :class:`attpc_filter.observe.Observer` that measurements need."""

    def note(self, text: str) -> None:
        """A line that a person should read."""

    def run_started(self, name: str, n_events: int, n_bytes: int) -> None:
        """A run was opened."""

    def event_unreadable(self, path: str, event: int, reason: str) -> None:
        """An event could not be read or scored."""

    def advanced(self, n_events: int) -> None:
        """So many more events have their tag."""

    def run_finished(self, outcome: RunOutcome) -> None:
        """A run is complete, or failed."""


def _measure(name: str, sample: Sample, work: Callable[[], object], repeats: int) -> Step:
    work()
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        began, cpu_began = time.perf_counter(), cpu_seconds_so_far()
        work()
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(cpu_seconds_so_far() - cpu_began)
    return Step(name, sample, seconds, cpu_seconds)


def _look_at(run: Run) -> tuple[Sample, list[Record]]:
    """Count what the events hold; the first of them, with their traces, to measure rebuilding."""
    held: list[Record] = []
    n_traces = n_bytes = held_bytes = used = 0
    n_columns = N_HARDWARE_COLUMNS + (run.n_samples or N_TIME_BUCKETS)
    buffer = np.empty((_HELD_BYTES // (2 * n_columns), n_columns), np.int16)

    def allocate(rows: int) -> NDArray[np.int16]:  # one behind the other, as in a job's buffers
        nonlocal used
        used += rows
        return buffer[used - rows : used] if used <= len(buffer) else allocate_new(rows)

    for record in run.records(allocate):
        matrix = record.points if record.traces is None else record.traces
        if matrix is None:
            continue
        n_traces += len(matrix)
        n_bytes += matrix.nbytes
        if held_bytes < _HELD_BYTES:
            held.append(record)
            held_bytes += matrix.nbytes
    if not held:
        raise InputError(f"{run.path}: no event that can be read among {len(run.events)}")
    return Sample(len(run.events), n_traces, n_bytes), held


def _in_parts(records: Sequence[Record]) -> list[list[Record]]:
    """Events in parts of as many traces as a job's buffers hold."""
    parts: list[list[Record]] = [[]]
    n_free = BUFFER_TRACES
    for record in records:
        size = 0 if record.traces is None else len(record.traces)
        if parts[-1] and size > n_free:
            parts.append([])
            n_free = BUFFER_TRACES
        parts[-1].append(record)
        n_free -= size
    return parts


def _sample_of(records: Sequence[Record]) -> Sample:
    matrices = [r.points if r.traces is None else r.traces for r in records]
    sizes = [(len(matrix), matrix.nbytes) for matrix in matrices if matrix is not None]
    return Sample(len(records), sum(n for n, _ in sizes), sum(n for _, n in sizes))


def _forget(path: Path) -> None:
    """Ask the system to drop a file from its page cache."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _read_all(run: Run, buffer: NDArray[np.int16]) -> None:
    for _ in run.parts(run.events, buffer):
        pass


def _inputs(hits: Hits, plan: Plan) -> dict[str, NDArray[np.float32]]:
    enough = np.flatnonzero(hits.counts >= plan.contract.hits.min_hits)
    return plan.contract.make_inputs(hits, enough)


def _tag_all(run: Run, plan: Plan, executor: Executor) -> None:
    with tag_events(run, plan, executor) as batches:
        for _ in batches:
            pass


def _measure_job(path: Path, sample: Sample, config: Config, repeats: int) -> Step:
    """Measure the whole job in a process of its own, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        seconds, cpu_seconds, peak = pool.apply(_do_job, (path, sample.n_events, config, repeats))
    return Step(JOB, sample, seconds, cpu_seconds, peak)


def _do_job(
    path: Path, n_events: int, config: Config, repeats: int
) -> tuple[list[float], list[float], int]:
    leave_out_numba_extensions()
    seconds, cpu_seconds = [], []
    with make_executor(config) as executor:
        plan = load_plan(config, executor)
        for _ in range(1 + repeats):
            with tempfile.TemporaryDirectory(prefix="attpc-filter-bench-") as folder:
                began, cpu_began = time.perf_counter(), cpu_seconds_so_far()
                channels = plan.detector.channels
                outcome = RunOutcome(str(path), fingerprint=fingerprint(path))
                with (
                    OutputFolder(Path(folder), create=True) as out,
                    open_run(
                        path,
                        config.root_options,
                        channels=channels,
                        follow_links=config.follow_links,
                    ) as run,
                ):
                    run.events = run.events[:n_events]
                    job = Job(plan, out, executor)
                    filter_run(run, path, job, _Silence(), outcome, began)
                seconds.append(time.perf_counter() - began)
                cpu_seconds.append(cpu_seconds_so_far() - cpu_began)
        return seconds[1:], cpu_seconds[1:], peak_memory_bytes()


def processor() -> str:
    """Name of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
