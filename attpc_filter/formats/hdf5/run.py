"""Runs in HDF5 files: what all layouts share, and what those with traces do."""

import contextlib
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from h5py import h5, h5d, h5g, h5t
from numpy.typing import NDArray

from attpc_filter.formats.hdf5 import kernels, links
from attpc_filter.formats.hdf5.file import HDF5_ERRORS, MOST_ROWS, large_metadata_cache, names_in
from attpc_filter.formats.hdf5.link_kernels import UsualEvent
from attpc_filter.formats.run import Allocate, Events, Run, UnreadableEvent, allocate_new
from attpc_filter.records import N_HARDWARE_COLUMNS, Record
from attpc_filter.texts import shown

#: Memory for the links of a large group while a million events are listed.
_LISTING_CACHE_BYTES = 8 << 20

#: The first events of a run say how many samples a trace has: one of them may be damaged.
_EVENTS_LOOKED_AT = 3
_MOST_SAMPLES = 4096

#: Names in an event's group, under the empty name, and in each group in it.
Members = dict[bytes, list[bytes]]


@dataclass(frozen=True, slots=True)
class Addition:
    """Something that a stream's event has beyond the run's: another name, or an empty matrix.

    Attributes
    ----------
    same_as : bytes or None
        Path, in the event, of the object that is to be found under this name too.
    shape : tuple of int
        Shape of a matrix of zeros that takes no room on disk.
    dtype : str
        Its type.
    """

    same_as: bytes | None = None
    shape: tuple[int, ...] = ()
    dtype: str = "int16"


