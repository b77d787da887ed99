"""Streams of GET runs: attpc_merger 2.0 files, or lists of events."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from attpc_filter import __version__
from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.run import Move, Stream
from attpc_filter.records import N_TRACE_COLUMNS, Hits, Record

if TYPE_CHECKING:
    from attpc_filter.formats.graw import GrawRun

_VERSION = "libattpc_merger:2.0"
_SILICON = ("upstream_front", "upstream_back", "downstream_front", "downstream_back")
_CHUNK_ROWS = 1000  # about 1 MB


class GrawCopy(Stream):
    """Events in the layout of attpc_merger 2.0, each with the number that it has in the run.

    As in the streams of merged runs: ``max_event`` is one more than the last event's number, so
    that Spyral's readers see it, ``attpc_filter_last_event`` keeps that number, and the four
    silicon matrices, empty here, stand under Spyral's names too. The FRIB attributes are 0.

    Parameters
    ----------
    run : GrawRun
        The run.
    path : Path
        File to write.
    label : str
        What it holds.
    """

    def __init__(self, run: "GrawRun", path: Path, label: str) -> None:
        self._run = run
        self._path = path
        self._n_added = 0
        try:
            self._file = h5py.File(path, "w", libver=("v108", "latest"))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error
        self._file.attrs["attpc_filter"] = __version__
        self._file.attrs["attpc_filter_stream"] = label
        self._file.attrs["attpc_filter_source"] = _relative(run.path, path)
        last = run.events[-1][0]
        events = self._file.create_group("events")
        numbers = {"min_event": run.events[0][0], "max_event": last + 1}
        times = {"min_get_ts": run.times(run.events[0][0])[0], "max_get_ts": run.times(last)[0]}
        for name, value in (numbers | times).items():
            events.attrs.create(name, value, dtype=np.uint64)
        for name in ("frib_run", "frib_start", "frib_stop", "frib_time"):
            events.attrs.create(name, 0, dtype=np.uint32)
        events.attrs["version"] = _VERSION
        events.attrs["attpc_filter_last_event"] = last
        scalers = self._file.create_group("scalers")
        for name in ("min_event", "max_event"):
            scalers.attrs.create(name, 0, dtype=np.uint32)
        scalers.attrs["version"] = _VERSION
        self._events = events

    def add(self, record: Record, hits: Hits | None = None) -> None:
        """Add an event, with the traces that are there (see :meth:`Stream.add`)."""
        number, name = record.event, record.name
        traces = self._run.read_what_is_there(number)
        time, other = self._run.times(number)
        try:
            group = self._events.create_group(f"{name}/get")
            group.attrs.create("id", self._run.event_id(number), dtype=np.uint32)
            group.attrs.create("timestamp", time, dtype=np.uint64)
            group.attrs.create("timestamp_other", other, dtype=np.uint64)
            chunks = (min(len(traces), _CHUNK_ROWS), N_TRACE_COLUMNS) if len(traces) else None
            group.create_dataset("pads", data=traces, chunks=chunks, fletcher32=chunks is not None)
            for part in _SILICON:
                empty = group.create_dataset(f"si_{part}", (0, N_TRACE_COLUMNS), np.int16)
                group[f"silicon_{part}"] = empty
        except (OSError, RuntimeError, ValueError) as error:
            raise OutputError(f"{self._path}: event {name}: {error}") from error
        self._n_added += 1

    def close(self) -> None:
        """Close the file and verify that it holds what was added."""
        try:
            self._file.close()
            with h5py.File(self._path, "r") as file:
                held = len(file["events"])
        except (OSError, RuntimeError) as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        if held != self._n_added:
            raise OutputError(f"{self._path}: {self._n_added} events were added, it holds {held}")

    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""
        with contextlib.suppress(OSError, RuntimeError):
            os.truncate(self._path, 0)
            self._file.close()


class GrawList(Stream):
    """A list of events as text: a line an event, its number and GET's, below lines with ``#``.

    Parameters
    ----------
    run : GrawRun
        The run.
    path : Path
        File to write.
    label : str
        What it holds.
    """

    def __init__(self, run: "GrawRun", path: Path, label: str) -> None:
        self._run = run
        self._path = path
        self._lines = [
            f"# attpc-filter {__version__}: events tagged {label} of {_relative(run.path, path)}",
            "# event (from 0, as attpc_merger counts), GET's event number",
        ]

    def add(self, record: Record, hits: Hits | None = None) -> None:
        """Add an event (see :meth:`Stream.add`)."""
        self._lines.append(f"{record.event} {self._run.event_id(record.event)}")

    def close(self) -> None:
        """Write the list."""
        _write_lines(self._path, self._lines)

    def abort(self) -> None:
        """Nothing to do: nothing was written."""


def move_listed_events(
    streams: Mapping[str, Path], moves: Sequence[Move], staged: Callable[[Path], Path]
) -> None:
    """Write the lists anew that events leave or enter.

    Parameters
    ----------
    streams : mapping of str to Path
        The run's lists by label; they stay as they are.
    moves : sequence of Move
        Which events go where.
    staged : callable
        Gives the name to write a list under until all are complete.

    Raises
    ------
    InputError
        If a list is not there, or lacks an event that should leave it.
    OutputError
        If a list cannot be written.
    """
    heads: dict[str, list[str]] = {}
    lines: dict[str, dict[int, str]] = {}
    for label, path in streams.items():
        try:
            text = path.read_text(encoding="utf-8").splitlines()
            lines[label] = {int(row.split()[0]): row for row in text if not row.startswith("#")}
        except (OSError, ValueError, IndexError) as error:
            raise InputError(f"{path}: the list of events cannot be read: {error}") from error
        heads[label] = [row for row in text if row.startswith("#")]
    for move in moves:
        if move.event not in lines[move.source]:
            raise InputError(f"{streams[move.source]}: event {move.event} is not in it")
        lines[move.target][move.event] = lines[move.source].pop(move.event)
    for label in {label for move in moves for label in (move.source, move.target)}:
        events = [row for _, row in sorted(lines[label].items())]
        _write_lines(staged(streams[label]), heads[label] + events)


def _write_lines(path: Path, lines: list[str]) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _relative(source: Path, stream: Path) -> str:
    return os.path.relpath(source.resolve(), stream.parent.resolve())
