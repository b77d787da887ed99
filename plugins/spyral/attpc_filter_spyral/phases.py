"""The two phases: one on raw traces, before the point clouds; one on the point clouds.

Spyral catches errors outside its loop over runs, and its phases ask a failed predecessor for an
artifact that is not there: one bad run would end all that follow in its process. So a run that
cannot be filtered leaves an artifact of the right kind without events, and an error in the log. If
an earlier job made a good artifact of this run, that one stays, and the error says so.
"""

import contextlib
import os
import shutil
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import SimpleQueue
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
from attpc_filter import (
    UNREADABLE,
    AttpcFilterError,
    Batch,
    Config,
    EmptyRunError,
    Executor,
    InputError,
    Plan,
    StreamMode,
    UsageError,
    keep_events,
    known_tags,
    load_in_process,
    make_plan,
    open_run,
    shipped_bundles,
    start_executor,
    write_whole,
)
from numpy.random import Generator
from spyral import (
    POINTCLOUD_SCHEMA,
    TRACE_SCHEMA,
    DetectorParameters,
    PhaseLike,
    PhaseResult,
    ResultSchema,
    create_reader,
)
from spyral.core.run_stacks import form_run_string
from spyral.core.spy_log import spyral_error, spyral_except, spyral_info, spyral_warn
from spyral.core.status_message import StatusMessage

#: Spyral's log files take what is logged below its own name.
_LOG = "spyral.attpc_filter"
_MODEL_NAME = "model.onnx"
#: Attribute of an artifact without events: why its run could not be filtered.
_FAILED = "attpc_filter_failed"
_MOST_STEPS = 100
_MOST_WARNINGS = 5

#: What this process has loaded: one session of the model, whatever the number of phases and runs.
#: The process is part of the key, because a session does not survive a fork.
_loaded: dict[tuple[int, str], tuple[Plan, Executor | None]] = {}


