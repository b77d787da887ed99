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

import numpy as np
from numpy.typing import NDArray

from attpc_filter.config import Config
from attpc_filter.errors import AttpcFilterError, InputError, UsageError, debugging
from attpc_filter.execute.base import Executor, tag_events
from attpc_filter.execute.choose import make_executor
from attpc_filter.formats.graw_files import one_path_a_run
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Run
from attpc_filter.interrupts import check_interrupted, interrupts_noted
from attpc_filter.observe import Observer
from attpc_filter.output.folder import OutputFolder, check_folder, require_space
from attpc_filter.output.inputs import check_inputs, fingerprint, input_files, require_unchanged
from attpc_filter.output.journal import UnfinishedCommit
from attpc_filter.output.manifest import Manifest, RunOutcome, balance, package_versions
from attpc_filter.output.resume import key_of, made_of, why_again
from attpc_filter.output.run_writer import RunWriter
from attpc_filter.output.tag_table import read_tags, scores_of
from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE
from attpc_filter.tagging.batch import Batch, Example
from attpc_filter.tagging.plan import Plan, make_plan
from attpc_filter.tagging.stages import EXAMPLES_A_TAG

_log = logging.getLogger(__name__)
#: Smaller jobs are done about as soon as processes have started: a raw event or two, or (at 32
#: bytes each, in a stream) links to 16,000.
_WORTH_WORKERS_BYTES = 512 << 10
#: Scores that are kept for the picture; more change it no more.
_SCORES_KEPT = 20_000


@dataclass(slots=True)
class Job:
    """All that the runs of one call share."""

    plan: Plan
    folder: OutputFolder
    #: What tags the events.
    executor: Executor
    examples: dict[str, list[Example]] = field(default_factory=dict)
    #: Scores of the events that were scored, for the picture: (n_classes,) a row, a sample of them.
    score_sample: list[NDArray[np.float32]] = field(default_factory=list)
    #: Runs that were filtered by this call, and not by one before it.
    n_filtered: int = 0


# ------------------------------------------------------------------------------------------ a job


def run_job(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    observer: Observer,
    command: str,
    executor: Executor | None = None,
) -> tuple[int, Job | None, list[RunOutcome]]:
    """Filter runs into an output folder; those that are done already are left as they are.

    Parameters
    ----------
    paths : sequence of Path
        Run files.
    out : Path
        Folder for tags, streams and manifest. It may hold other files, and runs of earlier calls:
        they stay.
    config : Config
        Options.
    observer : Observer
        Told how it goes.
    command : str
        The command line, for the manifest.
    executor : Executor, optional
        What tags the events; the one that the options name if left out.

    Returns
    -------
    status : int
        0; 1 if events were unreadable under ``strict``; 2 if a run failed.
    job : Job or None
        What the runs shared; None if no input can be opened: nothing was written then.
    outcomes : list of RunOutcome
        One a run, in the order of the paths.

    Raises
    ------
    UsageError
        If the job cannot start: no input can be opened, say.
    UnfinishedCommit
        If a commit cannot be carried out; the next command on the folder does it.
    KeyboardInterrupt
        On Ctrl-C; runs that were complete stay, the manifest says 130.
    """
    paths = one_path_a_run(paths)
    good, bad = check_inputs(paths, out, config.root_options, config.follow_links)
    outcomes = [RunOutcome(str(path), error=line) for path, line in bad.items()]
    lines = list(dict.fromkeys(bad.values()))  # one that two files share is said once
    if not good and len(lines) == 1:
        raise UsageError(lines[0])
    for line in lines:
        observer.note(f"error: {line}")
    if not good:
        return 2, None, outcomes
    check_folder(out)
    n_bytes = sum(file.stat().st_size for path in good for file in input_files(path))
    executor = executor or suitable_executor(config, n_bytes)
    with interrupts_noted(), executor:
        plan = load_plan(config, executor)
        with OutputFolder(out, create=True) as folder:
            job = Job(plan, folder, executor)
            status = _run_job(good, job, observer, command, outcomes)
    order = {str(path): index for index, path in enumerate(paths)}
    return status, job, sorted(outcomes, key=lambda outcome: order[outcome.input])


