"""What lies in the bytes of a ROOT class: from streamer information to a program of steps.

A ROOT file describes each class that is in it, version by version: the streamer information. It is
turned here into a program that :mod:`attpc_filter.formats.root.kernels` follows. So a class
version that nobody has met yet is read like the common ones, as long as the members that are wanted
are in it. For the common ones the description is known here too, and is used where a file's own
cannot be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.formats.root import kernels
from attpc_filter.formats.run import UnreadableEvent
from attpc_filter.records import N_TIME_BUCKETS

# ROOT's numbers of the types of members
_BASE = 0
_ARRAY = 20  # + a basic type: a fixed array of it
_OBJECTS = (61, 62)  # an object, of a class with and without TObject
_HELD = (61, 62, 63, 68)  # or behind a pointer that is never null: lies there in the same way
_POINTERS = (64, 69)
_STRING = 65
_TOBJECT = 66
_TNAMED = 67
_CONTAINERS = (300, 365, 500)
_BASIC = {
    1: 1,
    2: 2,
    3: 4,
    4: 8,  # long: 8 bytes in a file, whatever the machine
    5: 4 + kernels.FLOATING,
    6: 4,
    8: 8 + kernels.FLOATING,
    11: 1 + kernels.UNSIGNED,
    12: 2 + kernels.UNSIGNED,
    13: 4 + kernels.UNSIGNED,
    14: 8 + kernels.UNSIGNED,
    15: 4 + kernels.UNSIGNED,
    16: 8,
    17: 8 + kernels.UNSIGNED,
    18: 1 + kernels.UNSIGNED,
}
_DEEPEST = 12

#: A member within an object: ("fPosition", "fX"); what a base class holds counts as its own.
Path = tuple[str, ...]


class LayoutError(UnreadableEvent):
    """A class cannot be read: the message says which, which version, and why."""


@dataclass(frozen=True, slots=True)
class Element:
    """A member (or base class) of a class, as streamer information describes it.

    Attributes
    ----------
    name : str
        Name of the member or base class.
    kind : int
        ROOT's number of its type.
    type_name : str
        Its type: for objects the class.
    length : int
        Elements of a fixed array, 0 for no array.
    version : int
        Version of a base class, 0 for members.
    """

    name: str
    kind: int
    type_name: str = ""
    length: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """A version of a class."""

    name: str
    version: int
    checksum: int
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Steps through the bytes of a class, and where to store what.

    Attributes
    ----------
    info : ClassInfo
        The class.
    steps : ndarray of int64, shape (n_steps, 3)
        See :mod:`attpc_filter.formats.root.kernels`.
    units : ndarray of int64, shape (n_units, 3)
        First and last step of each unit, and whether objects that lie member by member share it.
    members : list of str
        What each step is about, for messages.
    found : dict of str to int
        Wanted members that the class has, and the kind of their numbers.
    """

    info: ClassInfo
    steps: NDArray[np.int64]
    units: NDArray[np.int64]
    members: list[str]
    found: dict[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A member that is to be stored.

    Attributes
    ----------
    paths : tuple of tuple of str
        Where it may be; class versions differ.
    slot : int
        Column that takes it; of samples, their place in the bytes.
    samples : bool
        It is an array of 512 samples.
    floating : bool
        It is to be stored as a floating-point number; an integer otherwise.
    required : bool
        A class without it is of no use.
    """

    paths: tuple[Path, ...]
    slot: int
    samples: bool = False
    floating: bool = False
    required: bool = True


class Classes:
    """The classes that a file describes, and the common ones that it need not.

    Parameters
    ----------
    described : mapping of str to mapping of int to ClassInfo
        By name and version.
    """

    def __init__(self, described: Mapping[str, Mapping[int, ClassInfo]]) -> None:
        self._described = described
        self._infos = {name: dict(versions) for name, versions in KNOWN_CLASSES.items()}
        for name, versions in described.items():
            self._infos.setdefault(name, {}).update(versions)

    def get(self, name: str, version: int) -> ClassInfo:
        """A version of a class; 0 stands for the only one of a class without versions.

        Raises
        ------
        LayoutError
            If the file does not describe it.
        """
        versions = self._infos.get(name, {})
        if version in versions:
            return versions[version]
        if version == 0 and len(versions) == 1:
            return next(iter(versions.values()))
        described = ", ".join(map(str, sorted(versions))) or "none"
        raise LayoutError(f"{name} version {version} is unknown; described: {described}")

    def latest(self, name: str) -> ClassInfo:
        """The last version of a class that the file describes."""
        versions = self._described.get(name) or self._infos.get(name)
        if not versions:
            raise LayoutError(f"{name} is unknown: the file does not describe it")
        return versions[max(versions)]

    def derives_from(self, name: str, base: str) -> bool:
        """Whether a class is ``base`` or has it among its base classes."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current == base:
                return True
            if current not in seen:
                seen.add(current)
                for info in self._infos.get(current, {}).values():
                    waiting += [e.name for e in info.elements if e.kind == _BASE]
        return False


def described_classes(streamers: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    """Take what is needed from the streamer information that uproot read from a file."""
    described: dict[str, dict[int, ClassInfo]] = {}
    for name, versions in streamers.items():
        for version, info in versions.items():
            elements = tuple(
                Element(
                    str(element.name),
                    int(element.member("fType")),
                    str(element.typename),
                    int(element.member("fArrayLength")),
                    int(element.member("fBaseVersion", none_if_missing=True) or 0),
                )
                for element in info.elements
            )
            checksum = int(info.member("fCheckSum")) & 0xFFFFFFFF
            described.setdefault(name, {})[int(version)] = ClassInfo(
                name, int(version), checksum, elements
            )
    return described


def compile_class(
    classes: Classes,
    info: ClassInfo,
    wanted: Mapping[str, Wanted],
    *,
    head: bool,
    member_wise: bool = False,
    before: Sequence[str] = (),
) -> Program:
    """Make the program that reads a class.

    Parameters
    ----------
    classes : Classes
        Describes bases and members.
    info : ClassInfo
        The class.
    wanted : mapping of str to Wanted
        Members to store, by a name of ours.
    head : bool
        A byte count and a version lead each object.
    member_wise : bool
        Many objects lie member by member (and have no heads).
    before : sequence of str
        Stop before the first member of one of these names.

    Returns
    -------
    Program
        The program; ``found`` says which of the wanted members there are.

    Raises
    ------
    LayoutError
        If it lacks a member that is required, or something of unknown length comes before it.
    """
    compiler = _Compiler(classes, wanted, frozenset(before), member_wise)
    compiler.run(info, head and not member_wise)
    if missing := compiler.missing():
        held = ", ".join(element.name for element in info.elements)
        raise LayoutError(f"{info.name} version {info.version} has no {missing[0]}; it has {held}")
    steps = np.array(compiler.steps, np.int64).reshape(-1, 3)
    if not member_wise:
        compiler.units = [(0, len(steps), 0)]
    units = np.array(compiler.units, np.int64).reshape(-1, 3)
    return Program(info, steps, units, compiler.members, compiler.found)


class _Stop(Exception):
    """The member before which to stop is reached."""


@dataclass(slots=True)
class _Compiler:
    classes: Classes
    wanted: Mapping[str, Wanted]
    before: frozenset[str]
    member_wise: bool
    steps: list[tuple[int, int, int]] = field(default_factory=list)
    units: list[tuple[int, int, int]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)

    def run(self, info: ClassInfo, head: bool) -> None:
        try:
            if head:
                self._object(info, ())
                return
            self._members(info)
        except _Stop:
            return

    def _members(self, info: ClassInfo) -> None:
        """The members of an object without head; its bases' members come first."""
        for element in info.elements:
            if self.member_wise and element.kind == _BASE:
                self._members(self.classes.get(element.name, element.version))
                continue
            first = len(self.steps)
            self._member(info, element, ())
            self.units.append((first, len(self.steps), int(element.kind in _CONTAINERS)))

    def missing(self) -> list[str]:
        """Paths of what is required and was not met yet."""
        return [
            " or ".join(".".join(path) for path in wanted.paths)
            for name, wanted in self.wanted.items()
            if wanted.required and name not in self.found
        ]

    def _emit(self, member: str, what: int, a: int = 0, b: int = 0) -> None:
        last = len(self.steps) - 1
        unit_began = bool(self.units) and self.units[-1][1] > last
        if what == kernels.SKIP and last >= 0 and self.steps[last][0] == what and not unit_began:
            self.steps[last] = (what, self.steps[last][1] + a, 0)
            return
        self.steps.append((what, a, b))
        self.members.append(member)

    def _member(self, owner: ClassInfo, element: Element, path: Path) -> None:
        if element.name in self.before and not path:
            raise _Stop
        kind = element.kind
        here = (*path, element.name)
        # some writers tell the type of an array, others that of its elements
        basic = _BASIC.get(kind - _ARRAY if kind > _ARRAY and element.length else kind)
        if kind == _BASE:
            self._object(self.classes.get(element.name, element.version), path)
        elif basic is not None:
            self._numbers(owner, element, here, basic)
        elif kind in _OBJECTS and not element.length and self._leads_to_wanted(here):
            self._object(self.classes.latest(element.type_name), here)
        elif kind in (*_HELD, _TNAMED, *_CONTAINERS) and not element.length:
            self._emit(element.name, kernels.BLOCK)
        elif kind == _TOBJECT:
            self._emit(element.name, kernels.TOBJECT)
        elif kind == _STRING and not element.length:
            self._emit(element.name, kernels.STRING)
        elif kind in _POINTERS and not element.length:
            self._emit(element.name, kernels.POINTER)
        else:
            raise LayoutError(
                f"{owner.name} version {owner.version}: member {element.name} of type"
                f" {element.type_name or kind} cannot be read"
            )

    def _object(self, info: ClassInfo, path: Path) -> None:
        depth = sum((s[0] == kernels.ENTER) - (s[0] == kernels.LEAVE) for s in self.steps)
        if depth >= _DEEPEST:
            raise LayoutError(f"{info.name} version {info.version}: nested too deep")
        self._emit(info.name, kernels.ENTER, info.version, info.checksum)
        for element in info.elements:
            try:
                self._member(info, element, path)
            except LayoutError:
                if self.missing() or self.before:
                    raise
                self._emit(info.name, kernels.REST)  # what is left of it does not matter
                break
        self._emit(info.name, kernels.LEAVE)

    def _numbers(self, owner: ClassInfo, element: Element, here: Path, basic: int) -> None:
        name = next((n for n, w in self.wanted.items() if here in w.paths), None)
        count = element.length or 1
        if name is None:
            self._emit(element.name, kernels.SKIP, (basic & 15) * count)
            return
        wanted = self.wanted[name]
        floating = basic >= kernels.FLOATING
        expected = N_TIME_BUCKETS if wanted.samples else 1
        if count != expected or wanted.floating != floating:
            raise LayoutError(
                f"{owner.name} version {owner.version}: {element.name} is {count} of"
                f" {element.type_name}, expected {expected} of"
                f" {'a floating' if wanted.floating else 'an integer'} type"
            )
        if wanted.samples:
            self._emit(element.name, kernels.PLACE, wanted.slot, (basic & 15) * count)
        else:
            self._emit(element.name, kernels.NUMBER, wanted.slot, basic)
        self.found[name] = basic

    def _leads_to_wanted(self, here: Path) -> bool:
        return any(
            path[: len(here)] == here for wanted in self.wanted.values() for path in wanted.paths
        )


# ------------------------------------------------------------------------------- the common classes


def _vector_info(kind: str, dimensions: str) -> str:
    n = len(dimensions)
    return (
        f"ROOT::Math::{kind}Vector{n}D<ROOT::Math::Cartesian{n}D<double>,"
        "ROOT::Math::DefaultCoordinateSystemTag>"
    )


_POINT2 = _vector_info("Position", "XY")
_POINT3 = _vector_info("Position", "XYZ")
_SHIFT3 = _vector_info("Displacement", "XYZ")
_CARTESIAN2 = "ROOT::Math::Cartesian2D<double>"
_CARTESIAN3 = "ROOT::Math::Cartesian3D<double>"
_IS_TOBJECT = Element("TObject", _TOBJECT, "BASE", version=1)
_EVENT_BASE = Element("AtBaseEvent", _BASE, "BASE", version=1)
_PAD_MEMBERS = (
    Element("fPadNum", 3, "int"),
    Element("fSizeID", 3, "int"),
    Element("fPadCoord", 62, _POINT2),
    Element("fIsValid", 18, "bool"),
    Element("fIsPedestalSubtracted", 18, "bool"),
    Element("fRawAdc", 3, "int", 512),
    Element("fAdc", 8, "double", 512),
)

_COMMON = (
    ClassInfo(_CARTESIAN2, 1, 0x96C324BC, (Element("fX", 8, "double"), Element("fY", 8, "double"))),
    ClassInfo(
        _CARTESIAN3, 1, 0x85B02CE8, tuple(Element(f"f{axis}", 8, "double") for axis in "XYZ")
    ),
    ClassInfo(_POINT2, 1, 0x9DD95149, (Element("fCoordinates", 62, _CARTESIAN2),)),
    ClassInfo(_POINT3, 1, 0xE566D96E, (Element("fCoordinates", 62, _CARTESIAN3),)),
    ClassInfo(_SHIFT3, 1, 0x3E40083C, (Element("fCoordinates", 62, _CARTESIAN3),)),
    ClassInfo("AtPadBase", 1, 0xBE8432EF, (_IS_TOBJECT,)),
    ClassInfo("AtPad", 2, 0, (_IS_TOBJECT, *_PAD_MEMBERS)),
    ClassInfo(
        "AtPad",
        3,
        0xCDC67BBE,
        (
            Element("AtPadBase", _BASE, "BASE", version=1),
            *_PAD_MEMBERS,
            Element("fPadAugments", 500, "map<string,AtPadBase*>"),
        ),
    ),
    ClassInfo(
        "AtHit",
        5,
        0x72D2F714,
        (
            _IS_TOBJECT,
            Element("fCharge", 8, "double"),
            Element("fChargeVariance", 8, "double"),
            Element("fPosition", 62, _POINT3),
            Element("fPositionVariance", 62, _SHIFT3),
            Element("fHitID", 3, "int"),
            Element("fPadNum", 3, "int"),
            Element("fTraceIntegral", 8, "double"),
            Element("fHitMult", 3, "int"),
            Element("fTimeStamp", 3, "int"),
            Element("fTimeStampCorr", 8, "double"),
            Element("fTimeStampCorrInter", 8, "double"),
            Element("fMCSimPointArray", 500, "vector<AtHit::MCSimPoint>"),
        ),
    ),
    ClassInfo(
        "AtBaseEvent",
        1,
        0x119FF1D9,
        (
            Element("TNamed", _TNAMED, "BASE", version=1),
            Element("fEventID", 14, "unsigned long"),
            Element("fIsGood", 18, "bool"),
            Element("fIsInGate", 18, "bool"),
            Element("fTimestamp", 500, "vector<unsigned long long>"),
            Element("fAuxPadMap", 500, "map<string,AtAuxPad>"),
            Element("fEventName", 500, "string"),
        ),
    ),
    ClassInfo(
        "AtRawEvent",
        7,
        0x330B9B2D,
        (
            _EVENT_BASE,
            Element("fPadList", 500, "vector<AtPad*>"),
            Element("fFpnMap", 500, "unordered_map<AtPadReference,AtPad>"),
            Element("fGTraceList", 500, "vector<AtGenericTrace*>"),
            Element("fSimMCPointMap", 500, "multimap<int,unsigned long>"),
        ),
    ),
    ClassInfo(
        "AtEvent",
        6,
        0x280A96EA,
        (
            _EVENT_BASE,
            Element("fEventCharge", 8, "double"),
            Element("fRhoVariance", 8, "double"),
            Element("fHitArray", 500, "vector<AtHit*>"),
            Element("fMultiplicityMap", 500, "map<int,int>"),
            Element("fMeshSig", 5, "float", 512),
        ),
    ),
)

#: What ATTPCROOT's own files say of the classes that they hold now, by name and version.
KNOWN_CLASSES: dict[str, dict[int, ClassInfo]] = {
    name: {info.version: info for info in _COMMON if info.name == name}
    for name in {info.name for info in _COMMON}
}
