"""Events to tags: read, rebuild, score, tag.

Events are read in parts of a few into one buffer that is used again and again, and rebuilt while
their traces are still in the processor's cache; the model scores batches of :data:`BATCH_EVENTS`.
What comes out of :func:`tag_events` is tagged; who calls it writes it down, or does not.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.config import Config
from attpc_filter.errors import InputError, UsageError
from attpc_filter.formats.run import Events, Run
from attpc_filter.interrupts import check_interrupted, interrupts_noted
from attpc_filter.rebuild.detector import Detector, ZCalibration
from attpc_filter.rebuild.detector_file import DEFAULT_NAME, load_detector
from attpc_filter.rebuild.hits import rebuild_hits
from attpc_filter.rebuild.traces import TraceBatch, gather_traces, pad_features
from attpc_filter.records import N_HARDWARE_COLUMNS, Hits, Origin, Record, join_hits
from attpc_filter.score.bundle import Bundle, Contract, load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.tag import assign_tags

if TYPE_CHECKING:
    from attpc_filter.execute.processes import Helpers

#: Events that go through the stream together, and that the model scores in one call.
BATCH_EVENTS = 64
#: Traces that the buffer for reading holds (4.2 MB).
BUFFER_TRACES = 4096

#: Events of each tag that a batch, and a job's picture, shows.
EXAMPLES_A_TAG = 4

#: Room for traces, int16 of shape (rows, 5 + n_samples).
Buffer = NDArray[np.int16]


@dataclass(slots=True)
class Tagger:
    """What it takes to tag the events of a run; made by :func:`load_tagger`."""

    config: Config
    bundle: Bundle
    detector: Detector
    thresholds: list[float]
    scorer: Scorer
    features: NDArray[np.float32]  # of the pads, for a graph that reads traces

    @property
    def contract(self) -> Contract:
        """The model's contract."""
        return self.bundle.contract

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the score columns."""
        return [event_class.name for event_class in self.contract.classes]

    def how_hits_are_made(self) -> dict[str, Any]:
        """What decides which hits traces become; a hit store keeps it."""
        settings = asdict(self.contract.hits)
        del settings["min_hits"]  # says which events are scored, not what their hits are
        return settings | {"pad_plane_sha256": self.detector.plane.sha256}

    def table_metadata(self, path: Path) -> dict[str, Any]:
        """What the tag table of a run says about how it was made."""
        return {
            "contract_version": str(self.contract.version),
            "model": self.contract.name,
            "model_sha256": self.bundle.sha256,
            "classes": self.classes,
            "thresholds": dict(zip(self.classes, self.thresholds, strict=True)),
            "min_hits": self.contract.hits.min_hits,
            "novelty_threshold": self.contract.novelty_threshold,
            "input": str(path.resolve()),
        }


@dataclass(slots=True)
class Example:
    """An event to show in a picture: its x, y [mm] and charge [ADC]."""

    title: str
    tag: str
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    charge: NDArray[np.float32]


@dataclass(slots=True)
class Batch:
    """Events on their way through the stream; each stage fills in what it makes.

    Attributes
    ----------
    records : list of Record
        The events; their traces and points are gone once the hits are made.
    hits : Hits or None
        Their hits; None if nobody wants them, or the graph makes them of traces and keeps them.
    n_hits : ndarray of int64, shape (n_events,)
        How many each has.
    origins : ndarray of uint8, shape (n_events,)
        Where the hits come from, an :class:`attpc_filter.records.Origin` each.
    scored : ndarray of bool, shape (n_events,)
        Which of them the model scored.
    scores : ndarray of float32, shape (n_events, n_classes)
        NaN for events that were not scored.
    latents : ndarray of float32, shape (n_events, d), or None
        The same for the latents; None unless they are to be kept.
    novelty : ndarray of float32, shape (n_events,), or None
        The same for the novelty; None if the model gives none.
    tags, reasons : list of str
        Their tags, and why an event has no class.
    examples : list of Example
        The first of each tag, if there is to be a picture.
    """

    records: list[Record]
    hits: Hits | None
    n_hits: NDArray[np.int64]
    origins: NDArray[np.uint8]
    scored: NDArray[np.bool_] = field(init=False)
    scores: NDArray[np.float32] = field(init=False)
    latents: NDArray[np.float32] | None = None
    novelty: NDArray[np.float32] | None = None
    tags: list[str] = field(init=False)
    reasons: list[str] = field(init=False)
    examples: list[Example] = field(default_factory=list)

    @property
    def events(self) -> NDArray[np.int64]:
        """Event numbers, shape (n_events,)."""
        return np.array([record.event for record in self.records], np.int64)


def load_tagger(config: Config, *, ready: bool = True) -> Tagger:
    """Load the model, the pads and all else that tagging needs.

    Parameters
    ----------
    config : Config
        Options.
    ready : bool
        Be ready to tag: have the kernels compiled before the clock starts, and the model on its
        device. Where others do that, it would only take memory.

    Raises
    ------
    UsageError
        If one of them cannot be had, or the options do not fit the model.
    """
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
    try:
        calibration = ZCalibration(**(asdict(contract.detector) | given))
    except ValueError as error:
        raise UsageError(str(error)) from error
    detector = replace(load_detector(config.detector or DEFAULT_NAME), calibration=calibration)
    scorer = Scorer(bundle, config.device if ready else "cpu", 1, BATCH_EVENTS)
    if config.keep_latents and not scorer.latent_size:
        raise UsageError(
            f"keep_latents: model {bundle.path} does not declare the size of its latent"
        )
    if contract.traces is None:
        if ready:
            _compile(contract, detector)
    elif config.keep_hits:
        raise UsageError(
            f"keep_hits: model {bundle.path} makes hits of traces and keeps them to itself; take"
            " the bundle that it was made of"
        )
    features = pad_features(detector.plane)
    return Tagger(config, bundle, detector, thresholds, scorer, features)


@contextlib.contextmanager
def tag_events(
    run: Run, tagger: Tagger, helpers: "Helpers | None" = None
) -> Iterator[Iterator[Batch]]:
    """Take all events of a run through the stages, in their order; within ``with``.

    Parameters
    ----------
    run : Run
        The open run.
    tagger : Tagger
        Model, pads, calibration, thresholds.
    helpers : Helpers, optional
        Processes that do it, with the same options, and begin at once; without, this one does.

    Yields
    ------
    iterator of Batch
        Events with scores and tags.

    Raises
    ------
    InputError
        If the run's traces have another number of samples than the detector, or the run holds hits
        that were not made as the model wants them, or hits where the model reads traces.
    """
    _require_same_samples(run, tagger)
    _require_same_hits(run, tagger)
    events = run.events
    batches = [events[i : i + BATCH_EVENTS] for i in range(0, len(events), BATCH_EVENTS)]
    with interrupts_noted():
        if helpers:
            with helpers.tag(run, batches) as tagged:
                yield tagged
        else:
            yield _tag_batches(run, batches, tagger)


def _tag_batches(run: Run, batches: list[Events], tagger: Tagger) -> Iterator[Batch]:
    buffer = make_buffer(tagger)
    for events in batches:
        check_interrupted()
        yield tag_batch(run, events, tagger, buffer)


def make_buffer(tagger: Tagger) -> Buffer:
    """Make room to read traces into."""
    traces = tagger.contract.traces
    n_rows = BUFFER_TRACES if traces is None else traces.n_traces
    return np.empty((n_rows, N_HARDWARE_COLUMNS + tagger.detector.n_samples), np.int16)


def tag_batch(run: Run, events: Events, tagger: Tagger, buffer: Buffer) -> Batch:
    """Read, rebuild, score and tag a batch of events.

    Parameters
    ----------
    run : Run
        The open run.
    events : list of (int, str)
        Which of its events.
    tagger : Tagger
        Model, pads, calibration, thresholds.
    buffer : ndarray of int16, shape (n_rows, 5 + n_samples)
        Room for traces, see :func:`make_buffer`.

    Returns
    -------
    Batch
        The events, tagged; their traces and points are gone, and hits that nobody wants.

    Raises
    ------
    InputError
        If the run holds hits where the model reads traces.
    """
    parts = []
    for records in run.parts(events, buffer):
        if tagger.contract.traces is not None:
            _require_traces(run, records)
        parts.append(_rebuild(records, tagger))
    batch = _score(parts, tagger)
    batch.tags, batch.reasons = _tag(batch, tagger)
    if tagger.config.picture:
        batch.examples = _choose_examples(batch, run.number)
    if not (tagger.config.keep_hits or run.takes_hits(tagger.config.streams)):
        batch.hits = None  # most of what would have to be handed on from process to process
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


def _tag(batch: Batch, tagger: Tagger) -> tuple[list[str], list[str]]:
    return assign_tags(
        batch.scores,
        batch.n_hits,
        np.array([record.passthrough for record in batch.records]),
        [record.reason for record in batch.records],
        tagger.classes,
        tagger.thresholds,
        tagger.contract.hits.min_hits,
        novelty=batch.novelty,
        novelty_threshold=tagger.contract.novelty_threshold,
    )


def _compile(contract: Contract, detector: Detector) -> None:
    """Have the kernels compiled, or loaded from numba's cache, before the clock starts."""
    record = Record(0, "", traces=np.zeros((1, N_HARDWARE_COLUMNS + detector.n_samples), np.int16))
    contract.make_inputs(rebuild_hits([record], detector, contract.hits))