class _TaggingPhase(PhaseLike):  # type: ignore[misc]  # Spyral is not typed
    """What the two phases share; artifacts of one schema come in and go out."""

    #: Key of the artifact that is filtered.
    artifact: ClassVar[str]

    def __init__(
        self, name: str, schema: str, keep: Sequence[str] | None, config: Config | None
    ) -> None:
        super().__init__(name, ResultSchema(schema), ResultSchema(schema))
        self.keep = None if keep is None else tuple(keep)
        config = config or Config()
        self.mode: StreamMode = "copy" if config.streams == "copy" else "link"
        # Spyral runs a process a core, each with runs of its own
        self.config = replace(config, threads=config.threads or 1)

    def create_assets(self, workspace_path: Path) -> bool:
        """Copy the model into the workspace, which then says what made its tags."""
        source = shipped_bundles().get(self.config.model, Path(self.config.model))
        target = self._model(workspace_path)
        try:
            content = source.read_bytes()
            if target.exists() and target.read_bytes() == content:
                return True
            # a name of its own: the jobs of a Slurm array start in one workspace at once
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            partial.write_bytes(content)
            os.replace(partial, target)
        except OSError as error:
            spyral_error(_LOG, f"{self}: no model {self.config.model}: {error}")
            return False
        return True

    def construct_artifact(self, payload: PhaseResult, workspace_path: Path) -> PhaseResult:
        """The artifact that a run of this phase leaves."""
        name = f"{form_run_string(payload.run_number)}.h5"
        path = self.get_artifact_path(workspace_path) / name
        return PhaseResult({self.artifact: path}, True, payload.run_number)

    def tag_table(self, run_number: int, workspace_path: Path) -> Path:
        """Where the tag table of a run is written."""
        folder: Path = self.get_artifact_path(workspace_path)
        return folder / f"{form_run_string(run_number)}_tags.parquet"

    def run(
        self,
        payload: PhaseResult,
        workspace_path: Path,
        msg_queue: "SimpleQueue[StatusMessage]",
        rng: Generator,
    ) -> PhaseResult:
        """Tag the events of a run and keep the wanted ones."""
        number = payload.run_number
        result = self.construct_artifact(payload, workspace_path)
        output = result.artifacts[self.artifact]
        try:
            source = payload.artifacts.get(self.artifact)
            if source is None or not payload.successful:
                raise InputError(f"the phase before left no {self.artifact}")
            self._filter(number, source, output, workspace_path, msg_queue)
        except EmptyRunError as error:
            self._hand_on(number, source, output, error)
        except AttpcFilterError as error:
            self._fail(number, output, str(error))
        except Exception as error:  # noqa: BLE001  would end the runs that follow
            spyral_except(_LOG, error)
            self._fail(number, output, f"unexpected {type(error).__name__}")
        return result

    def _fail(self, number: int, output: Path, why: str) -> None:
        """Log why a run failed; leave the artifact of an earlier job, or one without events."""
        if _is_good(output):
            spyral_error(
                _LOG,
                f"{self}: run {number}: {why}. {output} of an earlier job stays, and later phases"
                " read that; remove it if it is not wanted.",
            )
            return
        spyral_error(_LOG, f"{self}: run {number}: {why}. Later phases get none of its events.")
        with write_whole(output) as partial, h5py.File(partial, "w") as file:
            file.attrs[_FAILED] = why
            self._write_without_events(file)

    @abstractmethod
    def _write_without_events(self, file: h5py.File) -> None:
        """Write what the next phase needs to find no events."""

    def _finish(self, path: Path, source: Path) -> None:
        """Make the artifact what the next phase would see without the filter."""

    def _check(self, path: Path, number: int) -> None:
        """Raise InputError if the next phase could not open the artifact."""

    def _look_at(self, batch: Batch) -> list[str]:
        """What is worth a warning about the events of a batch."""
        return [
            f"event {record.event}: {reason}"
            for record, tag, reason in zip(batch.records, batch.tags, batch.reasons, strict=True)
            if tag == UNREADABLE
        ]

    def _model(self, workspace_path: Path) -> Path:
        folder: Path = self.get_asset_storage_path(workspace_path)
        return folder / _MODEL_NAME

    def _adapt(self, plan: Plan) -> Plan:
        """The plan with what the phase needs besides."""
        return plan

    def _load(self, workspace_path: Path) -> tuple[Plan, Executor | None]:
        """The plan, and what tags in this process if it works on one core; once a process."""
        config = replace(self.config, model=str(self._model(workspace_path)), picture=False)
        key = (os.getpid(), f"{type(self)} {config!r}")
        if key not in _loaded:
            plan = self._adapt(make_plan(config))
            _loaded[key] = plan, load_in_process(plan) if config.n_threads == 1 else None
        plan, executor = _loaded[key]
        for tag in self.keep or ():
            if tag not in known_tags(plan):
                raise UsageError(f"keep: the model gives {', '.join(known_tags(plan))}; no {tag!r}")
        return plan, executor

    def _filter(
        self,
        number: int,
        source: Path,
        output: Path,
        workspace_path: Path,
        msg_queue: "SimpleQueue[StatusMessage]",
    ) -> None:
        plan, executor = self._load(workspace_path)
        table = self.tag_table(number, workspace_path)
        warnings: list[str] = []
        with open_run(source) as run, contextlib.ExitStack() as stack:
            if executor is None:
                executor = stack.enter_context(start_executor(plan))
            progress = _Progress(msg_queue, self.name, number, len(run.events))

            def finish(path: Path) -> None:
                self._finish(path, source)
                self._check(path, number)

            def look_at(batch: Batch) -> None:
                warnings.extend(self._look_at(batch))
                progress.advance(len(batch.records))

            counts = keep_events(
                run,
                plan,
                executor,
                output,
                table,
                self.keep,
                mode=self.mode,
                number=number,
                on_batch=look_at,
                finish=finish,
            )
            device = executor.device
        for warning in warnings[:_MOST_WARNINGS]:
            spyral_warn(_LOG, f"{self}: run {number}: {warning}")
        if len(warnings) > _MOST_WARNINGS:
            spyral_warn(
                _LOG,
                f"{self}: run {number}: {len(warnings) - _MOST_WARNINGS} more, see {table}",
            )
        text = ", ".join(f"{n} {tag}" for tag, n in counts.items())
        label = "all" if self.keep is None else "+".join(self.keep)
        spyral_info(
            _LOG,
            f"Phase {self.name} complete for run {number}: {text}; kept {label}, model"
            f" {plan.contract.name} on {device}",
        )

    def _hand_on(self, number: int, source: Path, output: Path, error: Exception) -> None:
        """Hand a run without events on as it is: its scalers count all the same."""
        try:
            with write_whole(output) as partial:
                shutil.copyfile(source, partial)
                self._check(partial, number)
        except (OSError, AttpcFilterError) as failure:
            self._fail(number, output, f"{error}; {failure}")
        else:
            spyral_warn(_LOG, f"{self}: run {number}: {error}: handed on as it is")


