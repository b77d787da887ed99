"""The executor that the options name: one of ours, or of another distribution."""

from importlib.metadata import entry_points
from typing import Any

from attpc_filter.config import Config
from attpc_filter.errors import UsageError
from attpc_filter.execute.base import Executor, InProcess
from attpc_filter.execute.processes import WorkerPool

#: Entry points of other distributions' executors.
GROUP = "attpc_filter.executors"


def make_executor(config: Config) -> Executor:
    """The executor that the options name; ``auto``: processes for more than one thread.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    own: dict[str, type[Executor]] = {kind.name: kind for kind in (InProcess, WorkerPool)}
    name = config.executor
    if name == "auto":
        name = (WorkerPool if config.n_threads > 1 else InProcess).name
    if name in own:
        return own[name](config)
    found = entry_points(group=GROUP)
    for point in found.select(name=name):
        try:
            kind: Any = point.load()
        except Exception as error:
            raise UsageError(f"executor {name}: {point.value} cannot be loaded: {error}") from error
        executor: Executor = kind(config)
        return executor
    raise UsageError(f"executor: {name!r} is none of {', '.join(['auto', *own, *found.names])}")
