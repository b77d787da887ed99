"""A job: runs in, tag tables and streams out, and the books about them."""

import contextlib
import os
import platform
import re
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from attpc_filter.config import Config
from attpc_filter.errors import AttpcFilterError, InputError, OutputError, UsageError
from attpc_filter.execute.processes import Helpers
from attpc_filter.formats.hdf5.hit_store import HitWriter
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Run, Stream
from attpc_filter.output.latents import LatentWriter
from attpc_filter.output.manifest import (
    MANIFEST_NAME,
    RunOutcome,
    balance,
    fingerprint,
    package_versions,
    write_manifest,
)
from attpc_filter.output.staging import Staging, check_interrupted, interrupts_noted
from attpc_filter.output.tag_table import TagWriter
from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE
from attpc_filter.tagging.stages import (
    EXAMPLES_A_TAG,
    Batch,
    Example,
    Tagger,
    load_tagger,
    tag_events,
)

#: Smaller jobs are done about as soon as processes have started: a raw event or two, or (at 32
#: bytes each, in a stream) links to 16,000.
_WORTH_HELPERS_BYTES = 512 << 10


class Observer(Protocol):
    """Who wants to know how the job goes."""

    def run_started(self, name: str, n_events: int, n_bytes: int) -> None:
        """A run was opened."""

    def event_unreadable(self, path: str, event: int, reason: str) -> None:
        """An event could not be read or scored."""

    def advanced(self, n_events: int) -> None:
        """So many more events have their tag."""

    def run_finished(self, outcome: "RunOutcome") -> None:
        """A run is complete, or failed."""


@dataclass(slots=True)
class Job:
    """All that the runs of one call share."""

    tagger: Tagger
    out: Path
    #: What the model runs on: ``cpu``, ``cuda`` or ``cuda:N``.
    device: str
    #: Processes that tag for it, if there are any.
    helpers: Helpers | None = None
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
    alone = n_bytes < _WORTH_HELPERS_BYTES
    with interrupts_noted(), Helpers(replace(config, threads=1) if alone else config) as helpers:
        job = _prepare(paths, out, config, helpers)
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
        status = 2 if failed else 1 if unreadable and job.tagger.config.strict else 0
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


def _prepare(paths: Sequence[Path], out: Path, config: Config, helpers: Helpers) -> Job:
    stems = Counter(path.stem for path in paths)
    if twice := [path for path in paths if stems[path.stem] > 1]:
        raise UsageError(
            f"{twice[0]} and {twice[1]} would both be written as {twice[0].stem};"
            " filter them into two folders"
        )
    job = start_job(out, config, helpers)
    job.former_output = _prepare_folder(paths, out, config.overwrite)
    return job


def start_job(out: Path, config: Config, helpers: Helpers) -> Job:
    """Load the model, here or in the processes that help, and wait until all are ready.

    Raises
    ------
    UsageError
        If the model cannot be loaded, or the device is not there.
    """
    tagger = load_tagger(config, ready=not helpers)
    helpers.wait()
    return Job(tagger, out, helpers.device if helpers else tagger.scorer.device, helpers)


