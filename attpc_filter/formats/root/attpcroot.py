"""Events as ATTPCROOT writes them: trees of AtRawEvent (traces) or AtEvent (hits), without ROOT.

A branch holds, for each entry, the events of a TClonesArray (mostly one, sometimes none or several)
or a single event. FairRoot splits its branches, so that the list of pads or hits has a branch of
its own; in unsplit files the list lies within the event. An event can also stand under a key.

The number of an event is its tree entry: ``fEventID`` is an index of the unpacker, and after a
reduction no longer in step with the tree.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.points import pad_numbers, require_finite
from attpc_filter.formats.root.attpcroot_bytes import EventWalker, Items, ListFinder
from attpc_filter.formats.root.blocks import open_clones
from attpc_filter.formats.root.file import ROOT_ERRORS, BranchReader, RootFile, Span, one_line
from attpc_filter.formats.root.layout import Wanted
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

RAW_EVENT = "AtRawEvent"
HIT_EVENT = "AtEvent"

#: The list of an event, by its class: the names that it has or had, and what is in it.
_LISTS = {RAW_EVENT: (("fPadList", "fPadArray"), "AtPad"), HIT_EVENT: (("fHitArray",), "AtHit")}

_PAD_FIELDS = {
    "num": Wanted((("fPadNum",),), 0),
    "raw": Wanted((("fRawAdc",),), 1, samples=True),
}
_ALL_PAD_FIELDS = _PAD_FIELDS | {
    "size": Wanted((("fSizeID",),), 2, required=False),
    "valid": Wanted((("fIsValid",),), 3, required=False),
    "subtracted": Wanted((("fIsPedestalSubtracted",),), 4, required=False),
    "x": Wanted((("fPadCoord", "fCoordinates", "fX"), ("fPadXCoord",)), 5, floating=True),
    "y": Wanted((("fPadCoord", "fCoordinates", "fY"), ("fPadYCoord",)), 6, floating=True),
    "adc": Wanted((("fAdc",),), 7, samples=True, floating=True, required=False),
}
_HIT_FIELDS = {
    "x": Wanted((("fPosition", "fCoordinates", "fX"), ("fPosition", "fX")), 0, floating=True),
    "y": Wanted((("fPosition", "fCoordinates", "fY"), ("fPosition", "fY")), 1, floating=True),
    "z": Wanted((("fPosition", "fCoordinates", "fZ"), ("fPosition", "fZ")), 2, floating=True),
    "time_bucket": Wanted((("fTimeStamp",),), 3),
    "charge": Wanted((("fCharge",),), 4, floating=True),
    "integral": Wanted((("fTraceIntegral",),), 5, floating=True, required=False),
    "pad": Wanted((("fPadNum",),), 6),
}
_INTEGER_COLUMNS = (Point.TIME_BUCKET, Point.PAD)  # of the hits

#: ROOT's numbers of the types that ``fEventID`` has or had.
_ID_TYPES = {3: ">i4", 13: ">u4", 14: ">u8", 16: ">i8", 17: ">u8"}


@dataclass(frozen=True, slots=True)
class Pads:
    """The pads of an entry, all that AtPad says of them.

    Attributes
    ----------
    num : ndarray of int32, shape (n_pads,)
        Pad number; -1 where unmapped.
    size_id : ndarray of int32, shape (n_pads,)
        Size of the pad, in ATTPCROOT's numbers.
    xy : ndarray of float64, shape (n_pads, 2)
        Position [mm].
    raw : ndarray of int32, shape (n_pads, 512)
        Raw samples [ADC].
    adc : ndarray of float64, shape (n_pads, 512)
        Samples as corrected by ATTPCROOT [ADC].
    flags : ndarray of uint8, shape (n_pads, 2)
        Whether the pad is valid, whether its pedestal is subtracted.
    """

    num: NDArray[np.int32]
    size_id: NDArray[np.int32]
    xy: NDArray[np.float64]
    raw: NDArray[np.int32]
    adc: NDArray[np.float64]
    flags: NDArray[np.uint8]


class AttpcRootRun(RootRun):
    """A run of ATTPCROOT's events.

    Parameters
    ----------
    file : RootFile
        The file; closed with the run.
    source : Source
        Where in it the events are.
    """

    _holds: ClassVar[Literal["traces", "points"]]

    def __init__(self, file: RootFile, source: "Source") -> None:
        super().__init__(file, self._holds)
        self._source = source
        self.events = [(entry, str(entry)) for entry in range(source.n_entries)]

    @property
    def details(self) -> list[tuple[str, str]]:
        """What else there is to say of the file."""
        return self._source.details

    def event_ids(self, entry: int) -> list[int]:
        """``fEventID`` of the events of an entry, as the unpacker counted them.

        Raises
        ------
        UnreadableEvent
            If they cannot be read.
        """
        return self._source.event_ids(entry)

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read one entry; if it cannot be read, the record says why."""
        try:
            return self._read(event, name, self._source.items(int(name)), allocate)
        except UnreadableEvent as error:
            where = f"{self.path.name}, {self._source.where(int(name))}"
            return Record(event, name, reason=f"{where}: {error}")

    @abstractmethod
    def _read(self, event: int, name: str, items: Items, allocate: Allocate) -> Record:
        """The record of the pads or hits that were found."""


