"""Reading the events of a run, part by part, here or in processes of their own.

HDF5 and its Python side hold the interpreter while they read, so that whoever rebuilds and scores
would wait for it. A long run is therefore read by processes beside this one, into buffers that all
of them see; what passes between them is which buffer holds which events.
"""

import contextlib
import mmap
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import AttpcFilterError, InputError
from attpc_filter.formats import Events, Run, open_run
from attpc_filter.formats.run import Allocate, allocate_new
from attpc_filter.memory import count_helpers
from attpc_filter.records import N_TRACE_COLUMNS, Record
from attpc_filter.root_options import RootOptions
from attpc_filter.staging import check_interrupted

_TICK_S = 0.1
#: Batches in whose time a process has started (a third of a second).
_BATCHES_AT_START = 8
#: Batches that a process knows of.
_BATCHES_AHEAD = 4

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
    run: Run,
    options: RootOptions,
    batch_events: int,
    n_rows: int,
    n_buffers: int,
    n_processes: int,
) -> Generator[Part]:
    """Read all events of a run in such parts; processes of their own read batches in turn.

    The first events are read here, while the processes start.

    Parameters
    ----------
    run : Run
        The run; the processes open its file anew.
    options : RootOptions
        What to open it with.
    batch_events, n_rows : int
        As for :func:`read_parts`.
    n_buffers : int
        Buffers of each process.
    n_processes : int
        Processes.

    Yields
    ------
    Part
        As of :func:`read_parts`, and in the same order.

    Raises
    ------
    InputError
        If the file cannot be opened anew, or a process ends before its time.
    """
    n_here = _BATCHES_AT_START * batch_events
    batches = list(batches_of(run.events[n_here:], batch_events))
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(_reading_process(run.path, options, batches[k], n_rows, n_buffers))
            for k in range(min(n_processes, len(batches)))
        ]
        n_ahead = _BATCHES_AHEAD * len(readers)
        for index, events in enumerate(batches[:n_ahead]):
            readers[index % len(readers)].ask(events)
        stack.callback(lambda: count_helpers([reader.pid for reader in readers]))
        yield from read_parts(run, run.events[:n_here], batch_events, n_rows, n_buffers)
        for index, events in enumerate(batches):
            reader = readers[index % len(readers)]
            if index + n_ahead < len(batches):
                reader.ask(batches[index + n_ahead])
            left = len(events)
            while left:
                records, give_back = reader.next_part()
                left -= len(records)
                yield records, give_back


def can_read_beside() -> bool:
    """Whether this system has memory that processes share without a name (Linux)."""
    return hasattr(os, "memfd_create")


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


class _Reader:
    """A process that reads; made by :func:`_reading_process`."""

    def __init__(
        self, path: Path, process: subprocess.Popen[bytes], pipe: Connection, buffers: Buffer
    ) -> None:
        self.pid = process.pid
        self._path = path
        self._process = process
        self._pipe = pipe
        self._buffers = buffers
        self._sending = Lock()

    def begin(self, path: Path, options: RootOptions, events: Events, shape: Shape) -> None:
        """Have the run opened; some of its events are named, so that none are looked for."""
        self._send((path, options, events, shape))

    def ask(self, events: Events) -> None:
        """Have a batch read."""
        self._send(events)

    def give(self, slot: int) -> None:
        """Have a buffer filled, from any thread."""
        self._send(slot)

    def _send(self, message: object) -> None:
        # if the process is gone the next part says so, or nobody waits for one
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send(message)

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
        return records, partial(self.give, slot)


@contextlib.contextmanager
def _reading_process(
    path: Path, options: RootOptions, events: Events, n_rows: int, n_buffers: int
) -> Iterator[_Reader]:
    """Start a process that reads events of a run, some of which are given; ends with the block."""
    ours, theirs = Pipe()
    shape = (n_buffers, n_rows, N_TRACE_COLUMNS)
    memory = os.memfd_create("attpc-filter traces")  # gone when nobody holds it, however that ends
    try:
        os.ftruncate(memory, int(np.prod(shape)) * 2)
        buffers = _shared_buffers(memory, shape)
        passed = [theirs.fileno(), memory]
        process = subprocess.Popen(
            # the modules that this process has, and none that lies about in the working folder
            [sys.executable, "-P", "-m", "attpc_filter.reading", *map(str, passed)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=passed,
            start_new_session=True,  # Ctrl-C is this process's business
        )
    finally:
        os.close(memory)
        theirs.close()
    try:
        reader = _Reader(path, process, ours, buffers)
        reader.begin(path, options, events, shape)
        for slot in range(n_buffers):
            reader.give(slot)
        yield reader
    finally:
        process.kill()
        process.wait()
        ours.close()


def _shared_buffers(memory: int, shape: Shape) -> Buffer:
    return np.frombuffer(mmap.mmap(memory, int(np.prod(shape)) * 2), np.int16).reshape(shape)


# -------------------------------------------------------------------------- on the other side of it


def _serve(pipe: Connection, memory: int) -> None:
    """Read batches of events into buffers as both come in."""
    try:
        path, options, some_events, shape = pipe.recv()
        buffers = _shared_buffers(memory, shape)
        batches: deque[Events] = deque()
        slots: deque[int] = deque()
        with open_run(path, options, some_events) as run:
            while True:
                while not (batches and slots):
                    message = pipe.recv()
                    (slots if isinstance(message, int) else batches).append(message)
                slot, batch = slots.popleft(), batches.popleft()
                records = read_part(run, batch, buffers[slot])
                if left := batch[len(records) :]:
                    batches.appendleft(left)
                pipe.send((slot, records, _take_traces_out(records, buffers[slot])))
    except (EOFError, BrokenPipeError):
        return  # nobody wants it any more
    except AttpcFilterError as error:
        pipe.send(error)


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
