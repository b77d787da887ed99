"""Plain ROOT trees: columns of numbers, one entry an event; TTree and RNTuple.

Which column is what, the user says. Hits: ``x`` and ``y`` or ``pad``, ``time`` or ``z``,
``charge``, and ``integral`` if there is one. Traces: ``pad`` and ``adc``, 512 samples a pad, in one
flat array or in one array a pad. ``event`` numbers the events; left out, the entries count.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import uproot
import xxhash
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.points import pad_numbers, require_finite
from attpc_filter.formats.root.file import ROOT_ERRORS, BranchReader, RootFile, one_line
from attpc_filter.formats.root.run import RootRun
from attpc_filter.formats.run import Allocate, UnreadableEvent, allocate_new
from attpc_filter.records import (
    N_HARDWARE_COLUMNS,
    N_TIME_BUCKETS,
    PAD_COLUMN,
    POINT_COLUMNS,
    Point,
    Record,
)

#: Columns of a hit, in the order of a record's points, and what stands where there is none. z is
#: computed from the time where it is NaN throughout, x and y are looked up by pad.
_HIT_ROLES = dict(
    zip(
        ("x", "y", "z", "time", "charge", "integral", "pad"),
        (np.nan, np.nan, np.nan, 0.0, 0.0, 0.0, -1.0),
        strict=True,
    )
)
assert len(_HIT_ROLES) == len(POINT_COLUMNS)

_MOST_NAMES = 20
_PAGE_CHECKSUM_BYTES = 8


class PlainRun(RootRun):
    """A tree with columns of numbers.

    Parameters
    ----------
    file : RootFile
        The file; closed with the run.
    tree : str
        Name of the TTree or RNTuple.
    columns : mapping of str to str
        Name of the column that has each role, see :class:`attpc_filter.root_options.RootOptions`.

    Raises
    ------
    InputError
        If the tree or a column is not there or not of numbers.
    """

    format_name: ClassVar[str] = "ROOT tree"

    def __init__(self, file: RootFile, tree: str, columns: Mapping[str, str]) -> None:
        super().__init__(file, "traces" if "adc" in columns else "points")
        self._tree_name = tree
        self._columns = dict(columns)
        try:
            kind = _RNTupleColumns if file.keys[tree] == "ROOT::RNTuple" else _TreeColumns
            self._table: _Columns = kind(file, file.tree(tree), self._columns)
            self.events = self._numbered(self._table.n_entries)
        except UnreadableEvent as error:
            raise InputError(f"{file.path}: tree {tree}: {error}") from error
        except ROOT_ERRORS as error:
            raise InputError(f"{file.path}: tree {tree}: damaged: {one_line(error)}") from error

    @property
    def details(self) -> list[tuple[str, str]]:
        """What else there is to say of the file."""
        named = ", ".join(f"{role}: {name}" for role, name in self._columns.items())
        return [("tree", f"{self._tree_name}, {len(self.events)} entries"), ("columns", named)]

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read one entry; if it cannot be read, the record says why."""
        try:
            arrays = {
                role: self._table.values(role, int(name))
                for role in self._columns
                if role != "event"
            }
            if "adc" in arrays:
                return Record(event, name, traces=_traces(arrays, allocate))
            return Record(event, name, points=_points(arrays))
        except UnreadableEvent as error:
            where = f"{self.path.name}, tree {self._tree_name}, entry {name}"
            return Record(event, name, reason=f"{where}: {error}")

    def _numbered(self, n_entries: int) -> list[tuple[int, str]]:
        if "event" not in self._columns:
            return [(entry, str(entry)) for entry in range(n_entries)]
        numbers = self._table.numbers("event")
        if len(numbers) != n_entries:
            raise UnreadableEvent(f"column {self._columns['event']}: one number an entry expected")
        falls = np.flatnonzero(np.diff(numbers) <= 0)
        if len(falls):
            at = int(falls[0])
            raise UnreadableEvent(
                f"column {self._columns['event']} does not ascend: {numbers[at + 1]} after"
                f" {numbers[at]} at entry {at + 1}; leave `event` out to number by entry"
            )
        return [(int(number), str(entry)) for entry, number in enumerate(numbers)]


def _event_numbers(parts: Sequence[NDArray[np.integer[Any]]]) -> NDArray[np.int64]:
    """Join numbers of events, whatever their width."""
    for part in parts:
        if len(part) and int(part.max()) >= 2**63:
            raise UnreadableEvent(
                f"column event: {part.max()} is no event's number, which ends at 2^63 - 1; leave"
                " `event` out to number by entry"
            )
    return np.concatenate([np.empty(0, np.int64), *(part.astype(np.int64) for part in parts)])


