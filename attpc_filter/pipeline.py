"""A job: runs in, tag tables and streams out, and the books about them."""

import logging
import os
import platform
import re
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.config import Config
from attpc_filter.errors import AttpcFilterError, UsageError, debugging
from attpc_filter.execute.base import Executor, tag_events
from attpc_filter.execute.choose import make_executor
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Run
from attpc_filter.interrupts import check_interrupted, interrupts_noted
from attpc_filter.observe import Observer
from attpc_filter.output.folder import prepare_folder, remove_former_output, require_space
from attpc_filter.output.manifest import (
    MANIFEST_NAME,
    RunOutcome,
    balance,
    fingerprint,
    package_versions,
    write_manifest,
)
from attpc_filter.output.run_writer import RunWriter
from attpc_filter.output.staging import Staging
from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE
from attpc_filter.tagging.batch import Batch, Example
from attpc_filter.tagging.plan import Plan, make_plan
from attpc_filter.tagging.stages import EXAMPLES_A_TAG

_log = logging.getLogger(__name__)
#: Smaller jobs are done about as soon as processes have started: a raw event or two, or (at 32
#: bytes each, in a stream) links to 16,000.
_WORTH_WORKERS_BYTES = 512 << 10


@dataclass(slots=True)
class Job:
    """All that the runs of one call share."""

    plan: Plan
    out: Path
    #: What tags the events.
    executor: Executor
    #: Files of an earlier output, to be overwritten once a new run is complete.
    former_output: list[Path] = field(default_factory=list)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    #: Scores of the events that were scored, for the picture: (n_classes,) a row, a sample of them.
    score_sample: list[NDArray[np.float32]] = field(default_factory=list)


# ------------------------------------------------------------------------------------------ a job


def run_job(
    paths: Sequence[Path], out: Path, config: Config, observer: Observer, command: str
) -> tuple[int, Job, list[RunOutcome]]:
    """Filter runs into an output folder.

    Parameters
    ----------
    paths : sequence of Path
        Run files.
    out : Path
        Folder for tags, streams and manifest; new, empty, or an earlier output to overwrite.
    config : Config
        Options.
    observer : Observer
        Told how it goes.
    command : str
        The command line, for the manifest.

    Returns
    -------
    status : int
        0; 1 if events were unreadable under ``strict``; 2 if a run failed.
    job : Job
        What the runs shared.
    outcomes : list of RunOutcome
        One a run.

    Raises
    ------
    UsageError
        If the job cannot start.
    KeyboardInterrupt
        On Ctrl-C; runs that were complete stay, the manifest says 130.
    """
    n_bytes = sum(path.stat().st_size for path in paths if path.is_file())
    alone = n_bytes < _WORTH_WORKERS_BYTES
    executor = make_executor(replace(config, threads=1) if alone else config)
    with interrupts_noted(), executor:
        job = _prepare(paths, out, config, executor)
        return _run_job(paths, job, observer, command)


def _run_job(
    paths: Sequence[Path], job: Job, observer: Observer, command: str
) -> tuple[int, Job, list[RunOutcome]]:
    description = _describe_job(job, command)
    outcomes: list[RunOutcome] = []
    status: int | None = None
    try:
        for path in paths:
            check_interrupted()
            _filter_run_safely(path, job, observer, outcomes)
            observer.run_finished(outcomes[-1])
            _write_manifest(job, description, outcomes, None)
        failed = any(outcome.error for outcome in outcomes)
        unreadable = any(outcome.counts.get(UNREADABLE) for outcome in outcomes)
        status = 2 if failed else 1 if unreadable and job.plan.config.strict else 0
    except KeyboardInterrupt:
        status = 130
        raise
    finally:
        _write_manifest(job, description, outcomes, 2 if status is None else status)
    return status, job, outcomes


def _write_manifest(
    job: Job, description: dict[str, Any], outcomes: list[RunOutcome], status: int | None
) -> None:
    if not job.former_output:  # else no run is complete: the earlier output stays, and its manifest
        write_manifest(job.out / MANIFEST_NAME, description, outcomes, status)


def _prepare(paths: Sequence[Path], out: Path, config: Config, executor: Executor) -> Job:
    stems = Counter(path.stem for path in paths)
    if twice := [path for path in paths if stems[path.stem] > 1]:
        raise UsageError(
            f"{twice[0]} and {twice[1]} would both be written as {twice[0].stem};"
            " filter them into two folders"
        )
    job = start_job(out, config, executor)
    job.former_output = prepare_folder(paths, out, config.overwrite)
    return job


def start_job(out: Path, config: Config, executor: Executor) -> Job:
    """Make the plan, hand it to the executor, and wait until that is ready.

    Raises
    ------
    UsageError
        If the model cannot be loaded, or the device is not there.
    """
    plan = make_plan(config)
    executor.load(plan)
    executor.wait()
    bundle = plan.bundle
    _log.info("model: %s, SHA-256 %s, on %s", bundle.path, bundle.sha256, executor.device)
    _log.info("executor: %s", executor.describe())
    return Job(plan, out, executor)


