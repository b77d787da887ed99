"""What the HDF5 formats share: opening, reading a matrix, linking and copying events."""

import contextlib
import math
import os
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5g, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

from attpc_filter import __version__
from attpc_filter.errors import EmptyRunError, InputError, OutputError
from attpc_filter.formats.hdf5 import kernels
from attpc_filter.formats.run import (
    Allocate,
    Events,
    Run,
    Stream,
    StreamMode,
    UnreadableEvent,
    allocate_new,
)
from attpc_filter.records import N_HARDWARE_COLUMNS, N_TIME_BUCKETS, Hits, Record

#: What HDF5 and h5py raise on files that are damaged or not what they seem.
HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError)

#: More rows than this are no event but a damaged header (the pad plane has 10,240 pads).
_MOST_ROWS = 100_000
_MOST_BYTES = 1 << 30
_PLAIN_FLOATS = (
    *(h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE),
    *(h5t.IEEE_F16BE, h5t.IEEE_F32BE, h5t.IEEE_F64BE),
)
_CHUNK_BYTES = 1 << 20
#: A global heap collection of version 1: signature, version, its size.
_HEAP = re.compile(rb"GCOL\x01\0\0\0(.{8})", re.DOTALL)
#: Of links of a large group: enough to list a million events, and to move them.
_LISTING_CACHE_BYTES = 8 << 20
_LARGE_CACHE_BYTES = 120 << 20
_SHALLOW = h5p.create(h5p.OBJECT_COPY)
_SHALLOW.set_copy_object(h5o.COPY_SHALLOW_HIERARCHY_FLAG)
#: Copies go to disk at once: what a cache holds back fails later, where no one can handle it.
_UNCACHED = h5p.create(h5p.DATASET_ACCESS)
_UNCACHED.set_chunk_cache(0, 0, 1.0)


#: The first events of a run say how many samples a trace has: one of them may be damaged.
_EVENTS_LOOKED_AT = 3
_MOST_SAMPLES = 4096

#: For what reads points: what is no number is looked for, not warned of.
without_warnings = np.errstate(all="ignore")

#: Names in an event's group, under the empty name, and in each group in it.
Members = dict[bytes, list[bytes]]


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
        """What fills the event's :class:`Record`; raises UnreadableEvent or an HDF5 error."""

    @classmethod
    def usual_name(cls, event: int) -> str:
        """Name that an event's object has, unless its number is written with leading zeros."""
        return re.sub(r"\\(.)", r"\1", cls.event_name.pattern.replace(r"(\d+)", str(event)))

    def names_of_run(self, path: str, group: h5py.Group) -> list[str]:
        """Names in a group of the file that belong to no single event; looked for once."""
        if path not in self._names_of_run:
            children = ((name, f"{path}/{name}".lstrip("/")) for name in group)
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

    def additions(self, members: Members) -> dict[bytes, "Addition"]:
        """What the next program looks for in an event and does not find, by path in the event."""
        return {}

    def finish_run_level(self, target: h5py.File) -> None:
        """Adapt what a new stream took from the run as a whole."""

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read one event; if it cannot be read, the record says why."""
        try:
            return Record(event, name, **self._read(self.event_group, name.encode(), allocate))
        except UnreadableEvent as error:
            return Record(event, name, reason=str(error))
        except HDF5_ERRORS as error:
            return Record(event, name, reason=f"cannot be read: {_one_line(error)}")

    def create_stream(self, path: Path, mode: StreamMode, label: str) -> "Hdf5Stream":
        """Create a stream of this run (see :meth:`Run.create_stream`)."""
        return Hdf5Stream(self, path, mode, label)


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
                h5t.NATIVE_INT16.id,
                h5t.NATIVE_UINT16.id,
                buffer.shape[1],
                _MOST_ROWS,
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


def open_hdf5_run(
    path: Path, formats: Sequence[type[Hdf5File]], events: Events | None = None
) -> Run:
    """Open an HDF5 file as a run of the first format that recognises it.

    Its events are not looked for if they are given.

    Raises
    ------
    InputError
        If the file cannot be opened, is of none of the formats, or holds no events.
    """
    file = _open_file(path)
    try:
        for kind in formats:
            if kind.recognise(file):
                run: Run = kind(path, file)
                if events is not None:
                    run.events = events
                if not run.events:
                    raise EmptyRunError(f"{path}: {run.format_name} without a single event")
                run.n_samples = _count_samples(run)
                return run
        raise InputError(
            f"{path}: no known event format; it holds {_names(file)}. Known are: "
            + ", ".join(kind.format_name for kind in formats)
        )
    except HDF5_ERRORS as error:
        file.close()
        raise InputError(f"{path}: damaged: {_one_line(error)}") from error
    except InputError:
        file.close()
        raise


def _count_samples(run: Run) -> int | None:
    """Samples of a trace in most of a run's first events; None where none has traces."""
    if not isinstance(run, Hdf5Run):
        return None
    found: Counter[int] = Counter()
    for _, name in run.events[:_EVENTS_LOOKED_AT]:
        with contextlib.suppress(*HDF5_ERRORS):
            shape = h5d.open(run.file.id, run.matrix_path(name).encode()).shape
            if len(shape) == 2:
                found[shape[1] - N_HARDWARE_COLUMNS] += 1
    possible = [n for n, _ in found.most_common() if 0 < n <= _MOST_SAMPLES and not n % 32]
    return possible[0] if possible else None


