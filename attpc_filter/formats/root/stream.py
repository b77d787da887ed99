"""Streams of ROOT runs.

A stream of a ROOT run is a ROOT file with a tree ``events``, one entry an event: ``run``, ``entry``
(in the tree that it came from) and ``event``. In mode ``link`` that is all, and who reads the
stream reads the run's own file: uproot cannot copy ATTPCROOT's objects, and a list of entries is
what ROOT needs to skim them. In mode ``copy`` the tree also has the event's hits (``hits_x`` ...),
read or rebuilt, and the traces if the run has them: ``pad``, and ``adc`` with 512 samples a pad.
All of it are plain columns, which RDataFrame reads without a dictionary.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import OutputError
from attpc_filter.formats.root.run import RootRun
from attpc_filter.formats.root.writer import TreeWriter
from attpc_filter.formats.run import Stream, StreamMode
from attpc_filter.records import N_HARDWARE_COLUMNS, PAD_COLUMN, Hits, Record

STREAM_TREE = "events"

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

_BATCH_BYTES = 8 << 20


def stream_types(*, traces: bool, hits: bool) -> dict[str, str]:
    """Columns of a stream's tree, as uproot describes them."""
    types = {"run": "int64", "entry": "int64", "event": "int64"}
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

    def __init__(self, run: RootRun, path: Path, mode: StreamMode, label: str) -> None:
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
            "run": np.full(len(self._names), self._run.number, np.int64),
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
