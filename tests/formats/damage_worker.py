"""Reads run files named on stdin and says on stdout, a JSON line a file, what came of it.

A process of its own, because the HDF5 library may crash on damaged files: whoever started it sees
after which file.
"""

import hashlib
import json
import sys
import warnings
from typing import Any

import numpy as np

from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from attpc_filter.records import N_TRACE_COLUMNS, Record

#: Room for two events or three.
N_ROWS = 25


def describe(record: Record) -> dict[str, Any]:
    """An event as read: the reason, or digests of what was read."""
    held = record.traces if record.traces is not None else record.points
    return {
        "event": record.event,
        "reason": record.reason,
        "passthrough": record.passthrough,
        "digest": None if held is None else hashlib.sha256(held.tobytes()).hexdigest(),
    }


def outcome(path: str) -> dict[str, Any]:
    """What comes of reading a whole file."""
    try:
        with open_run(path) as run:
            buffer = np.empty((N_ROWS, N_TRACE_COLUMNS), np.int16)
            parts = run.parts(run.events, buffer)
            in_parts = [describe(record) for part in parts for record in part]
            return {"records": [describe(record) for record in run.records()], "parts": in_parts}
    except InputError as error:
        return {"error": str(error)}


def main() -> None:
    """Read the files one by one."""
    warnings.simplefilter("error")
    for line in sys.stdin:
        path = line.strip()
        print(json.dumps({"path": path} | outcome(path)), flush=True)


if __name__ == "__main__":
    main()
