"""Links to an event whose objects need other names besides, made in compiled code.

attpc_merger 2.0 writes four silicon matrices under names that Spyral does not look for. So every
event of its streams needs two groups of its own with nine links and the attributes of the run's
groups. Through h5py that takes as long as reading the event's traces.

Not typed: numba compiles each function for the arrays that its caller hands over. All keep the GIL,
as h5py does: the library is for one thread at a time.
"""

import ctypes
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from h5py import h5f, h5g, h5p
from numba import types
from numpy.typing import NDArray

from attpc_filter.compiled import njit
from attpc_filter.formats.hdf5 import kernels, links

_ID, _POINTER = types.int64, types.intp
_STATUS = types.int32  # negative on errors
_DEFAULT = 0  # H5P_DEFAULT
_MOST_BYTES = 64  # of the value of an attribute: a few numbers
_INTEGER, _FLOAT = 0, 1  # H5T_INTEGER, H5T_FLOAT
#: Links that a group keeps in its header; HDF5 indexes a larger one, which takes twice as long.
_COMPACT_LINKS = 16

AVAILABLE = kernels.add_functions(
    {
        "H5Acreate2": _ID(_ID, _POINTER, _ID, _ID, _ID, _ID),
        "H5Aclose": _STATUS(_ID),
        "H5Aget_name": types.int64(_ID, types.uint64, _POINTER),
        "H5Aget_num_attrs": _STATUS(_ID),
        "H5Aget_space": _ID(_ID),
        "H5Aget_storage_size": types.uint64(_ID),
        "H5Aget_type": _ID(_ID),
        "H5Aopen_by_idx": _ID(_ID, _POINTER, _STATUS, _STATUS, types.uint64, _ID, _ID),
        "H5Aread": _STATUS(_ID, _ID, _POINTER),
        "H5Awrite": _STATUS(_ID, _ID, _POINTER),
        "H5Gcreate2": _ID(_ID, _POINTER, _ID, _ID, _ID),
        "H5Gget_info": _STATUS(_ID, _POINTER),
        "H5Lcreate_external": _STATUS(_POINTER, _POINTER, _ID, _POINTER, _ID, _ID),
        "H5Ldelete": _STATUS(_ID, _POINTER, _ID),
        "H5Tget_class": _STATUS(_ID),
        "H5Tget_precision": types.uint64(_ID),
        "H5Tget_size": types.uint64(_ID),
    }
)

_create_attribute = kernels.function("H5Acreate2")
_close_attribute = kernels.function("H5Aclose")
_name_of_attribute = kernels.function("H5Aget_name")
_n_attributes = kernels.function("H5Aget_num_attrs")
_space_of_attribute = kernels.function("H5Aget_space")
_size_of_attribute = kernels.function("H5Aget_storage_size")
_type_of_attribute = kernels.function("H5Aget_type")
_open_attribute = kernels.function("H5Aopen_by_idx")
_read_attribute = kernels.function("H5Aread")
_write_attribute = kernels.function("H5Awrite")
_create_group = kernels.function("H5Gcreate2")
_group_info = kernels.function("H5Gget_info")
_create_link = kernels.function("H5Lcreate_external")
_delete_link = kernels.function("H5Ldelete")
_class_of = kernels.function("H5Tget_class")
_precision_of = kernels.function("H5Tget_precision")
_size_of_type = kernels.function("H5Tget_size")
_open_group = kernels.function("H5Gopen2")
_close_group = kernels.function("H5Gclose")
_link_exists = kernels.function("H5Lexists")
_close_space = kernels.function("H5Sclose")
_close_type = kernels.function("H5Tclose")


class UsualEvent(NamedTuple):
    """What an event's group usually holds, and the further names that its objects need.

    Attributes
    ----------
    group : bytes
        The group in which objects need further names.
    names : tuple of bytes
        All that this group holds.
    further : tuple of (bytes, bytes)
        Further names, each with the name in ``names`` of the object that it stands for.
    whole : tuple of (bytes, bytes)
        What else the event may hold and can be linked as it is, each with something that must be in
        it.
    """

    group: bytes
    names: tuple[bytes, ...]
    further: tuple[tuple[bytes, bytes], ...]
    whole: tuple[tuple[bytes, bytes], ...]


def texts(parts: Iterable[bytes]) -> NDArray[np.uint8]:
    """Join texts, each with a zero at its end, as the library wants them."""
    return np.frombuffer(b"\0".join([*parts, b""]), np.uint8)


