"""Memory and processor time of this process and its workers."""

import os
import re
import resource
import sys
import time
from pathlib import Path

_workers: set[int] = set()
_most_of_workers = 0


def leave_out_numba_extensions() -> None:
    """Have numba load nothing that other packages register with it.

    It would import them whole (awkward, vector, sympy where they are installed) before the first
    kernel runs: a second and 100 MB that nothing here needs. Call it only in the worker processes
    of attpc-filter: a host program may need those packages.
    """
    from numba.core import entrypoints

    entrypoints._already_initialized = True


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, and with it what its workers have besides.

    The two largest sizes are added, whenever they were: an upper bound.
    """
    own = _kilobytes("self", "VmHWM")
    if own is None:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    _look_at_workers()
    return own * 1024 + _most_of_workers


def cpu_seconds() -> float:
    """Processor time that this process and its workers have used so far [s]."""
    times = os.times()  # of workers that have ended, in steps of 10 ms
    ended = times.children_user + times.children_system
    return time.process_time() + ended + sum(map(_cpu_seconds_of, _workers))


def worker_started(process: int) -> None:
    """Count a process that works for this one."""
    _workers.add(process)


def worker_ends(process: int) -> None:
    """Stop counting a process; call this before the process ends."""
    _look_at_workers()
    _workers.discard(process)


def _look_at_workers() -> None:
    """Update the largest memory of the workers.

    Only memory that a worker does not share is added. Shared libraries and buffers are already in
    the size of this process.
    """
    global _most_of_workers
    sizes = [_kilobytes(str(process), "RssAnon") or 0 for process in _workers]
    _most_of_workers = max(_most_of_workers, sum(sizes) * 1024)


def _cpu_seconds_of(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _kilobytes(process: str, entry: str) -> int | None:
    """An entry of what Linux says of a process's memory.

    ``VmHWM`` counts a program alone, where ``ru_maxrss`` starts with the size of its parent.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(rf"{entry}:\s*(\d+) kB", status)
    return int(found[1]) if found else None
