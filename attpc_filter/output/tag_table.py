"""The tag table: one row an event, in a Parquet file. The source of truth for all that follows.

Columns of version 2: ``run`` (int64), ``event`` (int64), ``tag`` (string), ``score_<class>``
(float32, null where the event was not scored), ``n_hits`` (int32), ``reason`` (string, empty where
the tag is a class); of a model that tells how unlike its training events an event is also
``novelty`` (float32, null as the scores); and the columns of the outputs that the model's contract
names (float32, null as the scores). The file's metadata hold the contract's version, the
model's name and SHA-256, the classes and the thresholds that were applied, all under keys that
begin with ``attpc_filter.``. Every page has a checksum, which is compared when the table is read.

Version 1, which is still read: ``run`` was int32, and the pages had no checksums.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attpc_filter.errors import InputError, OutputError
from attpc_filter.texts import one_line

#: Version of the table's layout.
TABLE_VERSION = 2
#: Columns that every tag table has.
_COLUMNS = ("run", "event", "tag", "n_hits", "reason")
_ROWS_A_GROUP = 16_384
#: How tag tables are stored. Scores and event numbers hardly repeat: a dictionary of them takes
#: time and room.
PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["tag", "reason"],
    "write_page_checksum": True,
}


class TagWriter:
    """Writes a tag table batch by batch.

    Parameters
    ----------
    path : Path
        File to write.
    classes : sequence of str
        Names of the score columns.
    metadata : dict
        What goes into the file's metadata: texts as they are, all else as JSON.
    further : sequence of str
        Names of further columns of numbers, such as ``novelty``.

    Attributes
    ----------
    n_rows : int
        Rows written so far.
    """

    def __init__(
        self,
        path: Path,
        classes: Sequence[str],
        metadata: dict[str, Any],
        further: Sequence[str] = (),
    ) -> None:
        self._path = path
        entries = {"table_version": TABLE_VERSION} | metadata
        self._further = tuple(further)
        schema = pa.schema(
            [
                ("run", pa.int64()),
                ("event", pa.int64()),
                ("tag", pa.string()),
                *((f"score_{name}", pa.float32()) for name in classes),
                ("n_hits", pa.int32()),
                ("reason", pa.string()),
                *((name, pa.float32()) for name in further),
            ],
            file_metadata(entries),
        )
        self.n_rows = 0
        self._classes = classes
        self._pending: list[pa.RecordBatch] = []
        self._n_pending = 0
        try:
            self._writer = pq.ParquetWriter(path, schema, **PARQUET)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error

    def add(
        self,
        run: int,
        events: NDArray[np.int64],
        tags: Sequence[str],
        scores: NDArray[np.float32],
        scored: NDArray[np.bool_],
        n_hits: NDArray[np.int64],
        reasons: Sequence[str],
        further: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Add the rows of a batch; ``scores`` has shape (n_events, n_classes)."""
        columns = [
            pa.array(np.full(len(events), run, np.int64)),
            pa.array(events),
            pa.array(tags, pa.string()),
            *(pa.array(column, mask=~scored) for column in scores.T),
            pa.array(n_hits.astype(np.int32)),
            pa.array(reasons, pa.string()),
        ]
        values = [(further or {})[name].astype(np.float32, copy=False) for name in self._further]
        columns += [pa.array(column, pa.float32(), mask=~scored) for column in values]
        self._pending.append(pa.record_batch(columns, schema=self._writer.schema))
        self._n_pending += len(events)
        self.n_rows += len(events)
        if self._n_pending >= _ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left and verify the number of rows."""
        self._flush()
        try:
            self._writer.close()
            held = pq.read_metadata(self._path).num_rows
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        if held != self.n_rows:
            raise OutputError(f"{self._path}: holds {held} rows, {self.n_rows} were written")

    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            self._writer.write_table(
                pa.Table.from_batches(self._pending, self._writer.schema).combine_chunks()
            )
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        self._pending.clear()
        self._n_pending = 0


def file_metadata(entries: dict[str, Any]) -> dict[str, str]:
    """Entries as a Parquet file's metadata keep them: texts as they are, all else as JSON."""
    return {
        f"attpc_filter.{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in entries.items()
    }


def read_tags(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Read a tag table and its metadata (keys without the prefix ``attpc_filter.``).

    Raises
    ------
    InputError
        If the file is not a tag table.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a tag table, or damaged: {one_line(error)}") from error
    prefix = "attpc_filter."
    try:
        metadata = {
            key.decode().removeprefix(prefix): value.decode()
            for key, value in (table.schema.metadata or {}).items()
            if key.decode().startswith(prefix)
        }
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: damaged: its metadata are no text") from error
    if "model_sha256" not in metadata:
        raise InputError(f"{path}: a Parquet file, but not a tag table of attpc-filter")
    # the names of columns stand in Parquet's footer, which has no checksum
    if lacking := [name for name in _COLUMNS if name not in table.column_names]:
        raise InputError(f"{path}: a tag table without {', '.join(lacking)}: damaged")
    index = table.schema.get_field_index("run")
    if index >= 0 and table.schema.field(index).type == pa.int32():  # version 1
        table = table.set_column(index, "run", table.column(index).cast(pa.int64()))
    return table, metadata


def scores_of(table: pa.Table, classes: Sequence[str]) -> NDArray[np.float32]:
    """The scores, shape (n_events, n_classes); NaN where the event was not scored."""
    columns = [table.column(f"score_{name}").to_numpy() for name in classes]
    scores: NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32, copy=False)
    return scores


def rewrite_tags(
    path: Path,
    table: pa.Table,
    columns: dict[str, pa.Array],
    metadata: dict[str, Any],
) -> None:
    """Write a tag table with some columns and some metadata replaced, all else as it was."""
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), values)
    held = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    entries = file_metadata({"table_version": TABLE_VERSION} | metadata)
    table = table.replace_schema_metadata(held | entries)
    try:
        pq.write_table(table, path, row_group_size=_ROWS_A_GROUP, **PARQUET)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error