def _require_same_samples(run: Run, tagger: Tagger) -> None:
    expected = tagger.detector.n_samples
    if run.n_samples is not None and run.n_samples != expected:
        raise InputError(
            f"{run.path}: traces of {run.n_samples} samples, the detector has {expected}; give"
            f" --n-samples {run.n_samples}, and the z calibration that belongs to them"
        )


def _require_same_hits(run: Run, tagger: Tagger) -> None:
    if run.hits_made is None:
        return
    wanted = tagger.how_hits_are_made()
    differ = [name for name in wanted if run.hits_made.get(name) != wanted[name]]
    if "pad_plane_sha256" in differ:
        raise InputError(
            f"{run.path}: its hits were made with another pad plane; give the pad_plane, pad_gains"
            " and pad_time_offsets that it was made with, or the raw run"
        )
    if differ:
        raise InputError(
            f"{run.path}: its hits were made otherwise than model {tagger.contract.name} wants them"
            " ("
            + ", ".join(f"{name} {run.hits_made.get(name)}, not {wanted[name]}" for name in differ)
            + "); give it the raw run"
        )


def _require_traces(run: Run, records: list[Record]) -> None:
    if any(record.points is not None for record in records):
        raise InputError(
            f"{run.path}: holds hits, and the model reads raw traces; give it the raw run, or"
            " take the bundle that the model was made of"
        )