class Hdf5File(Run):
    """A run in an HDF5 file.

    Parameters
    ----------
    path : Path
        The file.
    file : h5py.File
        The same, open; closed with the run.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path)
        self.file = file

    @classmethod
    @abstractmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether the file is of this format, judged by what is in it."""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Hdf5Run(Hdf5File):
    """A run in an HDF5 file whose events are objects of a group.

    A format says how its events are named and read, what belongs to an event, and what a stream
    needs besides. All else in the file belongs to the run and goes into every stream.
    """

    #: The group that holds the events ("/" for the root).
    container: ClassVar[str]
    #: Name of an event's object; its group is the event number.
    event_name: ClassVar[re.Pattern[str]]
    #: All groups that hold objects of single events; a stream has each of them.
    event_groups: ClassVar[tuple[str, ...]]
    #: Path of anything that belongs to a single event; all else belongs to the run.
    event_part: ClassVar[re.Pattern[str]]
    #: Groups of an event in which the next program may look for things that are not there.
    inner_groups: ClassVar[tuple[bytes, ...]] = ()
    #: What an event usually holds, if some of it needs further names in a stream of links.
    usual_event: ClassVar[UsualEvent | None] = None

    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path, file)
        self._events: Events | None = None
        self._names_of_run: dict[str, list[str]] = {}
        self.event_group: h5g.GroupID = file[self.container].id

    @property
    def events(self) -> Events:
        """Number and object name of every event that is there; looked for when first wanted."""
        if self._events is None:
            self._events = self.find_events(self.file)
        return self._events

    @events.setter
    def events(self, events: Events) -> None:
        self._events = events

    def count_samples(self) -> int | None:
        """Samples of a trace in most of the first events; None where none has traces."""
        found: Counter[int] = Counter()
        for _, name in self.events[:_EVENTS_LOOKED_AT]:
            with contextlib.suppress(*HDF5_ERRORS):
                dataset = h5d.open(
                    self.file.id, self.matrix_path(name).encode(), links.DATASET_ACCESS
                )
                links.require_own_data(dataset)
                shape = dataset.shape
                if len(shape) == 2:
                    found[shape[1] - N_HARDWARE_COLUMNS] += 1
        possible = [n for n, _ in found.most_common() if 0 < n <= _MOST_SAMPLES and not n % 32]
        return possible[0] if possible else None

    @classmethod
    def find_events(cls, file: h5py.File) -> Events:
        """Number and object name of every event in a file of this format, ascending."""
        names: list[bytes] = []
        group = file[cls.container].id
        with large_metadata_cache(file, _LISTING_CACHE_BYTES):
            # one call for all names: ten times faster than a group's own iterator
            group.links.iterate(names.append, order=h5.ITER_NATIVE)
        texts = (name.decode("utf-8", "surrogateescape") for name in names)
        found = (cls.event_name.fullmatch(text) for text in texts)
        return sorted((int(match.group(1)), match.group(0)) for match in found if match)

    @abstractmethod
    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        """What fills the event's :class:`Record`; raises UnreadableEvent."""

    @classmethod
    def usual_name(cls, event: int) -> str:
        """Name that an event's object has, unless its number is written with leading zeros."""
        return re.sub(r"\\(.)", r"\1", cls.event_name.pattern.replace(r"(\d+)", str(event)))

    def names_of_run(self, path: str, group: h5py.Group) -> list[str]:
        """Names in a group of the file that belong to no single event; looked for once."""
        if path not in self._names_of_run:
            children = ((name, f"{path}/{name}".lstrip("/")) for name in names_in(group.id))
            self._names_of_run[path] = [
                name for name, child in children if not self.event_part.fullmatch(child)
            ]
        return self._names_of_run[path]

    @classmethod
    def matrix_path(cls, name: str) -> str:
        """Path in the file of the matrix of an event's traces, or points."""
        return f"{cls.container}/{name}".lstrip("/")

    @classmethod
    def event_parts(cls, name: str) -> list[str]:
        """Paths of all that belongs to an event and may be there."""
        return [f"{cls.container}/{name}".lstrip("/")]

    def is_complete(self, name: bytes) -> bool:
        """Whether an event surely needs no additions: a few look-ups instead of all its names."""
        return True

    def additions(self, members: Members) -> dict[bytes, Addition]:
        """What the next program looks for in an event and does not find, by path in the event."""
        return {}

    def finish_run_level(self, target: h5py.File) -> None:
        """Adapt what a new stream took from the run as a whole."""

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read one event; if it cannot be read, the record says why."""
        try:
            return Record(event, name, **self._read(self.event_group, name.encode(), allocate))
        except UnreadableEvent as error:
            return Record(event, name, reason=shown(str(error)))


class TraceRun(Hdf5Run):
    """A run of raw traces in such a file."""

    #: Paths in an event's group of what the next program looks for besides the traces: in every
    #: event, and in those with a coincidence register.
    others: ClassVar[tuple[bytes, ...]] = ()
    others_with_register: ClassVar[tuple[bytes, ...]] = ()

    @abstractmethod
    def paths_to_read(self, name: bytes) -> tuple[bytes, bytes, bytes]:
        """Paths, from the group of the events, of what is read of an event.

        Returns
        -------
        traces : bytes
            The trace matrix.
        has_register : bytes
            What is there if the event has a coincidence register; empty if none has.
        register : bytes
            The register; empty if none has.
        """

    @abstractmethod
    def is_passthrough(self, register: int) -> bool:
        """Whether an event with this coincidence register is one that only normalises."""

    def parts(self, events: Events, buffer: NDArray[np.int16]) -> Iterator[list[Record]]:
        """Read events in parts (see :meth:`Run.parts`); the usual ones in compiled code."""
        if not kernels.AVAILABLE:
            yield from super().parts(events, buffer)
            return
        names = (name.encode() for _, name in events)
        paths = _texts(chain.from_iterable((*self.paths_to_read(name), name) for name in names))
        others, others_with_register = _texts(self.others), _texts(self.others_with_register)
        done = 0
        while done < len(events):
            *columns, n_bytes = kernels.read_events(
                self.event_group.id,
                paths,
                len(events) - done,
                others,
                others_with_register,
                (links.LINK_ACCESS.id, links.DATASET_ACCESS.id, links.GROUP_ACCESS),
                h5t.NATIVE_INT16.id,
                h5t.NATIVE_UINT16.id,
                buffer.shape[1],
                MOST_ROWS,
                buffer,
            )
            records = []
            used = 0
            for (event, name), rows, register, is_complete in zip(
                events[done:], *(column.tolist() for column in columns), strict=False
            ):
                if rows == kernels.UNUSUAL:
                    records.append(self.read(event, name))
                else:
                    traces = buffer[used : used + rows]
                    used += rows
                    record = Record(event, name, traces, is_complete=is_complete)
                    record.passthrough = register >= 0 and self.is_passthrough(register)
                    records.append(record)
            yield records
            done += len(records)
            paths = paths[n_bytes:]


def _texts(paths: Iterable[bytes]) -> NDArray[np.uint8]:
    """Texts as the library wants them: each with a zero at its end."""
    return np.frombuffer(b"\0".join([*paths, b""]), np.uint8)
