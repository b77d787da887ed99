"""Which events there are: of run files, or of an output folder with its tags, scores and latents.

Pages address an event by its row here, so no path comes from outside.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter import (
    Config,
    Manifest,
    UsageError,
    open_run,
    read_latents,
    read_manifest,
    read_tags,
)

_RUN_SUFFIXES = (".h5", ".hdf5", ".root", ".graw")
_MANIFEST_NAME = "manifest.json"
#: Tags of events that are not for labelling.
_NOT_LABELLED = ("passthrough", "unreadable")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the events of a run are read from.

    Attributes
    ----------
    number : int
        Run number.
    run : Path or None
        The run's file; None if it is not where it was.
    hit_store : Path or None
        Its rebuilt hits, if the output folder has them.
    """

    number: int
    run: Path | None
    hit_store: Path | None = None

    @property
    def path(self) -> Path:
        """The file to read: the run, else the hits that were kept of it."""
        path = self.run or self.hit_store
        assert path is not None  # load_catalogue refuses a run with neither
        return path


@dataclass(frozen=True)
class Catalogue:
    """All events in columns; a row an event.

    Attributes
    ----------
    sources : list of Source
        The runs.
    source : ndarray of int32, shape (n_events,)
        Which of them an event is of.
    run, event : ndarray of int64, shape (n_events,)
        Run and event number.
    tag, reason : ndarray of object, shape (n_events,)
        Texts; empty without an output folder.
    classes : list of str
        The model's classes.
    scores : ndarray of float32, shape (n_events, n_classes)
        NaN where an event was not scored.
    novelty : ndarray of float32, shape (n_events,)
        NaN where there is none.
    n_hits : ndarray of int64, shape (n_events,)
        Hits; -1 where it is not known yet.
    latent : ndarray of float32, shape (n_events, latent_size), or None
        NaN where an event was not scored; None if the folder has no latents.
    manifest : Manifest or None
        Of the output folder; None without one.
    """

    sources: list[Source]
    source: NDArray[np.int32]
    run: NDArray[np.int64]
    event: NDArray[np.int64]
    tag: NDArray[np.object_]
    reason: NDArray[np.object_]
    classes: list[str]
    scores: NDArray[np.float32]
    novelty: NDArray[np.float32]
    n_hits: NDArray[np.int64]
    latent: NDArray[np.float32] | None = None
    manifest: Manifest | None = None

    def __len__(self) -> int:
        return len(self.run)

    @cached_property
    def rows(self) -> dict[tuple[int, int], int]:
        """Row of each event by run and event number."""
        keys = zip(self.run.tolist(), self.event.tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    @cached_property
    def can_label(self) -> NDArray[np.bool_]:
        """Which events are for labelling: no triggers, nothing that cannot be read."""
        can_label: NDArray[np.bool_] = ~np.isin(self.tag.astype(str), _NOT_LABELLED)
        return can_label

    @cached_property
    def is_scored(self) -> NDArray[np.bool_]:
        """Which events have scores."""
        if not self.classes:
            return np.zeros(len(self), np.bool_)
        is_scored: NDArray[np.bool_] = np.isfinite(self.scores).all(axis=1)
        return is_scored

    @cached_property
    def margin(self) -> NDArray[np.float32]:
        """Highest score less the second highest; NaN where an event was not scored."""
        if self.scores.shape[1] < 2:
            return np.full(len(self), np.nan, np.float32)
        two = np.sort(self.scores, axis=1)[:, -2:]
        return np.where(self.is_scored, two[:, 1] - two[:, 0], np.nan).astype(np.float32)

    @property
    def tags(self) -> list[str]:
        """All tags, those of classes first."""
        found = set(self.tag.tolist()) - {""}
        return [*(c for c in self.classes if c in found), *sorted(found - set(self.classes))]


def load_catalogue(paths: Sequence[Path], config: Config | None = None) -> Catalogue:
    """List the events of run files and folders of them, or of an output folder.

    Parameters
    ----------
    paths : sequence of Path
        Run files and folders of run files; or one output folder of ``attpc-filter run``, and
        beside it run files that have moved since.
    config : Config, optional
        What to read of ROOT files.

    Raises
    ------
    UsageError
        If there is nothing to read, or two runs have the same number.
    """
    outputs = [path for path in paths if (path / _MANIFEST_NAME).is_file()]
    others = [path for path in paths if path not in outputs]
    files = [file for path in others for file in _run_files(path)]
    if len(outputs) > 1:
        raise UsageError(f"{outputs[1]}: give one output folder; compare two with --compare")
    if outputs:
        return _of_output(outputs[0], files)
    return _of_runs(files, config or Config())


def _run_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder")
    files = sorted(p for p in path.iterdir() if p.suffix in _RUN_SUFFIXES)
    if not files:
        raise UsageError(f"{path}: neither an output folder nor run files in it")
    return files


def _of_runs(files: Sequence[Path], config: Config) -> Catalogue:
    sources, events = [], []
    for file in files:
        with open_run(file, config.root_options) as run:
            sources.append(Source(run.number, file.resolve()))
            events.append(np.array([number for number, _ in run.events], np.int64))
    _require_different_numbers(sources)
    counts = [len(part) for part in events]
    n_events = sum(counts)
    return Catalogue(
        sources=sources,
        source=np.repeat(np.arange(len(sources), dtype=np.int32), counts),
        run=np.repeat([source.number for source in sources], counts).astype(np.int64),
        event=np.concatenate(events),
        tag=np.full(n_events, "", object),
        reason=np.full(n_events, "", object),
        classes=[],
        scores=np.empty((n_events, 0), np.float32),
        novelty=np.full(n_events, np.nan, np.float32),
        n_hits=np.full(n_events, -1, np.int64),
    )


def _of_output(folder: Path, moved: Sequence[Path]) -> Catalogue:
    manifest = read_manifest(folder)
    entries = [entry for entry in manifest.runs if entry.tag_table]
    if not entries:
        raise UsageError(f"{folder}: no run in it was filtered, so there is nothing to label")
    by_number = {_number(file): file for file in moved}
    sources, parts, latents = [], [], []
    classes: list[str] = []
    for entry in entries:
        table, metadata = read_tags(folder / entry.tag_table)
        if classes and json.loads(metadata["classes"]) != classes:
            raise UsageError(f"{folder}: its runs were tagged with different classes")
        classes = json.loads(metadata["classes"])
        store = folder / entry.hit_store if entry.hit_store else None
        written = [Path(metadata["input"])] if "input" in metadata else []
        candidates = [*written, Path(entry.input)]
        sources.append(_source(folder, entry.run, store, candidates, by_number))
        scores = [table.column(f"score_{name}").to_numpy() for name in classes]
        parts.append((table, np.stack(scores, axis=1).astype(np.float32, copy=False)))
        if entry.latents:
            latents.append(read_latents(folder / entry.latents)[1])
    _require_different_numbers(sources)
    tables = [table for table, _ in parts]
    counts = [table.num_rows for table in tables]

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([t.column(name).to_numpy() for t in tables])

    has_novelty = all("novelty" in table.column_names for table in tables)
    return Catalogue(
        sources=sources,
        source=np.repeat(np.arange(len(sources), dtype=np.int32), counts),
        run=np.repeat([source.number for source in sources], counts).astype(np.int64),
        event=column("event").astype(np.int64),
        tag=column("tag").astype(object),
        reason=column("reason").astype(object),
        classes=classes,
        scores=np.concatenate([scores for _, scores in parts]),
        novelty=column("novelty").astype(np.float32)
        if has_novelty
        else np.full(sum(counts), np.nan, np.float32),
        n_hits=column("n_hits").astype(np.int64),
        latent=np.concatenate(latents) if len(latents) == len(entries) else None,
        manifest=manifest,
    )


def _source(
    folder: Path, number: int, store: Path | None, written: Sequence[Path], moved: dict[int, Path]
) -> Source:
    """Find a run: given anew, where the folder's books say, or in the hits that were kept of it."""
    candidates = [*([moved[number]] if number in moved else []), *written]
    run = next((path for path in candidates if path.is_file()), None)
    if run is None and store is None:
        raise UsageError(
            f"{folder}: its run {written[-1]} is not where it was; give the run's file too"
        )
    return Source(number, None if run is None else run.resolve(), store)


def _number(file: Path) -> int:
    with open_run(file) as run:
        return run.number


def _require_different_numbers(sources: Sequence[Source]) -> None:
    seen: dict[int, Path] = {}
    for source in sources:
        if source.number in seen:
            raise UsageError(
                f"{source.path}: has run number {source.number} as {seen[source.number]} has;"
                " labels are kept by run and event number, so label them apart"
            )
        seen[source.number] = source.path
