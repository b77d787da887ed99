"""GET's frames in compiled code: where they lie in a file, and their samples as trace matrices.

Not typed: numba compiles each for the arrays that its caller hands over.
"""

import numpy as np
from numba import types

from attpc_filter.compiled import njit

#: Columns of a table of frames; DOUBTFUL: what follows the frame is damaged, it may lack bytes.
OFFSET, N_BYTES, HEADER_BYTES, N_ITEMS, FULL, LITTLE, EVENT, TIME, COBO, ASAD, DOUBTFUL = range(11)
N_FIELDS = 11

#: The first byte of a frame: bit 7 says little-endian, bit 6 that it is not structured.
_LITTLE_BIT, _BLOB_BIT, _UNIT_BITS = 0x80, 0x40, 0x0F
_LEAST_UNIT, _MOST_UNIT = 6, 12  # powers of two: 64 bytes and, far beyond what is known, 4 kB
#: A header has this much: its last fields are the last read cells of the four AGETs.
_LEAST_HEADER_BYTES = 87
_HEAD_BYTES = 32
_PARTIAL, _FULL, _TOPOLOGY = 1, 2, 7
#: All samples of four AGETs in partial readout, 557,056 bytes, and a long header.
MOST_FRAME_BYTES = 1 << 20

N_CHANNELS = 68
N_KEYS = 512  # AGET and channel of an item, 2 and 7 bits
N_BUCKETS = 512

#: In place of a pad: one of no known number, a channel that is no pad, one that does not exist.
UNKNOWN_PAD, NO_PAD, NO_CHANNEL = -1, -2, -3
_UNSEEN = -1

#: How a frame was read.
GOOD, CUT, BAD_ITEM, PADDING_COUNTED, UNEVEN = range(5)

_pread = types.ExternalFunction(
    "pread", types.intp(types.int32, types.intp, types.uintp, types.int64)
)


@njit(cache=True)
def _number(head, at, size, little):
    value = 0
    for step in range(size):
        value = value << 8 | np.int64(head[at + (size - 1 - step if little else step)])
    return value


