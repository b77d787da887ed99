"""The compiled walk through ROOT's bytes: one pass an object, driven by a program of steps.

A program (see :mod:`attpc_filter.formats.root.layout`) says member by member what lies in the bytes
of a class; what is written here only follows it, and checks every length before it trusts it. Not
typed: numba compiles it for the arrays that its caller hands over. All release the GIL.

The functions that walk return a position, or a negative number where the bytes are not what the
program says: ``-(16 * step + reason)`` with one of the reasons below.
"""

import numpy as np

from attpc_filter.compiled import njit

# steps of a program: [what, a, b]
SKIP = 0  # a bytes
TOBJECT = 1  # the base class TObject, longer if the object is referenced
BLOCK = 2  # whatever a byte count leads
STRING = 3  # a TString
POINTER = 4  # an object by pointer: null, a reference, or a block
ENTER = 5  # the head of an object of version a or checksum b
LEAVE = 6  # its end
REST = 7  # whatever is left of it
NUMBER = 8  # into slot a, of kind b
PLACE = 9  # into slot a where the next b bytes lie

# kinds of numbers: their bytes, + 16 unsigned, + 32 floating
UNSIGNED = 16
FLOATING = 32

# reasons
OVERRUN = 1
NO_BLOCK = 2
VERSION = 3
LENGTH = 4
REFERENCE = 5
NO_CLASS = 6

#: Bit of a TObject that makes it two bytes longer.
REFERENCED = 0x10

_BYTE_COUNT = 0x40000000
_CLASS_BIT = 0x80000000
_NEW_CLASS = 0xFFFFFFFF
_DEEPEST = 16


@njit(nogil=True, cache=True)
def _unsigned(data, at, size):
    value = np.int64(0)
    for k in range(size):
        value = (value << 8) | np.int64(data[at + k])
    return value


@njit(nogil=True, cache=True)
def _integer(data, at, kind):
    size = kind & 15
    value = _unsigned(data, at, size)
    if kind < UNSIGNED and size < 8 and value >> (8 * size - 1):
        value -= np.int64(1) << (8 * size)
    return value


@njit(nogil=True, cache=True)
def _floating(data, at, kind, word):
    """A float of 4 or 8 bytes; ``word`` is scratch room of 8 bytes."""
    size = kind & 15
    for k in range(size):
        word[k] = data[at + size - 1 - k]
    if size == 4:
        return np.float64(word[:4].view(np.float32)[0])
    return word.view(np.float64)[0]


@njit(nogil=True, cache=True)
def _walk(data, at, limit, steps, first, last, row, words, floats, ends, scratch):
    """Follow steps ``first`` to ``last`` from ``at``, at most to ``limit``; store into ``row``."""
    depth = 0
    for step in range(first, last):
        what = steps[step, 0]
        failure = -(16 * step + OVERRUN)
        if what == SKIP:
            at += steps[step, 1]
        elif what == NUMBER:
            kind = steps[step, 2]
            if at + (kind & 15) > limit:
                return failure
            if kind >= FLOATING:
                floats[row, steps[step, 1]] = _floating(data, at, kind, scratch)
            else:
                words[row, steps[step, 1]] = _integer(data, at, kind)
            at += kind & 15
        elif what == PLACE:
            words[row, steps[step, 1]] = at
            at += steps[step, 2]
        elif what == TOBJECT:
            if at + 10 > limit:
                return failure
            at += 12 if _unsigned(data, at + 6, 4) & REFERENCED else 10
        elif what in (BLOCK, ENTER):
            if at + 6 > limit:
                return failure
            head = _unsigned(data, at, 4)
            if head >> 30 != 1:
                return -(16 * step + NO_BLOCK)
            end = at + 4 + (head & (_BYTE_COUNT - 1))
            if end > limit or end < at + 6:
                return failure
            if what == BLOCK:
                at = end
                continue
            version = _unsigned(data, at + 4, 2)
            at += 6
            if version == 0:  # a class without versions: its checksum says what it is
                if at + 4 > end or _unsigned(data, at, 4) != steps[step, 2]:
                    return -(16 * step + VERSION)
                at += 4
            elif version != steps[step, 1]:
                return -(16 * step + VERSION)
            ends[depth] = limit
            limit = end
            depth += 1
        elif what == LEAVE:
            if at != limit:
                return -(16 * step + LENGTH)
            depth -= 1
            limit = ends[depth]
        elif what == REST:
            at = limit
        elif what == STRING:
            if at + 5 > limit and at + 1 + np.int64(data[min(at, len(data) - 1)]) > limit:
                return failure
            length = np.int64(data[at])
            at += 1 + length if length < 255 else 5 + _unsigned(data, at + 1, 4)
        else:  # POINTER
            if at + 4 > limit:
                return failure
            head = _unsigned(data, at, 4)
            at += 4 + (head & (_BYTE_COUNT - 1) if head >> 30 == 1 else 0)
        if at > limit:
            return failure
    return at


