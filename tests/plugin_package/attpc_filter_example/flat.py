"""A format of three datasets: the numbers of the events, where their traces begin, all traces.

======== ======= ================= ==========================================================
dataset  type    shape             what
======== ======= ================= ==========================================================
numbers  integer (n,)              event numbers, ascending
starts   integer (n + 1,)          event i has the rows ``starts[i]`` to ``starts[i + 1]``
traces   int16   (m, 5 + samples)  CoBo, AsAd, AGET, channel, pad, and then the ADC samples
======== ======= ================= ==========================================================
"""

from pathlib import Path

import h5py
import numpy as np

from attpc_filter import (
    Allocate,
    Events,
    Format,
    Hits,
    InputError,
    InputFile,
    OutputError,
    Record,
    Run,
    Stream,
    StreamMode,
    UnreadableEvent,
    allocate_new,
)

_NAMES = ("numbers", "starts", "traces")
#: More traces than this are no event but a damaged table of starts.
_MOST_TRACES = 100_000


class FlatRun(Run):
    """A run in such a file; the object name of an event is its place in the tables."""

    format_name = "flat traces"

    def __init__(self, path: Path, file: h5py.File, events: Events | None) -> None:
        super().__init__(path)
        self._file = file
        self._traces = file["traces"]
        try:
            numbers, self._starts = file["numbers"][:], file["starts"][:]
        except OSError as error:
            raise InputError(f"{path}: damaged: {error}") from error
        if self._traces.ndim != 2 or self._starts.shape != (len(numbers) + 1,):
            raise InputError(f"{path}: damaged: its tables do not fit each other")
        self.n_samples = self._traces.shape[1] - 5
        found = [(int(number), str(place)) for place, number in enumerate(numbers)]
        self.events = found if events is None else events

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read the traces of one event."""
        try:
            return Record(event, name, traces=self._read_traces(int(name), allocate))
        except UnreadableEvent as error:
            return Record(event, name, reason=str(error))

    def _read_traces(self, place: int, allocate: Allocate) -> np.ndarray:
        start, stop = map(int, self._starts[place : place + 2])
        n_traces = stop - start
        if not (0 <= start <= stop <= len(self._traces)) or n_traces > _MOST_TRACES:
            raise UnreadableEvent(f"traces {start} to {stop}: the file has {len(self._traces)}")
        traces = allocate(n_traces)
        if traces.shape[1] != self._traces.shape[1]:  # made for another number of samples
            traces = np.empty((n_traces, self._traces.shape[1]), np.int16)
        if n_traces:
            try:
                self._traces.read_direct(traces, np.s_[start:stop])
            except OSError as error:
                raise UnreadableEvent(f"cannot be read: {error}") from error
        return traces

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FlatStream(Stream):
    """A stream: a file of the same format with copies of the events."""

    def __init__(self, run: FlatRun, path: Path) -> None:
        self._run = run
        self._numbers: list[int] = []
        self._starts = [0]
        try:
            self._file = h5py.File(path, "w")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error
        width = 5 + (run.n_samples or 0)
        self._traces = self._file.create_dataset(
            "traces", (0, width), np.int16, maxshape=(None, width), chunks=(64, width)
        )

    def add(self, record: Record, hits: Hits | None = None) -> None:
        """Copy an event; its traces are read again, for the record has lost them."""
        traces = self._run.read(record.event, record.name).traces
        rows = 0 if traces is None else len(traces)  # None: unreadable, an event without traces
        self._numbers.append(record.event)
        self._starts.append(self._starts[-1] + rows)
        try:
            self._traces.resize(self._starts[-1], axis=0)
            if traces is not None and rows:
                self._traces[self._starts[-2] :] = traces
        except OSError as error:
            raise OutputError(f"{self._file.filename}: cannot be written: {error}") from error

    def close(self) -> None:
        """Write the two small tables; check what the file holds."""
        path = Path(self._file.filename)
        try:
            self._file["numbers"] = np.array(self._numbers, np.int64)
            self._file["starts"] = np.array(self._starts, np.int64)
            self._file.close()
            with h5py.File(path) as file:
                is_whole = len(file["numbers"]) == len(self._numbers)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error
        if not is_whole:
            raise OutputError(f"{path}: not all events are in it")

    def abort(self) -> None:
        """Close the file as it is."""
        self._file.close()


def _recognise(file: InputFile) -> bool:
    return file.hdf5 is not None and all(
        isinstance(file.hdf5.get(name), h5py.Dataset) for name in _NAMES
    )


def _open(file: InputFile, events: Events | None) -> Run:
    assert file.hdf5 is not None
    return FlatRun(file.path, file.hdf5, events)


def _create_stream(run: Run, path: Path, mode: StreamMode, label: str) -> Stream:
    assert isinstance(run, FlatRun)
    if mode == "link":
        raise OutputError(f"{run.path}: rows of one table cannot be linked; give --streams copy")
    return FlatStream(run, path)


FORMAT = Format(FlatRun.format_name, _recognise, _open, _create_stream)