class TraceRun(AttpcRootRun):
    """Traces: entries of AtRawEvent."""

    format_name: ClassVar[str] = "ATTPCROOT traces"
    _holds = "traces"

    def read_pads(self, entry: int) -> Pads:
        """All that the file says of the pads of an entry.

        Raises
        ------
        UnreadableEvent
            If the entry cannot be read.
        """
        items = self._source.items(entry)
        raw = np.empty((items.n_rows, N_TIME_BUCKETS), np.int32)
        adc = np.full((items.n_rows, N_TIME_BUCKETS), np.nan)
        words = items.decode("all pads", _ALL_PAD_FIELDS, {"raw": raw, "adc": adc})
        return Pads(
            num=words[:, 0].astype(np.int32),
            size_id=words[:, 2].astype(np.int32),
            xy=words.view(np.float64)[:, 5:7].copy(),
            raw=raw,
            adc=adc,
            flags=words[:, 3:5].astype(np.uint8),
        )

    def _read(self, event: int, name: str, items: Items, allocate: Allocate) -> Record:
        traces = allocate(items.n_rows)
        words = items.decode("pads", _PAD_FIELDS, {"raw": traces[:, N_HARDWARE_COLUMNS:]})
        pads = words[:, 0]
        if len(pads) and not -32768 <= pads.min() <= pads.max() <= 32767:
            raise UnreadableEvent("a pad number beyond 16 bits")
        traces[:, :N_HARDWARE_COLUMNS] = 0
        traces[:, PAD_COLUMN] = pads
        return Record(event, name, traces=traces)


class HitRun(AttpcRootRun):
    """Hits: entries of AtEvent."""

    format_name: ClassVar[str] = "ATTPCROOT hits"
    _holds = "points"

    def _read(self, event: int, name: str, items: Items, allocate: Allocate) -> Record:
        words = items.decode("hits", _HIT_FIELDS)
        points = words.view(np.float64).copy()
        points[:, _INTEGER_COLUMNS] = words[:, _INTEGER_COLUMNS]
        points[:, Point.PAD] = pad_numbers(points[:, Point.PAD])
        require_finite(points, range(len(POINT_COLUMNS)))
        return Record(event, name, points=points)


# ---------------------------------------------------------------------------- where the events are


class Source(ABC):
    """Where in a file the events are.

    Attributes
    ----------
    n_entries : int
        Entries of the tree, or objects.
    details : list of (str, str)
        What there is to say of it.
    """

    n_entries: int
    details: list[tuple[str, str]]

    @abstractmethod
    def items(self, entry: int) -> Items:
        """Find the pads or hits of an entry."""

    @abstractmethod
    def where(self, entry: int) -> str:
        """The entry, in words."""

    def event_ids(self, entry: int) -> list[int]:
        """``fEventID`` of the events of an entry."""
        return self.items(entry).event_ids


