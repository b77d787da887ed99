"""Events to tags: read, rebuild, score, tag.

Events are read in parts of a few into one buffer that is used again and again, and rebuilt while
their traces are still in the processor's cache; the model scores batches of :data:`BATCH_EVENTS`.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.run import Events, Run
from attpc_filter.rebuild.hits import rebuild_hits
from attpc_filter.rebuild.traces import TraceBatch, gather_traces, pad_features
from attpc_filter.records import N_HARDWARE_COLUMNS, Hits, Origin, Record, join_hits
from attpc_filter.score.outputs import wanted_outputs
from attpc_filter.score.scorer import Scorer
from attpc_filter.tag import UNREADABLE, assign_tags
from attpc_filter.tagging.batch import Batch, Example, no_hits, origins_of
from attpc_filter.tagging.plan import Plan
from attpc_filter.tagging.warm import compile_for_tagging

#: Events that go through the stages together, and that the model scores in one call.
BATCH_EVENTS = 64
#: Traces that the buffer for reading holds (4.2 MB).
BUFFER_TRACES = 4096
#: Events of each tag that a batch, and a job's picture, shows.
EXAMPLES_A_TAG = 4


class Stages:
    """A plan made ready on a device: the kernels compiled, the model loaded, a buffer for traces.

    Parameters
    ----------
    plan : Plan
        How events are tagged.

    Attributes
    ----------
    scorer : Scorer
        Runs the model.
    buffer : ndarray of int16, shape (n_rows, 5 + n_samples)
        Traces are read into it.

    Raises
    ------
    UsageError
        If the device is not there.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scorer = Scorer(plan.bundle, plan.config.device, 1, BATCH_EVENTS)
        self._features = pad_features(plan.detector.plane)
        traces = plan.contract.traces
        n_rows = BUFFER_TRACES if traces is None else traces.n_traces
        n_columns = N_HARDWARE_COLUMNS + plan.detector.n_samples
        self.buffer = np.empty((n_rows, n_columns), np.int16)
        compile_for_tagging(plan)

    @property
    def device(self) -> str:
        """What the model runs on: ``cpu``, ``cuda`` or ``cuda:N``."""
        return self.scorer.device

    def rebuild(self, records: list[Record]) -> Hits:
        """Rebuild the hits of a batch of events."""
        return rebuild_hits(records, self.plan.detector, self.plan.contract.hits)

    def tag_batch(self, run: Run, events: Events) -> Batch:
        """Read, rebuild, score and tag a batch of events.

        Parameters
        ----------
        run : Run
            The open run.
        events : list of (int, str)
            Which of its events.

        Returns
        -------
        Batch
            The tagged events. Traces and points are dropped, and hits too unless they are written.

        Raises
        ------
        InputError
            If the run holds hits where the model reads traces.
        """
        parts = []
        for records in run.parts(events, self.buffer):
            if self.plan.contract.traces is not None:
                _require_traces(run, records)
            parts.append(self._rebuild(records))
        batch = self._score(parts)
        batch.tags, batch.reasons = _tag(batch, self.plan)
        if self.plan.config.picture:
            batch.examples = _choose_examples(batch, run.number)
        if not keeps_hits(run, self.plan):
            batch.hits = None  # most of what would be sent from process to process
        return batch

    def _rebuild(self, records: list[Record]) -> "_Part":
        """Rebuild hits, or have the graph do it; then drop the traces."""
        part = _Part(records, origins_of(records))
        if self.plan.contract.traces is not None:
            part.found = self._score_traces(records, self.plan.contract.traces)
        else:
            part.hits = self.rebuild(records)
        for record in records:
            record.traces = record.points = None
        return part

    def _score_traces(self, records: list[Record], most: TraceBatch) -> dict[str, NDArray[Any]]:
        """Run a graph that reads traces, on as many events at a time as it takes."""
        plan = self.plan
        sizes = [0 if record.traces is None else len(record.traces) for record in records]
        for index, record in enumerate(records):
            if sizes[index] > most.n_traces:
                record.reason = f"{sizes[index]} traces, the model reads at most {most.n_traces}"
                record.traces, sizes[index] = None, 0
        found: list[dict[str, NDArray[Any]]] = []
        start = 0
        while start < len(records):
            stop = start + 1
            while stop < min(len(records), start + most.n_events) and (
                sum(sizes[start : stop + 1]) <= most.n_traces
            ):
                stop += 1
            gather_traces(
                records[start:stop],
                plan.detector,
                self._features,
                plan.contract.hits.drop_beam_pads,
                self.scorer.buffers,
            )
            outputs = self.scorer.run_buffers()
            found.append({name: rows[: stop - start] for name, rows in outputs.items()})
            start = stop
        return {name: np.concatenate([some[name] for some in found]) for name in found[0]}

    def _score(self, parts: list["_Part"]) -> Batch:
        """Join the parts of a batch; make the model's inputs of its hits and score them."""
        records = list(chain.from_iterable(part.records for part in parts))
        origins = np.array(list(chain.from_iterable(part.origins for part in parts)), np.uint8)
        contract = self.plan.contract
        readable = np.array([not (record.reason or record.passthrough) for record in records])
        wanted = wanted_outputs(contract, self.plan.config.keep_latents)
        if contract.traces is not None:
            found = {
                name: np.concatenate([part.found[name] for part in parts])
                for name in [*wanted, "n_hits"]
            }
            batch = Batch(records, None, found["n_hits"], origins)
            batch.scored = readable & (batch.n_hits >= contract.hits.min_hits)
            found = {name: found[name][batch.scored] for name in wanted}
        else:
            hits = join_hits([part.hits for part in parts if part.hits is not None])
            batch = Batch(records, hits, hits.counts, origins)
            batch.scored = readable & (batch.n_hits >= contract.hits.min_hits)
            inputs = contract.make_inputs(hits, np.flatnonzero(batch.scored), self.scorer.buffers)
            found = self.scorer.run(inputs, wanted)
        batch.outputs = {name: _spread(rows, batch.scored) for name, rows in found.items()}
        return batch


