"""Reading the events of a run, part by part, here or in processes of their own.

HDF5 and its Python side hold the interpreter while they read, so that whoever rebuilds and scores
would wait for it. With more than one thread, runs are therefore read by processes beside this one,
into buffers that all of them see; what passes between them is which buffer holds which events.
"""

import contextlib
import mmap
import os
import resource
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import AttpcFilterError, InputError
from attpc_filter.formats import Events, Run, open_run
from attpc_filter.formats.run import Allocate, allocate_new
from attpc_filter.memory import helper_ends, helper_started
from attpc_filter.records import N_TRACE_COLUMNS, Record
from attpc_filter.root_options import RootOptions
from attpc_filter.staging import check_interrupted

_TICK_S = 0.1
#: Batches that a process knows of.
_BATCHES_AHEAD = 4

#: Far more than buffers need.
_MOST_SHARED_BYTES = 1 << 30

#: Room for traces, int16 of shape (rows, 517).
Buffer = NDArray[np.int16]
#: Buffers, rows, columns.
Shape = tuple[int, int, int]
#: Events whose traces lie in one buffer, and what gives that buffer back, from any thread.
Part = tuple[list[Record], Callable[[], None]]


def read_parts(
    run: Run, events: Events, batch_events: int, n_rows: int, n_buffers: int
) -> Generator[Part]:
    """Read events in parts whose traces lie in one buffer each.

    Parameters
    ----------
    run : Run
        The open run.
    events : list of (int, str)
        Which of its events.
    batch_events : int
        No part crosses a multiple of so many events.
    n_rows : int
        Traces that a buffer holds; an event of more gets an array of its own.
    n_buffers : int
        Buffers; while all are in use, the next part waits until one is given back.

    Yields
    ------
    Part
        Events in their order, and what gives the buffer back.
    """
    free: SimpleQueue[Buffer] = SimpleQueue()
    for _ in range(n_buffers):
        free.put(np.empty((n_rows, N_TRACE_COLUMNS), np.int16))
    for batch in batches_of(events, batch_events):
        while batch:
            buffer = None
            while buffer is None:
                with contextlib.suppress(Empty):
                    buffer = free.get(timeout=_TICK_S)
                check_interrupted()
            records = read_part(run, batch, buffer)
            batch = batch[len(records) :]
            yield records, partial(free.put, buffer)


def read_parts_beside(
    readers: "Readers",
    run: Run,
    options: RootOptions,
    batch_events: int,
    n_rows: int,
    n_buffers: int,
) -> Generator[Part]:
    """Read all events of a run in such parts; processes of their own read batches in turn.

    Parameters
    ----------
    readers : Readers
        The processes.
    run : Run
        The run; the processes open its file anew.
    options : RootOptions
        What to open it with.
    batch_events, n_rows : int
        As for :func:`read_parts`.
    n_buffers : int
        Buffers of each process.

    Yields
    ------
    Part
        As of :func:`read_parts`, and in the same order.

    Raises
    ------
    InputError
        If the file cannot be opened anew, or a process ends before its time.
    """
    batches = list(batches_of(run.events, batch_events))
    shape = (n_buffers, n_rows, N_TRACE_COLUMNS)
    with readers.on_run(run.path, options, batches, shape) as processes:
        n_ahead = _BATCHES_AHEAD * len(processes)
        for index, events in enumerate(batches[:n_ahead]):
            processes[index % len(processes)].ask(events)
        for index, events in enumerate(batches):
            process = processes[index % len(processes)]
            if index + n_ahead < len(batches):
                process.ask(batches[index + n_ahead])
            left = len(events)
            while left:
                records, give_back = process.next_part()
                left -= len(records)
                yield records, give_back


def can_read_beside() -> bool:
    """Whether this system has memory that processes share without a name (Linux), and lends it."""
    if not hasattr(os, "memfd_create"):
        return False
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]  # such memory is a file to the system
    return most == resource.RLIM_INFINITY or most > _MOST_SHARED_BYTES


def batches_of(events: Events, batch_events: int) -> Iterator[Events]:
    """Events in groups of so many."""
    for start in range(0, len(events), batch_events):
        yield events[start : start + batch_events]


def read_part(run: Run, events: Events, buffer: Buffer) -> list[Record]:
    """Read events until the buffer has hardly room for another of their size."""
    used = 0

    def allocate(rows: int) -> NDArray[np.int16]:
        nonlocal used
        used += rows
        return buffer[used - rows : used] if used <= len(buffer) else allocate_new(rows)

    room: Allocate = allocate
    records: list[Record] = []
    for event, name in events:
        records.append(run.read(event, name, room))
        if used + used / len(records) > len(buffer):
            break
    return records


# ------------------------------------------------------------------------- on this side of the pipe


class Readers:
    """Processes that read, for run after run; within ``with``. They start at once, and unasked.

    Parameters
    ----------
    n_processes : int
        How many; none where :func:`can_read_beside` says no.
    """

    def __init__(self, n_processes: int) -> None:
        self._n = n_processes if can_read_beside() else 0
        self._processes: list[_Reader] = []

    def __len__(self) -> int:
        return self._n

    def __enter__(self) -> Self:
        self._start_those_missing()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
        self._processes.clear()

    @contextlib.contextmanager
    def on_run(
        self, path: Path, options: RootOptions, batches: list[Events], shape: Shape
    ) -> Iterator[list["_Reader"]]:
        """Have a run opened, by no more processes than it has batches.

        Those that are not done with at the end are replaced before the next run.
        """
        self._start_those_missing()
        processes = self._processes[: len(batches)]
        try:
            for process, events in zip(processes, batches, strict=False):
                process.begin(path, options, events, shape)
            yield processes
        finally:
            for process in processes:
                if not process.end():
                    process.kill()
                    self._processes.remove(process)

    def _start_those_missing(self) -> None:
        for process in [process for process in self._processes if not process.is_there()]:
            process.kill()
            self._processes.remove(process)
        while len(self._processes) < self._n:
            self._processes.append(_Reader())