def _traces(arrays: Mapping[str, NDArray[Any]], allocate: Allocate) -> NDArray[np.int16]:
    pads, adc = arrays["pad"], arrays["adc"]
    if len(adc) != len(pads) * N_TIME_BUCKETS:
        raise UnreadableEvent(
            f"{len(adc)} samples of {len(pads)} pads, expected {N_TIME_BUCKETS} a pad"
        )
    traces = allocate(len(pads))
    traces[:, :N_HARDWARE_COLUMNS] = 0
    traces[:, PAD_COLUMN] = _as_int16(pads, "pad number")
    traces[:, N_HARDWARE_COLUMNS:] = _as_int16(adc, "sample").reshape(len(pads), N_TIME_BUCKETS)
    return traces


def _as_int16(values: NDArray[Any], what: str) -> NDArray[Any]:
    """Values that fit 16 bits; fractions are rounded."""
    if values.dtype.kind == "f":
        values = np.rint(values)
    if len(values) and not -32768 <= values.min() <= values.max() <= 32767:  # false for NaN too
        raise UnreadableEvent(f"a {what} beyond 16 bits")
    return values


def _points(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    lengths = {role: len(values) for role, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{role} {length}" for role, length in lengths.items())
        raise UnreadableEvent(f"columns of different lengths: {told}")
    points = np.empty((next(iter(lengths.values())), len(_HIT_ROLES)))
    for column, (role, absent) in enumerate(_HIT_ROLES.items()):
        points[:, column] = arrays.get(role, absent)
    points[:, Point.PAD] = pad_numbers(points[:, Point.PAD])
    require_finite(points, [c for c, role in enumerate(_HIT_ROLES) if role in arrays])
    return points


class _Columns(ABC):
    """The columns of a tree."""

    n_entries: int

    @abstractmethod
    def values(self, role: str, entry: int) -> NDArray[Any]:
        """The numbers of an entry, flat."""

    @abstractmethod
    def numbers(self, role: str) -> NDArray[np.int64]:
        """The numbers of a column that has one an entry."""


# ----------------------------------------------------------------------------------------- TTree


class _TreeColumns(_Columns):
    """Columns of a TTree; their baskets are read and checked as those of events are."""

    def __init__(self, file: RootFile, tree: Any, columns: Mapping[str, str]) -> None:
        self.n_entries = int(tree.num_entries)
        self._readers: dict[str, BranchReader] = {}
        self._layouts: dict[str, _Layout] = {}
        for role, name in columns.items():
            branch = _find_branch(tree, name)
            self._layouts[role] = _layout(branch)
            self._readers[role] = reader = BranchReader(file, branch)
            if reader.n_entries != self.n_entries:
                raise ValueError(
                    f"branch {name} has {reader.n_entries} entries, the tree {self.n_entries}"
                )

    def values(self, role: str, entry: int) -> NDArray[Any]:
        """The numbers of an entry, flat."""
        span = self._readers[role].entry(entry)
        return self._layouts[role].values(span.data[span.start : span.stop], role)

    def numbers(self, role: str) -> NDArray[np.int64]:
        """The numbers of a column that has one an entry."""
        layout = self._layouts[role]
        baskets = [layout.values(b.data, role) for b in self._readers[role].baskets()]
        if layout.head or layout.nested or any(b.dtype.kind not in "iu" for b in baskets):
            raise UnreadableEvent("column event: one integer an entry expected")
        return _event_numbers(baskets)


class _Layout:
    """How the numbers of an entry lie in its bytes.

    Parameters
    ----------
    dtype : numpy dtype
        Type of a number, big-endian.
    head : int
        Bytes before the numbers: a std::vector has some.
    nested : bool
        Each of several arrays is led by its length.
    """

    def __init__(self, dtype: np.dtype[Any], head: int = 0, nested: bool = False) -> None:
        self.dtype = dtype
        self.head = head
        self.nested = nested

    def values(self, data: NDArray[np.uint8], role: str) -> NDArray[Any]:
        """The numbers in the bytes, flat, in the machine's byte order."""
        if len(data) < self.head:
            raise UnreadableEvent(f"column {role}: its bytes are cut short")
        if self.head:
            self._check_head(data, role)
        content = self._joined(data, role) if self.nested else data[self.head :]
        if len(content) % self.dtype.itemsize:
            raise UnreadableEvent(f"column {role}: its bytes are cut short")
        return content.view(self.dtype).astype(self.dtype.newbyteorder("="))

    def _check_head(self, data: NDArray[np.uint8], role: str) -> None:
        """A std::vector begins with its byte count, two bytes, and its length."""
        claimed = int.from_bytes(data[:4].tobytes(), "big")
        length = int.from_bytes(data[self.head - 4 : self.head].tobytes(), "big")
        held = (len(data) - self.head) // self.dtype.itemsize
        if claimed != 0x40000000 | len(data) - 4 or not (self.nested or length == held):
            raise UnreadableEvent(f"column {role}: a vector's length does not fit its bytes")

    def _joined(self, data: NDArray[np.uint8], role: str) -> NDArray[np.uint8]:
        parts = [np.empty(0, np.uint8)]
        at = self.head
        while at + 4 <= len(data):
            stop = at + 4 + self.dtype.itemsize * int.from_bytes(data[at : at + 4].tobytes(), "big")
            if stop > len(data):
                raise UnreadableEvent(f"column {role}: a vector's length does not fit its bytes")
            parts.append(data[at + 4 : stop])
            at = stop
        return np.concatenate(parts)


def _layout(branch: Any) -> _Layout:
    try:
        kind = branch.interpretation
    except ROOT_ERRORS as error:
        raise UnreadableEvent(f"column {branch.name} cannot be read: {one_line(error)}") from error
    if isinstance(kind, uproot.AsDtype):
        return _Layout(_plain(kind.from_dtype, branch))
    if isinstance(kind, uproot.AsJagged):
        return _Layout(_plain(kind.content.from_dtype, branch), kind.header_bytes)
    model = getattr(kind, "model", None)
    if isinstance(model, uproot.AsVector) and isinstance(model.values, uproot.AsVector):
        values = model.values.values
        if model.header and not model.values.header and isinstance(values, np.dtype):
            return _Layout(_plain(values, branch), 10, nested=True)
    raise UnreadableEvent(
        f"column {branch.name} of type {branch.typename} cannot be read; columns of numbers can,"
        " alone, in arrays and in std::vector"
    )


def _plain(dtype: np.dtype[Any], branch: Any) -> np.dtype[Any]:
    base = dtype.base
    if base.kind not in "biuf":
        raise UnreadableEvent(f"column {branch.name} of type {branch.typename} holds no numbers")
    return base


def _find_branch(tree: Any, name: str) -> Any:
    try:
        return tree[name]
    except uproot.KeyInFileError:
        raise UnreadableEvent(_no_column(name, tree.keys(recursive=True))) from None


def _no_column(name: str, there: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, there, 1, 0.0)
    if not near:
        return f"no column {name!r}; there are none"
    more = ", ..." if len(there) > _MOST_NAMES else ""
    return (
        f"no column {name!r}; the nearest is {near[0]!r}, there are"
        f" {', '.join(there[:_MOST_NAMES])}{more}"
    )


# --------------------------------------------------------------------------------------- RNTuple


class _RNTupleColumns(_Columns):
    """Columns of an RNTuple, cluster by cluster; uproot decodes their pages.

    RNTuple keeps a checksum beside every page, which uproot leaves alone: it is checked here.
    """

    def __init__(self, file: RootFile, ntuple: Any, columns: Mapping[str, str]) -> None:
        self.n_entries = int(ntuple.num_entries)
        self._file = file
        self._ntuple = ntuple
        self._fields = {role: _find_field(ntuple.header, name) for role, name in columns.items()}
        firsts = [int(summary.num_first_entry) for summary in ntuple.cluster_summaries]
        self._starts = np.array([*firsts, self.n_entries], np.int64)
        if self._starts[0] != 0 or (np.diff(self._starts) < 0).any():
            raise ValueError("its list of clusters is damaged")
        self._cluster = -1
        self._columns: dict[int, NDArray[Any]] | UnreadableEvent = {}

    def values(self, role: str, entry: int) -> NDArray[Any]:
        """The numbers of an entry, flat."""
        cluster = int(np.searchsorted(self._starts, entry, "right")) - 1
        if cluster != self._cluster:
            self._cluster, self._columns = cluster, {}  # frees the last one first
            try:
                self._columns = self._read(cluster, [r for r in self._fields if r != "event"])
            except UnreadableEvent as error:
                self._columns = error
        if isinstance(self._columns, UnreadableEvent):
            raise self._columns
        start = entry - int(self._starts[cluster])
        return self._fields[role].values(self._columns, start, start + 1)

    def numbers(self, role: str) -> NDArray[np.int64]:
        """The numbers of a column that has one an entry."""
        parts = []
        for cluster, length in enumerate(np.diff(self._starts)):
            columns = self._read(cluster, [role])
            part = self._fields[role].values(columns, 0, int(length))
            if self._fields[role].steps or part.dtype.kind not in "iu":
                raise UnreadableEvent("column event: one integer an entry expected")
            parts.append(part)
        return _event_numbers(parts)

    def _read(self, cluster: int, roles: Sequence[str]) -> dict[int, NDArray[Any]]:
        try:
            columns = {column for role in roles for column in self._fields[role].columns}
            for column in columns:
                self._check_pages(cluster, column)
            return {
                column: self._ntuple.read_cluster_range(column, cluster, cluster + 1)
                for column in columns
            }
        except ROOT_ERRORS as error:
            first, last = int(self._starts[cluster]), int(self._starts[cluster + 1]) - 1
            raise UnreadableEvent(
                f"cluster {cluster} (entries {first} to {last}) is damaged: {one_line(error)}"
            ) from error

    def _check_pages(self, cluster: int, column: int) -> None:
        """Compare the pages of a column with their checksums."""
        for page in self._ntuple.page_link_list[cluster][column].pages:
            if not page.has_checksum:
                continue
            at, length = int(page.locator.offset), int(page.locator.num_bytes)
            stored = self._file.read_bytes(at, length + _PAGE_CHECKSUM_BYTES)
            checksum = int.from_bytes(stored[length:], "little")
            if xxhash.xxh3_64_intdigest(stored[:length]) != checksum:
                raise ValueError("a page does not match its checksum")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of an RNTuple, and the way from an entry to its numbers.

    Attributes
    ----------
    steps : tuple of (int, int)
        Through a column of offsets (its index, 0), or through an array (-1, its length).
    leaf : int
        Index of the column that holds the numbers.
    """

    steps: tuple[tuple[int, int], ...]
    leaf: int

    @property
    def columns(self) -> list[int]:
        """Indices of all columns on the way."""
        return [column for column, _ in self.steps if column >= 0] + [self.leaf]

    def values(self, columns: Mapping[int, NDArray[Any]], start: int, stop: int) -> NDArray[Any]:
        """The numbers of entries ``start`` to ``stop`` of a cluster, flat."""
        for column, length in self.steps:
            if column < 0:
                start, stop = start * length, stop * length
            else:
                offsets = columns[column]
                start, stop = int(offsets[start]), int(offsets[stop])
        numbers = columns[self.leaf]
        if not 0 <= start <= stop <= len(numbers):
            raise UnreadableEvent("its offsets do not fit its columns")
        return numbers[start:stop]


def _find_field(header: Any, name: str) -> _Field:
    """The way to a field: ``hits`` of a vector, ``hits.x`` of a vector of records."""
    fields = header.field_records
    children: dict[int, dict[str, int]] = {}
    top: dict[str, int] = {}
    for index, record in enumerate(fields):
        if record.parent_field_id == index:
            top[record.field_name] = index
        else:
            children.setdefault(record.parent_field_id, {})[record.field_name] = index
    columns: dict[int, int] = {}
    for index, column in enumerate(header.column_records):
        columns.setdefault(column.field_id, index)

    first, *path = name.split(".")
    if first not in top:
        raise UnreadableEvent(_no_column(name, list(top)))
    at = top[first]
    steps: list[tuple[int, int]] = []
    while at in children:
        record, below = fields[at], children[at]
        if record.repetition:
            steps.append((-1, int(record.repetition)))
        elif at in columns:
            steps.append((columns[at], 0))
        if len(below) == 1 and (not path or path[0] not in below):
            at = next(iter(below.values()))  # what a vector or an array is of has no name
        elif path and path[0] in below:
            at = below[path.pop(0)]
        else:
            reached = name.removesuffix("." + ".".join(path))
            raise UnreadableEvent(_no_column(name, [f"{reached}.{inner}" for inner in below]))
    if path or at not in columns or fields[at].type_name == "std::string":
        raise UnreadableEvent(
            f"column {name} of type {fields[at].type_name} cannot be read; columns of numbers can"
        )
    return _Field(tuple(steps), columns[at])
