"""Tags derived anew from the stored scores: no raw data, no model, seconds for a million events.

The new tags depend on the stored scores and on what is asked for, never on earlier thresholds: a
class whose threshold is not asked for has the one that ``attpc-filter run`` applied. A new head
makes new scores of the stored latents, and these are stored in place of the old ones.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attpc_filter.errors import InputError, UsageError
from attpc_filter.formats.registry import find_format
from attpc_filter.formats.run import Move
from attpc_filter.interrupts import check_interrupted
from attpc_filter.output.folder import FolderStaging, OutputFolder
from attpc_filter.output.head_file import HeadFile, read_head
from attpc_filter.output.journal import inside
from attpc_filter.output.latents import read_latents
from attpc_filter.output.manifest import RunOutcome, balance, sum_counts
from attpc_filter.output.resume import key_of
from attpc_filter.output.tag_table import read_tags, rewrite_tags, scores_of
from attpc_filter.tag import PASSTHROUGH, UNREADABLE, assign_tags


@dataclass(frozen=True, slots=True)
class RetagRequest:
    """What the new tags should be.

    Attributes
    ----------
    thresholds : dict of str to float
        Thresholds by class.
    purity : dict of str to float
        Expected purity by class; see :func:`threshold_for_purity`.
    classes : tuple of str or None
        Only these classes are given, events of the others become uncertain; None: all.
    head : Path or None
        A new head, to be applied to the stored latents; see :mod:`attpc_filter.output.head_file`.
    """

    thresholds: dict[str, float]
    purity: dict[str, float]
    classes: tuple[str, ...] | None = None
    head: Path | None = None


@dataclass(frozen=True, slots=True)
class Retagged:
    """What re-tagging did to an output folder: an entry of the manifest's ``history``.

    Attributes
    ----------
    when, command : str
        Time (UTC) and command line.
    thresholds, thresholds_before : dict of str to float
        In effect now, and until then.
    purity : dict of str to float
        Expected purities that were asked for.
    classes : list of str or None
        Classes that were asked for.
    head_sha256 : str
        SHA-256 of the new head; empty if the scores stayed.
    counts, counts_before : dict of str to int
        Events by tag, all runs together.
    changed : int
        Events whose tag is another one now.
    """

    when: str
    command: str
    thresholds: dict[str, float]
    thresholds_before: dict[str, float]
    purity: dict[str, float]
    classes: list[str] | None
    head_sha256: str
    counts: dict[str, int]
    counts_before: dict[str, int]
    changed: int


@dataclass(slots=True)
class _TagTable:
    """A run's tag table, with the scores to tag by."""

    path: Path
    table: pa.Table
    classes: list[str]
    min_hits: int
    novelty: NDArray[np.float32] | None
    novelty_threshold: float | None
    scores: NDArray[np.float32]


def retag(out: Path, request: RetagRequest, command: str) -> Retagged:
    """Derive the tags of an output folder anew; tables, streams and manifest follow, or none does.

    Parameters
    ----------
    out : Path
        Output folder of ``attpc-filter run``.
    request : RetagRequest
        What the new tags should be.
    command : str
        The command line, for the manifest.

    Returns
    -------
    Retagged
        What changed.

    Raises
    ------
    UsageError
        If the request name a class that the model lacks, or cannot be met.
    InputError
        If a tag table or a stream cannot be read.
    OutputError
        If something cannot be written, or the books do not balance.
    """
    head = None if request.head is None else read_head(request.head)
    with OutputFolder(out) as folder:
        return _retag_folder(folder, request, head, command)


def _retag_folder(
    folder: OutputFolder, request: RetagRequest, head: HeadFile | None, command: str
) -> Retagged:
    out, books = folder.path, folder.books_to_change()
    entries = [entry for entry in books.runs if not entry.error]
    if not entries:
        raise UsageError(f"{out}: no run in it was filtered, so there is nothing to tag")
    original = _original_thresholds(out, entries, request)
    thresholds = _thresholds(out, entries, original, request, head)
    counts_before = dict(sum_counts(entries))
    changed = 0
    with folder.staging() as staging:
        for entry in entries:
            run = _read_run(out, entry, head)
            changed += _retag_run(out, entry, run, thresholds, request, head, staging)
        counts = dict(sum_counts(entries))
        done = Retagged(
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            thresholds=thresholds,
            thresholds_before=books.thresholds,
            purity=request.purity,
            classes=None if request.classes is None else list(request.classes),
            head_sha256="" if head is None else head.sha256,
            counts=counts,
            counts_before=counts_before,
            changed=changed,
        )
        books.history.append(asdict(done))
        books.thresholds = thresholds
        check_interrupted()
        staging.commit(books)
    return done