def _open_file(path: Path) -> h5py.File:
    try:
        _require_ending_heaps(path)
        # best-effort: parallel file systems without locks refuse nothing
        return h5py.File(path, "r", locking="best-effort")
    except HDF5_ERRORS as error:
        if not path.exists():
            raise InputError(f"{path}: no such file") from error
        if path.is_dir():
            raise InputError(f"{path}: a folder, not a run file") from error
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: not readable for you (permissions)") from error
        if "lock file" in str(error):
            raise InputError(
                f"{path}: another program has it open for writing; wait until that has finished"
            ) from error
        text = _one_line(error)
        if match := re.search(r"eof = (\d+).*?stored_eof = (\d+)", text):
            has, needs = map(int, match.groups())
            raise InputError(
                f"{path}: truncated: {has:,} of {needs:,} bytes are there; copy it again"
            ) from error
        if "signature" in text:
            raise InputError(f"{path}: not an HDF5 file") from error
        raise InputError(f"{path}: HDF5 cannot open it: {text}") from error


def _require_ending_heaps(path: Path) -> None:
    """Refuse a file one of whose heaps of texts would keep HDF5 (2.0) in a loop for ever.

    A heap is walked object by object; free space in it that has lost its size is never passed.
    Programs write their heaps, of version texts and the like, at the beginning of a file.
    """
    with open(path, "rb") as file:
        head = file.read(1 << 20)
    for found in _HEAP.finditer(head):
        stop = found.start() + int.from_bytes(found.group(1), "little")
        at = found.end()
        while at + 16 <= min(stop, len(head)):
            index = int.from_bytes(head[at : at + 2], "little")
            size = int.from_bytes(head[at + 8 : at + 16], "little")
            if index == 0 and size == 0:
                raise InputError(f"{path}: damaged: a heap of texts has no end")
            at += size if index == 0 else 16 + -(-size // 8) * 8


@contextlib.contextmanager
def large_metadata_cache(file: h5py.File, n_bytes: int = _LARGE_CACHE_BYTES) -> Iterator[None]:
    """Let HDF5 keep the links of a large group in memory: it would read them over and over."""
    usual, large = file.id.get_mdc_config(), file.id.get_mdc_config()
    large.set_initial_size = True
    large.initial_size = large.max_size = n_bytes
    file.id.set_mdc_config(large)
    try:
        yield
    finally:
        usual.set_initial_size = True
        file.id.set_mdc_config(usual)


def _names(file: h5py.File) -> str:
    names = sorted(file)
    if not names:
        return "nothing"
    shown = []
    for name in names[:5]:
        version = file[name].attrs.get("version") if name in file else None
        shown.append(name if version is None else f"{name} (version {version})")
    return ", ".join(shown) + (", ..." if len(names) > 5 else "")


def _one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if match := re.search(r"errno = \d+, error message = '([^']+)'", text):
        return match.group(1)  # what the system says, without HDF5's account of it
    return " ".join(text.split())


# ---------------------------------------------------------------------------------------- reading


def read_traces(
    parent: h5g.GroupID, path: bytes, allocate: Allocate, n_samples: int | None
) -> NDArray[np.int16]:
    """Read a trace matrix into room that the caller gives.

    Parameters
    ----------
    parent : h5py.h5g.GroupID
        Group that ``path`` starts from.
    path : bytes
        The dataset.
    allocate : callable
        Gives an int16 array with so many rows.
    n_samples : int or None
        Samples of a trace; None: 512.

    Raises
    ------
    UnreadableEvent
        If it is not a matrix of 5 + n_samples columns of integers that fit 16 bits.
    """
    try:
        dataset = h5d.open(parent, path)
    except KeyError as error:
        raise UnreadableEvent(f"no trace matrix: {_one_line(error)}") from error
    shape = _checked_shape(
        dataset, "trace matrix", N_HARDWARE_COLUMNS + (n_samples or N_TIME_BUCKETS)
    )
    kind = dataset.get_type()
    if kind.equal(h5t.NATIVE_INT16):
        traces = _room_for(shape, allocate)
        if shape[0]:
            dataset.read(h5s.ALL, h5s.ALL, traces, h5t.NATIVE_INT16)
        return traces
    wide = read_array(dataset)
    if wide.dtype.kind not in "iuf":
        raise UnreadableEvent(f"trace matrix of {wide.dtype}, expected integers")
    if wide.dtype.kind == "f" and not np.isfinite(wide).all():
        raise UnreadableEvent("trace matrix holds values that are not finite")
    if wide.size and (wide.min() < -32768 or wide.max() > 32767):
        raise UnreadableEvent("trace matrix holds values beyond 16 bits")
    traces = _room_for(shape, allocate)
    traces[:] = wide
    return traces


def _room_for(shape: tuple[int, ...], allocate: Allocate) -> NDArray[np.int16]:
    traces = allocate(shape[0])
    return traces if traces.shape == shape else np.empty(shape, np.int16)


def read_points(parent: h5g.GroupID, path: bytes, columns: int) -> NDArray[np.float64]:
    """Read a table of hits with at least so many columns, as float64.

    Raises
    ------
    UnreadableEvent
        If it has fewer columns or is not a matrix of numbers.
    """
    dataset = h5d.open(parent, path)
    _checked_shape(dataset, "point cloud", columns, or_more=True)
    points = read_array(dataset)
    if points.dtype.kind not in "iuf":
        raise UnreadableEvent(f"point cloud of {points.dtype}, expected numbers")
    return points.astype(np.float64, copy=False)


def require_finite(points: NDArray[np.float64], columns: Iterable[int]) -> None:
    """Raise UnreadableEvent if a value in one of the columns is not finite as a float32."""
    finite = (np.abs(points[:, list(columns)]) <= np.finfo(np.float32).max).all(axis=1)
    if not finite.all():
        raise UnreadableEvent(f"{int((~finite).sum())} of {len(points)} points are not finite")


def pad_numbers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pad numbers as they are; -1 for what is no number of a pad."""
    return np.where((values >= -1) & (values <= np.iinfo(np.int16).max), values, -1.0)


def first_value(parent: h5g.GroupID, path: bytes) -> int | None:
    """First value of a dataset of integers in a group that is there; None if absent or empty."""
    if not parent.links.exists(path):
        return None
    values = read_array(h5d.open(parent, path)).reshape(-1)
    return int(values[0]) if len(values) else None


def _checked_shape(
    dataset: h5d.DatasetID, what: str, columns: int, or_more: bool = False
) -> tuple[int, ...]:
    shape: tuple[int, ...] = dataset.shape
    if len(shape) != 2 or (shape[1] < columns if or_more else shape[1] != columns):
        least = " or more" if or_more else ""
        raise UnreadableEvent(f"{what} of shape {shape}, expected (n, {columns}{least})")
    if shape[0] > _MOST_ROWS:
        raise UnreadableEvent(f"{what} claims {shape[0]:,} rows: a damaged header")
    return shape


def read_array(dataset: h5d.DatasetID) -> NDArray[Any]:
    """Read a whole dataset.

    Raises
    ------
    UnreadableEvent
        If its header claims what no event holds: HDF5 would take it at its word.
    """
    if not _is_sound(dataset.get_type()):
        raise UnreadableEvent(f"numbers of a strange type ({dataset.dtype}): a damaged header")
    shape, dtype = dataset.shape, dataset.dtype
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > _MOST_BYTES:
        raise UnreadableEvent(f"a dataset claims {n_bytes / 1e9:,.1f} GB: a damaged header")
    values = np.empty(shape, dtype)
    if values.size:
        dataset.read(h5s.ALL, h5s.ALL, values)
    return values


def _is_sound(kind: h5t.TypeID) -> bool:
    """Whether the numbers of a type are those that programs write, and lie within their row."""
    if isinstance(kind, h5t.TypeCompoundID):
        members = range(kind.get_nmembers())
        parts = [(kind.get_member_offset(i), kind.get_member_type(i)) for i in members]
        return all(
            offset + part.get_size() <= kind.get_size() and _is_sound(part)
            for offset, part in parts
        )
    if kind.get_class() == h5t.FLOAT:
        return any(kind.equal(plain) for plain in _PLAIN_FLOATS)
    if kind.get_class() == h5t.INTEGER:
        return bool(kind.get_precision() == 8 * kind.get_size() and kind.get_offset() == 0)
    return True


# ---------------------------------------------------------------------------------------- writing


class Addition:
    """Something that a stream's event has beyond the run's: another name, or an empty matrix.

    Parameters
    ----------
    same_as : bytes, optional
        Path, in the event, of the object that is to be found under this name too.
    shape : tuple of int, optional
        Shape of a matrix of zeros that takes no room on disk.
    dtype : str
        Its type.
    """

    def __init__(
        self, same_as: bytes | None = None, shape: tuple[int, ...] = (), dtype: str = "int16"
    ) -> None:
        self.same_as = same_as
        self.shape = shape
        self.dtype = dtype


class Hdf5Stream(Stream):
    """A stream in the layout of its run; see :meth:`Run.create_stream`."""

    def __init__(self, run: Hdf5Run, path: Path, mode: StreamMode, label: str) -> None:
        self._run = run
        self._mode = mode
        self._path = path
        self._n_added = 0
        self._ends: list[str] = []  # the first event added and the last
        # HDF5 looks a relative link up from the folder of the file that holds it
        source = os.path.relpath(run.path.resolve(), path.parent.resolve())
        self._source_path = os.fsencode(source)
        try:
            # groups as of HDF5 1.8: small ones are stored within their header, large ones indexed
            self._file = h5py.File(path, "w", libver=("v108", "latest"))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {_one_line(error)}") from error
        try:
            self._copy_run_level(run.file, self._file, "")
            # after the run's own: a stream of a stream says where it comes from itself
            self._file.attrs["attpc_filter"] = __version__
            self._file.attrs["attpc_filter_stream"] = label
            self._file.attrs["attpc_filter_source"] = source
            for group in run.event_groups:
                self._file.require_group(group)
            run.finish_run_level(self._file)
            self._event_group: h5g.GroupID = self._file[run.container].id
        except HDF5_ERRORS as error:
            self.abort()
            raise OutputError(f"{path}: cannot be written: {_one_line(error)}") from error

    def add(self, record: Record, hits: Hits | None = None) -> None:
        """Add an event of the run (see :meth:`Stream.add`); the layout has no place for hits."""
        name = record.name
        members: Members = {}
        additions: dict[bytes, Addition] = {}
        with contextlib.suppress(*HDF5_ERRORS):  # damaged: goes into the stream as it is
            if not (record.is_complete or self._run.is_complete(name.encode())):
                members = list_members(self._run.event_group, name.encode(), self._run.inner_groups)
                additions = self._run.additions(members)
        parts = self._run.event_parts(name)
        if len(parts) > 1:
            parts = [part for part in parts if link_exists(self._run.file.id, part)]
        try:
            self._add_parts(parts, additions, members)
        except HDF5_ERRORS as error:
            if all(_is_readable(self._run.file.id, part.encode()) for part in parts):
                raise OutputError(f"{self._path}: event {name}: {_one_line(error)}") from error
            try:
                # damaged deeper down, where only a reference to the whole can pass it on
                for part in parts:
                    if link_exists(self._file.id, part):
                        self._file.id.unlink(part.encode())
                    self._link(part)
            except HDF5_ERRORS as error:
                raise OutputError(f"{self._path}: event {name}: {_one_line(error)}") from error
        self._n_added += 1
        self._ends[1:] = [name]

    def close(self) -> None:
        """Flush and close the file, and verify that it holds what was added."""
        try:
            self._file.close()
            with h5py.File(self._path, "r") as file:
                group = file[self._run.container]
                held = len(self._run.find_events(file))
                # a damaged event opens neither here nor in its own file
                source = self._run.file[self._run.container]
                lost = [name for name in self._ends if name in source and name not in group]
        except HDF5_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {_one_line(error)}") from error
        if held != self._n_added or lost:
            raise OutputError(
                f"{self._path}: {self._n_added} events were added, it holds {held}"
                + (f"; {', '.join(lost)} cannot be opened through it" if lost else "")
            )

    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""
        with contextlib.suppress(*HDF5_ERRORS):
            os.truncate(self._path, 0)  # on a full disk the file could not be closed otherwise
            self._file.close()

    def _add_parts(
        self, parts: Sequence[str], additions: dict[bytes, Addition], members: Members
    ) -> None:
        for part in parts:
            if self._mode == "copy":
                self._copy_or_link(part)
            elif additions:
                self._link_members(part, members, additions)
            else:
                self._link(part)
        for name, addition in additions.items():
            path = parts[0].encode() + b"/" + name
            if addition.same_as is None:
                self._file.create_dataset(path, addition.shape, addition.dtype)
            elif self._mode == "copy":
                self._file[path] = self._file[parts[0].encode() + b"/" + addition.same_as]

    def _copy_run_level(self, source: h5py.Group, target: h5py.Group, path: str) -> None:
        """Copy all that is of no single event, attributes included."""
        copy_attributes(source.id, target.id)
        for name in self._run.names_of_run(path, source):
            child = f"{path}/{name}".lstrip("/")
            if any(f"{group}/".startswith(f"{child}/") for group in self._run.event_groups):
                self._copy_run_level(source[name], target.create_group(name), child)
            else:
                self._copy_or_link(child)

    def _copy_or_link(self, path: str) -> None:
        source, encoded = self._run.file.id, path.encode()
        try:
            _copy_object(source, encoded, self._file.id, encoded)
        except HDF5_ERRORS:
            if _is_readable(source, encoded):
                raise
            # what is damaged cannot be copied, and must not be lost: refer to it
            if link_exists(self._file.id, path):
                self._file.id.unlink(encoded)
            self._link(path)

    def _link(self, path: str) -> None:
        """Link an object of the run."""
        encoded = path.encode()
        self._file.id.links.create_external(encoded, self._source_path, b"/" + encoded)

    def _link_members(self, path: str, members: Members, additions: dict[bytes, Addition]) -> None:
        """Make the groups of an event and link what is in them, and under what names besides."""
        # by the event's name in its group: from the file's root HDF5 would take the path twice over
        source, target, event = (
            self._run.event_group,
            self._event_group,
            path.split("/")[-1].encode(),
        )
        if all(name in members for name in members[b""]):
            # the event and its groups with their attributes, empty, in one call: ten times faster
            h5o.copy(source, event, target, event, _SHALLOW)
        else:
            for group in members:
                made = h5g.create(target, _join(event, group))
                copy_attributes(h5g.open(source, _join(event, group)), made)
        there = b"/" + path.encode() + b"/"
        for group, names in members.items():
            made = h5g.open(target, _join(event, group))
            links = made.links
            for name in names:
                if group or name not in members:
                    links.create_external(name, self._source_path, there + _join(group, name))
            for added, addition in additions.items():
                head, _, name = added.rpartition(b"/")
                if head == group and addition.same_as is not None:
                    links.create_external(name, self._source_path, there + addition.same_as)


def _join(group: bytes, name: bytes) -> bytes:
    return group + b"/" + name if group and name else group or name


def list_members(parent: h5g.GroupID, name: bytes, inner: Iterable[bytes]) -> Members:
    """Names in an event's group and, of the groups that may be in it, in those that are."""
    event = h5g.open(parent, name)
    members = {b"": _member_names(event)}
    for group in inner:
        if group in members[b""]:
            members[group] = _member_names(h5g.open(event, group))
    return members


def _member_names(group: h5g.GroupID) -> list[bytes]:
    names: list[bytes] = []
    group.links.iterate(names.append)  # one call for all: ten times faster than its own iterator
    return names


def _texts(paths: Iterable[bytes]) -> NDArray[np.uint8]:
    """Texts as the library wants them: each with a zero at its end."""
    return np.frombuffer(b"\0".join([*paths, b""]), np.uint8)


def link_exists(group: h5g.GroupID, path: str) -> bool:
    """Whether every link of a path is there; the last may lead nowhere."""
    parts = path.split("/")
    return all(
        group.links.exists("/".join(parts[: depth + 1]).encode()) for depth in range(len(parts))
    )


def copy_attributes(source: h5g.GroupID, target: h5g.GroupID) -> None:
    """Copy all attributes of one group or dataset to another, types as they are."""
    for index in range(h5a.get_num_attrs(source)):
        attribute = h5a.open(source, index=index)
        copy = h5a.create(target, attribute.name, attribute.get_type(), attribute.get_space())
        if attribute.get_space().get_simple_extent_type() != h5s.NULL:
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
            copy.write(values)


def _copy_object(source: h5g.GroupID, path: bytes, target: h5g.GroupID, name: bytes) -> None:
    """Copy a group or dataset with all below it; the datasets' chunks get checksums.

    Links are followed, so that the copy stands alone; a dataset that has several names in its
    event keeps them.
    """
    copied: dict[tuple[int, Any], bytes] = {}

    def copy(item: Any, place: bytes) -> None:
        info = h5o.get_info(item)
        key = (info.fileno, info.addr)
        if key in copied:
            target.links.create_hard(place, target, copied[key])
            return
        copied[key] = place
        if isinstance(item, h5g.GroupID):
            made: Any = h5g.create(target, place)
            copy_attributes(item, made)
            for child in item:
                copy(h5o.open(item, child), place + b"/" + child)
        elif isinstance(item, h5d.DatasetID):
            _copy_dataset(item, target, place)
        else:  # a committed type
            h5o.copy(item, b".", target, place)

    copy(h5o.open(source, path), name)


def _is_readable(source: h5g.GroupID, path: bytes) -> bool:
    """Whether an object can be opened and read with all below it."""
    seen: set[tuple[int, Any]] = set()

    def read(item: Any) -> None:
        info = h5o.get_info(item)
        if (info.fileno, info.addr) in seen:
            return
        seen.add((info.fileno, info.addr))
        for index in range(h5a.get_num_attrs(item)):
            h5a.open(item, index=index)
        if isinstance(item, h5g.GroupID):
            for child in item:
                read(h5o.open(item, child))
        elif isinstance(item, h5d.DatasetID):
            h5py.Dataset(item)[()]

    try:
        read(h5o.open(source, path))
    except HDF5_ERRORS:
        return False
    return True


def _copy_dataset(dataset: h5d.DatasetID, target: h5g.GroupID, name: bytes) -> None:
    shape = dataset.shape
    kind = dataset.get_type()
    size = int(np.prod(shape)) if shape else 0
    if not size or not _is_flat(kind):
        h5o.copy(dataset, b".", target, name)
        return
    row_bytes = max(size // shape[0], 1) * kind.get_size()
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk((max(1, min(shape[0], _CHUNK_BYTES // row_bytes)), *shape[1:]))
    creation.set_fletcher32()
    space = h5s.create_simple(shape)
    made = h5d.create(target, name, kind, space, creation, dapl=_UNCACHED)
    copy_attributes(dataset, made)
    values = np.empty(shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, values, kind)
    made.write(h5s.ALL, h5s.ALL, values, kind)


def _is_flat(kind: h5t.TypeID) -> bool:
    """Whether values of a type are numbers, or rows of numbers, that refer to nothing else."""
    if isinstance(kind, h5t.TypeCompoundID):
        members = range(kind.get_nmembers())
        return _is_sound(kind) and all(_is_flat(kind.get_member_type(i)) for i in members)
    return kind.get_class() in (h5t.INTEGER, h5t.FLOAT) and _is_sound(kind)
