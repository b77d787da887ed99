"""Peak memory of this process and of those that read for it."""

import os
import re
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_most_of_helpers = 0


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, and with it what its helpers have besides.

    The two largest sizes are added, whenever they were: an upper bound.
    """
    own = _kilobytes("self", "VmHWM")
    if own is None:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return own * 1024 + _most_of_helpers


def count_helpers(processes: Sequence[int]) -> None:
    """Count memory of processes that work for this one at a time; call it before they end.

    It is their own that counts: what they share with this process, buffers and the same libraries,
    is in its size already.
    """
    global _most_of_helpers
    sizes = [_kilobytes(str(process), "RssAnon") or 0 for process in processes]
    _most_of_helpers = max(_most_of_helpers, sum(sizes) * 1024)


def cpu_seconds() -> float:
    """Processor time that this process has used, and those it started that have ended [s]."""
    times = os.times()  # of others, in steps of 10 ms
    return time.process_time() + times.children_user + times.children_system


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