def _describe_job(job: Job, command: str) -> dict[str, Any]:
    """Describe what all runs of a job share, for the manifest."""
    plan = job.plan
    options = asdict(plan.config)
    return {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": plan.contract.name,
            "path": str(plan.bundle.path.resolve()),
            "sha256": plan.bundle.sha256,
            "contract_version": plan.contract.version,
        },
        "device": job.executor.device,
        "executor": job.executor.describe(),
        "detector": {"name": plan.detector.name, "sha256": plan.detector.sha256},
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in options.items()},
        "thresholds": dict(zip(plan.classes, plan.thresholds, strict=True)),
        "calibration": asdict(plan.detector.calibration),
        "versions": package_versions(),
        "machine": f"{platform.node()}, {platform.machine()}, {os.cpu_count()} cores",
    }


# ------------------------------------------------------------------------------------------ a run


def _filter_run_safely(
    path: Path, job: Job, observer: Observer, outcomes: list[RunOutcome]
) -> None:
    """Filter a run and append what became of it, whatever that is."""
    try:
        _filter_run(path, job, observer, outcomes)
    except AttpcFilterError as error:
        if debugging():
            raise
        _log.debug("%s: failed", path, exc_info=True)
        outcomes.append(RunOutcome(str(path), error=str(error)))
    except Exception as error:
        if debugging():
            raise
        traceback.print_exc()
        text = f"{path}: unexpected {type(error).__name__}: {error}; please report it"
        outcomes.append(RunOutcome(str(path), error=text))


def _filter_run(path: Path, job: Job, observer: Observer, outcomes: list[RunOutcome]) -> None:
    started = time.perf_counter()
    with open_run(path, job.plan.config.root_options) as run:
        outcomes.append(filter_run(run, path, job, observer, started))


def filter_run(run: Run, path: Path, job: Job, observer: Observer, started: float) -> RunOutcome:
    """Tag the events of an open run and write tags and streams.

    Parameters
    ----------
    run : Run
        The run.
    path : Path
        Its file, as it was given.
    job : Job
        What the runs of a call share.
    observer : Observer
        Told how it goes.
    started : float
        When work on the run began, by :func:`time.perf_counter` [s].

    Returns
    -------
    RunOutcome
        What became of it: its files are complete.

    Raises
    ------
    OutputError
        If it cannot be written or the books do not balance; nothing was written then.
    """
    outcome = RunOutcome(str(path))
    classes = job.plan.classes
    with Staging() as staging:
        n_bytes = path.stat().st_size
        outcome.run, outcome.format = run.number, run.format_name
        outcome.n_events = len(run.events)
        _log.info("%s: format %s, run %s", path, run.format_name, run.number)
        outcome.fingerprint = fingerprint(path)
        observer.run_started(path.name, len(run.events), n_bytes)
        if job.plan.config.streams == "copy" and run.has_streams:
            require_space(job.out, n_bytes)
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with (
            tag_events(run, job.plan, job.executor) as batches,
            RunWriter(run, path, job.out, job.plan, staging) as writer,
        ):
            for batch in batches:
                writer.add(batch)
                counts.update(batch.tags)
                reasons.update(re.sub(r"\d+", "N", reason) for reason in batch.reasons if reason)
                _keep_for_picture(batch, job)
                for record, tag, reason in zip(
                    batch.records, batch.tags, batch.reasons, strict=True
                ):
                    if tag == UNREADABLE:
                        observer.event_unreadable(str(path), record.event, reason)
                observer.advanced(len(batch.records))
            writer.close()
        outcome.counts = {
            name: counts[name] for name in [*classes, UNCERTAIN, UNREADABLE, PASSTHROUGH]
        }
        outcome.reasons = dict(reasons.most_common())
        writer.report(outcome)
        balance(outcome, classes, writer.tags.n_rows)
        check_interrupted()  # not again until what is committed is in the books
        staging.commit()
        remove_former_output(job.out, job.former_output, set(writer.files.values()))
        outcome.seconds = round(time.perf_counter() - started, 3)
        outcome.events_per_s = round(outcome.n_events / outcome.seconds, 1)
        outcome.mb_per_s = round(n_bytes / outcome.seconds / 1e6, 1)
    return outcome


def _keep_for_picture(batch: Batch, job: Job) -> None:
    if not job.plan.config.picture:
        return
    if sum(map(len, job.score_sample)) < 20_000:
        job.score_sample.append(batch.scores[batch.scored])
    for example in batch.examples:
        kept = job.examples.setdefault(example.tag, [])
        if len(kept) < EXAMPLES_A_TAG:
            kept.append(example)
