"""The stream: read, rebuild, score, tag, write."""

import itertools
import os
import platform
import re
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attpc_filter.config import Config
from attpc_filter.errors import AttpcFilterError, OutputError, UsageError
from attpc_filter.formats import Run, Stream, open_run
from attpc_filter.formats.run import Allocate, allocate_new
from attpc_filter.formats.tags import TagWriter
from attpc_filter.manifest import (
    MANIFEST_NAME,
    RunOutcome,
    balance,
    fingerprint,
    package_versions,
    write_manifest,
)
from attpc_filter.rebuild.hits import ZCalibration, rebuild_hits
from attpc_filter.rebuild.padplane import PadPlane, load_padplane
from attpc_filter.rebuild.projection import project
from attpc_filter.records import N_TRACE_COLUMNS, Hits, Record, join_hits
from attpc_filter.score.bundle import Bundle, Contract, load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.stages import Stages
from attpc_filter.staging import Staging
from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE, assign_tags

#: Events that go through the stream together, and that the model scores in one call.
BATCH_EVENTS = 64
#: Traces that a reused buffer holds (34 MB); a batch ends when its buffer is full.
_BUFFER_TRACES = 32_768
_N_BUFFERS = 3
_QUEUE_BATCHES = 2
_EXAMPLES_A_TAG = 4


class Observer(Protocol):
    """Who wants to know how the job goes."""

    def run_started(self, name: str, n_events: int, n_bytes: int) -> None:
        """A run was opened."""

    def advanced(self, n_events: int) -> None:
        """So many more events have their tag."""

    def run_finished(self, outcome: "RunOutcome") -> None:
        """A run is complete, or failed."""


@dataclass(slots=True)
class Example:
    """An event to show in the picture: its x, y [mm] and charge [ADC]."""

    title: str
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    charge: NDArray[np.float32]


@dataclass(slots=True)
class Job:
    """All that the runs of one call share."""

    config: Config
    out: Path
    bundle: Bundle
    plane: PadPlane
    calibration: ZCalibration
    thresholds: list[float]
    scorer: Scorer
    examples: dict[str, list[Example]] = field(default_factory=dict)
    #: Scores of the events that were scored, for the picture: (n_classes,) a row, a sample of them.
    score_sample: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def contract(self) -> Contract:
        """The model's contract."""
        return self.bundle.contract

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the score columns."""
        return [event_class.name for event_class in self.contract.classes]


@dataclass(slots=True)
class _Batch:
    """Events on their way through the stream; each stage fills in what it makes."""

    records: list[Record]
    buffer: NDArray[np.int16] | None  # holds the traces; goes back to the reader
    hits: Hits = field(init=False)
    scored: NDArray[np.bool_] = field(init=False)
    projections: NDArray[np.float32] = field(init=False)  # of the events to be scored
    scores: NDArray[np.float32] = field(init=False)


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
    job = _prepare(paths, out, config)
    description = _describe_job(job, command)
    outcomes: list[RunOutcome] = []
    status: int | None = None
    try:
        for path in paths:
            outcome = _filter_run_safely(path, job, observer)
            outcomes.append(outcome)
            observer.run_finished(outcome)
            write_manifest(job.out / MANIFEST_NAME, description, outcomes, None)
        failed = any(outcome.error for outcome in outcomes)
        unreadable = any(outcome.counts.get(UNREADABLE) for outcome in outcomes)
        status = 2 if failed else 1 if unreadable and config.strict else 0
    except KeyboardInterrupt:
        status = 130
        raise
    finally:
        write_manifest(
            job.out / MANIFEST_NAME, description, outcomes, 2 if status is None else status
        )
    return status, job, outcomes


def _prepare(paths: Sequence[Path], out: Path, config: Config) -> Job:
    stems = Counter(path.stem for path in paths)
    if twice := [path for path in paths if stems[path.stem] > 1]:
        raise UsageError(
            f"{twice[0]} and {twice[1]} would both be written as {twice[0].stem};"
            " filter them into two folders"
        )
    bundle = load_bundle(config.model)
    contract = bundle.contract
    classes = [event_class.name for event_class in contract.classes]
    if unknown := set(config.thresholds) - set(classes):
        raise UsageError(
            f"thresholds: the model has no class {unknown.pop()!r}, it has {', '.join(classes)}"
        )
    thresholds = [
        config.thresholds.get(event_class.name, event_class.threshold)
        for event_class in contract.classes
    ]
    given = {
        name: value
        for name in ("micromegas_time_bucket", "window_time_bucket", "detector_length")
        if (value := getattr(config, name)) is not None
    }
    calibration = ZCalibration(**(asdict(contract.detector) | given))
    if calibration.micromegas_time_bucket == calibration.window_time_bucket:
        raise UsageError("micromegas_time_bucket and window_time_bucket are equal: no drift time")
    plane = load_padplane(config.pad_plane, config.pad_gains, config.pad_time_offsets)
    scorer = Scorer(bundle, config.device, config.n_threads, BATCH_EVENTS)
    _prepare_folder(paths, out, config.overwrite)
    _compile(contract, plane, calibration)
    return Job(config, out, bundle, plane, calibration, thresholds, scorer)


def _compile(contract: Contract, plane: PadPlane, calibration: ZCalibration) -> None:
    """Have the kernels compiled, or loaded from numba's cache, before the clock starts."""
    record = Record(0, "", traces=np.zeros((1, N_TRACE_COLUMNS), np.int16))
    project(rebuild_hits([record], plane, contract.hits, calibration), contract.projection)


