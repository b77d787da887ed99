"""The HDF5 library called from compiled code: the usual events of a run, read without Python.

h5py makes a Python object of each dataset, shape and type that it opens, which takes time beside
the reading of one event's traces. The functions are those of the very library that h5py has loaded,
found by their names.

Not typed: numba compiles each for the arrays that its caller hands over. All keep the GIL, as h5py
does: the library is for one thread at a time.
"""

import ctypes
import functools

import llvmlite.binding as llvm
import numpy as np
from h5py import h5d
from numba import types

from attpc_filter.compiled import njit

_ID, _POINTER = types.int64, types.intp
_STATUS = types.int32  # negative on errors
_SIGNATURES = {
    "H5Gopen2": _ID(_ID, _POINTER, _ID),
    "H5Gclose": _STATUS(_ID),
    "H5Lexists": _STATUS(_ID, _POINTER, _ID),
    "H5Dopen2": _ID(_ID, _POINTER, _ID),
    "H5Dget_space": _ID(_ID),
    "H5Dget_offset": types.uint64(_ID),
    "H5Dget_create_plist": _ID(_ID),
    "H5Pget_layout": _STATUS(_ID),
    "H5Pget_external_count": _STATUS(_ID),
    "H5Pclose": _STATUS(_ID),
    "H5Dget_type": _ID(_ID),
    "H5Dread": _STATUS(_ID, _ID, _ID, _ID, _ID, _POINTER),
    "H5Dclose": _STATUS(_ID),
    "H5Sget_simple_extent_ndims": _STATUS(_ID),
    "H5Sget_simple_extent_dims": _STATUS(_ID, _POINTER, _POINTER),
    "H5Sclose": _STATUS(_ID),
    "H5Tequal": _STATUS(_ID, _ID),
    "H5Tclose": _STATUS(_ID),
}
_DEFAULT = 0  # H5P_DEFAULT, and H5S_ALL
_NO_OFFSET = np.uint64(2**64 - 1)  # HADDR_UNDEF
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2  # H5D_layout_t

#: In place of an event's rows, or its register: not as usual, so that h5py is to look at it.
UNUSUAL = -1
#: In place of a register: there is none.
NO_REGISTER = -2


@functools.cache
def library() -> ctypes.CDLL:
    """The HDF5 library that h5py has loaded."""
    return ctypes.CDLL(h5d.__file__)


def add_functions(signatures):
    """Tell the compiler where functions of the library are; False where they cannot be found.

    Under names of our own: this process may have loaded another HDF5 besides.

    Parameters
    ----------
    signatures : dict of str to numba signature
        By the function's name.
    """
    try:
        for name, signature in signatures.items():
            pointer = ctypes.cast(getattr(library(), name), ctypes.c_void_p)
            llvm.add_symbol(f"attpc_filter_{name}", pointer.value)
            _FUNCTIONS[name] = types.ExternalFunction(f"attpc_filter_{name}", signature)
    except (OSError, AttributeError):
        return False
    return True


def function(name):
    """A function of the library, as compiled code calls it."""
    return _FUNCTIONS.get(name)


_FUNCTIONS: dict[str, types.ExternalFunction] = {}
#: Whether the functions below can be called.
AVAILABLE = add_functions(_SIGNATURES)

_open_group = function("H5Gopen2")
_close_group = function("H5Gclose")
_link_exists = function("H5Lexists")
_open_dataset = function("H5Dopen2")
_space_of = function("H5Dget_space")
_offset_of = function("H5Dget_offset")
_creation_of = function("H5Dget_create_plist")
_layout_of = function("H5Pget_layout")
_n_external_files = function("H5Pget_external_count")
_close_properties = function("H5Pclose")
_type_of = function("H5Dget_type")
_read = function("H5Dread")
_close_dataset = function("H5Dclose")
_n_dimensions = function("H5Sget_simple_extent_ndims")
_dimensions = function("H5Sget_simple_extent_dims")
_close_space = function("H5Sclose")
_are_equal = function("H5Tequal")
_close_type = function("H5Tclose")