def suitable_executor(config: Config, n_bytes: int) -> Executor:
    """The executor that the options name, for so many bytes of input."""
    alone = n_bytes < _WORTH_WORKERS_BYTES
    return make_executor(replace(config, threads=1) if alone else config)


def _run_job(
    paths: Sequence[Path], job: Job, observer: Observer, command: str, outcomes: list[RunOutcome]
) -> int:
    """Filter the runs and append the outcome of each; gives the exit status."""
    folder = job.folder
    books = folder.books_to_change()
    _describe_job(books, job, command)
    books.runs = [entry for entry in books.runs if not entry.error]
    for outcome in outcomes:
        _enter_failure(books, outcome)
    folder.write_books(books)  # a folder of a job that is killed is known as one of ours
    status = 2
    try:
        for path in paths:
            check_interrupted()
            outcome = _filter_run_safely(path, job, observer)
            outcomes.append(outcome)
            if outcome.error:
                observer.run_finished(outcome)
                books = folder.books_to_change()
                _enter_failure(books, outcome)
                folder.write_books(books)
        failed = any(outcome.error or outcome.is_all_unreadable for outcome in outcomes)
        unreadable = any(outcome.counts.get(UNREADABLE) for outcome in outcomes)
        status = 2 if failed else 1 if unreadable and job.plan.config.strict else 0
    except KeyboardInterrupt:
        status = 130
        raise
    finally:
        if not folder.is_unfinished:
            books = folder.books_to_change()
            books.exit_status = status
            folder.write_books(books)
    return status


def _enter_failure(books: Manifest, outcome: RunOutcome) -> None:
    """Enter a run that failed; what an earlier call made of it stays."""
    former = books.run_of(outcome.stem)
    if former is not None and not former.error:
        former.last_error = outcome.error
    else:
        books.put(outcome)


def load_plan(config: Config, executor: Executor) -> Plan:
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
    return plan


def _describe_job(books: Manifest, job: Job, command: str) -> None:
    """Enter what all runs of a job share."""
    plan = job.plan
    options = asdict(plan.config)
    books.command = command
    books.started = datetime.now(UTC).isoformat(timespec="seconds")
    books.exit_status = None
    books.model = {
        "name": plan.contract.name,
        "path": str(plan.bundle.path.resolve()),
        "sha256": plan.bundle.sha256,
        "contract_version": plan.contract.version,
    }
    books.device = job.executor.device
    books.executor = job.executor.describe()
    books.detector = {
        "name": plan.detector.name,
        "sha256": plan.detector.sha256,
        "n_samples": plan.detector.n_samples,
        "frame": asdict(plan.detector.frame),
        "of_model": asdict(plan.contract.detector),
    }
    books.config = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    books.thresholds = _thresholds(plan)
    books.calibration = asdict(plan.detector.calibration)
    books.versions = package_versions()
    books.machine = f"{platform.node()}, {platform.machine()}, {os.cpu_count()} cores"


def _thresholds(plan: Plan) -> dict[str, float]:
    return dict(zip(plan.classes, plan.thresholds, strict=True))


# ------------------------------------------------------------------------------------------ a run


def _filter_run_safely(path: Path, job: Job, observer: Observer) -> RunOutcome:
    """Filter a run unless it is done; gives its outcome, also if it fails."""
    try:
        outcome = _filter_run(path, job, observer)
    except UnfinishedCommit:
        raise
    except AttpcFilterError as error:
        if debugging():
            raise
        _log.debug("%s: failed", path, exc_info=True)
        outcome = RunOutcome(str(path), error=str(error))
    except Exception as error:
        if debugging():
            raise
        traceback.print_exc()
        text = f"{path}: unexpected {type(error).__name__}: {error}; please report it"
        outcome = RunOutcome(str(path), error=text)
    return outcome


