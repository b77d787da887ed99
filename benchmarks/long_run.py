"""Make a run of any length out of a short one: a copy whose events stand in it many times.

    python benchmarks/long_run.py SHORT.h5 LONG.h5 N_EVENTS

The added events are hard links to the first ones: no disk, the same bytes, new event numbers.
"""

import shutil
import sys
from pathlib import Path

import h5py


def make_long_run(short: Path, long: Path, n_events: int) -> None:
    """Write ``long``: ``n_events`` events, those of ``short`` (merger 1.0 or 2.0) in turn."""
    shutil.copyfile(short, long)
    with h5py.File(long, "r+") as file:
        events = file["events"]
        groups = [events[name] for name in sorted(events, key=lambda n: int(n.split("_")[1]))]
        numbers = range(10_000_000, 10_000_000 + n_events)
        for name in list(events):
            del events[name]
        for index, number in enumerate(numbers):
            events[f"event_{number}"] = groups[index % len(groups)]
        events.attrs.modify("min_event", numbers[0])
        events.attrs.modify("max_event", numbers[-1])


if __name__ == "__main__":
    make_long_run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