def _prepare_folder(paths: Sequence[Path], out: Path, overwrite: bool) -> None:
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
        for name in held:
            entry = out / name
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}: {error.filename}") from error


def _describe_job(job: Job, command: str) -> dict[str, Any]:
    """Describe what all runs of a job share, for the manifest."""
    options = asdict(job.config)
    return {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": job.contract.name,
            "path": str(job.bundle.path.resolve()),
            "sha256": job.bundle.sha256,
            "contract_version": job.contract.version,
        },
        "device": job.scorer.device,
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in options.items()},
        "thresholds": dict(zip(job.classes, job.thresholds, strict=True)),
        "calibration": asdict(job.calibration),
        "versions": package_versions(),
        "machine": f"{platform.node()}, {platform.machine()}, {os.cpu_count()} cores",
    }


# ------------------------------------------------------------------------------------------ a run


def _filter_run_safely(path: Path, job: Job, observer: Observer) -> RunOutcome:
    outcome = RunOutcome(str(path))
    try:
        _filter_run(path, job, observer, outcome)
    except AttpcFilterError as error:
        outcome = RunOutcome(str(path), run=outcome.run, format=outcome.format, error=str(error))
    except Exception as error:  # noqa: BLE001  one bad run must not end those that follow
        traceback.print_exc()
        text = f"{path}: unexpected {type(error).__name__}: {error}; please report it"
        outcome = RunOutcome(str(path), run=outcome.run, format=outcome.format, error=text)
    return outcome


def _filter_run(path: Path, job: Job, observer: Observer, outcome: RunOutcome) -> None:
    started = time.perf_counter()
    with open_run(path) as run, Staging() as staging:
        n_bytes = path.stat().st_size
        outcome.run, outcome.format = run.number, run.format_name
        outcome.n_events = len(run.events)
        outcome.fingerprint = fingerprint(path)
        observer.run_started(path.name, len(run.events), n_bytes)
        if job.config.streams == "copy":
            _require_space(job.out, n_bytes)

        names = [*job.classes, UNCERTAIN, UNREADABLE]
        files = {name: job.out / name / path.name for name in names}
        table = job.out / "tags" / f"{path.stem}.parquet"
        metadata = {
            "contract_version": str(job.contract.version),
            "model": job.contract.name,
            "model_sha256": job.bundle.sha256,
            "classes": job.classes,
            "thresholds": dict(zip(job.classes, job.thresholds, strict=True)),
            "min_hits": job.contract.hits.min_hits,
            "input": str(path.resolve()),
        }
        streams: dict[str, Stream] = {}
        try:
            with TagWriter(staging.path(table), job.classes, metadata) as tags, Stages() as stages:
                if job.config.streams != "none":
                    for name, file in files.items():
                        streams[name] = run.create_stream(
                            staging.path(file), job.config.streams, name
                        )
                written = _stream_events(run, job, stages, streams, tags, outcome, observer)
                tags.close()
                for stream in streams.values():
                    stream.close()
        except BaseException:
            for stream in streams.values():
                stream.abort()
            raise
        outcome.tag_table = str(table.relative_to(job.out))
        outcome.streams = {
            name: {"path": str(files[name].relative_to(job.out)), "events": written[name]}
            for name in streams
        }
        balance(outcome, job.classes, tags.n_rows)
        staging.commit()
    outcome.seconds = round(time.perf_counter() - started, 3)
    outcome.events_per_s = round(outcome.n_events / outcome.seconds, 1)
    outcome.mb_per_s = round(n_bytes / outcome.seconds / 1e6, 1)


