"""Raw GET traces as attpc_merger and its relatives write them: legacy, 1.0, 2.0, harmonizer.

Streams of these runs are made so that Spyral 1.1.2 opens them and sees every event:

* its readers of the versioned layouts run up to ``max_event`` and leave that event out, so a
  stream's ``max_event`` is one more than its run's last event (which the attribute
  ``attpc_filter_last_event`` keeps);
* for 2.0 it looks for ``silicon_...`` where the merger writes ``si_...``: a stream's events have
  the matrices under both names;
* it demands digitizer 1903 of every event with FRIB data, while the merger writes it only where it
  has data: such an event gets one of zeros (no ion-chamber peak) in the shape of the run's others,
  which takes no room on disk; digitizers 1904 to 1906 go with the event as they are;
* it demands traces of every event of the versioned layouts, while the merger writes events that
  only FRIB data has seen: such an event gets a matrix without rows;
* it demands the event range, which a legacy merge that crashed never wrote.

An event that only FRIB data has seen is an event like the others: an ion-chamber trigger without
traces normalises all the same.
"""

import contextlib
import re
from functools import cached_property
from typing import Any, ClassVar

import h5py
import numpy as np
from h5py import h5g

from attpc_filter.formats.hdf5.file import (
    HDF5_ERRORS,
    first_value,
    is_there,
    names_in,
    read_traces,
    translated,
)
from attpc_filter.formats.hdf5.link_kernels import UsualEvent
from attpc_filter.formats.hdf5.objects import link_exists
from attpc_filter.formats.hdf5.run import Addition, Members, TraceRun
from attpc_filter.formats.run import Allocate, UnreadableEvent
from attpc_filter.records import N_TRACE_COLUMNS

#: First value of FRIB dataset 977, the coincidence register, of an ion-chamber downscale trigger.
IC_DOWNSCALE_TRIGGER = 2

_FRIB_EVENT = re.compile(r"evt(\d+)_977")
_SILICON = (b"upstream_front", b"upstream_back", b"downstream_front", b"downstream_back")
#: FRIB's digitizers; Spyral demands the first, the others go with the event.
_DIGITIZERS = (1903, 1904, 1905, 1906)
#: Samples and channels of 1903 in a run that has none.
_FRIB_TRACES_SHAPE = (2048, 8)


class MergerRun(TraceRun):
    """What the layouts share."""

    def is_passthrough(self, register: int) -> bool:
        """Whether it is an ion-chamber downscale trigger."""
        return register == IC_DOWNSCALE_TRIGGER

    def _read_traces(
        self, group: h5g.GroupID, path: bytes, register: int | None, allocate: Allocate
    ) -> dict[str, Any]:
        """Fill a record with an event's traces, which an ion-chamber trigger may lack."""
        passthrough = register is not None and self.is_passthrough(register)
        with translated:
            lacks_traces = passthrough and not link_exists(group, path.decode())
        if lacks_traces:
            return {"passthrough": True}
        traces = read_traces(group, path, allocate, self.n_samples)
        return {"traces": traces, "passthrough": passthrough}


class LegacyRun(MergerRun):
    """attpc_merger before it had versions: ``get/evtN_data``, FRIB data in ``frib/evt``."""

    format_name = "attpc_merger legacy"
    container = "get"
    event_name = re.compile(r"evt(\d+)_data")
    event_groups = ("get", "frib/evt")
    event_part = re.compile(r"get/evt\d+_(data|header)|frib/evt/evt\d+_(header|977|190[3-6])")

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether there is ``get`` beside ``meta``, or with events of the merger's names."""
        return "get" in file and (
            "meta" in file
            or any(cls.event_name.fullmatch(name) for name in names_in(file["get"].id))
        )

    @classmethod
    def find_events(cls, file: h5py.File) -> list[tuple[int, str]]:
        """The events with traces, and those that only FRIB data has seen."""
        events = dict(super().find_events(file))
        if "frib/evt" in file:
            for match in filter(None, map(_FRIB_EVENT.fullmatch, names_in(file["frib/evt"].id))):
                events.setdefault(int(match.group(1)), f"evt{match.group(1)}_data")
        return sorted(events.items())

    @classmethod
    def event_parts(cls, name: str) -> list[str]:
        """Traces and header, and the FRIB data."""
        event = name.removesuffix("_data")
        return [
            f"get/{event}_data",
            f"get/{event}_header",
            f"frib/evt/{event}_header",
            f"frib/evt/{event}_977",
            *(f"frib/evt/{event}_{digitizer}" for digitizer in _DIGITIZERS),
        ]

    def finish_run_level(self, target: h5py.File) -> None:
        """Widen the first and last event in ``meta`` if they leave out events that are there."""
        first, last = self.events[0][0], self.events[-1][0]
        if "meta/meta" in target:
            meta = target["meta/meta"]
            meta[0] = min(meta[0], first)
            meta[2] = max(meta[2], last)
        else:
            target["meta/meta"] = np.array([first, 0, last, 0], np.uint64)

    def paths_to_read(self, name: bytes) -> tuple[bytes, bytes, bytes]:
        """Paths of the traces, and of the register, which may be missing."""
        register = b"/frib/evt/%b_977" % name.removesuffix(b"_data") if self._has_frib else b""
        return name, register, register

    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        traces, _, register = self.paths_to_read(name)
        value = first_value(group, register) if register else None
        return self._read_traces(group, traces, value, allocate)

    @cached_property
    def _has_frib(self) -> bool:
        return "frib/evt" in self.file


