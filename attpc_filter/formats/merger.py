"""Raw GET traces as attpc_merger and its relatives write them: legacy, 1.0, 2.0, harmonizer.

Streams of these runs are made so that Spyral 1.1.2 opens them and sees every event:

* its readers of the versioned layouts run up to ``max_event`` and leave that event out, so a
  stream's ``max_event`` is one more than its run's last event (which the attribute
  ``attpc_filter_last_event`` keeps);
* for 2.0 it looks for ``silicon_...`` where the merger writes ``si_...``: a stream's events have
  the matrices under both names;
* it demands digitizer 1903 of every event with FRIB data, while the merger writes it only where it
  has data: such an event gets one of zeros (no ion-chamber peak), which takes no room on disk.
"""

import re
from typing import Any

import h5py
from h5py import h5g

from attpc_filter.formats.hdf5 import Addition, Hdf5Run, first_value, read_traces
from attpc_filter.formats.run import Allocate
from attpc_filter.records import N_TRACE_COLUMNS

#: First value of FRIB dataset 977, the coincidence register, of an ion-chamber downscale trigger.
IC_DOWNSCALE_TRIGGER = 2

_SILICON = ("upstream_front", "upstream_back", "downstream_front", "downstream_back")
_FRIB_TRACES_SHAPE = (2048, 8)


class LegacyRun(Hdf5Run):
    """attpc_merger before it had versions: ``get/evtN_data``, FRIB data in ``frib/evt``."""

    format_name = "attpc_merger legacy"
    container = "get"
    event_name = re.compile(r"evt(\d+)_data")
    event_groups = ("get", "frib/evt")
    event_part = re.compile(r"get/evt\d+_\w+|frib/evt/evt\d+_\w+")

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether there is ``get`` beside ``meta``, or with events of the merger's names."""
        return "get" in file and (
            "meta" in file or any(cls.event_name.fullmatch(name) for name in file["get"])
        )

    def event_parts(self, name: str) -> list[str]:
        """Traces and header, and the FRIB data."""
        event = name.removesuffix("_data")
        return [
            f"get/{event}_data",
            f"get/{event}_header",
            f"frib/evt/{event}_1903",
            f"frib/evt/{event}_977",
        ]

    def finish_run_level(self, target: h5py.File) -> None:
        """Widen the first and last event in ``meta`` if they leave out events that are there."""
        if "meta/meta" in target:
            meta = target["meta/meta"]
            meta[0] = min(meta[0], self.events[0][0])
            meta[2] = max(meta[2], self.events[-1][0])

    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        traces = read_traces(group, name, allocate)
        register = b"frib/evt/" + name.removesuffix(b"_data") + b"_977"
        trigger = first_value(self.file.id, register) if self._has_frib else None
        return {"traces": traces, "passthrough": trigger == IC_DOWNSCALE_TRIGGER}

    @property
    def _has_frib(self) -> bool:
        return "frib/evt" in self.file


class VersionedRun(Hdf5Run):
    """The layouts whose group ``events`` names its version."""

    container = "events"
    event_name = re.compile(r"event_(\d+)")
    event_groups = ("events",)
    event_part = re.compile(r"events/event_\d+")
    versions: tuple[str, ...]
    traces_path: bytes

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether ``events`` names one of this layout's versions."""
        if not isinstance(file.get("events"), h5py.Group):
            return False
        version = file["events"].attrs.get("version", "")
        text = version.decode() if isinstance(version, bytes) else str(version)
        return text in cls.versions

    def additions(self, name: str) -> dict[str, Addition]:
        """Digitizer 1903 where an event has FRIB data without it."""
        event = f"{self.container}/{name}"
        group = h5g.open(self._group, name.encode())
        if b"frib_physics" in group and b"1903" not in h5g.open(group, b"frib_physics"):
            return {f"{event}/frib_physics/1903": Addition(None, _FRIB_TRACES_SHAPE, "uint16")}
        return {}

    def finish_run_level(self, target: h5py.File) -> None:
        """Set the event range so that a reader that stops one short sees the last event."""
        attributes = target["events"].attrs
        last = self.events[-1][0]
        attributes["min_event"] = min(int(attributes.get("min_event", 0)), self.events[0][0])
        attributes["max_event"] = last + 1
        attributes["attpc_filter_last_event"] = last

    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        event = h5g.open(group, name)
        traces = read_traces(event, self.traces_path, allocate)
        trigger = first_value(event, b"frib_physics/977") if b"frib_physics" in event else None
        return {"traces": traces, "passthrough": trigger == IC_DOWNSCALE_TRIGGER}


class Merger1Run(VersionedRun):
    """attpc_merger 1.0: ``events/event_N/get_traces``."""

    format_name = "attpc_merger 1.0"
    versions = ("libattpc_merger:1.0", "synchronizer:0.1.0")
    traces_path = b"get_traces"


class Merger2Run(VersionedRun):
    """attpc_merger 2.0: ``events/event_N/get/pads`` and silicon matrices beside it."""

    format_name = "attpc_merger 2.0"
    versions = ("libattpc_merger:2.0",)
    traces_path = b"get/pads"

    def additions(self, name: str) -> dict[str, Addition]:
        """The silicon matrices under the names that Spyral looks for."""
        additions = super().additions(name)
        get = f"{self.container}/{name}/get"
        there = set(h5g.open(self._group, f"{name}/get".encode()))
        for part in _SILICON:
            if f"silicon_{part}".encode() in there:
                continue
            written = f"si_{part}" if f"si_{part}".encode() in there else None
            additions[f"{get}/silicon_{part}"] = Addition(
                f"{get}/{written}" if written else None, (0, N_TRACE_COLUMNS)
            )
        return additions


class HarmonizerRun(VersionedRun):
    """harmonizer 0.1.0: as 1.0, with the original run and event in each event's attributes."""

    format_name = "harmonizer 0.1.0"
    versions = ("harmonizer:0.1.0",)
    traces_path = b"get_traces"


FORMATS = (Merger2Run, Merger1Run, HarmonizerRun, LegacyRun)
