"""All that is written of one run: tags and streams, hits and latents on request."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from attpc_filter.errors import InputError
from attpc_filter.formats.hdf5.hit_store import HitWriter
from attpc_filter.formats.run import Run, Stream
from attpc_filter.output.latents import LatentWriter
from attpc_filter.output.manifest import RunOutcome
from attpc_filter.output.staging import Staging
from attpc_filter.output.tag_table import TagWriter
from attpc_filter.score.outputs import fill_columns
from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE
from attpc_filter.tagging.batch import Batch
from attpc_filter.tagging.plan import Plan


class RunWriter:
    """All that is written of one run: tags and streams, hits and latents on request.

    Parameters
    ----------
    run : Run
        The open run.
    source : Path
        Its file, as it was given: the outputs take its name.
    out : Path
        Output folder.
    plan : Plan
        Model and options.
    staging : Staging
        Gives the names to write under.

    Attributes
    ----------
    tags : TagWriter
        The tag table.
    files : dict of str to Path
        The files by what they hold: ``tags``, ``hits``, ``latents``, and the streams' labels.
    """

    def __init__(self, run: Run, source: Path, out: Path, plan: Plan, staging: Staging) -> None:
        config = plan.config
        if config.keep_hits and run.hits_made is not None:
            raise InputError(f"{run.path}: a hit store already; leave out keep_hits")
        self._run = run
        self._plan = plan
        self._takes_hits = run.takes_hits(config.streams)
        self._out = out
        self._classes = plan.classes
        self._streams: dict[str, Stream] = {}
        self._events: Counter[str] = Counter()
        self._hits: HitWriter | None = None
        self._latents: LatentWriter | None = None
        self.files: dict[str, Path] = {}

        def staged(what: str, suffix: str) -> Path:
            self.files[what] = out / what / f"{source.stem}{suffix}"
            return staging.path(self.files[what])

        metadata = plan.table_metadata(run.path)
        self.tags = TagWriter(
            staged("tags", ".parquet"), self._classes, metadata, plan.further_columns
        )
        try:
            if config.keep_hits:
                self._hits = HitWriter(
                    staged("hits", ".h5"),
                    run,
                    plan.how_hits_are_made(),
                    asdict(plan.detector.calibration),
                )
            if config.keep_latents:
                self._latents = LatentWriter(
                    staged("latents", ".parquet"), plan.bundle.latent_size, metadata
                )
            if config.streams != "none" and run.has_streams:
                for label in [*self._classes, UNCERTAIN, UNREADABLE]:
                    path = staged(label, run.stream_suffix(config.streams))
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
            fill_columns(self._plan.contract, batch.outputs),
        )
        if self._hits is not None:
            assert batch.hits is not None
            self._hits.add(batch.records, batch.origins, batch.hits)
        if self._latents is not None:
            self._latents.add(number, events, batch.outputs["latent"], batch.scored)
        for index, (record, tag) in enumerate(zip(batch.records, batch.tags, strict=True)):
            hits = batch.hits.event(index) if batch.hits is not None and self._takes_hits else None
            for label in self._classes if tag == PASSTHROUGH else [tag]:
                if label in self._streams:
                    self._streams[label].add(record, hits)
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
