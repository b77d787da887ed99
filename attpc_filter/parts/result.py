"""The result of a part: its tagged batches, in one Parquet file, to be read back as they were.

Version 1, a row an event: ``event``, ``name`` (of its object in the run), ``passthrough``,
``is_complete``, ``in_model_frame``, ``unreadable`` (why it cannot be read), ``n_hits``, ``origin``,
``scored``, ``tag``, ``reason``; ``output_NAME`` for each output of the model, lists of one length;
``hits_COLUMN`` if hits or streams that hold hits are written; ``example_x``, ``example_y``,
``example_charge`` and ``example_title`` for the events that the picture may show.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attpc_filter.errors import InputError, OutputError
from attpc_filter.records import Hits, Record
from attpc_filter.tagging.batch import Batch, Example
from attpc_filter.tagging.stages import BATCH_EVENTS, EXAMPLES_A_TAG

#: A multiple of the model's batch.
_ROWS_A_GROUP = 16 * BATCH_EVENTS
_HIT_COLUMNS = tuple(f.name for f in fields(Hits)[1:])
_EXAMPLE_COLUMNS = ("x", "y", "charge")
_SHAPES = b"attpc_filter.output_shapes"
_OUTPUT, _HITS, _EXAMPLE = "output_", "hits_", "example_"


class ResultWriter:
    """Writes the batches of a part.

    Parameters
    ----------
    path : Path
        File to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None
        self._examples: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Add a batch."""
        self._pending.append(self._table(batch))
        if sum(map(len, self._pending)) >= _ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        try:
            if self._pending:
                self._flush()
            if self._writer is None:  # a part without events
                pq.write_table(pa.table({"event": pa.array([], pa.int64())}), self._path)
            else:
                self._writer.close()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending)
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._writer.write_table(table.combine_chunks(), row_group_size=_ROWS_A_GROUP)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        self._pending.clear()

    def _table(self, batch: Batch) -> pa.RecordBatch:
        records = batch.records
        columns = {
            "event": pa.array(batch.events),
            "name": pa.array([_bytes(record.name) for record in records], pa.binary()),
            "passthrough": pa.array([record.passthrough for record in records], pa.bool_()),
            "is_complete": pa.array([record.is_complete for record in records], pa.bool_()),
            "in_model_frame": pa.array([record.in_model_frame for record in records], pa.bool_()),
            "unreadable": pa.array([_bytes(record.reason) for record in records], pa.binary()),
            "n_hits": pa.array(batch.n_hits.astype(np.int64)),
            "origin": pa.array(batch.origins),
            "scored": pa.array(batch.scored),
            "tag": pa.array(batch.tags, pa.string()),
            "reason": pa.array([_bytes(reason) for reason in batch.reasons], pa.binary()),
        }
        shapes = {name: list(rows.shape[1:]) for name, rows in sorted(batch.outputs.items())}
        for name, shape in shapes.items():
            values = pa.array(batch.outputs[name].astype(np.float32, copy=False).reshape(-1))
            columns[_OUTPUT + name] = pa.FixedSizeListArray.from_arrays(values, math.prod(shape))
        if batch.hits is not None:
            offsets = pa.array((batch.hits.offsets - batch.hits.offsets[0]).astype(np.int32))
            for name in _HIT_COLUMNS:
                values = pa.array(getattr(batch.hits, name))
                columns[_HITS + name] = pa.ListArray.from_arrays(offsets, values)
        columns |= self._example_columns(batch)
        table = pa.RecordBatch.from_pydict(columns)
        return table.replace_schema_metadata({_SHAPES: json.dumps(shapes)})

    def _example_columns(self, batch: Batch) -> dict[str, pa.Array]:
        """The first examples of each tag, in the rows of their events."""
        kept: dict[int, Example] = {}
        rows = {record.event: row for row, record in enumerate(batch.records)}
        for example in batch.examples:
            self._examples[example.tag] += 1
            if self._examples[example.tag] <= EXAMPLES_A_TAG:
                kept[rows[int(example.title.split()[-1])]] = example
        shown = [kept.get(row) for row in range(len(batch.records))]
        columns = {
            _EXAMPLE + name: pa.array(
                [None if one is None else getattr(one, name) for one in shown],
                pa.list_(pa.float32()),
            )
            for name in _EXAMPLE_COLUMNS
        }
        titles = [None if one is None else one.title for one in shown]
        return columns | {f"{_EXAMPLE}title": pa.array(titles, pa.string())}


def read_result(path: Path) -> Iterator[Batch]:
    """Read the batches of a part back, in their order.

    Raises
    ------
    InputError
        If the file is no result of a part.
    """
    try:
        with pq.ParquetFile(path) as file:
            shapes = json.loads((file.schema_arrow.metadata or {}).get(_SHAPES, b"{}"))
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).combine_chunks()
                for start in range(0, len(table), BATCH_EVENTS):
                    yield _batch(table.slice(start, BATCH_EVENTS), shapes)
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise InputError(f"{path}: no result of a part: {error}") from error


def _batch(table: pa.Table, shapes: dict[str, list[int]]) -> Batch:
    """A batch of the rows of a table."""
    rows = table.select(
        ["event", "name", "unreadable", "passthrough", "is_complete", "in_model_frame"]
    ).to_pylist()
    records = [
        Record(
            row["event"],
            _text(row["name"]),
            passthrough=row["passthrough"],
            reason=_text(row["unreadable"]),
            is_complete=row["is_complete"],
            in_model_frame=row["in_model_frame"],
        )
        for row in rows
    ]
    hits = _hits(table) if _HITS + _HIT_COLUMNS[0] in table.column_names else None
    batch = Batch(records, hits, _numbers(table, "n_hits"), _numbers(table, "origin"))
    batch.scored = _numbers(table, "scored")
    batch.tags = table.column("tag").to_pylist()
    batch.reasons = [_text(reason) for reason in table.column("reason").to_pylist()]
    batch.outputs = {
        name: _flat(table, _OUTPUT + name).reshape(len(table), *shape)
        for name, shape in shapes.items()
    }
    for row in np.flatnonzero(_is_valid(table, f"{_EXAMPLE}title")).tolist():
        title = table.column(f"{_EXAMPLE}title")[row].as_py()
        columns = (
            np.array(table.column(_EXAMPLE + name)[row].as_py(), np.float32)
            for name in _EXAMPLE_COLUMNS
        )
        batch.examples.append(Example(title, batch.tags[row], *columns))
    return batch


def _hits(table: pa.Table) -> Hits:
    lengths = table.column(_HITS + _HIT_COLUMNS[0]).combine_chunks().value_lengths().to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Hits(offsets, *(_flat(table, _HITS + name) for name in _HIT_COLUMNS))


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    numbers: NDArray[Any] = table.column(name).to_numpy()
    return numbers


def _is_valid(table: pa.Table, name: str) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = table.column(name).is_valid().to_numpy()
    return valid


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    """All numbers of a column of lists, one after another."""
    numbers: NDArray[Any] = table.column(name).combine_chunks().flatten().to_numpy()
    return numbers


def _bytes(text: str) -> bytes:
    """A text that may hold bytes of a file's name, which are no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