def threshold_for_purity(scores: NDArray[np.float32], purity: float) -> float | None:
    """Find the lowest threshold that gives a class an expected purity.

    Scores are probabilities: of the events above a threshold, the mean score is the share that is
    expected to be of the class. That holds as far as the model's scores are calibrated, and for
    data like those it was calibrated on.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_events,)
        Scores of one class, NaN for events that have none.
    purity : float
        Share, 0 to 1.

    Returns
    -------
    float or None
        The threshold; None if not even the highest score reaches the purity.
    """
    ordered = np.sort(scores[np.isfinite(scores)])[::-1]
    expected = np.cumsum(ordered, dtype=np.float64) / np.arange(1, len(ordered) + 1)
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    reaches = np.flatnonzero((expected >= purity) & last_of_equals)
    return float(ordered[reaches[-1]]) if len(reaches) else None


def head_scores(
    head: HeadFile, latents: NDArray[np.float32], classes: Sequence[str]
) -> NDArray[np.float32]:
    """Scores that a head gives.

    Parameters
    ----------
    head : HeadFile
        The head.
    latents : ndarray of float32, shape (n_events, latent_size)
        Latents of the model that the head is for.
    classes : sequence of str
        The model's classes.

    Returns
    -------
    ndarray of float32, shape (n_events, n_classes)
        In the order of ``classes``; 0 for a class that the head lacks, NaN where the latent is not
        finite.
    """
    logits = latents @ head.weight.T + head.bias
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = np.zeros((len(latents), len(classes)), np.float32)
    columns = [classes.index(name) for name in head.classes]
    scores[:, columns] = exponentials / exponentials.sum(axis=1, keepdims=True)
    scores[np.isnan(logits).any(axis=1)] = np.nan
    return scores


def _original_thresholds(
    out: Path, entries: Sequence[RunOutcome], request: RetagRequest
) -> dict[str, float]:
    """The thresholds that ``attpc-filter run`` applied; the same for all runs, or not needed."""
    first = entries[0]
    asked = request.thresholds.keys() | request.purity.keys()
    for entry in entries[1:]:
        if entry.thresholds.keys() != first.thresholds.keys():
            raise UsageError(
                f"{out}: {first.input} and {entry.input} were tagged with other classes; re-tag"
                " needs runs of one model: filter them anew, or into two folders"
            )
        differ = {n for n in first.thresholds if entry.thresholds[n] != first.thresholds[n]}
        if differ - asked:
            raise UsageError(
                f"{out}: {first.input} and {entry.input} were filtered with other thresholds; give"
                f" a threshold for {', '.join(sorted(differ))}"
            )
    return first.thresholds


def _thresholds(
    out: Path,
    entries: Sequence[RunOutcome],
    original: dict[str, float],
    request: RetagRequest,
    head: HeadFile | None,
) -> dict[str, float]:
    """The thresholds in effect: those of the first tagging but for what is wished."""
    asked = [*request.thresholds, *request.purity, *(request.classes or ())]
    for name in asked:
        if name not in original:
            raise UsageError(f"{out}: tagged with {', '.join(original)}; no class {name!r} there")
    for name, number in (request.thresholds | request.purity).items():
        if not 0 <= number <= 1:
            raise UsageError(f"{name}={number:g} is not between 0 and 1")
    if both := request.thresholds.keys() & request.purity.keys():
        raise UsageError(f"{both.pop()}: give a threshold or a purity, not both")
    if not request.purity:
        return original | request.thresholds
    runs = [_read_run(out, entry, head) for entry in entries]
    found = {}
    for name, purity in request.purity.items():
        scores = np.concatenate([run.scores[:, run.classes.index(name)] for run in runs])
        threshold = threshold_for_purity(scores, purity)
        if threshold is None:
            highest = np.nanmax(np.append(scores, np.float32(0)))
            raise UsageError(
                f"purity {name}={purity:g}: no threshold reaches it, the highest score of"
                f" {name} is {highest:.4f}"
            )
        found[name] = threshold
    return original | request.thresholds | found


def _read_run(out: Path, entry: RunOutcome, head: HeadFile | None) -> _TagTable:
    path = inside(out, entry.tag_table)
    table, metadata = read_tags(path)
    classes = json.loads(metadata["classes"])
    if head is None:
        scores = scores_of(table, classes)
    elif not entry.latents:
        raise UsageError(f"{out}: a new head needs latents; filter with --keep-latents")
    else:
        _require_same_model(out, head, metadata["model_sha256"], classes)
        scores = _new_scores(inside(out, entry.latents), table, classes, head)
    has_novelty = "novelty" in table.column_names
    return _TagTable(
        *(path, table, classes, json.loads(metadata["min_hits"])),
        novelty=table.column("novelty").to_numpy() if has_novelty else None,
        novelty_threshold=json.loads(metadata.get("novelty_threshold", "null")),
        scores=scores,
    )


def _new_scores(
    path: Path, table: pa.Table, classes: list[str], head: HeadFile
) -> NDArray[np.float32]:
    events, latents = read_latents(path)
    if not np.array_equal(events, table.column("event").to_numpy()):
        raise InputError(f"{path}: its events are not those of the tag table")
    if latents.shape[1] != head.weight.shape[1]:
        raise UsageError(
            f"head {head.path}: for latents of {head.weight.shape[1]} numbers, those in {path} have"
            f" {latents.shape[1]}"
        )
    return head_scores(head, latents, classes)