@njit(cache=True)
def _parse(head, at, file_bytes, frame):
    """Read the header of a frame into a row of the table.

    Returns
    -------
    int
        1 for a frame of samples, 0 for a frame of another kind, -1 for no frame.
    """
    meta = head[0]
    power = meta & _UNIT_BITS
    if meta & _BLOB_BIT or not _LEAST_UNIT <= power <= _MOST_UNIT or meta & 0x30:
        return -1
    unit = 1 << power
    little = bool(meta & _LITTLE_BIT)
    n_bytes = _number(head, 1, 3, little) * unit
    kind = _number(head, 5, 2, little)
    if n_bytes == 0 or n_bytes > MOST_FRAME_BYTES or at + n_bytes > file_bytes:
        return -1
    frame[OFFSET], frame[N_BYTES] = at, n_bytes
    if kind == _TOPOLOGY:
        return 0
    item_size = _number(head, 10, 2, little)
    if not ((kind == _PARTIAL and item_size == 4) or (kind == _FULL and item_size == 2)):
        return -1
    header_bytes = _number(head, 8, 2, little) * unit
    n_items = _number(head, 12, 4, little)
    used = header_bytes + n_items * item_size
    if header_bytes < _LEAST_HEADER_BYTES or -(-used // unit) * unit != n_bytes:
        return -1
    frame[HEADER_BYTES], frame[N_ITEMS] = header_bytes, n_items
    frame[FULL], frame[LITTLE] = kind == _FULL, little
    frame[TIME], frame[EVENT] = _number(head, 16, 6, little), _number(head, 22, 4, little)
    frame[COBO], frame[ASAD] = head[26], head[27]
    return 1


@njit(cache=True)
def index_frames(file, file_bytes, at, frames):
    """List the frames of a file, from a place on, until one is damaged or the table is full.

    Parameters
    ----------
    file : int
        Descriptor of the open file.
    file_bytes : int
        Its length.
    at : int
        Where the first frame begins.
    frames : ndarray of int64, shape (n, 11)
        The table to fill.

    Returns
    -------
    count, at : int
        Rows that were filled; where the next frame begins, or what is no frame.
    is_cut : bool
        What is no frame would be one if the file were longer.
    """
    head = np.zeros(_HEAD_BYTES, np.uint8)
    count = 0
    while count < len(frames) and at < file_bytes:
        if _pread(file, head.ctypes.data, _HEAD_BYTES, at) != _HEAD_BYTES:
            break
        found = _parse(head, at, file_bytes, frames[count])
        if found < 0:
            break
        at += frames[count, N_BYTES]
        count += found
    left = file_bytes - at
    longer = at + MOST_FRAME_BYTES
    is_cut = left < _HEAD_BYTES or (
        count < len(frames) and _parse(head, at, longer, frames[count]) >= 0
    )
    return count, at, is_cut


@njit(cache=True)
def find_frame(file, file_bytes, at, frame):
    """Find the next frame behind damaged bytes.

    Returns
    -------
    int
        Where it begins; the end of the file if there is none.
    """
    window = np.zeros(1 << 16, np.uint8)
    step = 1 << _LEAST_UNIT
    while at < file_bytes:
        here = _pread(file, window.ctypes.data, len(window), at)
        if here < _HEAD_BYTES:
            break
        for start in range(0, here - _HEAD_BYTES + 1, step):
            head = window[start : start + _HEAD_BYTES]
            if _parse(head, at + start, file_bytes, frame) == 1:
                return at + start
        at += max(here - here % step, step)
    return file_bytes


@njit(cache=True)
def decode_event(files, frames, pairs, pads, content, rows_of, matrix):
    """Read the frames of an event and fill its trace matrix.

    Parameters
    ----------
    files : ndarray of int64, shape (n_frames,)
        Descriptor of each frame's file.
    frames : ndarray of int64, shape (n_frames, 11)
        The frames, no two of one AsAd.
    pairs : ndarray of int64, shape (n_frames,)
        Which AsAd each is of: a row of ``pads``.
    pads : ndarray of int32, shape (n_asads, 512)
        Pad of each AGET and channel (7 bits), or what stands in its place.
    content : ndarray of uint8
        Room for a frame.
    rows_of : ndarray of int32, shape (512,)
        Room for the row of each channel.
    matrix : ndarray of int16, shape (n_rows, 517)
        Room for the traces: a row for each channel that is a pad.

    Returns
    -------
    n_rows : int
        Traces that were found; samples that are not there are 0. Of a frame that is damaged, those
        before the damage.
    frame, status : int
        The last frame that is damaged, and how; ``GOOD`` if none is.
    """
    n_rows = 0
    damaged, worst = 0, GOOD
    for index in range(len(frames)):
        n_bytes = frames[index, N_BYTES]
        found = _pread(files[index], content.ctypes.data, n_bytes, frames[index, OFFSET])
        if found != n_bytes:
            damaged, worst = index, CUT
            continue
        table = pads[pairs[index]]
        for key in range(N_KEYS):
            rows_of[key] = _UNSEEN if table[key] > NO_PAD else table[key]
        begin, n_items = frames[index, HEADER_BYTES], frames[index, N_ITEMS]
        little = frames[index, LITTLE] != 0
        before = n_rows
        if frames[index, FULL]:
            items = content[begin : begin + 2 * n_items].view(np.uint16)
            n_rows, status = _full(items, little, rows_of, n_rows, matrix)
        else:
            words = content[begin : begin + 4 * n_items].view(np.uint32)
            n_rows, status = _partial(words, little, rows_of, n_rows, matrix)
        for key in range(N_KEYS):
            row = rows_of[key]
            if row >= before:
                matrix[row, 0], matrix[row, 1] = frames[index, COBO], frames[index, ASAD]
                matrix[row, 2], matrix[row, 3] = key >> 7, key & 127
                matrix[row, 4] = table[key]
        if status != GOOD:
            damaged, worst = index, status
    return n_rows, damaged, worst


@njit(cache=True)
def _partial(words, little, rows_of, n_rows, matrix):
    """Items of four bytes: AGET, channel, time bucket, two bits that are zero, sample."""
    word = np.uint32(1)
    for index in range(len(words)):
        word = words[index]
        if not little:
            word = np.uint32(  # numba shifts in 64 bits
                word >> 24 | (word >> 8 & 0xFF00) | (word & 0xFF00) << 8 | (word & 0xFF) << 24
            )
        row = rows_of[word >> 23]
        if row < 0 or word & 0x3000:
            if word & 0x3000 or row == NO_CHANNEL:
                return n_rows, BAD_ITEM
            if row == NO_PAD:
                continue
            row = n_rows
            rows_of[word >> 23] = row
            matrix[row] = 0
            n_rows += 1
        matrix[row, 5 + (word >> 14 & 511)] = word & 0xFFF
    # no sample of AGET 0, channel 0, bucket 0 is the last of several, and 0
    return n_rows, PADDING_COUNTED if len(words) > 1 and word == 0 else GOOD


@njit(cache=True)
def _full(items, little, rows_of, n_rows, matrix):
    """Items of two bytes: AGET, two bits that are zero, sample; channel and bucket by counting."""
    channels = np.zeros(4, np.int64)
    buckets = np.zeros(4, np.int64)
    for index in range(len(items)):
        item = np.int64(items[index])
        if not little:
            item = item >> 8 | (item & 0xFF) << 8
        aget = item >> 14
        bucket, channel = buckets[aget], channels[aget]
        if item & 0x3000 or bucket >= N_BUCKETS:
            return n_rows, BAD_ITEM if item & 0x3000 else UNEVEN
        channels[aget] += 1
        if channel == N_CHANNELS - 1:
            channels[aget] = 0
            buckets[aget] += 1
        row = rows_of[aget << 7 | channel]
        if row < 0:
            if row == NO_PAD:
                continue
            row = n_rows
            rows_of[aget << 7 | channel] = row
            matrix[row] = 0
            n_rows += 1
        matrix[row, 5 + bucket] = item & 0xFFF
    most = buckets.max()
    for aget in range(4):
        if channels[aget] or (buckets[aget] and buckets[aget] != most):
            return n_rows, UNEVEN
    # AGETs take turns the same way in every bucket; a few that do not have damaged bits
    period = np.int64(0)
    for aget in range(4):
        period += N_CHANNELS * (buckets[aget] > 0)
    shift = np.uint16(6 if not little else 14)
    irregular = 0
    for index in range(period, len(items)):
        irregular += ((items[index] ^ items[index - period]) >> shift & 3) != 0
    return n_rows, UNEVEN if 0 < irregular < len(items) // 100 else GOOD
