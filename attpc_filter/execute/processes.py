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
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attpc_filter.config import Config
from attpc_filter.errors import AttpcFilterError, InputError
from attpc_filter.execute.memory import helper_ends, helper_started, leave_out_numba_extensions
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Events, Run
from attpc_filter.interrupts import check_interrupted
from attpc_filter.tagging.stages import Batch, load_tagger, make_buffer, tag_batch

_TICK_S = 0.1
#: Batches a process that are under way: one that it works on, the next, and one that has come.
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

    @property
    def device(self) -> str:
        """What they score on, once they are ready."""
        return self._processes[0].device

    @contextlib.contextmanager
    def tag(self, run: Run, batches: list[Events]) -> Iterator[Iterator[Batch]]:
        """Have batches of a run's events tagged; they begin at once.

        Those that are not done with at the end are replaced before the next run.

        Parameters
        ----------
        run : Run
            The run; the processes open its file anew, no more of them than it has batches.
        batches : list of list of (int, str)
            Its events.

        Yields
        ------
        iterator of Batch
            In the order of the batches.

        Raises
        ------
        InputError
            If the file cannot be opened anew, or a process ends before its time.
        """
        self._start_those_missing()
        processes = self._processes[: len(batches)]
        try:
            for process in processes:
                process.begin(run.path, batches[0])
            work = deque(enumerate(batches))
            most = _BATCHES_AHEAD * len(processes)
            _hand_out(work, most, processes)
            yield _collect(work, most, processes, len(batches))
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


#: Batches that nobody has been asked for, with their places in the run.
_Work = deque[tuple[int, Events]]


def _hand_out(work: _Work, stop: int, processes: list["_Helper"]) -> None:
    """Ask for the batches before ``stop``, each of the process that is asked for the fewest."""
    while work and work[0][0] < stop:
        min(processes, key=lambda process: len(process.asked)).ask(*work.popleft())


def _collect(work: _Work, most: int, processes: list["_Helper"], n_batches: int) -> Iterator[Batch]:
    """Batches in their order, with so many at most under way."""
    came: dict[int, Batch] = {}
    for index in range(n_batches):
        _hand_out(work, index + most, processes)
        while index not in came:
            # whoever is done is heard, not only whose turn it is: it would wait to be rid of it
            for process in _wait_for_any([process for process in processes if process.asked]):
                came.update([process.next_batch()])
        yield came.pop(index)


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
        self.asked: deque[int] = deque()  # places in the run of batches that have not come
        self.device = ""  # until it is ready
        self.pipe, theirs = Pipe()
        try:
            self._process = subprocess.Popen(
                # the modules that this process has, and none that lies about in the working folder
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "attpc_filter.execute.processes",
                    str(theirs.fileno()),
                ],
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

    def ask(self, index: int, events: Events) -> None:
        """Have a batch tagged."""
        self.asked.append(index)
        self._send(events)

    def next_batch(self) -> tuple[int, Batch]:
        """Wait for the next batch; its place in the run, and the batch."""
        self.wait()
        batch: Batch = self._receive()
        return self.asked.popleft(), batch

    def wait(self) -> None:
        """Wait until the process is ready."""
        if not self.device:
            self.device = self._receive()

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
        if self.asked:
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
        pipe.send(tagger.scorer.device)  # ready
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