def _filter_run(path: Path, job: Job, observer: Observer) -> RunOutcome:
    started = time.perf_counter()
    config = job.plan.config
    before = fingerprint(path)
    out = job.folder.path
    parts = made_of(path, out, before, job.plan)
    former = job.folder.books.run_of(path.stem)
    if former is not None and not former.error and not config.restart:
        if not (reason := why_again(former, parts, path, out)):
            observer.note(f"{path.name}: done already")
            _keep_scores(former, job)
            return former
        observer.note(f"{path.name}: filtered again; {reason}")
    channels = job.plan.detector.channels
    with open_run(path, config.root_options, None, channels, config.follow_links) as run:
        outcome = RunOutcome(str(path), made_of=parts, key=key_of(parts), fingerprint=before)
        return filter_run(run, path, job, observer, outcome, started)


def filter_run(
    run: Run, path: Path, job: Job, observer: Observer, outcome: RunOutcome, started: float
) -> RunOutcome:
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
    outcome : RunOutcome
        With the input, its fingerprint and what the outputs are made of; the rest is filled in.
    started : float
        When work on the run began, by :func:`time.perf_counter` [s].

    Returns
    -------
    RunOutcome
        Its outcome; its files are complete.

    Raises
    ------
    InputError
        If the run changed while it was read.
    OutputError
        If it cannot be written or the books do not balance; nothing was written then.
    """
    plan, folder = job.plan, job.folder
    config, classes = plan.config, plan.classes
    with folder.staging() as staging:
        n_bytes = outcome.fingerprint["bytes"]
        outcome.run, outcome.format = run.number, run.format_name
        outcome.n_events = len(run.events)
        _log.info("%s: format %s, run %s", path, run.format_name, run.number)
        outcome.thresholds, outcome.mode = _thresholds(plan), config.streams
        _require_own_numbers(run)
        observer.run_started(path.name, len(run.events), n_bytes)
        outcome.notes = run.notes
        for text in run.notes:
            observer.note(f"note: {path}: {text}")
        if config.streams == "copy" and run.has_streams:
            require_space(folder.path, n_bytes)
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with (
            tag_events(run, plan, job.executor) as batches,
            RunWriter(run, path, folder.path, plan, staging) as writer,
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
        require_unchanged(path, outcome.fingerprint)
        outcome.seconds = round(time.perf_counter() - started, 3)
        outcome.events_per_s = round(outcome.n_events / outcome.seconds, 1)
        outcome.mb_per_s = round(n_bytes / outcome.seconds / 1e6, 1)
        books = folder.books_to_change()
        books.put(outcome)
        check_interrupted()  # the last time: what is committed stays
        staging.commit(books)
    job.n_filtered += 1
    observer.run_finished(outcome)
    return outcome


def _require_own_numbers(run: Run) -> None:
    """Refuse a run in which two events have the same number: tags and streams go by it."""
    names: dict[int, str] = {}
    for event, name in run.events:
        if (other := names.setdefault(event, name)) != name:
            raise InputError(
                f"{run.path}: {other} and {name} are both event {event}; no event was tagged, as"
                " one of them would be lost: rename one"
            )


def _keep_scores(outcome: RunOutcome, job: Job) -> None:
    """Keep scores of a run that is done already, for the picture."""
    if job.plan.config.picture and sum(map(len, job.score_sample)) < _SCORES_KEPT:
        table, _ = read_tags(job.folder.path / outcome.tag_table)
        scores = scores_of(table, job.plan.classes)
        job.score_sample.append(scores[np.isfinite(scores).all(axis=1)])


def _keep_for_picture(batch: Batch, job: Job) -> None:
    if not job.plan.config.picture:
        return
    if sum(map(len, job.score_sample)) < _SCORES_KEPT:
        job.score_sample.append(batch.scores[batch.scored])
    for example in batch.examples:
        kept = job.examples.setdefault(example.tag, [])
        if len(kept) < EXAMPLES_A_TAG:
            kept.append(example)