class TraceFilterPhase(_TaggingPhase):
    """Keeps the wanted events of the raw runs; stands before :class:`spyral.PointcloudPhase`.

    What it leaves is a run file of links into the raw one, in its layout: with all scalers, and
    with all ion-chamber downscale triggers, so that Spyral's ion-chamber counts and scalers come
    out as without it.

    Parameters
    ----------
    keep : sequence of str
        Tags to keep: classes of the model, ``uncertain``, ``unreadable``.
    det_params : DetectorParameters
        Spyral's; the z calibration is taken from them.
    config : Config, optional
        Options of attpc-filter; its z calibration is ignored, and ``streams`` copies events only
        if it says so.
    """

    artifact = "trace"

    def __init__(
        self, keep: Sequence[str], det_params: DetectorParameters, config: Config | None = None
    ) -> None:
        config = replace(
            config or Config(),
            micromegas_time_bucket=float(det_params.micromegas_time_bucket),
            window_time_bucket=float(det_params.window_time_bucket),
            detector_length=float(det_params.detector_length),
        )
        super().__init__("TraceFilter", TRACE_SCHEMA, keep, config)

    def _finish(self, path: Path, source: Path) -> None:
        with h5py.File(source, "r", locking="best-effort") as run, h5py.File(path, "r+") as file:
            if "events" not in file:  # Spyral reads a legacy file to its end
                return
            # Spyral leaves out event max_event, which a stream moves on by one; with the run's own
            # the counts are those without the filter. One that leaves out more was never filled in.
            own = run["events"].attrs["max_event"]
            attributes = file["events"].attrs
            if int(own) >= int(attributes["attpc_filter_last_event"]):
                attributes.modify("max_event", own)

    def _check(self, path: Path, number: int) -> None:
        try:
            reader = create_reader(path, number)
        except Exception as error:
            raise InputError(f"Spyral's reader cannot open it: {error!r}") from error
        if reader is None:
            raise InputError("Spyral has no reader for traces of this layout")
        reader.file.close()

    def _write_without_events(self, file: h5py.File) -> None:
        events = file.create_group("events")
        events.attrs.update({"version": "libattpc_merger:1.0", "min_event": 0, "max_event": 0})


class FilterPhase(_TaggingPhase):
    """Keeps the wanted point clouds; stands after :class:`spyral.PointcloudPhase`.

    What it leaves has the schema of the point clouds: the clouds as they are, with their order,
    attributes and labels.

    Parameters
    ----------
    keep : sequence of str or None
        Tags to keep: classes of the model, ``uncertain``, ``unreadable``; None keeps all clouds,
        with the tag table beside them.
    config : Config, optional
        Options of attpc-filter. Hits and z are those of the clouds; ``streams`` copies clouds only
        if it says so.
    """

    artifact = "pointcloud"

    def __init__(self, keep: Sequence[str] | None, config: Config | None = None) -> None:
        super().__init__("Filter", POINTCLOUD_SCHEMA, keep, config)

    def _adapt(self, plan: Plan) -> Plan:
        contract = plan.contract
        if (mode := contract.hits.mode) != "multi":
            spyral_warn(
                _LOG,
                f"{self}: model {contract.name} was trained on hits made in mode {mode};"
                " those of Spyral's clouds are not made so",
            )
        if contract.traces is not None:
            raise UsageError(
                f"model {contract.name} reads raw traces, these are point clouds; take the"
                " bundle that it was made of"
            )
        # hits come with the batches: see _look_at
        return replace(plan, config=replace(plan.config, keep_hits=True))

    def _look_at(self, batch: Batch) -> list[str]:
        hits = batch.hits
        assert hits is not None  # made of points, always
        owner = np.repeat(np.arange(hits.n_events), hits.counts)
        falls = (np.diff(hits.z) < 0) & (np.diff(owner) == 0)
        return super()._look_at(batch) + [
            f"event {batch.records[index].event}: its cloud is not sorted in z; it is kept as it"
            " is, ClusterPhase will leave it out"
            for index in np.unique(owner[:-1][falls])
            if self.keep is None or batch.tags[index] in self.keep
        ]

    def _write_without_events(self, file: h5py.File) -> None:
        file.create_group("cloud").attrs.update({"min_event": 0, "max_event": 0})


class _Progress:
    """Tells Spyral's display how far a run is, in at most a hundred steps as its phases do."""

    def __init__(
        self, queue: "SimpleQueue[StatusMessage]", name: str, run_number: int, n_events: int
    ) -> None:
        self._queue = queue
        self._n_events = n_events
        self._steps = min(n_events, _MOST_STEPS)
        self._message = StatusMessage(name, 1, self._steps, run_number)
        self._done = 0

    def advance(self, n_events: int) -> None:
        """Put the messages that so many more events are due."""
        before = self._done * self._steps // self._n_events
        self._done += n_events
        for _ in range(self._done * self._steps // self._n_events - before):
            self._queue.put(self._message)


def _is_good(path: Path) -> bool:
    """Whether an artifact is one of a run that was filtered."""
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            return _FAILED not in file.attrs
    except OSError:  # absent, or no artifact
        return False