@dataclass(slots=True)
class _Part:
    """Events of a batch, rebuilt; what the graph gives, a row an event, if it read their traces."""

    records: list[Record]
    origins: list[Origin]
    hits: Hits | None = None
    found: dict[str, NDArray[Any]] = field(default_factory=dict)


def _rebuild(records: list[Record], tagger: Tagger) -> _Part:
    """Rebuild hits, or have the graph do it; then drops the traces."""
    part = _Part(records, [record.origin for record in records])
    if tagger.contract.traces is not None:
        part.found = _score_traces(records, tagger.contract.traces, tagger)
    else:
        part.hits = rebuild_hits(records, tagger.detector, tagger.contract.hits)
    for record in records:
        record.traces = record.points = None
    return part


def _score_traces(
    records: list[Record], most: TraceBatch, tagger: Tagger
) -> dict[str, NDArray[Any]]:
    """Run a graph that reads traces, on as many events at a time as it takes."""
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
            tagger.detector,
            tagger.features,
            tagger.contract.hits.drop_beam_pads,
            tagger.scorer.room,
        )
        outputs = tagger.scorer.run_room()
        found.append({name: rows[: stop - start] for name, rows in outputs.items()})
        start = stop
    return {name: np.concatenate([some[name] for some in found]) for name in found[0]}


def _score(parts: list[_Part], tagger: Tagger) -> Batch:
    """Join the parts of a batch; make the model's inputs of its hits and score them."""
    records = list(chain.from_iterable(part.records for part in parts))
    origins = np.array(list(chain.from_iterable(part.origins for part in parts)), np.uint8)
    contract = tagger.contract
    readable = np.array([not (record.reason or record.passthrough) for record in records])
    wanted = ["scores"]
    if tagger.config.keep_latents:
        wanted.append("latent")
    if contract.novelty_threshold is not None:
        wanted.append("novelty")
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
        room = tagger.scorer.room
        inputs = contract.make_inputs(hits, np.flatnonzero(batch.scored), room)
        found = tagger.scorer.run(inputs, wanted)
    batch.scores = _spread(found["scores"], batch.scored)
    if "latent" in found:
        batch.latents = _spread(found["latent"], batch.scored)
    if "novelty" in found:
        batch.novelty = _spread(found["novelty"], batch.scored)
    return batch


def _spread(rows: NDArray[np.float32], scored: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rows for all events from those of the scored ones, NaN for the others."""
    all_rows = np.full((len(scored), *rows.shape[1:]), np.nan, np.float32)
    all_rows[scored] = rows
    return all_rows
