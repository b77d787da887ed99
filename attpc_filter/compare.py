"""Two taggings of the same events: which flipped, and how their scores differ."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attpc_filter.errors import InputError, OutputError, UsageError
from attpc_filter.output.folder import settle
from attpc_filter.output.staging import Staging
from attpc_filter.output.tag_table import read_tags, scores_of
from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE


@dataclass(frozen=True, slots=True)
class Compared:
    """Two taggings, event by event.

    Attributes
    ----------
    classes_a, classes_b : list of str
        Classes of either, in the order of the score columns.
    tags_a, tags_b : list of str
        Tags of either: rows and columns of the matrix.
    matrix : ndarray of int64
        Events with tag ``tags_a[i]`` in A and ``tags_b[j]`` in B.
    only_a, only_b : int
        Events that the other one lacks.
    run, event : ndarray of int64, shape (n_events,)
        The events that both have.
    tag_a, tag_b : ndarray of int64, shape (n_events,)
        Their tags, as indices.
    scores_a, scores_b : ndarray of float32, shape (n_events, n_classes)
        Their scores, NaN where an event was not scored.
    """

    classes_a: list[str]
    classes_b: list[str]
    tags_a: list[str]
    tags_b: list[str]
    matrix: NDArray[np.int64]
    only_a: int
    only_b: int
    run: NDArray[np.int64]
    event: NDArray[np.int64]
    tag_a: NDArray[np.int64]
    tag_b: NDArray[np.int64]
    scores_a: NDArray[np.float32]
    scores_b: NDArray[np.float32]

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """Whether an event's tag differs, shape (n_events,)."""
        names_a, names_b = np.array(self.tags_a), np.array(self.tags_b)
        differs: NDArray[np.bool_] = names_a[self.tag_a] != names_b[self.tag_b]
        return differs

    @property
    def n_flipped(self) -> int:
        """Events whose tag differs."""
        return int(self.flipped.sum())


def compare(a: Path, b: Path) -> Compared:
    """Compare two taggings.

    Parameters
    ----------
    a, b : Path
        Output folders of ``attpc-filter run``, whose runs are paired by name, or two tag tables.

    Raises
    ------
    UsageError
        If there is nothing to pair, or the tables of a folder differ in their classes.
    InputError
        If a table cannot be read.
    """
    for path in (a, b):
        settle(path)
    tables_a, tables_b = _tables(a), _tables(b)
    if a.is_file() and b.is_file():
        pairs = [(a, b)]
    else:
        pairs = [
            (tables_a[name], tables_b[name]) for name in sorted(tables_a.keys() & tables_b.keys())
        ]
    if not pairs:
        raise UsageError(f"{a} and {b} have no run in common")
    parts = [_pair(*pair) for pair in pairs]
    first = parts[0]
    for part, (path, _) in zip(parts, pairs, strict=True):
        if (part.classes_a, part.classes_b) != (first.classes_a, first.classes_b):
            raise UsageError(f"{path}: tagged with other classes than {pairs[0][0]}")
    return Compared(
        *(first.classes_a, first.classes_b, first.tags_a, first.tags_b),
        matrix=np.sum([part.matrix for part in parts], axis=0),
        only_a=sum(part.only_a for part in parts),
        only_b=sum(part.only_b for part in parts),
        run=np.concatenate([part.run for part in parts]),
        event=np.concatenate([part.event for part in parts]),
        tag_a=np.concatenate([part.tag_a for part in parts]),
        tag_b=np.concatenate([part.tag_b for part in parts]),
        scores_a=np.concatenate([part.scores_a for part in parts]),
        scores_b=np.concatenate([part.scores_b for part in parts]),
    )


def write_flips(compared: Compared, path: Path) -> None:
    """Write the events whose tag differs as CSV: run, event, both tags, all scores."""
    header = ["run", "event", "tag_a", "tag_b"]
    header += [f"score_{name}_a" for name in compared.classes_a]
    header += [f"score_{name}_b" for name in compared.classes_b]
    with Staging() as staging:
        try:
            with open(staging.path(path), "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                for index in np.flatnonzero(compared.flipped):
                    scores = [*compared.scores_a[index], *compared.scores_b[index]]
                    writer.writerow(
                        [
                            compared.run[index],
                            compared.event[index],
                            compared.tags_a[compared.tag_a[index]],
                            compared.tags_b[compared.tag_b[index]],
                            *("" if np.isnan(score) else f"{score:.6g}" for score in scores),
                        ]
                    )
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        staging.commit()


def files_of(path: Path) -> list[Path]:
    """The files that a comparison of a folder, or of one tag table, may read."""
    return [path] if path.is_file() else [path / "manifest.json", *(path / "tags").glob("*")]


def _tables(path: Path) -> dict[str, Path]:
    """The tag tables of an output folder by run, or one table."""
    if path.is_file():
        return {path.stem: path}
    tables = {table.stem: table for table in sorted((path / "tags").glob("*.parquet"))}
    if not tables:
        raise UsageError(f"{path}: no tag tables; give an output folder, or a tag table")
    return tables


def _pair(path_a: Path, path_b: Path) -> Compared:
    (table_a, classes_a), (table_b, classes_b) = _read(path_a), _read(path_b)
    event, in_a, in_b = np.intersect1d(
        table_a.column("event").to_numpy(), table_b.column("event").to_numpy(), return_indices=True
    )
    tags_a = [*classes_a, UNCERTAIN, UNREADABLE, PASSTHROUGH]
    tags_b = [*classes_b, UNCERTAIN, UNREADABLE, PASSTHROUGH]
    tag_a = _tag_indices(path_a, table_a, tags_a)[in_a]
    tag_b = _tag_indices(path_b, table_b, tags_b)[in_b]
    matrix = np.zeros((len(tags_a), len(tags_b)), np.int64)
    np.add.at(matrix, (tag_a, tag_b), 1)
    return Compared(
        *(classes_a, classes_b, tags_a, tags_b, matrix),
        only_a=table_a.num_rows - len(event),
        only_b=table_b.num_rows - len(event),
        run=table_a.column("run").to_numpy().astype(np.int64)[in_a],
        event=event,
        tag_a=tag_a,
        tag_b=tag_b,
        scores_a=scores_of(table_a, classes_a)[in_a],
        scores_b=scores_of(table_b, classes_b)[in_b],
    )


def _read(path: Path) -> tuple[pa.Table, list[str]]:
    table, metadata = read_tags(path)
    return table, json.loads(metadata["classes"])


def _tag_indices(path: Path, table: pa.Table, tags: list[str]) -> NDArray[np.int64]:
    column = table.column("tag")
    found = pc.index_in(column, value_set=pa.array(tags))
    if found.null_count:
        unknown = column.filter(pc.is_null(found))[0].as_py()
        raise InputError(f"{path}: damaged: tag {unknown!r} is none of {', '.join(tags)}")
    indices: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return indices