class _BranchSource(Source):
    """Entries of a branch."""

    def __init__(self, file: RootFile, tree: Any, branch: Any, event_class: str) -> None:
        self._file = file
        self._tree = tree
        self._finder = ListFinder(file.classes, event_class, *_LISTS[event_class])
        self._what = _class_and_version(file, event_class)
        self.n_entries = int(tree.num_entries)
        self.details = [
            ("tree", f"{tree.name}, {self.n_entries} entries"),
            ("branch", f"{branch.name} of {event_class}, {self.form}"),
        ]

    form: ClassVar[str]

    def where(self, entry: int) -> str:
        """The entry and what should be there, in words."""
        return f"tree {self._tree.name}, entry {entry}, {self._what}"

    def _open(self, branch: Any) -> BranchReader:
        reader = BranchReader(self._file, branch)
        if reader.n_entries != self.n_entries:
            raise ValueError(
                f"branch {branch.name} has {reader.n_entries} entries, the tree {self.n_entries}"
            )
        return reader


class _SplitSource(_BranchSource):
    """A split branch: the list has a branch of its own."""

    form = "split"

    def __init__(
        self, file: RootFile, tree: Any, branch: Any, event_class: str, list_branch: Any
    ) -> None:
        super().__init__(file, tree, branch, event_class)
        self._reader = self._open(list_branch)
        self._version = int(list_branch.member("fClassVersion"))
        self._id_branch = _find_member(branch, ("fEventID",))
        self._ids: BranchReader | None = None

    def items(self, entry: int) -> Items:
        """Find the pads or hits of an entry."""
        span = self._reader.entry(entry)
        items = Items(self._finder, span)
        _require_end(self._find(span, items), span)
        return items

    def _find(self, span: Span, items: Items) -> int:
        return self._finder.find(span, span.start, span.stop, self._version, None, items)

    def event_ids(self, entry: int) -> list[int]:
        """``fEventID`` of the events of an entry."""
        branch = self._id_branch
        if branch is None or branch.member("fStreamerType") not in _ID_TYPES:
            raise UnreadableEvent(f"{self._finder.event_class} has no fEventID that can be read")
        if self._ids is None:
            self._ids = self._open(branch)
        span = self._ids.entry(entry)
        kind = np.dtype(_ID_TYPES[branch.member("fStreamerType")])
        return [int(i) for i in span.data[span.start : span.stop].view(kind)]


class _ArraySource(_BranchSource):
    """An unsplit branch: the list lies within a TClonesArray of events."""

    form = "unsplit"

    def __init__(self, file: RootFile, tree: Any, branch: Any, event_class: str) -> None:
        super().__init__(file, tree, branch, event_class)
        self._reader = self._open(branch)
        self._walker = EventWalker(self._finder)

    def items(self, entry: int) -> Items:
        """Find the pads or hits of an entry."""
        span = self._reader.entry(entry)
        items = Items(self._finder, span)
        self._walker.array(span, items)
        return items


class _SingleSource(_BranchSource):
    """An unsplit branch of single events, without a TClonesArray."""

    form = "single events, unsplit"

    def __init__(self, file: RootFile, tree: Any, branch: Any, event_class: str) -> None:
        super().__init__(file, tree, branch, event_class)
        self._reader = self._open(branch)
        self._version = int(branch.member("fClassVersion"))
        self._walker = EventWalker(self._finder)

    def items(self, entry: int) -> Items:
        """Find the pads or hits of an entry."""
        span = self._reader.entry(entry)
        items = Items(self._finder, span)
        self._walker.bare_event(span, self._version, items)
        return items


class _KeySource(Source):
    """Events that stand alone, each under a key; they are counted in the order of the file."""

    def __init__(self, file: RootFile, keys: list[str], event_class: str) -> None:
        self._file = file
        self._what = _class_and_version(file, event_class)
        self._keys = keys
        self.n_entries = len(keys)
        self.details = [("objects", f"{len(keys)} of {event_class}: {', '.join(keys[:5])}")]
        self._finder = ListFinder(file.classes, event_class, *_LISTS[event_class])
        self._walker = EventWalker(self._finder)

    def items(self, entry: int) -> Items:
        """Find the pads or hits of an object."""
        span = self._file.read_object(self._keys[entry])
        items = Items(self._finder, span)
        _require_end(self._walker.event(span, span.start, span.stop, items), span)
        return items

    def where(self, entry: int) -> str:
        """The object, in words."""
        return f"object {self._keys[entry]}, {self._what}"