def _require_same_model(out: Path, head: HeadFile, model_sha256: str, classes: list[str]) -> None:
    if head.model_sha256 != model_sha256:
        raise UsageError(
            f"head {head.path}: fitted on latents of model {head.model_sha256[:12]}, {out} has"
            f" those of model {model_sha256[:12]}; fit one on them with attpc-export fit-retag-head"
        )
    for name in head.classes:
        if name not in classes:
            raise UsageError(
                f"head {head.path}: gives a class {name!r}, the model of {out} has"
                f" {', '.join(classes)}; a new class needs a new model (attpc-export train)"
            )


def _retag_run(
    out: Path,
    outcome: RunOutcome,
    run: _TagTable,
    thresholds: dict[str, float],
    request: RetagRequest,
    head: HeadFile | None,
    staging: FolderStaging,
) -> int:
    """Stage a run's new tables and streams and correct its entry; gives the events that changed."""
    table, classes = run.table, run.classes
    old_tags = table.column("tag").combine_chunks()
    not_scored = pc.is_null(table.column(f"score_{classes[0]}")).to_numpy()
    tags, reasons = assign_tags(
        run.scores,
        table.column("n_hits").to_numpy(),
        _equals(old_tags, PASSTHROUGH),
        _reading_reasons(table, _equals(old_tags, UNREADABLE) & not_scored),
        classes,
        [thresholds[name] for name in classes],
        run.min_hits,
        request.classes,
        run.novelty,
        run.novelty_threshold,
    )
    new_tags, new_reasons = pa.array(tags, pa.string()), pa.array(reasons, pa.string())
    moved = np.flatnonzero(pc.not_equal(old_tags, new_tags).to_numpy(zero_copy_only=False))
    columns = {"tag": new_tags, "reason": new_reasons}
    metadata: dict[str, Any] = {"thresholds": thresholds, "only_classes": request.classes}
    if head is not None:
        metadata["head_sha256"] = head.sha256
        for name, scores in zip(classes, run.scores.T, strict=True):
            columns[f"score_{name}"] = pa.array(scores, pa.float32(), mask=not_scored)
    rewrite_tags(staging.path(run.path), table, columns, metadata)

    counts = _count(new_tags)
    outcome.counts = {name: counts.get(name, 0) for name in outcome.counts}
    reason_counts: Counter[str] = Counter()
    for reason, number in _count(new_reasons).items():
        if reason:
            reason_counts[re.sub(r"\d+", "N", reason)] += number
    outcome.reasons = dict(reason_counts.most_common())
    if outcome.streams and len(moved):
        events = table.column("event").to_numpy()[moved].tolist()
        was = old_tags.take(pa.array(moved)).to_pylist()
        moves = [
            Move(event, source, tags[index])
            for event, source, index in zip(events, was, moved.tolist(), strict=True)
        ]
        _rewrite_streams(out, outcome, moves, staging)
    balance(outcome, classes, table.num_rows)
    _note_what_it_is_made_of(outcome, thresholds, request, head)
    return len(moved)


def _note_what_it_is_made_of(
    outcome: RunOutcome, thresholds: dict[str, float], request: RetagRequest, head: HeadFile | None
) -> None:
    """Have ``attpc-filter run`` see that the tags are no longer those that it made."""
    if not outcome.made_of:  # by a version that did not say
        return
    parts = outcome.made_of | {"thresholds": json.dumps(thresholds, sort_keys=True)}
    parts.pop("classes", None)
    if request.classes is not None:
        parts["classes"] = json.dumps(request.classes)
    if head is not None:
        parts["head"] = head.sha256
    outcome.made_of, outcome.key = parts, key_of(parts)


def _rewrite_streams(
    out: Path, outcome: RunOutcome, moves: list[Move], staging: FolderStaging
) -> None:
    paths = {label: inside(out, str(s["path"])) for label, s in outcome.streams.items()}
    mode: Any = outcome.mode
    row = find_format(outcome.format)
    if row.move_events is None:
        raise InputError(f"{out}: streams of {row.name} cannot be changed; filter its run again")
    row.move_events(paths, mode, moves, staging.path)
    for move in moves:
        outcome.streams[move.source]["events"] -= 1
        outcome.streams[move.target]["events"] += 1


def _reading_reasons(table: pa.Table, not_read: NDArray[np.bool_]) -> list[str]:
    """Why each event could not be read; empty if it could."""
    reasons = np.full(table.num_rows, "", object)
    rows = np.flatnonzero(not_read)
    reasons[rows] = table.column("reason").take(pa.array(rows)).to_pylist()
    texts: list[str] = reasons.tolist()
    return texts


def _equals(tags: pa.Array, tag: str) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = pc.equal(tags, tag).to_numpy(zero_copy_only=False)
    return equal


def _count(values: pa.Array) -> dict[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(values).to_pylist()}