class _Reader:
    """A process that reads."""

    def __init__(self) -> None:
        self._path = Path()
        self._sending = Lock()
        self._n_events = 0  # that were asked for and have not come
        self._n_parts = 0  # that came and whose buffers were not given back
        self._buffers: Buffer = np.empty((0, 0, 0), np.int16)
        # gone when nobody holds it, however that ends
        self._memory = os.memfd_create("attpc-filter traces")
        self._pipe, theirs = Pipe()
        passed = [theirs.fileno(), self._memory]
        alone = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
        try:
            self._process = subprocess.Popen(
                # the modules that this process has, and none that lies about in the working folder
                [sys.executable, "-P", "-m", "attpc_filter.reading", *map(str, passed)],
                env=os.environ | alone | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C is this process's business
            )
        except BaseException:
            os.close(self._memory)
            self._pipe.close()
            raise
        finally:
            theirs.close()
        helper_started(self._process.pid)

    def begin(self, path: Path, options: RootOptions, events: Events, shape: Shape) -> None:
        """Have a run opened; some of its events are named, so that none are looked for."""
        self._path = path
        if self._buffers.shape != shape:
            os.ftruncate(self._memory, int(np.prod(shape)) * 2)
            self._buffers = _shared_buffers(self._memory, shape)
        self._send((path, options, events, shape))
        for slot in range(shape[0]):
            self._send(slot)

    def ask(self, events: Events) -> None:
        """Have a batch read."""
        self._n_events += len(events)
        self._send(events)

    def next_part(self) -> Part:
        """Wait for the next part."""
        try:
            while not self._pipe.poll(_TICK_S):
                check_interrupted()
            reply = self._pipe.recv()
        except (EOFError, OSError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_TICK_S)
            raise InputError(
                f"{self._path}: the process that reads it ended (exit status"
                f" {self._process.returncode}; -9: killed, mostly for want of memory);"
                " --threads 1 does without"
            ) from error
        check_interrupted()
        if isinstance(reply, Exception):
            raise reply
        slot, records, starts = reply
        for record, (start, stop) in starts:
            records[record].traces = self._buffers[slot, start:stop]
        self._n_events -= len(records)
        with self._sending:
            self._n_parts += 1
        return records, partial(self._give, slot)

    def end(self) -> bool:
        """Have the run closed; False if it is not done with, or the process is not there."""
        if self._n_events or self._n_parts:
            return False
        self._send(None)
        return self.is_there()

    def is_there(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process."""
        helper_ends(self._process.pid)
        self._process.kill()
        self._process.wait()
        with self._sending:
            self._pipe.close()
        os.close(self._memory)

    def _give(self, slot: int) -> None:
        """Have a buffer filled, from any thread."""
        self._send(slot)
        with self._sending:
            self._n_parts -= 1

    def _send(self, message: object) -> None:
        # if the process is gone the next part says so, or nobody waits for one
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send(message)


def _shared_buffers(memory: int, shape: Shape) -> Buffer:
    return np.frombuffer(mmap.mmap(memory, int(np.prod(shape)) * 2), np.int16).reshape(shape)


# -------------------------------------------------------------------------- on the other side of it


def _serve(pipe: Connection, memory: int) -> None:
    """Read runs, one after the other, as they are asked for."""
    try:
        while True:
            wanted = pipe.recv()
            if wanted is None:
                continue
            path, options, some_events, shape = wanted
            buffers = _shared_buffers(memory, shape)
            with open_run(path, options, some_events) as run:
                _serve_run(run, pipe, buffers)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody wants it any more
    except AttpcFilterError as error:
        pipe.send(error)


def _serve_run(run: Run, pipe: Connection, buffers: Buffer) -> None:
    """Read batches of events into buffers as both come in, until there are no more."""
    batches: deque[Events] = deque()
    slots: deque[int] = deque()
    while True:
        while not (batches and slots):
            message = pipe.recv()
            if message is None:
                return
            (slots if isinstance(message, int) else batches).append(message)
        slot, batch = slots.popleft(), batches.popleft()
        records = read_part(run, batch, buffers[slot])
        if left := batch[len(records) :]:
            batches.appendleft(left)
        pipe.send((slot, records, _take_traces_out(records, buffers[slot])))


def _take_traces_out(records: list[Record], buffer: Buffer) -> list[tuple[int, tuple[int, int]]]:
    """Replace traces that lie in the buffer by where they lie: index of the record, rows."""
    begin = buffer.__array_interface__["data"][0]
    places = []
    for index, record in enumerate(records):
        if record.traces is not None and np.may_share_memory(record.traces, buffer):
            offset = record.traces.__array_interface__["data"][0] - begin
            start = offset // buffer.strides[0]
            places.append((index, (start, start + len(record.traces))))
            record.traces = None
    return places


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
