"""The bytes of ATTPCROOT's events: where the pads or hits lie in them, and their decoding.

An event holds a list of pads or hits: of pointers (null pointers are left out), of whole objects,
or of objects that lie member by member (first member of all, second of all ...). In an unsplit
branch the list lies among the event's other members, which are walked over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.formats.root import kernels
from attpc_filter.formats.root.blocks import number, open_block, open_clones
from attpc_filter.formats.root.file import Span
from attpc_filter.formats.root.layout import (
    Classes,
    ClassInfo,
    LayoutError,
    Program,
    Wanted,
    compile_class,
)
from attpc_filter.formats.run import UnreadableEvent

_EVENT_FIELDS = {"event_id": Wanted((("fEventID",),), 0, required=False)}
_MEMBER_WISE = 0x4000
_BYPASS = 1 << 12  # bit of a TClonesArray: its objects lie member by member
_NEW_CLASS = b"\xff\xff\xff\xff"
_MOST_OBJECTS = 100_000  # in an entry (the pad plane has 10,240 pads); more: a damaged count
_LONGEST_NAME = 200
_LEAST_POINTED = 14  # bytes of an object in a list of pointers
_LEAST_HELD = 6  # and in one of whole objects

_WHY = {
    kernels.OVERRUN: "{member} reaches beyond its end",
    kernels.NO_BLOCK: "no byte count where {member} should begin",
    kernels.VERSION: "{member} has a version that the file does not describe",
    kernels.LENGTH: "{member} does not end where its byte count says",
    kernels.REFERENCE: "{member} refers to an earlier object",
    kernels.NO_CLASS: "{member} has no class",
}


@dataclass(frozen=True, slots=True)
class _Objects:
    """Whole objects of one class and version, each with its place and the row it goes to."""

    info: ClassInfo
    begins: NDArray[np.int64]
    stops: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Members:
    """Objects of one class and version that lie member by member."""

    info: ClassInfo
    at: int
    stop: int
    count: int
    first_row: int


class Items:
    """The pads or hits of an entry: found, but not decoded yet.

    Attributes
    ----------
    n_rows : int
        How many there are.
    event_ids : list of int
        ``fEventID`` of the events that were walked over to find them.
    """

    def __init__(self, lists: "ListFinder", span: Span) -> None:
        self.n_rows = 0
        self.event_ids: list[int] = []
        self._lists = lists
        self._data = span.data
        self._parts: list[_Objects | _Members] = []

    def take_rows(self, count: int) -> NDArray[np.int64]:
        """Make room for so many; returns their rows."""
        self.n_rows += count
        return np.arange(self.n_rows - count, self.n_rows)

    def add_objects(
        self,
        info: ClassInfo,
        begins: NDArray[np.int64],
        stops: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        """Add whole objects that go to the rows."""
        self._parts.append(_Objects(info, begins, stops, rows))

    def add_members(self, info: ClassInfo, at: int, stop: int, count: int) -> None:
        """Add objects that lie member by member."""
        self._parts.append(_Members(info, at, stop, count, int(self.take_rows(count)[0])))

    def decode(
        self,
        purpose: str,
        wanted: Mapping[str, Wanted],
        samples: Mapping[str, NDArray[Any]] | None = None,
    ) -> NDArray[np.int64]:
        """Decode all.

        Parameters
        ----------
        purpose : str
            A name for ``wanted``.
        wanted : mapping of str to Wanted
            What to store.
        samples : mapping of str to ndarray, shape (n_rows, 512)
            What takes the samples [ADC]; those that a class lacks are left alone.

        Returns
        -------
        ndarray of int64, shape (n_rows, n_slots)
            The other fields in their slots; those of floating type as the bits of a float64.
            Optional members that a class lacks are 0.

        Raises
        ------
        UnreadableEvent
            If the bytes are damaged, or of a class that cannot be read.
        """
        words = np.zeros((self.n_rows, 1 + max(w.slot for w in wanted.values())), np.int64)
        for part in self._parts:
            member_wise = isinstance(part, _Members)
            program = self._lists.program(part.info, purpose, wanted, member_wise=member_wise)
            what = f"{part.info.name} version {part.info.version}"
            if isinstance(part, _Members):
                after = _walk(self._data, part, program, words)
                if after != part.stop:
                    why = _why(after, program) if after < 0 else _WHY[kernels.LENGTH]
                    raise UnreadableEvent(f"{what}: {why.format(member='the list')}")
                rows = np.arange(part.first_row, part.first_row + part.count)
            else:
                rows = part.rows
                status, index = kernels.decode_objects(
                    self._data, part.begins, part.stops, program.steps, words, rows
                )
                if status < 0:
                    raise UnreadableEvent(f"{what}, number {rows[index]}: {_why(status, program)}")
            for name, out in (samples or {}).items():
                if name in program.found:
                    places = words[rows, wanted[name].slot]
                    self._copy_samples(places, program.found[name], out, rows, f"{what}, {name}")
        return words

    def _copy_samples(
        self,
        places: NDArray[np.int64],
        kind: int,
        out: NDArray[Any],
        rows: NDArray[np.int64],
        what: str,
    ) -> None:
        integers = np.iinfo(out.dtype) if out.dtype.kind == "i" else np.iinfo(np.int64)
        whole = len(rows) == len(out)  # all objects of one class, in order: as nearly always
        target = out if whole else np.empty((len(rows), out.shape[1]), out.dtype)
        bad = kernels.copy_samples(
            self._data, places, kind, int(integers.min), int(integers.max), target
        )
        if bad >= 0:
            raise UnreadableEvent(f"{what}: a sample beyond {8 * out.itemsize} bits")
        if not whole:
            out[rows] = target


class ListFinder:
    """Finds the objects in the lists of a branch.

    Parameters
    ----------
    classes : Classes
        The classes that the file describes.
    event_class : str
        Class of the events.
    names : tuple of str
        Names that the list has, or had.
    item_class : str
        Class of the objects; those of a list of pointers may be of a class derived from it.
    """

    def __init__(
        self, classes: Classes, event_class: str, names: tuple[str, ...], item_class: str
    ) -> None:
        self.classes = classes
        self.event_class = event_class
        self.names = names
        self._item_class = item_class
        self._programs: dict[tuple[str, int, str, bool], Program] = {}

    def program(
        self, info: ClassInfo, purpose: str, wanted: Mapping[str, Wanted], *, member_wise: bool
    ) -> Program:
        """The program for a class, made once."""
        key = (info.name, info.version, purpose, member_wise)
        if key not in self._programs:
            self._programs[key] = compile_class(
                self.classes, info, wanted, head=True, member_wise=member_wise
            )
        return self._programs[key]

    def find(
        self, span: Span, at: int, limit: int, version: int, n_lists: int | None, items: Items
    ) -> int:
        """Find the objects of the lists in the block at ``at``; returns where the block ends.

        Parameters
        ----------
        span : Span
            The bytes.
        at, limit : int
            Where the block begins, and where it must have ended.
        version : int
            Version of the event's class.
        n_lists : int or None
            Lists in the block, one an event; None: as many as there are.
        items : Items
            Takes what is found.

        Raises
        ------
        UnreadableEvent
            If the bytes are damaged, or of a class that cannot be read.
        """
        end, list_version = open_block(span, at, limit, f"list of {self._item_class}")
        at += 6
        if list_version & _MEMBER_WISE:
            self._find_members(span, at, end, n_lists, items)
        elif self._holds_objects(version):
            self._find_held(span, at, end, n_lists, items)
        else:
            self._find_pointed(span, at, end, n_lists, items)
        return end

    def _find_pointed(
        self, span: Span, at: int, end: int, n_lists: int | None, items: Items
    ) -> None:
        begins, stops, names = np.empty((3, (end - at) // _LEAST_POINTED + 1), np.int64)
        found = kernels.find_pointed(
            span.data, at, end, -1 if n_lists is None else n_lists, begins, stops, names
        )
        self._require(found >= 0, _WHY[-min(found, -1)].format(member="an object"))
        if not found:
            return
        begins, stops, names = begins[:found], stops[:found], names[:found]
        # the place of a class' name stands negative where it is spelled out, and later objects
        # refer to it: counted from the key, plus 2 for ROOT's own count, less the mark before it
        places = np.where(names < 0, -names, names - (2 + span.key_length - 4))
        versions = (span.data[begins + 4].astype(np.int64) << 8) | span.data[begins + 5]
        rows = items.take_rows(int(found))
        if (places == places[0]).all() and (versions == versions[0]).all():  # nearly always
            info = self._info(self._class_name(span, int(places[0])), int(versions[0]))
            items.add_objects(info, begins, stops, rows)
            return
        spelled, which = np.unique(places, return_inverse=True)
        class_names = [self._class_name(span, int(place)) for place in spelled]
        kinds = [(class_names[w], int(v)) for w, v in zip(which, versions, strict=True)]
        for kind in dict.fromkeys(kinds):
            mine = np.array([other == kind for other in kinds])
            items.add_objects(self._info(*kind), begins[mine], stops[mine], rows[mine])

    def _class_name(self, span: Span, place: int) -> str:
        self._require(
            len(_NEW_CLASS) <= place < len(span.data)
            and span.data[place - len(_NEW_CLASS) : place].tobytes() == _NEW_CLASS,
            "an object's class is not where it should be",
        )
        spelled = span.data[place : place + _LONGEST_NAME].tobytes().partition(b"\0")[0]
        name = spelled.decode("ascii", "replace")
        self._require(name.isprintable(), "an object's class has no name")
        return name

    def _find_held(self, span: Span, at: int, end: int, n_lists: int | None, items: Items) -> None:
        begins, stops = np.empty((2, (end - at) // _LEAST_HELD + 1), np.int64)
        found = kernels.find_held(
            span.data, at, end, -1 if n_lists is None else n_lists, begins, stops
        )
        self._require(found >= 0, _WHY[-min(found, -1)].format(member="an object"))
        if found:
            info = self._info(self._item_class, number(span, int(begins[0]) + 4, 2))
            items.add_objects(info, begins[:found], stops[:found], items.take_rows(int(found)))

    def _find_members(
        self, span: Span, at: int, end: int, n_lists: int | None, items: Items
    ) -> None:
        """Find objects that lie member by member; the version stands once, before all lists."""
        self._require(at + 2 <= end, "it has no version")
        version = number(span, at, 2)
        at += 2 if version else 6  # a checksum instead of a version: the only one is taken
        info = self._info(self._item_class, version)
        done = 0
        while at < end if n_lists is None else done < n_lists:
            self._require(at + 4 <= end, _WHY[kernels.OVERRUN].format(member="it"))
            count = number(span, at, 4)
            at += 4
            self._require(count <= _MOST_OBJECTS, f"{count:,} objects: a damaged count")
            if count:
                stop = self._walk_over(span, at, end, count, info)
                items.add_members(info, at, stop, count)
                at = stop
            done += 1
        self._require(at == end, _WHY[kernels.LENGTH].format(member="it"))

    def _walk_over(self, span: Span, at: int, end: int, count: int, info: ClassInfo) -> int:
        """Where objects end that lie member by member: nothing says it but walking over them."""
        program = self.program(info, "nothing", {}, member_wise=True)
        part = _Members(info, at, end, count, 0)
        after = _walk(span.data, part, program, np.empty((count, 1), np.int64))
        self._require(after >= 0, f"version {info.version}: {_why(min(after, -1), program)}")
        return after

    def _holds_objects(self, version: int) -> bool:
        """Whether the list holds objects instead of pointers, as in files of 2021."""
        elements = self.classes.get(self.event_class, version).elements
        return any(e.name in self.names and "*" not in e.type_name for e in elements)

    def _info(self, name: str, version: int) -> ClassInfo:
        info = self.classes.get(name, version)
        if not self.classes.derives_from(name, self._item_class):
            raise LayoutError(f"{name} version {version} is no {self._item_class}")
        return info

    def _require(self, condition: bool, why: str) -> None:
        if not condition:
            raise UnreadableEvent(f"list of {self._item_class}: {why}")


class EventWalker:
    """Finds the lists within whole events.

    Parameters
    ----------
    lists : ListFinder
        Finds the objects in a list.
    """

    def __init__(self, lists: ListFinder) -> None:
        self._lists = lists
        self._event_class = lists.event_class
        self._programs: dict[tuple[int, bool, bool], Program] = {}

    def array(self, span: Span, items: Items) -> None:
        """Walk a TClonesArray.

        Raises
        ------
        UnreadableEvent
            If the bytes are damaged, or of a class that cannot be read.
        """
        kind, at, end, bits = open_clones(span)
        event_class, _, version = kind.partition(";")
        if event_class != self._event_class or not version.isdecimal():
            raise UnreadableEvent(f"a TClonesArray of {kind!r}, expected {self._event_class}")
        if at + 8 > end:
            raise UnreadableEvent("the TClonesArray is cut short")
        count = number(span, at, 4)
        at += 8
        if count > _MOST_OBJECTS:
            raise UnreadableEvent(f"a TClonesArray of {count:,} events: a damaged count")
        if count and bits & _BYPASS:
            at = self._step(span, at, end, int(version), count, items, member_wise=True)
            self._lists.find(span, at, end, int(version), count, items)
            return
        for _ in range(count):
            if at >= end:
                raise UnreadableEvent("the TClonesArray is cut short")
            at += 1
            if span.data[at - 1]:
                at = self.event(span, at, end, items)

    def event(self, span: Span, at: int, limit: int, items: Items) -> int:
        """Walk an event that is led by its byte count and version; returns where it ends."""
        end, version = open_block(span, at, limit, self._event_class)
        at = self._step(span, at, end, version, 1, items, head=True)
        self._lists.find(span, at, end, version, 1, items)
        return end

    def bare_event(self, span: Span, version: int, items: Items) -> None:
        """Walk an event without a head, as an unsplit branch of single events holds it."""
        at = self._step(span, span.start, span.stop, version, 1, items)
        self._lists.find(span, at, span.stop, version, 1, items)

    def _step(
        self,
        span: Span,
        at: int,
        limit: int,
        version: int,
        count: int,
        items: Items,
        *,
        head: bool = False,
        member_wise: bool = False,
    ) -> int:
        """Step to where the list begins."""
        key = (version, head, member_wise)
        if key not in self._programs:
            self._programs[key] = compile_class(
                self._lists.classes,
                self._lists.classes.get(self._event_class, version),
                _EVENT_FIELDS,
                head=head,
                member_wise=member_wise,
                before=self._lists.names,
            )
        words = np.full((count, 1), -1, np.int64)
        part = _Members(self._programs[key].info, at, limit, count, 0)
        after = _walk(span.data, part, self._programs[key], words)
        if after < 0:
            what = f"{self._event_class} version {version}"
            raise UnreadableEvent(f"{what}: {_why(after, self._programs[key])}")
        items.event_ids += words[:, 0].tolist()
        return after


def _walk(
    data: NDArray[np.uint8], part: _Members, program: Program, words: NDArray[np.int64]
) -> int:
    after = kernels.decode_members(
        data,
        part.at,
        part.stop,
        part.count,
        program.units,
        program.steps,
        words,
        part.first_row,
    )
    return int(after)


def _why(status: int, program: Program) -> str:
    step, reason = divmod(-int(status), 16)
    return _WHY[reason].format(member=program.members[step])