def _prepare_folder(paths: Sequence[Path], out: Path, overwrite: bool) -> list[Path]:
    """Make the output folder; returns the files of an earlier output that it holds."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: a file of that name exists")
    resolved = out.resolve()
    for path in paths:
        if resolved in path.resolve().parents:
            raise UsageError(f"--out {out}: the input {path} lies in it; choose another folder")
    try:
        held = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
        if held and not overwrite:
            raise UsageError(
                f"--out {out}: not empty; choose another folder, or --overwrite an earlier output"
            )
        if held and MANIFEST_NAME not in held:
            raise UsageError(
                f"--out {out}: holds no {MANIFEST_NAME}, so it is no output of attpc-filter;"
                " nothing was overwritten"
            )
        out.mkdir(parents=True, exist_ok=True)
        return [entry for entry in out.rglob("*") if not entry.is_dir()] if held else []
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}: {error.filename}") from error


def _remove_former_output(job: Job, new: set[Path]) -> None:
    """Remove what ``--overwrite`` replaces; called when the first new run is complete."""
    for file in set(job.former_output) - new:
        file.unlink(missing_ok=True)
    job.former_output.clear()
    for folder in sorted((f for f in job.out.rglob("*") if f.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty: it holds new files
            folder.rmdir()


def _describe_job(job: Job, command: str) -> dict[str, Any]:
    """Describe what all runs of a job share, for the manifest."""
    tagger = job.tagger
    options = asdict(tagger.config)
    return {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": tagger.contract.name,
            "path": str(tagger.bundle.path.resolve()),
            "sha256": tagger.bundle.sha256,
            "contract_version": tagger.contract.version,
        },
        "device": job.device,
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in options.items()},
        "thresholds": dict(zip(tagger.classes, tagger.thresholds, strict=True)),
        "calibration": asdict(tagger.calibration),
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
        outcomes.append(RunOutcome(str(path), error=str(error)))
    except Exception as error:  # noqa: BLE001  one bad run must not end those that follow
        traceback.print_exc()
        text = f"{path}: unexpected {type(error).__name__}: {error}; please report it"
        outcomes.append(RunOutcome(str(path), error=text))


def _filter_run(path: Path, job: Job, observer: Observer, outcomes: list[RunOutcome]) -> None:
    started = time.perf_counter()
    with open_run(path, job.tagger.config.root_options) as run:
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
    classes = job.tagger.classes
    with Staging() as staging:
        n_bytes = path.stat().st_size
        outcome.run, outcome.format = run.number, run.format_name
        outcome.n_events = len(run.events)
        outcome.fingerprint = fingerprint(path)
        observer.run_started(path.name, len(run.events), n_bytes)
        if job.tagger.config.streams == "copy" and run.has_streams:
            _require_space(job.out, n_bytes)
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with (
            tag_events(run, job.tagger, job.helpers) as batches,
            _RunWriter(run, path, job, staging) as writer,
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
        _remove_former_output(job, set(writer.files.values()))
        outcome.seconds = round(time.perf_counter() - started, 3)
        outcome.events_per_s = round(outcome.n_events / outcome.seconds, 1)
        outcome.mb_per_s = round(n_bytes / outcome.seconds / 1e6, 1)
    return outcome


class _RunWriter:
    """All that is written of one run: tags and streams, hits and latents on request.

    Attributes
    ----------
    tags : TagWriter
        The tag table.
    files : dict of str to Path
        The files by what they hold: ``tags``, ``hits``, ``latents``, and the streams' labels.
    """

    def __init__(self, run: Run, source: Path, job: Job, staging: Staging) -> None:
        tagger, config = job.tagger, job.tagger.config
        if config.keep_hits and run.hits_made is not None:
            raise InputError(f"{run.path}: a hit store already; leave out keep_hits")
        self._run = run
        self._out = job.out
        self._classes = tagger.classes
        self._streams: dict[str, Stream] = {}
        self._events: Counter[str] = Counter()
        self._hits: HitWriter | None = None
        self._latents: LatentWriter | None = None
        self.files: dict[str, Path] = {}

        def staged(what: str, suffix: str) -> Path:
            self.files[what] = job.out / what / f"{source.stem}{suffix}"
            return staging.path(self.files[what])

        metadata = tagger.table_metadata(run.path)
        self.tags = TagWriter(staged("tags", ".parquet"), self._classes, metadata)
        try:
            if config.keep_hits:
                self._hits = HitWriter(
                    staged("hits", ".h5"),
                    run,
                    tagger.how_hits_are_made(),
                    asdict(tagger.calibration),
                )
            if config.keep_latents:
                self._latents = LatentWriter(
                    staged("latents", ".parquet"), tagger.scorer.latent_size, metadata
                )
            if config.streams != "none" and run.has_streams:
                for label in [*self._classes, UNCERTAIN, UNREADABLE]:
                    path = staged(label, source.suffix)
                    self._streams[label] = run.create_stream(path, config.streams, label)
        except BaseException:
            self._abort()
            raise

    def add(self, batch: Batch) -> None:
        """Write a batch."""
        number, events = self._run.number, batch.events
        self.tags.add(
            number,
            events,
            batch.tags,
            batch.scores,
            batch.scored,
            batch.n_hits,
            batch.reasons,
            batch.novelty,
        )
        if self._hits is not None:
            assert batch.hits is not None
            self._hits.add(batch.records, batch.origins, batch.hits)
        if self._latents is not None:
            assert batch.latents is not None
            self._latents.add(number, events, batch.latents, batch.scored)
        for index, (record, tag) in enumerate(zip(batch.records, batch.tags, strict=True)):
            for label in self._classes if tag == PASSTHROUGH else [tag]:
                if label in self._streams:
                    if batch.hits is None:
                        self._streams[label].add(record.name, record.is_complete)
                    else:
                        self._streams[label].add_rebuilt(record.name, batch.hits, index)
                    self._events[label] += 1

    def close(self) -> None:
        """Close all files, and verify that they hold what was added."""
        for output in (self.tags, self._hits, self._latents, *self._streams.values()):
            if output is not None:
                output.close()

    def report(self, outcome: RunOutcome) -> None:
        """Say in the manifest what was written where."""
        names = {what: str(path.relative_to(self._out)) for what, path in self.files.items()}
        outcome.tag_table = names["tags"]
        outcome.hit_store = names.get("hits", "")
        outcome.latents = names.get("latents", "")
        outcome.streams = {
            label: {"path": names[label], "events": self._events[label]} for label in self._streams
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._abort()

    def _abort(self) -> None:
        """Close all files as they are; the staging removes them."""
        for output in (self.tags, self._hits, self._latents, *self._streams.values()):
            if output is not None:
                output.abort()


def _keep_for_picture(batch: Batch, job: Job) -> None:
    if not job.tagger.config.picture:
        return
    if sum(map(len, job.score_sample)) < 20_000:
        job.score_sample.append(batch.scores[batch.scored])
    for example in batch.examples:
        kept = job.examples.setdefault(example.tag, [])
        if len(kept) < EXAMPLES_A_TAG:
            kept.append(example)


def _require_space(out: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(out).free
    if free < n_bytes:
        raise OutputError(
            f"{out}: {free / 1e9:.1f} GB free, copies of the events need {n_bytes / 1e9:.1f} GB;"
            " free some, or take --streams link"
        )