def _class_and_version(file: RootFile, event_class: str) -> str:
    """The class of the events, and the version of it that the file describes."""
    try:
        return f"{event_class} version {file.classes.latest(event_class).version}"
    except UnreadableEvent:
        return event_class


def _require_end(at: int, span: Span) -> None:
    if at != span.stop:
        raise UnreadableEvent(f"{span.stop - at} bytes are left over")


# ---------------------------------------------------------------------------------- finding events


def find_attpcroot(file: RootFile, tree: str | None, branch: str | None) -> AttpcRootRun | None:
    """Find ATTPCROOT's events in a file: traces if there are any, else hits.

    Parameters
    ----------
    file : RootFile
        The file.
    tree, branch : str or None
        Names to go by; None: whatever holds events.

    Returns
    -------
    AttpcRootRun or None
        The run; None if the file holds no such events.

    Raises
    ------
    InputError
        If several branches would do, or the one found is damaged.
    """
    found = [
        (name, kind, event_class)
        for name in (file.names("TTree") if tree is None else [tree])
        for kind, event_class in event_branches(file, name)
        if branch is None or kind == branch
    ]
    for event_class in (RAW_EVENT, HIT_EVENT):
        matching = [(name, kind) for name, kind, other in found if other == event_class]
        if len(matching) > 1:
            raise InputError(
                f"{file.path}: several branches of {event_class}:"
                f" {', '.join(f'{kind} of {name}' for name, kind in matching)}; name one of them"
                " with root_branch (or its tree with root_tree)"
            )
        if matching:
            return _open_branch(file, *matching[0], event_class)
    if tree is None and branch is None:
        for event_class in (RAW_EVENT, HIT_EVENT):
            if keys := file.names(event_class):
                return _RUNS[event_class](file, _KeySource(file, keys, event_class))
    return None


def event_branches(file: RootFile, tree_name: str) -> Iterator[tuple[str, str]]:
    """Names of a tree's branches that hold ATTPCROOT's events, and the class of those."""
    for branch in file.tree(tree_name).branches:
        event_class = branch_class(file, branch)
        if event_class in _LISTS:
            yield branch.name, event_class


def branch_class(file: RootFile, branch: Any) -> str:
    """Class of the events in a branch, or of whatever else there is."""
    direct = str(branch.member("fClassName", none_if_missing=True) or "")
    if direct != "TClonesArray":
        return direct
    if held := branch.member("fClonesName", none_if_missing=True):
        return str(held)
    # an unsplit array says in its data what it holds
    try:
        reader = BranchReader(file, branch)
        for entry in range(min(reader.n_entries, 1)):
            return open_clones(reader.entry(entry))[0].partition(";")[0]
    except (UnreadableEvent, *ROOT_ERRORS):
        pass
    # where it cannot be read: branches are mostly named after what they hold
    return next((name for name in _LISTS if str(branch.name).startswith(name)), "")


def _open_branch(file: RootFile, tree_name: str, name: str, event_class: str) -> AttpcRootRun:
    tree = file.tree(tree_name)
    branch = next(b for b in tree.branches if b.name == name)
    try:
        list_branch = _find_member(branch, _LISTS[event_class][0])
        source: Source
        if list_branch is not None:
            source = _SplitSource(file, tree, branch, event_class, list_branch)
        elif str(branch.member("fClassName")) == "TClonesArray":
            source = _ArraySource(file, tree, branch, event_class)
        else:
            source = _SingleSource(file, tree, branch, event_class)
    except ROOT_ERRORS as error:
        raise InputError(f"{file.path}: tree {tree_name}: {one_line(error)}") from error
    return _RUNS[event_class](file, source)


def _find_member(branch: Any, names: tuple[str, ...]) -> Any | None:
    """The branch of an event's member, at whatever depth."""
    for inner in branch.branches:
        if str(inner.name).rpartition(".")[2] in names:
            return inner
        if (found := _find_member(inner, names)) is not None:
            return found
    return None


_RUNS: dict[str, type[AttpcRootRun]] = {RAW_EVENT: TraceRun, HIT_EVENT: HitRun}
