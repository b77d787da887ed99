"""The same events in every layout of raw runs that attpc_merger and its relatives write.

    python benchmarks/layouts.py RUN_2.0.h5 LAYOUT TARGET.h5 N_EVENTS

The events of a run in attpc_merger's 2.0 layout are written once in the layout that is wanted and
stand in the target as often as it takes: the repeated ones are hard links, so that they need no
disk, with event numbers of their own.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

#: Number of the first event: as many digits as in a long run.
_FIRST = 10_000_000
#: Objects of one event, by their path in the target; ``{}`` stands for the event's number.
Parts = dict[str, h5py.HLObject]
_HEADER = ("id", "timestamp", "timestamp_other")


def _merger_2(target: h5py.Group, event: h5py.Group) -> Parts:
    event.copy(event, target, "event", shallow=False)
    return {"events/event_{}": target["event"]}


def _merger_2_names(target: h5py.Group, event: h5py.Group) -> Parts:
    parts = _merger_2(target, event)
    get = target["event/get"]
    for name in [name for name in get if name.startswith("si_")]:
        get[name.replace("si_", "silicon_", 1)] = get[name]
    return parts


def _merger_1(target: h5py.Group, event: h5py.Group) -> Parts:
    made = target.create_group("event")
    event.copy("get/pads", made, "get_traces")
    for name in _HEADER:
        if name in event["get"].attrs:
            made["get_traces"].attrs[name] = event["get"].attrs[name]
    if "frib_physics" in event:
        event.copy("frib_physics", made)
    return {"events/event_{}": made}


def _harmonizer(target: h5py.Group, event: h5py.Group) -> Parts:
    parts = _merger_1(target, event)
    target["event"].attrs["orig_run"] = 101
    target["event"].attrs["orig_event"] = int(event["get"].attrs.get("id", 0))
    return parts


def _legacy(target: h5py.Group, event: h5py.Group) -> Parts:
    event.copy("get/pads", target, "data")
    header = [float(event["get"].attrs.get(name, 0)) for name in _HEADER]
    target["header"] = np.array(header, np.float64)
    parts = {"get/evt{}_data": target["data"], "get/evt{}_header": target["header"]}
    for name in event.get("frib_physics", {}):
        event.copy(f"frib_physics/{name}", target, name)
        parts[f"frib/evt/evt{{}}_{name}"] = target[name]
    return parts


#: How an event is written, and the version text of the layout (none: attpc_merger's legacy).
LAYOUTS: dict[str, tuple[Callable[[h5py.Group, h5py.Group], Parts], str]] = {
    "attpc_merger 2.0": (_merger_2, "libattpc_merger:2.0"),
    "attpc_merger 2.0, Spyral's names": (_merger_2_names, "libattpc_merger:2.0"),
    "attpc_merger 1.0": (_merger_1, "libattpc_merger:1.0"),
    "harmonizer 0.1.0": (_harmonizer, "harmonizer:0.1.0"),
    "attpc_merger legacy": (_legacy, ""),
}


def write_layout(source: Path, layout: str, target: Path, n_events: int) -> None:
    """Write a run of ``n_events`` events in a layout.

    Parameters
    ----------
    source : Path
        Run in attpc_merger's 2.0 layout.
    layout : str
        One of :data:`LAYOUTS`.
    target : Path
        File to write.
    n_events : int
        Events in it: those of the source in turn.
    """
    write_event, version = LAYOUTS[layout]
    with h5py.File(source) as run, h5py.File(target, "w") as file:
        made = file.create_group("made")
        events = run["events"]
        names = sorted(events, key=lambda name: int(name.split("_")[1]))
        written = [
            write_event(made.create_group(str(index)), events[name])
            for index, name in enumerate(names[:n_events])
        ]
        numbers = range(_FIRST, _FIRST + n_events)
        if version:
            group = file.create_group("events")
            for name, value in events.attrs.items():
                group.attrs[name] = value
            group.attrs["version"] = version
            group.attrs["min_event"] = np.uint64(numbers[0])
            group.attrs["max_event"] = np.uint64(numbers[-1])
            if "scalers" in run:
                run.copy("scalers", file)
        else:
            file["meta/meta"] = np.array([numbers[0], 0, numbers[-1], 0], np.uint64)
            file.create_group("get")
            file.create_group("frib/evt")
        for index, number in enumerate(numbers):
            for path, part in written[index % len(written)].items():
                file[path.format(number)] = part
        del file["made"]


if __name__ == "__main__":
    write_layout(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
