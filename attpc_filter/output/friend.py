"""Friend trees: a tag table as a ROOT tree, for who reads the run with ROOT.

A friend tree ``tags`` has one row for every entry of the tree that it belongs to, in its order.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.root.file import ROOT_ERRORS, RootFile, one_line
from attpc_filter.formats.root.writer import TreeWriter, read_label
from attpc_filter.output.staging import Staging
from attpc_filter.output.tag_table import PARQUET, TABLE_VERSION, read_tags

FRIEND_TREE = "tags"

_ROWS_A_BATCH = 100_000

#: Tags that are no classes, in the order of their codes.
_OTHER_TAGS = ("uncertain", "unreadable", "passthrough")
_SCORE = "score_"


def write_friend(
    path: Path, table: pa.Table, metadata: Mapping[str, str], n_entries: int | None = None
) -> None:
    """Write a tag table as a friend tree, in a file of its own.

    Its columns: ``run``, ``event``, ``tag`` (a text: for Draw and Scan), ``tag_code`` (its number:
    for RDataFrame; the file's label says which), ``score_<class>`` (NaN where not scored),
    ``scored``, ``n_hits`` and ``reason``, and ``novelty`` if the table has it.

    Parameters
    ----------
    path : Path
        File to write.
    table : pyarrow.Table
        The tag table; its rows must be in the order of the tree's entries, which those of a ROOT
        run are.
    metadata : mapping of str to str
        The table's metadata.
    n_entries : int, optional
        Entries of the tree; a table that is shorter or longer is refused.

    Raises
    ------
    InputError
        If the table has not one row for every entry.
    OutputError
        If the file cannot be written.
    """
    if n_entries is not None and table.num_rows != n_entries:
        raise InputError(
            f"{path}: the table has {table.num_rows} rows, the tree {n_entries} entries: as a"
            " friend it would tag the wrong events"
        )
    scores = [name for name in table.column_names if name.startswith(_SCORE)]
    codes = tag_codes([name.removeprefix(_SCORE) for name in scores], table["tag"].to_pylist())
    numbers = [*scores, *(["novelty"] if "novelty" in table.column_names else [])]
    types = {
        "run": "int64",
        "event": "int64",
        "tag": "string",
        "tag_code": "int32",
        **dict.fromkeys(numbers, "float32"),
        "scored": "bool",
        "n_hits": "int32",
        "reason": "string",
    }
    writer = TreeWriter(path, FRIEND_TREE)
    try:
        for first in range(0, max(table.num_rows, 1), _ROWS_A_BATCH):
            part = table.slice(first, _ROWS_A_BATCH)
            tags = part["tag"].to_pylist()
            columns: dict[str, Any] = {
                "run": part["run"].to_numpy(),
                "event": part["event"].to_numpy(),
                "tag": ak.Array(tags),
                "tag_code": np.array([codes[tag] for tag in tags], np.int32),
                "scored": np.ones(len(tags), bool),
                "n_hits": part["n_hits"].to_numpy(),
                "reason": ak.Array(part["reason"].to_pylist()),
            }
            for name in numbers:
                columns["scored"] &= part[name].is_valid().to_numpy()
                columns[name] = part[name].fill_null(np.nan).to_numpy()
            writer.extend(types, columns)
        label = {"kind": "tags", "tag_codes": codes, "metadata": dict(metadata)}
        writer.close(label, table.num_rows)
    except BaseException:
        writer.abort()
        raise


def tag_codes(classes: Sequence[str], tags: Sequence[str]) -> dict[str, int]:
    """The number of each tag in a friend tree: the classes in their order, then the others."""
    known = dict.fromkeys([*classes, *_OTHER_TAGS])
    return {tag: code for code, tag in enumerate([*known, *sorted(set(tags) - set(known))])}


def read_friend(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Read a friend tree as the tag table that it was, and the table's metadata.

    Raises
    ------
    InputError
        If the file is damaged or no friend tree of ours.
    """
    file = RootFile(path)
    try:
        label = read_label(file)
        if label is None or label.get("kind") != "tags" or FRIEND_TREE not in file.keys:
            raise InputError(f"{path}: no friend tree of attpc-filter in it")
        columns = file.tree(FRIEND_TREE).arrays(library="ak")
        scores = [name for name in columns.fields if name.startswith(_SCORE)]
        unscored = ~np.asarray(columns["scored"])
        table = pa.table(
            {
                "run": pa.array(np.asarray(columns["run"]), pa.int64()),
                "event": pa.array(np.asarray(columns["event"]), pa.int64()),
                "tag": pa.array(columns["tag"].to_list(), pa.string()),
                **{
                    name: pa.array(np.asarray(columns[name]), pa.float32(), mask=unscored)
                    for name in scores
                },
                "n_hits": pa.array(np.asarray(columns["n_hits"]), pa.int32()),
                "reason": pa.array(columns["reason"].to_list(), pa.string()),
                **{
                    name: pa.array(np.asarray(columns[name]), pa.float32(), mask=unscored)
                    for name in columns.fields
                    if name == "novelty"
                },
            }
        )
    except ROOT_ERRORS as error:
        raise InputError(f"{path}: tree {FRIEND_TREE}: damaged: {one_line(error)}") from error
    finally:
        file.close()
    return table, {str(key): str(value) for key, value in label["metadata"].items()}


def friend_from_table(table: Path, friend: Path) -> None:
    """Write the friend tree of a tag table (Parquet).

    Raises
    ------
    InputError, OutputError
        If the one cannot be read or the other cannot be written.
    """
    rows, metadata = read_tags(table)
    with Staging() as staging:
        write_friend(staging.path(friend), rows, metadata)
        staging.commit()


def table_from_friend(friend: Path, table: Path) -> None:
    """Write the tag table (Parquet) of a friend tree.

    Raises
    ------
    InputError, OutputError
        If the one cannot be read or the other cannot be written.
    """
    rows, metadata = read_friend(friend)
    metadata = {"table_version": str(TABLE_VERSION), **metadata}
    rows = rows.replace_schema_metadata({f"attpc_filter.{k}": v for k, v in metadata.items()})
    with Staging() as staging:
        try:
            pq.write_table(rows, staging.path(table), **PARQUET)
        except OSError as error:
            raise OutputError(f"{table}: cannot be written: {error}") from error
        staging.commit()