def _stream_events(
    run: Run,
    job: Job,
    stages: Stages,
    streams: dict[str, Stream],
    tags: TagWriter,
    outcome: RunOutcome,
    observer: Observer,
) -> Counter[str]:
    """Take all events of a run through the stages; the calling thread tags and writes."""
    free = stages.channel(_N_BUFFERS, np.ndarray)
    read = stages.channel(_QUEUE_BATCHES, _Batch)
    rebuilt = stages.channel(_QUEUE_BATCHES, _Batch)
    scored = stages.channel(_QUEUE_BATCHES, _Batch)
    for _ in range(_N_BUFFERS):
        free.put(np.empty((_BUFFER_TRACES, N_TRACE_COLUMNS), np.int16))

    def reader() -> None:
        at = 0
        while at < len(run.events):
            batch = _read_batch(run, at, free.get())
            at += len(batch.records)
            read.put(batch)
        read.end()

    def rebuilder() -> None:
        with ThreadPoolExecutor(job.config.n_threads) as pool:
            for batch in read:
                _rebuild_batch(batch, job, pool)
                assert batch.buffer is not None
                free.put(batch.buffer)
                batch.buffer = None
                rebuilt.put(batch)
        rebuilt.end()

    def scorer() -> None:
        for batch in rebuilt:
            batch.scores = np.full((len(batch.records), len(job.classes)), np.nan, np.float32)
            batch.scores[batch.scored] = job.scorer.score(batch.projections)
            scored.put(batch)
        scored.end()

    for stage in (reader, rebuilder, scorer):
        stages.start(stage.__name__, stage)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for batch in scored:
        event_tags, why = _tag_batch(batch, job)
        events = np.array([record.event for record in batch.records], np.int64)
        n_hits = batch.hits.counts
        tags.add(run.number, events, event_tags, batch.scores, batch.scored, n_hits, why)
        for record, tag in zip(batch.records, event_tags, strict=True):
            for name in job.classes if tag == PASSTHROUGH else [tag]:
                if name in streams:
                    streams[name].add(record.name)
                    written[name] += 1
        counts.update(event_tags)
        reasons.update(re.sub(r"\d+", "N", reason) for reason in why if reason)
        _keep_for_picture(batch, event_tags, run.number, job)
        observer.advanced(len(batch.records))
    outcome.counts = {
        name: counts[name] for name in [*job.classes, UNCERTAIN, UNREADABLE, PASSTHROUGH]
    }
    outcome.reasons = dict(reasons.most_common())
    return written


def _read_batch(run: Run, at: int, buffer: NDArray[np.int16]) -> _Batch:
    """Read events from ``at`` until the batch or its buffer is full."""
    used = 0

    def allocate(rows: int) -> NDArray[np.int16]:
        nonlocal used
        used += rows
        return buffer[used - rows : used] if used <= len(buffer) else allocate_new(rows)

    room: Allocate = allocate
    records: list[Record] = []
    for event, name in run.events[at : at + BATCH_EVENTS]:
        records.append(run.read(event, name, room))
        if used >= len(buffer):
            break
    return _Batch(records, buffer)


def _rebuild_batch(batch: _Batch, job: Job, pool: ThreadPoolExecutor) -> None:
    """Rebuild hits and projections, the batch divided among the threads; frees the traces."""
    contract = job.contract
    readable = np.array([not (record.reason or record.passthrough) for record in batch.records])

    def work(part: slice) -> tuple[Hits, NDArray[np.bool_], NDArray[np.float32]]:
        hits = rebuild_hits(batch.records[part], job.plane, contract.hits, job.calibration)
        scored = readable[part] & (hits.counts >= contract.hits.min_hits)
        return hits, scored, project(hits, contract.projection, np.flatnonzero(scored))

    parts = list(pool.map(work, _slices(len(batch.records), job.config.n_threads)))
    batch.hits = join_hits([hits for hits, _, _ in parts])
    batch.scored = np.concatenate([scored for _, scored, _ in parts])
    batch.projections = (
        parts[0][2] if len(parts) == 1 else np.concatenate([images for _, _, images in parts])
    )
    for record in batch.records:
        record.traces = record.points = None


def _slices(length: int, parts: int) -> list[slice]:
    edges = np.linspace(0, length, min(parts, length) + 1).astype(int)
    return [slice(int(start), int(stop)) for start, stop in itertools.pairwise(edges)]


def _tag_batch(batch: _Batch, job: Job) -> tuple[list[str], list[str]]:
    return assign_tags(
        batch.scores,
        batch.hits.counts,
        np.array([record.passthrough for record in batch.records]),
        [record.reason for record in batch.records],
        job.classes,
        job.thresholds,
        job.contract.hits.min_hits,
    )


def _keep_for_picture(batch: _Batch, tags: list[str], run: int, job: Job) -> None:
    if not job.config.picture:
        return
    if sum(map(len, job.score_sample)) < 20_000:
        job.score_sample.append(batch.scores[batch.scored])
    for index, (record, tag) in enumerate(zip(batch.records, tags, strict=True)):
        kept = job.examples.setdefault(tag, [])
        if len(kept) < _EXAMPLES_A_TAG and batch.scored[index]:
            hits = batch.hits.event(index)
            kept.append(
                Example(
                    f"run {run} event {record.event}",
                    hits.x.copy(),
                    hits.y.copy(),
                    hits.charge.copy(),
                )
            )


def _require_space(out: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(out).free
    if free < n_bytes:
        raise OutputError(
            f"{out}: {free / 1e9:.1f} GB free, copies of the events need {n_bytes / 1e9:.1f} GB;"
            " free some, or take --streams link"
        )
