"""Processes that tag beside this one: each reads, rebuilds and scores batches of a run by itself.

Python lets one thread at a time have the interpreter, and HDF5 keeps it while it reads: threads
would wait for one another. What passes between processes is which events are wanted, and what
became of them.
"""

import contextlib
import os
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attpc_filter.config import Config
from attpc_filter.errors import AttpcFilterError, InputError
from attpc_filter.formats import Events, Run, open_run
from attpc_filter.memory import helper_ends, helper_started, leave_out_numba_extensions
from attpc_filter.staging import check_interrupted
from attpc_filter.tagger import Batch, load_tagger, make_buffer, tag_batch

_TICK_S = 0.1
#: Batches that a process knows of: the one that it works on, the next, and one that has come.
_BATCHES_AHEAD = 3
#: More would wait for writing, which is one process's work.
_MOST_HELPERS = 8
_SINGLE_THREADED = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1"
)


class Helpers:
    """Processes that tag run after run; within ``with``. They start at once, and unasked.

    Parameters
    ----------
    config : Config
        Options, those of the job: a process for each of its threads, none for a single one.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._n = min(config.n_threads, _MOST_HELPERS) if config.n_threads > 1 else 0
        self._processes: list[_Helper] = []

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

    def wait(self) -> None:
        """Wait until all are ready.

        Raises
        ------
        UsageError
            If one of them cannot load the model, or the device is not there.
        """
        for process in self._processes:
            process.wait()

    def tag(self, run: Run, batches: list[Events]) -> Generator[Batch]:
        """Have batches of a run's events tagged.

        Parameters
        ----------
        run : Run
            The run; the processes open its file anew.
        batches : list of list of (int, str)
            Its events.

        Yields
        ------
        Batch
            In the order of the batches.

        Raises
        ------
        InputError
            If the file cannot be opened anew, or a process ends before its time.
        """
        with self._on_run(run.path, batches) as processes:
            n = len(processes)
            n_asked = min(_BATCHES_AHEAD * n, len(batches))
            for index in range(n_asked):
                processes[index % n].ask(batches[index])
            came: list[deque[Batch]] = [deque() for _ in processes]
            for index in range(len(batches)):
                # whoever is done is heard, not only whose turn it is: it would wait to be rid of it
                while not came[index % n]:
                    for process in _wait_for_any(processes):
                        came[processes.index(process)].append(process.next_batch())
                if n_asked < len(batches):
                    processes[n_asked % n].ask(batches[n_asked])
                    n_asked += 1
                yield came[index % n].popleft()

    @contextlib.contextmanager
    def _on_run(self, path: Path, batches: list[Events]) -> Iterator[list["_Helper"]]:
        """Have a run opened, by no more processes than it has batches.

        Those that are not done with at the end are replaced before the next run.
        """
        self._start_those_missing()
        processes = self._processes[: len(batches)]
        try:
            for process, events in zip(processes, batches, strict=False):
                process.begin(path, events)
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
            self._processes.append(_Helper(self._config))


# ------------------------------------------------------------------------- on this side of the pipe


def _wait_for_any(processes: list["_Helper"]) -> list["_Helper"]:
    """Those of the processes that have something to say; waits until there is one."""
    while True:
        check_interrupted()
        ready = wait([process.pipe for process in processes], _TICK_S)
        if ready:
            return [process for process in processes if process.pipe in ready]


class _Helper:
    """A process that tags."""

    def __init__(self, config: Config) -> None:
        self._path = Path(config.model)  # until there is a run
        self._n_asked = 0  # batches that have not come
        self._is_ready = False
        self.pipe, theirs = Pipe()
        try:
            self._process = subprocess.Popen(
                # the modules that this process has, and none that lies about in the working folder
                [sys.executable, "-P", "-m", "attpc_filter.helpers", str(theirs.fileno())],
                env=os.environ
                | _SINGLE_THREADED
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is this process's business
            )
        except BaseException:
            self.pipe.close()
            raise
        finally:
            theirs.close()
        helper_started(self._process.pid)
        self._send(config)

    def begin(self, path: Path, events: Events) -> None:
        """Have a run opened; some of its events are named, so that none are looked for."""
        self._path = path
        self._send((path, events))

    def ask(self, events: Events) -> None:
        """Have a batch tagged."""
        self._n_asked += 1
        self._send(events)

    def next_batch(self) -> Batch:
        """Wait for the next batch."""
        self.wait()
        batch: Batch = self._receive()
        self._n_asked -= 1
        return batch

    def wait(self) -> None:
        """Wait until the process is ready."""
        if not self._is_ready:
            self._receive()
            self._is_ready = True

    def _receive(self) -> Any:
        try:
            while not self.pipe.poll(_TICK_S):
                check_interrupted()
            reply = self.pipe.recv()
        except (EOFError, OSError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_TICK_S)
            raise InputError(
                f"{self._path}: a process that tags it ended (exit status"
                f" {self._process.returncode}; -9: killed, mostly for want of memory);"
                " --threads 1 does without"
            ) from error
        check_interrupted()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def end(self) -> bool:
        """Have the run closed; False if it is not done with, or the process is not there."""
        if self._n_asked:
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
        self.pipe.close()

    def _send(self, message: object) -> None:
        # if the process is gone the next batch says so, or nobody waits for one
        with contextlib.suppress(OSError):
            self.pipe.send(message)


# -------------------------------------------------------------------------- on the other side of it


def _serve(pipe: Connection) -> None:
    """Tag batches of events, of run after run, as they are asked for."""
    leave_out_numba_extensions()
    try:
        config: Config = pipe.recv()
        tagger = load_tagger(config)
        buffer = make_buffer(tagger)
        pipe.send(None)  # ready
        while True:
            wanted = pipe.recv()
            if wanted is None:
                continue
            path, some_events = wanted
            with open_run(path, config.root_options, some_events) as run:
                while (events := pipe.recv()) is not None:
                    pipe.send(tag_batch(run, events, tagger, buffer))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody wants it any more
    except AttpcFilterError as error:
        pipe.send(error)
    except Exception as error:  # noqa: BLE001  told where it matters
        traceback.print_exc()
        pipe.send(error)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