@dataclass(slots=True)
class _Part:
    """Events of a batch, rebuilt; what the graph gives, a row an event, if it read their traces."""

    records: list[Record]
    origins: list[Origin]
    hits: Hits | None = None
    found: dict[str, NDArray[Any]] = field(default_factory=dict)


def keeps_hits(run: Run, plan: Plan) -> bool:
    """Whether batches of a run keep their hits."""
    return plan.config.keep_hits or run.takes_hits(plan.config.streams)


def set_aside(run: Run, plan: Plan, event: int, name: str, reason: str) -> Batch:
    """Make the batch of one event that could not be tagged.

    Parameters
    ----------
    run : Run
        The event's run.
    plan : Plan
        Its batches have certain outputs.
    event, name : int, str
        Number and object name of the event.
    reason : str
        Why it is unreadable.
    """
    hits = no_hits(1) if plan.contract.traces is None and keeps_hits(run, plan) else None
    record = Record(event, name, reason=reason)
    batch = Batch([record], hits, np.zeros(1, np.int64), np.zeros(1, np.uint8))
    batch.scored = np.zeros(1, np.bool_)
    shapes = plan.bundle.output_shapes
    batch.outputs = {
        output: np.full((1, *(size or 0 for size in shapes[output])), np.nan, np.float32)
        for output in wanted_outputs(plan.contract, plan.config.keep_latents)
    }
    batch.tags, batch.reasons = [UNREADABLE], [reason]
    return batch


def _choose_examples(batch: Batch, run: int) -> list[Example]:
    if batch.hits is None:
        return []
    examples = []
    counts: Counter[str] = Counter()
    for index in np.flatnonzero(batch.scored).tolist():
        tag = batch.tags[index]
        counts[tag] += 1
        if counts[tag] <= EXAMPLES_A_TAG:
            hits = batch.hits.event(index)
            columns = (column.copy() for column in (hits.x, hits.y, hits.charge))
            title = f"run {run} event {batch.records[index].event}"
            examples.append(Example(title, tag, *columns))
    return examples


def _tag(batch: Batch, plan: Plan) -> tuple[list[str], list[str]]:
    return assign_tags(
        batch.scores,
        batch.n_hits,
        np.array([record.passthrough for record in batch.records]),
        [record.reason for record in batch.records],
        plan.classes,
        plan.thresholds,
        plan.contract.hits.min_hits,
        novelty=batch.outputs.get("novelty"),
        novelty_threshold=plan.contract.novelty_threshold,
    )


def _require_traces(run: Run, records: list[Record]) -> None:
    if any(record.points is not None for record in records):
        raise InputError(
            f"{run.path}: holds hits, and the model reads raw traces; give it the raw run, or"
            " take the bundle that the model was made of"
        )


def _spread(rows: NDArray[Any], scored: NDArray[np.bool_]) -> NDArray[Any]:
    """Rows for all events from those of the scored ones, NaN for the others."""
    all_rows = np.full((len(scored), *rows.shape[1:]), np.nan, np.float32)
    all_rows[scored] = rows
    return all_rows
