"""HDF5 files: opened, and arrays of them read, with more suspicion than HDF5 has."""

import contextlib
import errno
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5g, h5l, h5s, h5t, h5z
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.hdf5 import links
from attpc_filter.formats.run import Allocate, UnreadableEvent
from attpc_filter.records import N_HARDWARE_COLUMNS, N_TIME_BUCKETS

#: What HDF5 and h5py raise on files that are damaged or not what they seem.
HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError)

#: Errors of the system that say nothing about the content of a file.
ENVIRONMENT_ERRORS = {
    *(errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO),
}
#: Filters that come as plug-ins of HDF5.
_PLUGIN_FILTERS = {
    **{4: "szip", 307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle"},
    **{32013: "ZFP", 32015: "Zstandard", 32017: "SZ", 32026: "Blosc2"},
}

#: More rows than this are no event but a damaged header (the pad plane has 10,240 pads).
MOST_ROWS = 100_000
#: More bytes than this are no event (10,240 traces of 512 samples in 8 bytes are 42 MB).
_MOST_BYTES = 128 << 20
_PLAIN_FLOATS = (
    *(h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE),
    *(h5t.IEEE_F16BE, h5t.IEEE_F32BE, h5t.IEEE_F64BE),
)
#: A global heap collection of version 1: signature, version, its size.
_HEAP = re.compile(rb"GCOL\x01\0\0\0(.{8})", re.DOTALL)
#: Memory for the links of a large group while a million events are moved between files.
_LARGE_CACHE_BYTES = 120 << 20


def open_file(path: Path, follow_links: bool = False) -> h5py.File:
    """Open an HDF5 file for reading.

    Parameters
    ----------
    path : Path
        The file.
    follow_links : bool, optional
        Whether its links may lead anywhere (see :mod:`attpc_filter.formats.hdf5.links`).

    Raises
    ------
    InputError
        If it is damaged, truncated, or open for writing, or a link leads where it may not.
    """
    file = _open_file(path)
    try:
        links.declare(file, follow_links)
    except HDF5_ERRORS as error:
        file.close()
        raise InputError(f"{path}: damaged: {one_line(error)}") from error
    except BaseException:
        file.close()
        raise
    return file


def _open_file(path: Path) -> h5py.File:
    try:
        _require_ending_heaps(path)
        # best-effort: parallel file systems without locks refuse nothing
        return h5py.File(path, "r", locking="best-effort")
    except HDF5_ERRORS as error:
        if "lock file" in str(error):
            if _errno(error) not in (errno.EAGAIN, errno.EWOULDBLOCK):
                return _open_without_lock(path)
            raise InputError(
                f"{path}: another program has it open for writing; wait until that has finished"
            ) from error
        text = one_line(error)
        if match := re.search(r"eof = (\d+).*?stored_eof = (\d+)", text):
            has, needs = map(int, match.groups())
            raise InputError(
                f"{path}: truncated: {has:,} of {needs:,} bytes are there; copy it again"
            ) from error
        raise InputError(f"{path}: HDF5 cannot open it: {text}") from error


def _open_without_lock(path: Path) -> h5py.File:
    """Open a file on a file system that has no locks (``ENOLCK`` and others): we only read."""
    try:
        return h5py.File(path, "r", locking=False)
    except HDF5_ERRORS as error:
        raise InputError(f"{path}: HDF5 cannot open it: {one_line(error)}") from error


def _errno(error: BaseException) -> int | None:
    """The system's error number that an error of HDF5 tells of; None if it tells of none."""
    match = re.search(r"errno = (\d+)", str(error))
    return int(match.group(1)) if match else getattr(error, "errno", None)


def require_working_disk(error: BaseException) -> None:
    """Raise InputError if an error is the disk's or the network's, or a link's that is refused."""
    links.require_no_refusal()
    number = _errno(error)
    if number not in ENVIRONMENT_ERRORS:
        return
    match = re.search(r"filename = '([^']*)'", str(error))
    where = f"{match.group(1)}: " if match else ""
    raise InputError(
        f"{where}cannot be read now: {os.strerror(number)}; this is the disk or the network, not"
        " the run: filter it again when the disk works"
    ) from error


class Translated:
    """Within ``with``: errors of h5py become :class:`UnreadableEvent`.

    Only calls of h5py belong within: an error of our own code would be taken for damage.

    Raises
    ------
    UnreadableEvent
        If h5py cannot read what is there.
    InputError
        If the disk or the network is at fault.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, HDF5_ERRORS):
            require_working_disk(error)
            raise UnreadableEvent(f"cannot be read: {one_line(error)}") from error


#: Has no state, so that one does for all.
translated = Translated()


def open_dataset(parent: h5g.GroupID, path: bytes, what: str) -> h5d.DatasetID:
    """Open a dataset; ``what`` it should be, in words, for the reason if it is not there.

    Raises
    ------
    UnreadableEvent
        If it is not there, is no dataset, or is damaged.
    InputError
        If a link leads to a file that is not there.
    """
    try:
        dataset = h5d.open(parent, path, links.DATASET_ACCESS)
        links.require_own_data(dataset)
        return dataset
    except HDF5_ERRORS as error:
        require_working_disk(error)
        require_targets(parent, path)
        if isinstance(error, KeyError):
            raise UnreadableEvent(f"no {what}: {one_line(error)}") from error
        raise UnreadableEvent(f"cannot be read: {one_line(error)}") from error


def is_there(parent: h5g.GroupID, path: bytes) -> bool:
    """Whether there is a link of that path, in a group that must be there.

    Raises
    ------
    UnreadableEvent
        If the group is not there, or damaged.
    InputError
        If a link on the way leads to a file that is not there.
    """
    try:
        return bool(parent.links.exists(path, lapl=links.LINK_ACCESS))
    except HDF5_ERRORS as error:
        require_working_disk(error)
        require_targets(parent, path)
        raise UnreadableEvent(f"cannot be read: {one_line(error)}") from error


def require_targets(parent: h5g.GroupID, path: bytes) -> None:
    """Raise InputError if a link on a path leads to a file that is not there or no regular file."""
    group, names = parent, path.strip(b"/").split(b"/")
    if path.startswith(b"/"):
        group = h5g.open(parent, b"/")
    for name in names:
        try:
            if group.links.get_info(name).type == h5l.TYPE_EXTERNAL:
                file, _ = group.links.get_val(name)
                holder = Path(os.fsdecode(h5f.get_name(group)))
                target = Path(os.path.normpath(holder.resolve().parent / os.fsdecode(file)))
                if not target.is_file():
                    raise InputError(
                        f"{holder}: links to {target}, which is not there; move it back, or filter"
                        " the run itself"
                    )
            group = links.open_group(group, name)
        except HDF5_ERRORS:
            return


def _require_filters(dataset: h5d.DatasetID) -> None:
    """Raise InputError if a dataset is compressed by a filter that this HDF5 lacks."""
    creation = dataset.get_create_plist()
    for index in range(creation.get_nfilters()):
        number = creation.get_filter(index)[0]
        if number in _PLUGIN_FILTERS and not h5z.filter_avail(number):
            raise InputError(
                f"{os.fsdecode(h5f.get_name(dataset))}: compressed with {_PLUGIN_FILTERS[number]}"
                f" (HDF5 filter {number}), which this HDF5 lacks; install the package hdf5plugin"
                " and set HDF5_PLUGIN_PATH to its plugins"
            )


def _read_into(dataset: h5d.DatasetID, values: NDArray[Any], kind: h5t.TypeID | None) -> None:
    """Read a whole dataset into an array that has its shape."""
    try:
        dataset.read(h5s.ALL, h5s.ALL, values, kind)
    except HDF5_ERRORS as error:
        require_working_disk(error)
        with translated:
            _require_filters(dataset)
        raise UnreadableEvent(f"cannot be read: {one_line(error)}") from error


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


def names_in(group: h5g.GroupID) -> list[str]:
    """Names in a group; bytes that are no UTF-8 as Python keeps them in names of files."""
    names: list[bytes] = []
    # one call for all names: ten times faster than a group's own iterator
    group.links.iterate(names.append)
    return [name.decode("utf-8", "surrogateescape") for name in names]


def encode(name: str) -> bytes:
    """The bytes of a name that :func:`names_in` gave."""
    return name.encode("utf-8", "surrogateescape")


def describe_names(file: h5py.File) -> str:
    """The first names in a file, and their versions, in words."""
    names = sorted(names_in(file.id))
    if not names:
        return "nothing"
    shown = []
    for name in names[:5]:
        encoded = encode(name)
        version = None
        if file.id.links.get_info(encoded).type == h5l.TYPE_HARD:
            version = file[encoded].attrs.get("version")
        shown.append(name if version is None else f"{name} (version {version})")
    return ", ".join(shown) + (", ..." if len(names) > 5 else "")


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
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
    dataset = open_dataset(parent, path, "trace matrix")
    shape = _checked_shape(
        dataset, "trace matrix", N_HARDWARE_COLUMNS + (n_samples or N_TIME_BUCKETS)
    )
    with translated:
        is_int16 = dataset.get_type().equal(h5t.NATIVE_INT16)
    if is_int16:
        traces = _room_for(shape, allocate)
        if shape[0]:
            _read_into(dataset, traces, h5t.NATIVE_INT16)
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
    dataset = open_dataset(parent, path, "point cloud")
    _checked_shape(dataset, "point cloud", columns, or_more=True)
    points = read_array(dataset)
    if points.dtype.kind not in "iuf":
        raise UnreadableEvent(f"point cloud of {points.dtype}, expected numbers")
    return points.astype(np.float64, copy=False)


def first_value(parent: h5g.GroupID, path: bytes) -> int | None:
    """First value of a dataset of integers in a group that is there; None if absent or empty."""
    if not is_there(parent, path):
        return None
    values = read_array(open_dataset(parent, path, "coincidence register")).reshape(-1)
    if values.dtype.kind not in "iuf":
        raise UnreadableEvent(f"coincidence register of {values.dtype}, expected integers")
    if values.dtype.kind == "f" and len(values) and not np.isfinite(values[0]):
        raise UnreadableEvent("coincidence register that is not finite")
    return int(values[0]) if len(values) else None


def _checked_shape(
    dataset: h5d.DatasetID, what: str, columns: int, or_more: bool = False
) -> tuple[int, ...]:
    with translated:
        shape: tuple[int, ...] = dataset.shape or ()  # a null dataset has none
    if len(shape) != 2 or (shape[1] < columns if or_more else shape[1] != columns):
        least = " or more" if or_more else ""
        raise UnreadableEvent(f"{what} of shape {shape}, expected (n, {columns}{least})")
    if shape[0] > MOST_ROWS:
        raise UnreadableEvent(f"{what} claims {shape[0]:,} rows: a damaged header")
    return shape


def read_array(dataset: h5d.DatasetID) -> NDArray[Any]:
    """Read a whole dataset.

    Raises
    ------
    UnreadableEvent
        If its header claims what no event holds: HDF5 would take it at its word.
    """
    with translated:
        sound = is_sound(dataset.get_type())
        shape, dtype = dataset.shape, dataset.dtype
    if not sound:
        raise UnreadableEvent(f"numbers of a strange type ({dtype}): a damaged header")
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > _MOST_BYTES:
        raise UnreadableEvent(f"a dataset claims {n_bytes / 1e9:,.1f} GB: a damaged header")
    values = np.empty(shape, dtype)
    if values.size:
        _read_into(dataset, values, None)
    return values


def is_sound(kind: h5t.TypeID) -> bool:
    """Whether the numbers of a type are those that programs write, and lie within their row."""
    if isinstance(kind, h5t.TypeCompoundID):
        members = range(kind.get_nmembers())
        parts = [(kind.get_member_offset(i), kind.get_member_type(i)) for i in members]
        return all(
            offset + part.get_size() <= kind.get_size() and is_sound(part) for offset, part in parts
        )
    if kind.get_class() == h5t.FLOAT:
        return any(kind.equal(plain) for plain in _PLAIN_FLOATS)
    if kind.get_class() == h5t.INTEGER:
        return bool(kind.get_precision() == 8 * kind.get_size() and kind.get_offset() == 0)
    return True