@njit(nogil=True, cache=True)
def decode_objects(data, begins, stops, steps, words, rows):
    """Decode whole objects into rows; returns (status, index of the object where it ended)."""
    floats = words.view(np.float64)
    ends = np.empty(_DEEPEST, np.int64)
    scratch = np.empty(8, np.uint8)
    last = len(steps)
    for index in range(len(begins)):
        at = _walk(
            data,
            begins[index],
            stops[index],
            steps,
            0,
            last,
            rows[index],
            words,
            floats,
            ends,
            scratch,
        )
        if at < 0:
            return at, index
        if at != stops[index]:
            return np.int64(-(16 * (last - 1) + LENGTH)), index
    return np.int64(0), len(begins)


@njit(nogil=True, cache=True)
def decode_members(data, at, limit, count, units, steps, words, first_row):
    """Decode ``count`` objects that lie member by member: first member of all, second of all ...

    A unit is [first step, last step, whether all objects share it]. Returns the position after.
    """
    floats = words.view(np.float64)
    ends = np.empty(_DEEPEST, np.int64)
    scratch = np.empty(8, np.uint8)
    for unit in range(len(units)):
        for index in range(1 if units[unit, 2] else count):
            at = _walk(
                data,
                at,
                limit,
                steps,
                units[unit, 0],
                units[unit, 1],
                first_row + index,
                words,
                floats,
                ends,
                scratch,
            )
            if at < 0:
                return at
    return at


@njit(nogil=True, cache=True)
def copy_samples(data, places, kind, low, high, out):
    """Copy arrays of samples, one a row; the first row with one beyond the limits, or -1."""
    scratch = np.empty(8, np.uint8)
    for row in range(len(places)):
        at = places[row]
        if kind == 4:
            stored = data[at : at + 4 * out.shape[1]].view(np.uint32)
            beyond = np.uint32(0)  # limits are those of a type: bits above it tell
            for k in range(out.shape[1]):
                big = stored[k]  # big-endian: swapped here in a way that the compiler vectorises
                value = (
                    (big << np.uint32(24))
                    | ((big & np.uint32(0xFF00)) << np.uint32(8))
                    | ((big >> np.uint32(8)) & np.uint32(0xFF00))
                    | (big >> np.uint32(24))
                )
                beyond |= np.uint32(value - np.uint32(low & 0xFFFFFFFF))
                out[row, k] = np.int32(value)
            if beyond > np.uint32((high - low) & 0xFFFFFFFF):
                return row
        elif kind >= FLOATING:
            for k in range(out.shape[1]):
                out[row, k] = _floating(data, at, kind, scratch)
                at += kind & 15
        else:
            for k in range(out.shape[1]):
                number = _integer(data, at, kind)
                at += kind & 15
                if number < low or number > high:
                    return row
                out[row, k] = number
    return -1


@njit(nogil=True, cache=True)
def find_pointed(data, at, limit, n_lists, begins, stops, names):
    """Find the objects in lists of pointers; null pointers are left out.

    A list is a number and so many records; ``n_lists`` below 0 means as many lists as there are.
    Fills where each object's block begins and stops, and where the name of its class stands:
    negative where it is spelled out before the object, else as ROOT counts. Returns how many
    objects there are.
    """
    found = 0
    done = 0
    while done < n_lists or (n_lists < 0 and at < limit):
        if at + 4 > limit:
            return -OVERRUN
        n = _unsigned(data, at, 4)
        at += 4
        for _ in range(n):
            if at + 4 > limit:
                return -OVERRUN
            head = _unsigned(data, at, 4)
            if head == 0:
                at += 4
                continue
            if head < _BYTE_COUNT:
                return -REFERENCE
            end = at + 4 + (head & (_BYTE_COUNT - 1))
            if head & _CLASS_BIT:
                return -NO_BLOCK
            if end > limit or at + 14 > end:
                return -OVERRUN
            tag = _unsigned(data, at + 4, 4)
            at += 8
            if tag == _NEW_CLASS:
                names[found] = -at
                while at < end and data[at]:
                    at += 1
                at += 1
            elif tag & _CLASS_BIT:
                names[found] = tag & (_CLASS_BIT - 1)
            else:
                return -NO_CLASS
            if at + 6 > end:
                return -OVERRUN
            begins[found] = at
            stops[found] = end
            found += 1
            at = end
        done += 1
    return found if at == limit else -LENGTH


@njit(nogil=True, cache=True)
def find_held(data, at, limit, n_lists, begins, stops):
    """Find the objects in lists that hold them whole, each led by its byte count."""
    found = 0
    done = 0
    while done < n_lists or (n_lists < 0 and at < limit):
        if at + 4 > limit:
            return -OVERRUN
        n = _unsigned(data, at, 4)
        at += 4
        for _ in range(n):
            if at + 6 > limit:
                return -OVERRUN
            head = _unsigned(data, at, 4)
            if head >> 30 != 1:
                return -NO_BLOCK
            end = at + 4 + (head & (_BYTE_COUNT - 1))
            if end > limit or at + 6 > end:
                return -OVERRUN
            begins[found] = at
            stops[found] = end
            found += 1
            at = end
        done += 1
    return found if at == limit else -LENGTH