class Linker:
    """Makes the links of usual events of a run in a stream.

    Parameters
    ----------
    usual : UsualEvent
        What the events usually hold.
    source, target : h5py.h5g.GroupID
        The groups of the events in the run and in the stream.
    container : str
        Path of the group of the events.
    source_path : bytes
        Path of the run's file, as the links name it.
    """

    def __init__(
        self,
        usual: UsualEvent,
        source: h5g.GroupID,
        target: h5g.GroupID,
        container: str,
        source_path: bytes,
    ) -> None:
        self._properties = h5p.create(h5p.GROUP_CREATE)
        # h5py does not offer these
        library = kernels.library()
        n_links = ctypes.c_uint(_COMPACT_LINKS), ctypes.c_uint(_COMPACT_LINKS // 2)
        library.H5Pset_link_phase_change(ctypes.c_int64(self._properties.id), *n_links)
        pairs = [(name, name) for name in usual.names] + list(usual.further)
        self._arguments = (
            source.id,
            target.id,
            links.GROUP_ACCESS,
            self._properties.id,
            texts([source_path]),
            np.frombuffer(b"/" + container.encode() + b"/", np.uint8),
            texts([usual.group]),
            texts(usual.names),
            texts(part for pair in pairs for part in pair),
            texts(part for pair in usual.whole for part in pair),
        )

    def link(self, name: bytes) -> bool:
        """Make the links of an event; False, and nothing made, if it is not a usual one."""
        return bool(link_event(texts([name]), *self._arguments))


def link_parts(
    source: h5f.FileID, target: h5f.FileID, source_path: bytes, paths: Sequence[bytes]
) -> bool:
    """Link those parts of an event that the run has.

    Parameters
    ----------
    source, target : h5py.h5f.FileID
        The run and the stream.
    source_path : bytes
        Path of the run's file, as the links name it.
    paths : sequence of bytes
        Absolute paths of the parts in the run, which are those in the stream too.

    Returns
    -------
    bool
        False if a link could not be made.
    """
    return bool(_link_parts(source.id, target.id, texts([source_path]), texts(paths)))


@njit(cache=True)
def _link_parts(source, target, source_path, paths):
    start = 0
    while start < len(paths):
        part = paths.ctypes.data + start
        if _link_exists(source, part, _DEFAULT) > 0 and (
            _create_link(source_path.ctypes.data, part, target, part, _DEFAULT, _DEFAULT) < 0
        ):
            return False
        start = _after(paths, start)
    return True


@njit(cache=True)
def link_event(
    event, source, target, access, properties, source_path, container, group, names, links, whole
):
    """Make an event's groups, their attributes and links; False if the event is not usual.

    Parameters
    ----------
    event : ndarray of uint8
        Name of the event; like all texts with a zero at its end.
    source, target : int
        Identifiers of the groups of events in the run and in the stream.
    access : int
        Identifier of the access list of groups.
    properties : int
        Identifier of the properties of new groups.
    source_path, container : ndarray of uint8
        The run's file as links name it, and the path of its events (without a zero at its end).
    group, names : ndarray of uint8
        Name of the event's group whose objects get further names, and all names in it.
    links : ndarray of uint8
        Pairs of texts: a link's name, and the name in the run of what it leads to.
    whole : ndarray of uint8
        Pairs of texts: what else may be in the event, and what must be in that.
    """
    opened = _open_group(source, event.ctypes.data, access)
    if opened < 0:
        return False
    done = False
    inner = np.int64(-1)
    if _link_exists(opened, group.ctypes.data, _DEFAULT) > 0:
        inner = _open_group(opened, group.ctypes.data, access)
    if inner >= 0:
        n_whole = _count_whole(opened, access, whole)
        if n_whole >= 0 and _n_links(opened) == 1 + n_whole and _holds(inner, names):
            made = _create_group(target, event.ctypes.data, _DEFAULT, properties, _DEFAULT)
            if made >= 0:
                done = _copy_attributes(opened, made) and _link_all(
                    opened,
                    inner,
                    made,
                    properties,
                    event,
                    source_path,
                    container,
                    group,
                    links,
                    whole,
                )
                _close_group(made)
                if not done:
                    _delete_link(target, event.ctypes.data, _DEFAULT)
        _close_group(inner)
    _close_group(opened)
    return done


@njit(cache=True)
def _link_all(opened, inner, made, properties, event, source_path, container, group, links, whole):
    """Make the links of an event in its new group, ``made``."""
    path = np.empty(len(container) + len(event) + len(group) + len(links) + len(whole), np.uint8)
    start = _join(path, 0, container, 0)
    start = _join(path, start, event, 0)
    path[start] = 47  # a slash
    start += 1
    new = _create_group(made, group.ctypes.data, _DEFAULT, properties, _DEFAULT)
    if new < 0:
        return False
    done = _copy_attributes(inner, new)
    in_group = _join(path, start, group, 0)
    path[in_group] = 47
    in_group += 1
    link = 0
    while done and link < len(links):
        leads_to = _after(links, link)
        path[_join(path, in_group, links, leads_to)] = 0
        done = (
            _create_link(
                source_path.ctypes.data,
                path.ctypes.data,
                new,
                links.ctypes.data + link,
                _DEFAULT,
                _DEFAULT,
            )
            >= 0
        )
        link = _after(links, leads_to)
    _close_group(new)
    part = 0
    while done and part < len(whole):
        if _link_exists(opened, whole.ctypes.data + part, _DEFAULT) > 0:
            path[_join(path, start, whole, part)] = 0
            done = (
                _create_link(
                    source_path.ctypes.data,
                    path.ctypes.data,
                    made,
                    whole.ctypes.data + part,
                    _DEFAULT,
                    _DEFAULT,
                )
                >= 0
            )
        part = _after(whole, _after(whole, part))
    return done


@njit(cache=True)
def _count_whole(opened, access, whole):
    """Count the parts to be linked whole that the event has; -1 if one lacks what it must hold."""
    n = 0
    part = 0
    while part < len(whole):
        demanded = _after(whole, part)
        if _link_exists(opened, whole.ctypes.data + part, _DEFAULT) > 0:
            n += 1
            inner = _open_group(opened, whole.ctypes.data + part, access)
            if inner < 0:
                return -1
            there = _link_exists(inner, whole.ctypes.data + demanded, _DEFAULT) > 0
            _close_group(inner)
            if not there:
                return -1
        part = _after(whole, demanded)
    return n


@njit(cache=True)
def _holds(group, names):
    """Whether a group holds these names and no others."""
    n = 0
    start = 0
    while start < len(names):
        if _link_exists(group, names.ctypes.data + start, _DEFAULT) <= 0:
            return False
        n += 1
        start = _after(names, start)
    return _n_links(group) == n


@njit(cache=True)
def _n_links(group):
    """Number of links in a group; -1 on errors."""
    info = np.zeros(4, np.int64)  # H5G_info_t: storage type, number of links, order, mounted
    return info[1] if _group_info(group, info.ctypes.data) >= 0 else np.int64(-1)


@njit(cache=True)
def _copy_attributes(source, target):
    """Copy all attributes of a group; False if one is not of a few plain numbers."""
    n = _n_attributes(source)
    if n < 0:
        return False
    here = np.array([46, 0], np.uint8)  # "."
    name = np.empty(256, np.uint8)
    value = np.empty(_MOST_BYTES, np.uint8)
    for index in range(n):
        attribute = _open_attribute(
            source, here.ctypes.data, 0, 2, np.uint64(index), _DEFAULT, _DEFAULT
        )
        if attribute < 0:
            return False
        kind = _type_of_attribute(attribute)
        space = _space_of_attribute(attribute)
        length = _name_of_attribute(attribute, np.uint64(len(name)), name.ctypes.data)
        copied = False
        if (
            0 < length < len(name)
            and (_class_of(kind) == _INTEGER or _class_of(kind) == _FLOAT)
            and _precision_of(kind) == 8 * _size_of_type(kind)
            and 0 < _size_of_attribute(attribute) <= len(value)
            and _read_attribute(attribute, kind, value.ctypes.data) >= 0
        ):
            made = _create_attribute(target, name.ctypes.data, kind, space, _DEFAULT, _DEFAULT)
            if made >= 0:
                copied = _write_attribute(made, kind, value.ctypes.data) >= 0
                _close_attribute(made)
        _close_space(space)
        _close_type(kind)
        _close_attribute(attribute)
        if not copied:
            return False
    return True


@njit(cache=True)
def _join(path, start, text, first):
    """Write the text that begins at ``first`` into a path; returns where the path ends then."""
    while first < len(text) and text[first] != 0:
        path[start] = text[first]
        start += 1
        first += 1
    return start


@njit(cache=True)
def _after(text, start):
    """Where the text begins that follows the one at ``start``."""
    while text[start] != 0:
        start += 1
    return start + 1
