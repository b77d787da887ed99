"""What is written as ROOT: streams of runs, and the friend tree that gives the tags back.

A stream of a ROOT run is a ROOT file with a tree ``events``, one entry an event: ``run``, ``entry``
(in the tree that it came from) and ``event``. In mode ``link`` that is all, and who reads the
stream reads the run's own file: uproot cannot copy ATTPCROOT's objects, and a list of entries is
what ROOT needs to skim them. In mode ``copy`` the tree also has the event's hits (``hits_x`` ...),
read or rebuilt, and the traces if the run has them: ``pad``, and ``adc`` with 512 samples a pad.
All of it are plain columns, which RDataFrame reads without a dictionary.

A friend tree ``tags`` has one row for every entry of the tree that it belongs to, in its order.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uproot
from numpy.typing import NDArray

from attpc_filter import __version__
from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.root.file import ROOT_ERRORS, RootFile, one_line
from attpc_filter.formats.run import Stream, StreamMode
from attpc_filter.output.staging import Staging
from attpc_filter.output.tag_table import TABLE_VERSION, read_tags
from attpc_filter.records import N_HARDWARE_COLUMNS, PAD_COLUMN, Hits, Record

if TYPE_CHECKING:
    from attpc_filter.formats.root.run import RootRun

STREAM_TREE = "events"
FRIEND_TREE = "tags"
#: Object beside the tree that says what the file is.
LABEL = "attpc_filter"

#: Columns of a stream's hits, in the order of a record's points, and their types.
_HIT_TYPES = {
    "x": "float64",
    "y": "float64",
    "z": "float64",
    "time_bucket": "float64",
    "charge": "float64",
    "integral": "float64",
    "pad": "int32",
}
#: What the columns of a stream are, for who reads it as a plain tree.
STREAM_COLUMNS = {
    "traces": {"event": "event", "pad": "pad", "adc": "adc"},
    "points": {
        "event": "event",
        **{("time" if name == "time_bucket" else name): f"hits_{name}" for name in _HIT_TYPES},
    },
}

#: zlib at its lowest level: fast enough, and ROOT stores it with a checksum, zstd without.
_COMPRESSION_LEVEL = 1
_BATCH_BYTES = 8 << 20
_ROWS_A_BATCH = 100_000

#: Tags that are no classes, in the order of their codes.
_OTHER_TAGS = ("uncertain", "unreadable", "passthrough")
_SCORE = "score_"


class TreeWriter:
    """A ROOT file with one tree, written batch by batch, and a label beside it.

    Parameters
    ----------
    path : Path
        File to write.
    tree : str
        Name of the tree.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """

    def __init__(self, path: Path, tree: str) -> None:
        self._path = path
        self._name = tree
        self._tree: Any = None
        try:
            self._handle = open(path, "w+b")  # noqa: SIM115  a name with a colon misleads uproot
            self._file = uproot.recreate(self._handle, compression=uproot.ZLIB(_COMPRESSION_LEVEL))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error

    def extend(self, types: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        """Add rows; the first time, make the tree with columns of these types."""
        try:
            if self._tree is None:
                self._tree = self._file.mktree(self._name, dict(types))
            if len(next(iter(columns.values()))):
                self._tree.extend(dict(columns))
        except ROOT_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {one_line(error)}") from error

    def close(self, label: Mapping[str, Any], n_rows: int) -> None:
        """Write the label, close the file, and see whether the tree has its rows."""
        try:
            self._file[LABEL] = json.dumps({"attpc_filter": __version__, **label})
            self._file.close()
            self._handle.close()
            with open(self._path, "rb") as handle, uproot.open(handle) as written:
                held = int(written[self._name].num_entries)
        except ROOT_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {one_line(error)}") from error
        if held != n_rows:
            raise OutputError(f"{self._path}: {n_rows} rows were written, it holds {held}")

    def abort(self) -> None:
        """Close the file as it is."""
        for close in (self._file.close, self._handle.close):
            with suppress(*ROOT_ERRORS):
                os.truncate(self._path, 0)  # on a full disk it could not be closed otherwise
                close()


def read_label(file: RootFile) -> dict[str, Any] | None:
    """What a ROOT file says that we wrote; None if it says nothing."""
    if file.keys.get(LABEL) != "TObjString":
        return None
    try:
        label = json.loads(str(file.directory[LABEL]))
    except ROOT_ERRORS as error:
        raise InputError(f"{file.path}: object {LABEL}: damaged: {one_line(error)}") from error
    return label if isinstance(label, dict) else None


# ---------------------------------------------------------------------------------------- streams


def stream_types(*, traces: bool, hits: bool) -> dict[str, str]:
    """Columns of a stream's tree, as uproot describes them."""
    types = {"run": "int32", "entry": "int64", "event": "int64"}
    if traces:
        types |= {"pad": "var * int16", "adc": "var * int16"}
    if hits:
        fields = ", ".join(f"{name}: {kind}" for name, kind in _HIT_TYPES.items())
        types["hits"] = f"var * {{{fields}}}"
    return types