@njit(cache=True)
def read_events(
    parent,
    paths,
    n_events,
    others,
    others_with_register,
    access,
    int16,
    uint16,
    n_columns,
    most_rows,
    buffer,
):
    """Read events one after the other until the buffer has no room for the next.

    Parameters
    ----------
    parent : int
        Identifier of the group that the paths start from.
    paths : ndarray of uint8
        Four texts an event, each with a zero at its end: the path of its trace matrix; one that is
        there if the event has a coincidence register; that of the register; the event's own group.
        The two of the register are empty if there is none.
    n_events : int
        How many events the paths are of.
    others, others_with_register : ndarray of uint8
        Paths in an event's group of what else is to be looked for, in every event and in those with
        a register; each with a zero at its end.
    access : tuple of (int, int, int)
        Identifiers of the access lists of links, datasets and groups.
    int16, uint16 : int
        Identifiers of these types.
    n_columns, most_rows : int
        Columns that a trace matrix has, and rows that it may have.
    buffer : ndarray of int16, shape (n, n_columns)
        Room for the traces.

    Returns
    -------
    n_rows : ndarray of int64
        Traces of the events that were read, which lie in the buffer one after the other;
        :data:`UNUSUAL` for an event that was not.
    registers : ndarray of int64
        Their coincidence registers, :data:`NO_REGISTER` or :data:`UNUSUAL`.
    is_complete : ndarray of bool
        Whether all was there that was to be looked for.
    n_bytes : int
        How much of the paths was theirs.
    """
    n_rows = np.empty(n_events, np.int64)
    registers = np.empty(n_events, np.int64)
    is_complete = np.zeros(n_events, np.bool_)
    address = np.int64(paths.ctypes.data)
    traces = 0
    used = 0
    for event in range(n_events):
        sign = _after(paths, traces)
        place = _after(paths, sign)
        register = NO_REGISTER
        if paths[sign] != 0:
            register = _read_register(parent, address + sign, address + place, access, uint16)
        rows = UNUSUAL
        if register != UNUSUAL:
            rows = _read_matrix(
                parent, address + traces, access, int16, n_columns, most_rows, buffer[used:]
            )
        if rows > len(buffer) - used:
            if event > 0:
                return n_rows[:event], registers[:event], is_complete[:event], traces
            rows = UNUSUAL  # more than the whole buffer
        n_rows[event] = rows
        registers[event] = register
        used += max(rows, 0)
        group = _after(paths, place)
        if rows != UNUSUAL:
            more = others_with_register[
                : 0 if register == NO_REGISTER else len(others_with_register)
            ]
            is_complete[event] = len(others) + len(more) == 0 or _has_all(
                parent, address + group, access, others, more
            )
        traces = _after(paths, group)
    return n_rows, registers, is_complete, traces


@njit(cache=True)
def _has_all(parent, group, access, names, more):
    """Whether all of some links, their names each with a zero at its end, are in a group."""
    opened = _open_group(parent, group, access[2])
    if opened < 0:
        return False
    there = True
    for texts in (names, more):
        start = 0
        while there and start < len(texts):
            there = _link_exists(opened, np.int64(texts.ctypes.data) + start, access[0]) > 0
            start = _after(texts, start)
    _close_group(opened)
    return there


@njit(cache=True)
def _after(texts, start):
    """Where the text begins that follows the one at ``start``."""
    while texts[start] != 0:
        start += 1
    return start + 1


@njit(cache=True)
def _read_matrix(parent, path, access, kind, n_columns, most_rows, room):
    """Read a matrix if there is room for it; returns its rows in any case, or UNUSUAL."""
    dataset = _open_dataset(parent, path, access[1])
    if dataset < 0:
        return UNUSUAL
    n_rows = UNUSUAL
    rows, columns = _shape(dataset) if _has_own_data(dataset) else (-1, -1)
    if columns == n_columns and 0 <= rows <= most_rows and _is_of_type(dataset, kind):
        n_rows = rows
        if 0 < rows <= len(room) and (
            _read(dataset, kind, _DEFAULT, _DEFAULT, _DEFAULT, room.ctypes.data) < 0
        ):
            n_rows = UNUSUAL
    _close_dataset(dataset)
    return n_rows


@njit(cache=True)
def _read_register(parent, sign, path, access, kind):
    """Read a single number; NO_REGISTER if what it is in is not there."""
    there = _link_exists(parent, sign, access[0])
    if there <= 0:
        return NO_REGISTER if there == 0 else UNUSUAL
    dataset = _open_dataset(parent, path, access[1])
    if dataset < 0:
        return UNUSUAL
    register = UNUSUAL
    rows, columns = _shape(dataset) if _has_own_data(dataset) else (-1, -1)
    if rows == 1 and columns == 1 and _is_of_type(dataset, kind):
        value = np.zeros(1, np.uint16)
        if _read(dataset, kind, _DEFAULT, _DEFAULT, _DEFAULT, value.ctypes.data) >= 0:
            register = np.int64(value[0])
    _close_dataset(dataset)
    return register


@njit(cache=True)
def _has_own_data(dataset):
    """Whether a dataset's numbers lie in its own file (see :func:`links.require_own_data`)."""
    if _offset_of(dataset) != _NO_OFFSET:
        return True
    properties = _creation_of(dataset)
    if properties < 0:
        return False
    layout = _layout_of(properties)
    own = layout in (_COMPACT, _CHUNKED)
    if layout == _CONTIGUOUS:
        own = _n_external_files(properties) == 0
    _close_properties(properties)
    return own


@njit(cache=True)
def _shape(dataset):
    """Rows and columns; one column for a single dimension, -1 for anything else."""
    rows, columns = -1, -1
    space = _space_of(dataset)
    if space >= 0:
        n_dimensions = _n_dimensions(space)
        if n_dimensions == 1 or n_dimensions == 2:
            sizes = np.ones(2, np.uint64)
            if _dimensions(space, sizes.ctypes.data, 0) == n_dimensions:
                rows, columns = np.int64(sizes[0]), np.int64(sizes[1])
        _close_space(space)
    return rows, columns


@njit(cache=True)
def _is_of_type(dataset, kind):
    of_dataset = _type_of(dataset)
    if of_dataset < 0:
        return False
    same = _are_equal(of_dataset, kind) > 0
    _close_type(of_dataset)
    return same
