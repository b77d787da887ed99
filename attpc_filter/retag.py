"""Tags derived anew from the stored scores: no raw data, no model, seconds for a million events.

The new tags depend on the stored scores and on what is asked for, never on earlier re-tagging: a
class whose threshold is not asked for has the one that ``attpc-filter run`` applied.
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
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attpc_filter.errors import InputError, UsageError
from attpc_filter.formats import hdf5_format
from attpc_filter.formats.moves import Move, move_events
from attpc_filter.formats.tags import read_tags, rewrite_tags, scores_of
from attpc_filter.manifest import MANIFEST_NAME, RunOutcome, balance, read_manifest
from attpc_filter.staging import Staging
from attpc_filter.tag import PASSTHROUGH, UNREADABLE, assign_tags


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the new tags should be.

    Attributes
    ----------
    thresholds : dict of str to float
        Thresholds by class.
    purity : dict of str to float
        Expected purity by class; see :func:`threshold_for_purity`.
    classes : tuple of str or None
        Only these classes are given, events of the others become uncertain; None: all.
    """

    thresholds: dict[str, float]
    purity: dict[str, float]
    classes: tuple[str, ...] | None = None


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
    counts: dict[str, int]
    counts_before: dict[str, int]
    changed: int


def retag(out: Path, wishes: Wishes, command: str) -> Retagged:
    """Derive the tags of an output folder anew; tables, streams and manifest follow, or none does.

    Parameters
    ----------
    out : Path
        Output folder of ``attpc-filter run``.
    wishes : Wishes
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
        If the wishes name a class that the model lacks, or cannot be met.
    InputError
        If a tag table or a stream cannot be read.
    OutputError
        If something cannot be written, or the books do not balance.
    """
    manifest = read_manifest(out)
    entries = [entry for entry in manifest["runs"] if not entry["error"]]
    if not entries:
        raise UsageError(f"{out}: no run in it was filtered, so there is nothing to tag")
    history = manifest.setdefault("history", [])
    original = (history[0]["thresholds_before"] if history else manifest["thresholds"]) or {}
    thresholds = _thresholds(out, entries, original, wishes)
    counts_before = dict(manifest["counts"])
    counts: Counter[str] = Counter()
    changed = 0
    with Staging() as staging:
        for entry in entries:
            changed += _retag_run(out, entry, thresholds, wishes, manifest, staging)
            counts.update(entry["counts"])
        done = Retagged(
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            thresholds=thresholds,
            thresholds_before=manifest["thresholds"],
            purity=wishes.purity,
            classes=None if wishes.classes is None else list(wishes.classes),
            counts=dict(counts),
            counts_before=counts_before,
            changed=changed,
        )
        history.append(asdict(done))
        manifest |= {"thresholds": thresholds, "counts": done.counts}
        staged = staging.path(out / MANIFEST_NAME)
        staged.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        staging.commit()
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


def _thresholds(
    out: Path, entries: Sequence[dict[str, Any]], original: dict[str, float], wishes: Wishes
) -> dict[str, float]:
    """The thresholds in effect: those of the first tagging but for what is wished."""
    asked = [*wishes.thresholds, *wishes.purity, *(wishes.classes or ())]
    for name in asked:
        if name not in original:
            raise UsageError(f"{out}: tagged with {', '.join(original)}; no class {name!r} there")
    for name, number in (wishes.thresholds | wishes.purity).items():
        if not 0 <= number <= 1:
            raise UsageError(f"{name}={number:g} is not between 0 and 1")
    if both := wishes.thresholds.keys() & wishes.purity.keys():
        raise UsageError(f"{both.pop()}: give a threshold or a purity, not both")
    found = {}
    for name, purity in wishes.purity.items():
        tables = [_table_path(out, entry) for entry in entries]
        scores = [scores_of(_read_column(path, name), [name])[:, 0] for path in tables]
        threshold = threshold_for_purity(np.concatenate(scores), purity)
        if threshold is None:
            highest = np.nanmax(np.concatenate([*scores, np.zeros(1, np.float32)]))
            raise UsageError(
                f"purity {name}={purity:g}: no threshold reaches it, the highest score of"
                f" {name} is {highest:.4f}"
            )
        found[name] = threshold
    return original | wishes.thresholds | found


def _table_path(out: Path, entry: dict[str, Any]) -> Path:
    return out / str(entry["tag_table"])


def _read_column(path: Path, name: str) -> pa.Table:
    try:
        return pq.read_table(path, columns=[f"score_{name}"])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a tag table: {error}") from error


def _retag_run(
    out: Path,
    entry: dict[str, Any],
    thresholds: dict[str, float],
    wishes: Wishes,
    manifest: dict[str, Any],
    staging: Staging,
) -> int:
    """Stage a run's new tables and streams and correct its entry; gives the events that changed."""
    path = _table_path(out, entry)
    table, metadata = read_tags(path)
    classes = json.loads(metadata["classes"])
    scores = scores_of(table, classes)
    old_tags = table.column("tag").combine_chunks()
    tags, reasons = assign_tags(
        scores,
        table.column("n_hits").to_numpy(),
        _equals(old_tags, PASSTHROUGH),
        _reading_reasons(table, old_tags, classes),
        classes,
        [thresholds[name] for name in classes],
        json.loads(metadata["min_hits"]),
        wishes.classes,
    )
    new_tags, new_reasons = pa.array(tags, pa.string()), pa.array(reasons, pa.string())
    moved = np.flatnonzero(pc.not_equal(old_tags, new_tags).to_numpy(zero_copy_only=False))
    rewrite_tags(
        staging.path(path),
        table,
        {"tag": new_tags, "reason": new_reasons},
        {"thresholds": thresholds, "only_classes": wishes.classes},
    )

    outcome = RunOutcome(**entry)
    counts = _count(new_tags)
    outcome.counts = {name: counts.get(name, 0) for name in entry["counts"]}
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
        _rewrite_streams(out, outcome, moves, manifest["config"]["streams"], staging)
    balance(outcome, classes, table.num_rows)
    entry |= asdict(outcome)
    return len(moved)


def _rewrite_streams(
    out: Path, outcome: RunOutcome, moves: list[Move], mode: Any, staging: Staging
) -> None:
    kind = hdf5_format(outcome.format)
    if kind is None:
        raise UsageError(
            f"{out}: streams of {outcome.format} cannot be rewritten without their run; filter"
            f" {outcome.input} again with --thresholds, or with --streams none to have tags only"
        )
    paths = {label: out / str(stream["path"]) for label, stream in outcome.streams.items()}
    move_events(kind, paths, mode, moves, staging.path)
    for move in moves:
        outcome.streams[move.source]["events"] -= 1
        outcome.streams[move.target]["events"] += 1


def _reading_reasons(table: pa.Table, tags: pa.Array, classes: list[str]) -> list[str]:
    """Why an event could not be read; empty if it could (it has scores then, if no finite ones)."""
    reasons = np.full(table.num_rows, "", object)
    not_scored = pc.is_null(table.column(f"score_{classes[0]}")).to_numpy()
    not_read = np.flatnonzero(_equals(tags, UNREADABLE) & not_scored)
    reasons[not_read] = table.column("reason").take(pa.array(not_read)).to_pylist()
    texts: list[str] = reasons.tolist()
    return texts


def _equals(tags: pa.Array, tag: str) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = pc.equal(tags, tag).to_numpy(zero_copy_only=False)
    return equal


def _count(values: pa.Array) -> dict[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(values).to_pylist()}