class RootStream(Stream):
    """A stream of a ROOT run.

    Parameters
    ----------
    run : RootRun
        The run.
    path : Path
        File to write.
    mode : {"link", "copy"}
        A list of the entries, or hits and traces besides.
    label : str
        What the stream holds.
    """

    def __init__(self, run: "RootRun", path: Path, mode: StreamMode, label: str) -> None:
        self._run = run
        self._mode = mode
        self._label = {
            "kind": "stream",
            "stream": label,
            "mode": mode,
            "holds": run.holds,
            "source": os.path.relpath(run.path.resolve(), path.parent.resolve()),
            "tree": run.options.tree,
            "branch": run.options.branch,
            "columns": dict(run.options.columns),
        }
        # the run's own readers belong to another thread, and go on from entry to entry
        self._source = run.reopen() if mode == "copy" else None
        self._with_hits = mode == "copy"
        try:
            self._writer = TreeWriter(path, STREAM_TREE)
        except OutputError:
            self._close_source()
            raise
        self._names: list[str] = []
        self._events: list[int] = []
        self._records: list[Record] = []
        self._points: list[NDArray[np.float64]] = []
        self._n_bytes = 0
        self._n_added = 0

    def add(self, record: Record, hits: Hits | None = None) -> None:
        """Add an entry and, where the run has traces, the hits rebuilt of them.

        Hits come with every event of a stream, or with none.
        """
        if self._n_added == 0 and hits is None and self._run.holds == "traces":
            self._with_hits = False
        self._names.append(record.name)
        self._events.append(record.event)
        self._n_added += 1
        self._n_bytes += 64
        if self._source is not None:
            whole = self._source.read(record.event, record.name)
            self._records.append(whole)
            self._points.append(_points(whole, hits))  # not a view of a whole batch
            for array in (whole.traces, self._points[-1]):
                self._n_bytes += 0 if array is None else array.nbytes
        if self._n_bytes >= _BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left and the label, and verify the number of entries."""
        self._flush()
        self._close_source()
        self._writer.close(self._label, self._n_added)

    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""
        self._close_source()
        self._writer.abort()

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _flush(self) -> None:
        traces = self._mode == "copy" and self._run.holds == "traces"
        columns: dict[str, Any] = {
            "run": np.full(len(self._names), self._run.number, np.int32),
            "entry": np.array([int(name) for name in self._names], np.int64),
            "event": np.array(self._events, np.int64),
        }
        if traces:
            columns |= _trace_columns(self._records)
        if self._with_hits:
            columns["hits"] = _hit_column(self._points)
        self._writer.extend(stream_types(traces=traces, hits=self._with_hits), columns)
        self._names, self._events, self._records, self._points = [], [], [], []
        self._n_bytes = 0


def _trace_columns(records: Sequence[Record]) -> dict[str, Any]:
    empty = np.empty((0, N_HARDWARE_COLUMNS), np.int16)
    traces = [empty if r.traces is None else r.traces for r in records]
    counts = np.array([len(t) for t in traces], np.int64)
    samples = [np.ravel(t[:, N_HARDWARE_COLUMNS:]) for t in traces]
    sizes = np.array([len(s) for s in samples], np.int64)
    none = np.empty(0, np.int16)
    return {
        "pad": ak.unflatten(np.concatenate([none, *(t[:, PAD_COLUMN] for t in traces)]), counts),
        "adc": ak.unflatten(np.concatenate([none, *samples]), sizes),
    }


def _points(record: Record, hits: Hits | None) -> NDArray[np.float64]:
    """The hits of an event: as read; else as rebuilt; none if it could not be read."""
    if record.points is not None:
        return record.points
    if hits is None:
        return np.empty((0, len(_HIT_TYPES)))
    return np.column_stack([getattr(hits, name) for name in _HIT_TYPES]).astype(np.float64)


def _hit_column(points: Sequence[NDArray[np.float64]]) -> ak.Array:
    counts = np.array([len(p) for p in points], np.int64)
    joined = np.concatenate([np.empty((0, len(_HIT_TYPES))), *points])
    fields = {
        name: joined[:, column].astype(kind)
        for column, (name, kind) in enumerate(_HIT_TYPES.items())
    }
    return ak.unflatten(ak.zip(fields), counts)


# ------------------------------------------------------------------------------------ friend trees


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
        "run": "int32",
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
                "run": pa.array(np.asarray(columns["run"]), pa.int32()),
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
            pq.write_table(rows, staging.path(table), compression="zstd")
        except OSError as error:
            raise OutputError(f"{table}: cannot be written: {error}") from error
        staging.commit()
