"""Executors: what tags the events of runs with a plan. Here the seam, and the one in this process.

Other distributions add executors by the entry point group ``attpc_filter.executors``: the name of
the entry point is what ``--executor`` takes, its object a subclass of :class:`Executor`.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import ClassVar, Self

from attpc_filter.config import Config
from attpc_filter.formats.run import Events, Run
from attpc_filter.interrupts import check_interrupted, interrupts_noted
from attpc_filter.tagging.batch import Batch
from attpc_filter.tagging.plan import Plan
from attpc_filter.tagging.stages import BATCH_EVENTS, Stages


class Executor(ABC):
    """Tags the events of run after run; within ``with``.

    The order of calls: enter, :meth:`load`, :meth:`wait`, then :meth:`tag` as often as wanted, one
    run at a time. Entering may start what takes long, such as processes, before there is a plan.

    Parameters
    ----------
    config : Config
        Options.

    Attributes
    ----------
    name : str
        What ``--executor`` calls it.
    device : str
        What the model runs on, once it is ready: ``cpu``, ``cuda`` or ``cuda:N``.
    """

    name: ClassVar[str]
    device: str = ""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def load(self, plan: Plan) -> None:
        """Take the plan that all runs are tagged with; need not wait until all is ready."""

    def wait(self) -> None:  # noqa: B027  nothing to wait for is usual
        """Wait until it is ready to tag.

        Raises
        ------
        UsageError
            If the device is not there.
        """

    @abstractmethod
    def tag(self, run: Run, batches: list[Events]) -> AbstractContextManager[Iterator[Batch]]:
        """Tag batches of a run's events; within ``with``, which ends the work at the latest.

        Parameters
        ----------
        run : Run
            The open run. A worker in another process opens its file again.
        batches : list of list of (int, str)
            Its events.

        Returns
        -------
        context manager of iterator of Batch
            In the order of the batches.

        Raises
        ------
        InputError
            If the run cannot be read or tagged.
        """

    def describe(self) -> str:
        """Say in a few words what it is."""
        return self.name

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027  nothing to free is usual
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free what it holds."""


class InProcess(Executor):
    """Tags in this process, on one core."""

    name = "in-process"

    def load(self, plan: Plan) -> None:
        """Load the model and compile the kernels."""
        self.stages = Stages(plan)
        self.device = self.stages.device

    @contextlib.contextmanager
    def tag(self, run: Run, batches: list[Events]) -> Iterator[Iterator[Batch]]:
        """Tag batches of a run's events."""
        yield self._tag(run, batches)

    def _tag(self, run: Run, batches: list[Events]) -> Iterator[Batch]:
        for events in batches:
            check_interrupted()
            yield self.stages.tag_batch(run, events)

    def describe(self) -> str:
        """Say what it is."""
        return "this process"


@contextlib.contextmanager
def tag_events(
    run: Run, plan: Plan, executor: Executor, events: Events | None = None
) -> Iterator[Iterator[Batch]]:
    """Have events of a run tagged, in their order; within ``with``.

    Parameters
    ----------
    run : Run
        The open run.
    plan : Plan
        What the executor has loaded.
    executor : Executor
        Does the work, and begins at once.
    events : list of (int, str), optional
        Which of its events; all if left out.

    Yields
    ------
    iterator of Batch
        Events with scores and tags.

    Raises
    ------
    InputError
        If the plan does not fit the run, or the run cannot be tagged.
    """
    plan.check_run(run)
    events = run.events if events is None else events
    batches = [events[i : i + BATCH_EVENTS] for i in range(0, len(events), BATCH_EVENTS)]
    with interrupts_noted(), executor.tag(run, batches) as tagged:
        yield tagged
