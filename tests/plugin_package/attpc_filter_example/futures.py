"""An executor: the processes of Python's ``concurrent.futures``, a batch a task.

Executors that send batches to other machines look the same: the plan is pickled and sent once to
each worker, a task is the path of a run and the events of a batch, its result a tagged batch.
"""

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType

from attpc_filter import (
    Batch,
    Config,
    Events,
    Executor,
    InputError,
    Plan,
    Run,
    check_interrupted,
    load_in_process,
    open_run,
)

#: Batches under way for each worker.
_AHEAD = 3
#: In a worker: what it tags with.
_loaded: tuple[Plan, Executor] | None = None


def _load(plan: Plan) -> None:
    """In a worker, once: load the model."""
    global _loaded
    _loaded = plan, load_in_process(plan)


def _tag(path: Path, events: Events) -> Batch:
    """In a worker: tag a batch."""
    assert _loaded is not None
    plan, executor = _loaded
    with (
        open_run(path, plan.config.root_options, events) as run,
        executor.tag(run, [events]) as batches,
    ):
        return next(batches)


class Futures(Executor):
    """Tags in processes of ``concurrent.futures``."""

    name = "futures"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._pool: ProcessPoolExecutor | None = None

    def load(self, plan: Plan) -> None:
        """Start the workers with the plan."""
        context = multiprocessing.get_context("spawn")  # a fork would inherit locks and GPUs
        self._pool = ProcessPoolExecutor(self.config.n_threads, context, _load, (plan,))
        self.device = plan.config.device

    @contextlib.contextmanager
    def tag(self, run: Run, batches: list[Events]) -> Iterator[Iterator[Batch]]:
        """Have all batches tagged; give them in their order."""
        under_way: deque[Future[Batch]] = deque()
        try:
            yield self._tag(run, batches, under_way)
        finally:
            for future in under_way:
                future.cancel()

    def _tag(
        self, run: Run, batches: list[Events], under_way: "deque[Future[Batch]]"
    ) -> Iterator[Batch]:
        """Give the batches in their order; a few more than there are workers are under way."""
        assert self._pool is not None
        for index in range(-_AHEAD * self.config.n_threads, len(batches)):
            submitted = index + _AHEAD * self.config.n_threads
            if submitted < len(batches):
                under_way.append(self._pool.submit(_tag, run.path, batches[submitted]))
            if index >= 0:
                yield _result(run, under_way.popleft())

    def describe(self) -> str:
        """Say how many processes there are."""
        return f"{self.config.n_threads} processes of concurrent.futures"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _result(run: Run, future: "Future[Batch]") -> Batch:
    """Wait for a batch, and look for an interrupt ten times a second."""
    while True:
        check_interrupted()
        try:
            return future.result(timeout=0.1)
        except TimeoutError:
            continue
        except BrokenProcessPool as error:
            raise InputError(f"{run.path}: a process that tags it ended") from error