def _set_number(attributes: h5py.AttributeManager, name: str, value: int) -> None:
    """Set an attribute; its type stays if it is one of integers that holds the number."""
    if name in attributes:
        kind = attributes.get_id(name).dtype
        if kind.kind in "iu" and np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            attributes.modify(name, value)
            return
    attributes.create(name, value, dtype=np.int64 if value < 0 else np.uint64)


class VersionedRun(MergerRun):
    """The layouts whose group ``events`` names its version."""

    container = "events"
    event_name = re.compile(r"event_(\d+)")
    event_groups = ("events",)
    event_part = re.compile(r"events/event_\d+")
    inner_groups: ClassVar[tuple[bytes, ...]] = (b"frib_physics",)
    versions: tuple[str, ...]
    traces_path: bytes
    others_with_register = (b"frib_physics/1903",)

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether ``events`` names one of this layout's versions."""
        if not isinstance(file.get("events"), h5py.Group):
            return False
        version = file["events"].attrs.get("version", "")
        text = version.decode() if isinstance(version, bytes) else str(version)
        return text in cls.versions

    @classmethod
    def matrix_path(cls, name: str) -> str:
        """Path in the file of the matrix of an event's traces."""
        return f"{cls.container}/{name}/{cls.traces_path.decode()}"

    def is_complete(self, name: bytes) -> bool:
        """Whether the traces and all that Spyral demands besides are there."""
        exists = self.event_group.links.exists
        others = (self.traces_path, *self.others)
        try:
            if exists(name + b"/frib_physics"):
                others += self.others_with_register
            return all(exists(name + b"/" + path) for path in others)
        except HDF5_ERRORS:  # a group on the way is not there, or damaged
            return False

    def additions(self, members: Members) -> dict[bytes, Addition]:
        """Digitizer 1903 where FRIB data lack it, and traces where there are none."""
        additions = {}
        if b"1903" not in members.get(b"frib_physics", [b"1903"]):
            additions[b"frib_physics/1903"] = Addition(None, self._shape_of_1903, "uint16")
        group, _, traces = self.traces_path.rpartition(b"/")
        if traces not in members.get(group, []):
            additions[self.traces_path] = Addition(None, (0, N_TRACE_COLUMNS))
        return additions

    @cached_property
    def _shape_of_1903(self) -> tuple[int, ...]:
        """Samples and channels of digitizer 1903, as the run's first event with it has them."""
        for _, name in self.events:
            path = f"{self.container}/{name}/frib_physics/1903"
            with contextlib.suppress(*HDF5_ERRORS):
                if link_exists(self.file.id, path):
                    shape: tuple[int, ...] = self.file[path].shape
                    if len(shape) == len(_FRIB_TRACES_SHAPE) and all(shape):
                        return shape
        return _FRIB_TRACES_SHAPE

    def finish_run_level(self, target: h5py.File) -> None:
        """Set the event range so that a reader that stops one short sees the last event."""
        attributes = target["events"].attrs
        last = self.events[-1][0]
        first = self.events[0][0]
        written = np.asarray(attributes.get("min_event", 0))
        if written.dtype.kind in "iu" and written.size == 1:
            first = min(first, int(written.item()))
        _set_number(attributes, "min_event", first)
        _set_number(attributes, "max_event", last + 1)
        attributes["attpc_filter_last_event"] = last

    def paths_to_read(self, name: bytes) -> tuple[bytes, bytes, bytes]:
        """Paths of the traces, and of the register, which FRIB data must have."""
        # all from the group of the events: opening an event's own group takes twice as long
        frib = name + b"/frib_physics"
        return name + b"/" + self.traces_path, frib, frib + b"/977"

    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        traces, frib, register = self.paths_to_read(name)
        value = None
        if is_there(group, frib):
            value = first_value(group, register)
            if value is None:
                raise UnreadableEvent("FRIB data without the coincidence register (977)")
        return self._read_traces(group, traces, value, allocate)


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
    inner_groups = (b"frib_physics", b"get")
    others = tuple(b"get/silicon_" + part for part in _SILICON)
    usual_event = UsualEvent(
        group=b"get",
        names=(b"pads", *(b"si_" + part for part in _SILICON)),
        further=tuple((b"silicon_" + part, b"si_" + part) for part in _SILICON),
        whole=((b"frib_physics", b"1903"),),
    )

    def additions(self, members: Members) -> dict[bytes, Addition]:
        """The silicon matrices under the names that Spyral looks for."""
        additions = super().additions(members)
        there = members.get(b"get", [])
        for part in _SILICON:
            if b"silicon_" + part not in there:
                written = b"get/si_" + part if b"si_" + part in there else None
                additions[b"get/silicon_" + part] = Addition(written, (0, N_TRACE_COLUMNS))
        return additions


class HarmonizerRun(VersionedRun):
    """harmonizer 0.1.0: as 1.0, with the original run and event in each event's attributes."""

    format_name = "harmonizer 0.1.0"
    versions = ("harmonizer:0.1.0",)
    traces_path = b"get_traces"


FORMATS = (Merger2Run, Merger1Run, HarmonizerRun, LegacyRun)
