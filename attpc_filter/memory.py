"""Peak memory of this process and of those that read for it."""

import os
import re
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

_most_of_helpers = 0


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, and with it that of the processes it started.

    The two largest sizes are added, memory that both use is counted twice: an upper bound.
    """
    own = _peak_of("self")
    if own is None:
        unit = 1 if sys.platform == "darwin" else 1024
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return own + _most_of_helpers


def count_helpers(processes: Sequence[int]) -> None:
    """Count the memory of processes that are at work at the same time; call it before they end."""
    global _most_of_helpers
    sizes = [_peak_of(str(process)) or 0 for process in processes]
    _most_of_helpers = max(_most_of_helpers, sum(sizes))


def cpu_seconds() -> float:
    """Processor time that this process has used, and those it started that have ended [s]."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_of(process: str) -> int | None:
    """Linux counts it a program (``VmHWM``); ``ru_maxrss`` starts with the size of the parent."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else None
