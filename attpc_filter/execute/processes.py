"""Worker processes: each reads, rebuilds and scores batches of a run by itself.

Python lets one thread at a time have the interpreter, and HDF5 keeps it while it reads: threads
would wait for one another. What passes between processes is which events are wanted, and the
tagged batches.

Native code (HDF5, ONNX Runtime) can crash or never return on a damaged event or model. A worker
that crashes on a batch, or has made no progress on it for ``step_timeout`` seconds, is ended. Its
batch is done again event by event in a fresh worker; an event that ends that one too is tagged
unreadable, and the run goes on.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attpc_filter.compiled import is_compiled
from attpc_filter.config import Config
from attpc_filter.errors import AttpcFilterError, InputError
from attpc_filter.execute.base import Executor
from attpc_filter.execute.memory import (
    leave_out_numba_extensions,
    worker_ends,
    worker_started,
)
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Events, Run
from attpc_filter.interrupts import check_interrupted
from attpc_filter.tagging.batch import Batch, join_batches
from attpc_filter.tagging.plan import Plan
from attpc_filter.tagging.stages import Stages, set_aside
from attpc_filter.tagging.warm import LINKING, compile_for_writing

_TICK_S = 0.1
#: Batches a worker that are under way: one that it works on, the next, and one that has come.
_BATCHES_AHEAD = 3
#: More workers would wait for writing, which is one process's work.
_MOST_WORKERS = 8
#: If more events of a run end their workers, the events are not to blame.
_MOST_SET_ASIDE = 20
_SINGLE_THREADED = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1"
)
#: Signals that a process gets for what its native code did.
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


class WorkerPool(Executor):
    """Processes that tag run after run; within ``with``, where they start at once.

    Parameters
    ----------
    config : Config
        Options: a process for each thread.
    """

    name = "processes"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._n = min(config.n_threads, _MOST_WORKERS)
        self._plan: Plan | None = None
        self._workers: list[_Worker] = []

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
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def load(self, plan: Plan) -> None:
        """Send the plan to the workers."""
        self._plan = plan
        for worker in self._workers:
            worker.load(plan)
        if not is_compiled(LINKING):  # while the workers compile what they need
            compile_for_writing()

    def wait(self) -> None:
        """Wait until all workers are ready."""
        for worker in self._workers:
            worker.wait()
        self.device = self._workers[0].device

    def describe(self) -> str:
        """Say how many there are."""
        return f"{self._n} processes"

    @contextlib.contextmanager
    def tag(self, run: Run, batches: list[Events]) -> Iterator[Iterator[Batch]]:
        """Have batches of a run's events tagged.

        Workers that are not done with them at the end are replaced before the next run.

        Raises
        ------
        InputError
            If the file cannot be opened anew, a worker was killed (mostly for want of memory), or
            too many events end their workers.
        """
        assert self._plan is not None
        self._start_those_missing()
        workers = self._workers[: len(batches)]
        job = _RunJob(run, batches, self._plan, workers)
        try:
            yield job.tag()
        finally:
            self._workers[: len(workers)] = job.workers
            for worker in job.workers:
                if not worker.end():
                    worker.kill()
                    self._workers.remove(worker)

    def _start_those_missing(self) -> None:
        for worker in [worker for worker in self._workers if not worker.is_there()]:
            worker.kill()
            self._workers.remove(worker)
        while len(self._workers) < self._n:
            self._workers.append(_start_worker(self._plan))


# ------------------------------------------------------------------------- on this side of the pipe


class _WorkerLost(Exception):
    """A worker crashed in native code, or made no progress; the message says which."""


class _RunJob:
    """The batches of one run, by some workers."""

    def __init__(
        self, run: Run, batches: list[Events], plan: Plan, workers: list["_Worker"]
    ) -> None:
        self.workers = workers
        self._run = run
        self._plan = plan
        self._n_batches = len(batches)
        self._work = deque(enumerate(batches))  # batches that no worker has been asked for
        self._came: dict[int, Batch] = {}  # batches by their place in the run
        self._n_set_aside = 0
        for worker in workers:
            worker.begin(run.path, batches[0])
        self._hand_out(_BATCHES_AHEAD * len(workers))

    def tag(self) -> Iterator[Batch]:
        """Give the batches in their order; a limited number is under way."""
        most = _BATCHES_AHEAD * len(self.workers)
        for index in range(self._n_batches):
            self._hand_out(index + most)
            while index not in self._came:
                # drain every worker that has a result: an unread one blocks in send()
                for place in self._wait_for_any():
                    self._receive(place)
            yield self._came.pop(index)

    def _hand_out(self, stop: int) -> None:
        """Ask for the batches before ``stop``, each of the worker that is asked for the fewest."""
        while self._work and self._work[0][0] < stop:
            min(self.workers, key=lambda worker: len(worker.asked)).ask(*self._work.popleft())

    def _wait_for_any(self) -> list[int]:
        """Places of workers that have a result, or have ended, or are stuck; waits for one."""
        while True:
            check_interrupted()
            busy = [place for place, worker in enumerate(self.workers) if worker.asked]
            ready = wait([self.workers[place].pipe for place in busy], _TICK_S)
            if found := [place for place in busy if self.workers[place].pipe in ready]:
                return found
            limit = self._plan.config.step_timeout
            if found := [place for place in busy if self.workers[place].is_stuck(limit)]:
                return found

    def _receive(self, place: int) -> None:
        worker = self.workers[place]
        try:
            if not worker.pipe.poll():
                raise _WorkerLost(worker.why_stuck())
            if not worker.device:  # its first message says that it is ready
                worker.wait()
                return
            self._came.update([worker.next_batch()])
        except _WorkerLost as lost:
            (index, events), *others = worker.asked
            self._work.extendleft(reversed(others))
            self._replace(place)
            self._came[index] = self._event_by_event(place, events, str(lost))

    def _event_by_event(self, place: int, events: Events, why: str) -> Batch:
        """Tag a batch that ended its worker event by event; set aside those that do it again."""
        done = []
        for event, name in events:
            worker = self.workers[place]
            worker.ask(0, [(event, name)])
            try:
                limit = self._plan.config.step_timeout
                while not worker.pipe.poll(_TICK_S):
                    check_interrupted()
                    if worker.is_stuck(limit):
                        raise _WorkerLost(worker.why_stuck())
                done.append(worker.next_batch()[1])
            except _WorkerLost as lost:
                self._n_set_aside += 1
                if self._n_set_aside > _MOST_SET_ASIDE:
                    raise InputError(
                        f"{self._run.path}: more than {_MOST_SET_ASIDE} events each ended a worker"
                        f" process ({why}); the file or the model cannot be used"
                    ) from None
                self._replace(place)
                done.append(set_aside(self._run, self._plan, event, name, str(lost)))
        return join_batches(done)

    def _replace(self, place: int) -> None:
        """Start a fresh worker in place of a lost one."""
        self.workers[place].kill()
        self.workers[place] = worker = _start_worker(self._plan)
        worker.begin(self._run.path, self._run.events[:1])
        worker.wait()


def _start_worker(plan: Plan | None) -> "_Worker":
    worker = _Worker()
    if plan is not None:
        worker.load(plan)
    return worker


class _Worker:
    """A process that tags."""

    def __init__(self) -> None:
        self._what = "attpc-filter"  # until there is a run
        self.asked: deque[tuple[int, Events]] = deque()  # batches that have not come
        self._progress = 0.0  # when it began with the first of them [s]
        self.device = ""  # until it is ready
        self.pipe, theirs = Pipe()
        # nothing is written to this one: its end says that this process has ended
        parent_lives, self._alive = os.pipe()
        try:
            self._process = subprocess.Popen(
                # import what this process imports, and nothing from the working folder (-P)
                [
                    *(sys.executable, "-P", "-m", "attpc_filter.execute.processes"),
                    *(str(theirs.fileno()), str(parent_lives)),
                ],
                env=os.environ
                | _SINGLE_THREADED
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=[theirs.fileno(), parent_lives],
                start_new_session=True,  # Ctrl-C is this process's business
            )
        except BaseException:
            self.pipe.close()
            os.close(self._alive)
            raise
        finally:
            theirs.close()
            os.close(parent_lives)
        worker_started(self._process.pid)

    def load(self, plan: Plan) -> None:
        """Have the plan made ready."""
        self._what = str(plan.bundle.path)
        self._send(plan)

    def begin(self, path: Path, events: Events) -> None:
        """Have a run opened; some of its events are named, so that none are looked for."""
        self._what = str(path)
        self._send((path, events))

    def ask(self, index: int, events: Events) -> None:
        """Have a batch tagged."""
        if not self.asked:
            self._progress = time.monotonic()
        self.asked.append((index, events))
        self._send(events)

    def is_stuck(self, limit_s: float) -> bool:
        """Whether it has been at one batch for longer than allowed; 0 allows any time."""
        return bool(limit_s and self.device and time.monotonic() - self._progress > limit_s)

    def why_stuck(self) -> str:
        """Say how long it has made no progress."""
        return f"no progress for {time.monotonic() - self._progress:.0f} s (step_timeout)"

    def next_batch(self) -> tuple[int, Batch]:
        """Wait for the next batch; its place in the run, and the batch."""
        self.wait()
        batch: Batch = self._receive()
        self._progress = time.monotonic()
        return self.asked.popleft()[0], batch

    def wait(self) -> None:
        """Wait until the worker is ready."""
        if not self.device:
            self.device = self._receive()
            self._progress = time.monotonic()

    def _receive(self) -> Any:
        try:
            while not self.pipe.poll(_TICK_S):
                check_interrupted()
            reply = self.pipe.recv()
        except (EOFError, OSError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10 * _TICK_S)
            code = self._process.returncode
            if self.device and code is not None and -code in _CRASHES:
                name = signal.Signals(-code).name
                raise _WorkerLost(f"a worker process crashed on it ({name})") from error
            raise InputError(
                f"{self._what}: a process that tags it ended (exit status {code}; -9: killed,"
                " mostly for want of memory); --threads 1 does without"
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
        worker_ends(self._process.pid)
        self._process.kill()
        self._process.wait()
        self.pipe.close()
        os.close(self._alive)

    def _send(self, message: object) -> None:
        # a worker that has ended is noticed when its next batch is received
        with contextlib.suppress(OSError):
            self.pipe.send(message)


# -------------------------------------------------------------------------- on the other side of it


def _end_with_parent(pipe: int) -> None:
    """Have the system end this process when its parent ends, also in the middle of native code.

    The parent holds the other end of a pipe and writes nothing. The system sends a signal when that
    end is closed. (``PR_SET_PDEATHSIG`` would send it when the *thread* that started this process
    ends.)

    Parameters
    ----------
    pipe : int
        File descriptor to read from.
    """
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    if sys.platform == "linux":
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)  # elsewhere SIGIO, which also ends it
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # the parent had ended before
        sys.exit(0)


def _serve(pipe: Connection) -> None:
    """Tag batches of events, of run after run, as they are asked for."""
    leave_out_numba_extensions()
    try:
        plan: Plan = pipe.recv()
        stages = Stages(plan)
        pipe.send(stages.device)  # ready
        while True:
            wanted = pipe.recv()
            if wanted is None:
                continue
            path, some_events = wanted
            channels = plan.detector.channels
            with open_run(
                path, plan.config.root_options, some_events, channels, plan.config.follow_links
            ) as run:
                while (events := pipe.recv()) is not None:
                    pipe.send(stages.tag_batch(run, events))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pipe
    except AttpcFilterError as error:
        pipe.send(error)
    except Exception as error:  # noqa: BLE001  told where it matters
        traceback.print_exc()
        pipe.send(error)


if __name__ == "__main__":
    _end_with_parent(int(sys.argv[2]))
    _serve(Connection(int(sys.argv[1])))
