"""ROOT files: opened with more suspicion than uproot has, and the entries of a branch as bytes.

uproot reads the file's directory and the description of its trees. The baskets are read here: each
is checked against the tree's description before its bytes are believed, the next ones are read and
decompressed by other threads meanwhile, and no more than a few are held.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam
import deflate
import numpy as np
import uproot
import xxhash
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.root.layout import Classes, described_classes
from attpc_filter.formats.run import UnreadableEvent

MAGIC = b"root"

#: What uproot and its helpers raise on files that are damaged or not what they seem.
ROOT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    cramjam.DecompressionError,
    deflate.DeflateError,
    struct.error,
    uproot.deserialization.DeserializationError,
    zlib.error,
)

#: What the reading of stored bytes raises here on damage: our own checks, and the decompressors.
BASKET_ERRORS = (
    MemoryError,
    OSError,
    ValueError,
    cramjam.DecompressionError,
    deflate.DeflateError,
    struct.error,
)

_HEADER = struct.Struct(">4sii")
_KEY = struct.Struct(">ihiIhh")
_BASKET = struct.Struct(">Hiiii")
_BLOCK_HEAD = 9
_CHECKSUM = struct.Struct(">Q")
_LARGE_FILE = 1_000_000  # versions from here on have 8-byte positions

#: Baskets are decompressed this far ahead, and by so many threads.
_AHEAD_BASKETS = 4
_AHEAD_BYTES = 8 << 20  # compressed
_THREADS = 2


def _inflate_into(packed: Any, out: NDArray[np.uint8]) -> int:
    """Decompress zlib, four times faster than zlib itself."""
    made = deflate.zlib_decompress(packed, len(out))
    if len(made) == len(out):
        out[:] = np.frombuffer(made, np.uint8)
    return len(made)


_INTO: dict[bytes, Callable[[Any, Any], int]] = {
    b"ZL": _inflate_into,
    b"XZ": cramjam.xz.decompress_into,
    b"L4": cramjam.lz4.decompress_block_into,
    b"ZS": cramjam.zstd.decompress_into,
}


class RootFile:
    """An open ROOT file.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    directory : uproot.ReadOnlyDirectory
        What uproot makes of it.
    classes : Classes
        The classes that it describes.
    keys : dict of str to str
        Class of every object, by its name without cycle.
    read_ahead : bool
        Whether baskets are read before they are asked for: where entries are read in order.

    Raises
    ------
    InputError
        If it cannot be opened, is truncated, or was never closed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_ahead = True
        try:
            self._handle = open(path, "rb")  # noqa: SIM115  closed with the run
        except OSError as error:
            raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            _check_header(path, self._handle.read(64), os.fstat(self._handle.fileno()).st_size)
            # a file object, not a path: no memory map, which kills us if the file shrinks
            self.directory = uproot.open(
                self._handle, array_cache=None, custom_classes=_classes_of_its_own()
            )
            self.keys = _list_keys(self.directory)
        except InputError:
            self._handle.close()
            raise
        except ROOT_ERRORS as error:
            self._handle.close()
            raise InputError(f"{path}: a damaged ROOT file: {one_line(error)}") from error
        try:
            self.classes = Classes(described_classes(self.directory.file.streamers))
        except ROOT_ERRORS:
            self.classes = Classes({})  # the common classes are known without
        self._pool: ThreadPoolExecutor | None = None

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The threads that read ahead."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "attpc-filter-root")
        return self._pool

    def names(self, class_name: str) -> list[str]:
        """Names of the objects of a class, without cycle, in the order of the file."""
        return [name for name, kind in self.keys.items() if kind == class_name]

    def tree(self, name: str) -> Any:
        """The TTree of a name.

        Raises
        ------
        InputError
            If its description is damaged.
        """
        try:
            return self.directory[name]
        except ROOT_ERRORS as error:
            raise InputError(
                f"{self.path}: tree {name}: its description is damaged: {one_line(error)}"
            ) from error

    def read_bytes(self, at: int, length: int) -> bytes:
        """Bytes of the file; safe from any thread."""
        if at < 0 or length < 0:
            raise ValueError(f"{length} bytes at {at}")
        try:
            found = os.pread(self._handle.fileno(), length, at)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read now: {error.strerror}; this is the disk or the"
                " network, not the run: filter it again when the disk works"
            ) from error
        if len(found) != length:
            raise ValueError(f"{length} bytes at {at} lie beyond the end of the file")
        return found

    def read_object(self, name: str) -> "Span":
        """Uncompressed bytes of an object under a key.

        Raises
        ------
        UnreadableEvent
            If they are damaged.
        """
        try:
            key = self.directory.key(name)
            at, n_bytes = int(key.fSeekKey), int(key.fNbytes)
        except ROOT_ERRORS as error:
            raise UnreadableEvent(f"it is damaged: {one_line(error)}") from error
        try:
            _, content, key_length = self.read_key(at, n_bytes)
        except BASKET_ERRORS as error:
            raise UnreadableEvent(f"it is damaged: {one_line(error)}") from error
        return Span(content, 0, len(content), key_length)

    def read_key(self, at: int, n_bytes: int) -> tuple[bytes, NDArray[np.uint8], int]:
        """Read what a key leads: the key's bytes, the uncompressed content, the key's length."""
        stored = self.read_bytes(at, n_bytes)
        claimed, _, n_content, _, key_length, _ = _KEY.unpack_from(stored)
        if claimed != n_bytes or not _KEY.size <= key_length <= n_bytes or n_content < 0:
            raise ValueError("its head does not fit the tree")
        packed = memoryview(stored)[key_length:]
        if len(packed) == n_content:
            # a copy, writable like what is decompressed: one type less to compile for
            return stored[:key_length], np.array(packed, np.uint8), key_length
        return stored[:key_length], decompress(packed, n_content), key_length

    def close(self) -> None:
        """Close the file and stop its threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self.directory.close()
        self._handle.close()


def _classes_of_its_own() -> dict[str, Any]:
    """Give a file classes of uproot's for its own use.

    uproot learns classes from files, for all files that it opens later: what it learns from a
    damaged one spoils the others. With what it lacks of ROOT's present trees, so that these can be
    read where a file's own description of them is damaged.
    """
    own: dict[str, Any] = {
        name: type(kind.__name__, (kind,), {"known_versions": dict(kind.known_versions)})
        if issubclass(kind, uproot.model.DispatchByVersion)
        else kind
        for name, kind in uproot.classes.items()
    }
    markers = own["TAttMarker"].known_versions
    markers.setdefault(3, markers[2])  # the same members
    return own


def one_line(error: BaseException) -> str:
    """What an error says, on one line, without uproot's advice."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    first = text.strip().split("\n\n")[0]
    return " ".join(first.split())[:200] or type(error).__name__


def _check_header(path: Path, head: bytes, size: int) -> None:
    if len(head) < 64 or head[:4] != MAGIC:
        raise InputError(f"{path}: not a ROOT file" if head[:4] != MAGIC else f"{path}: truncated")
    _, version, begin = _HEADER.unpack_from(head)
    large = version >= _LARGE_FILE
    end, free, _, _, _ = struct.unpack_from(">qqiii" if large else ">iiiii", head, _HEADER.size)
    if end > size:
        raise InputError(f"{path}: truncated: {size:,} of {end:,} bytes are there; copy it again")
    if free == 0 or end < size or not 0 < begin < end:
        raise InputError(
            f"{path}: not closed properly: it says that it ends at {end:,}, the file has"
            f" {size:,} bytes; opening it once in ROOT with UPDATE repairs what can be repaired"
        )


def _list_keys(directory: Any) -> dict[str, str]:
    """Class of every object, by its name without cycle; of several cycles the last is meant."""
    return {
        name.partition(";")[0]: kind
        for name, kind in directory.iterclassnames(recursive=True, cycle=True)
    }


def decompress(packed: memoryview, n_bytes: int) -> NDArray[np.uint8]:
    """Decompress what ROOT stored as a chain of blocks.

    Raises
    ------
    ValueError
        If a block is no block, does not match its checksum, or all do not make ``n_bytes``.
    """
    blocks = list(_blocks(packed))
    total = sum(size for _, _, size in blocks)
    if total != n_bytes:
        raise ValueError(f"its blocks make {total:,} bytes, its head says {n_bytes:,}")
    content = np.empty(n_bytes, np.uint8)
    at = 0
    for method, block, size in blocks:
        if method == b"L4":
            (checksum,) = _CHECKSUM.unpack_from(block)
            block = block[_CHECKSUM.size :]
            if xxhash.xxh64(block).intdigest() != checksum:
                raise ValueError("a compressed block does not match its checksum")
        made = _INTO[method](block, content[at : at + size])
        if made != size:
            raise ValueError(f"a compressed block makes {made:,} bytes, its head says {size:,}")
        at += size
    return content


def _blocks(packed: memoryview) -> Iterator[tuple[bytes, memoryview, int]]:
    """Method, compressed bytes and uncompressed size of each block."""
    at = 0
    while at < len(packed):
        head = bytes(packed[at : at + _BLOCK_HEAD])
        method = head[:2]
        stored = int.from_bytes(head[3:6], "little")
        at += _BLOCK_HEAD
        if method not in _INTO or at + stored > len(packed):
            raise ValueError(f"a compressed block begins with {head!r}")
        yield method, packed[at : at + stored], int.from_bytes(head[6:9], "little")
        at += stored


# --------------------------------------------------------------------------------- a branch's bytes


@dataclass(frozen=True, slots=True)
class Basket:
    """The uncompressed bytes of successive entries of a branch.

    Attributes
    ----------
    data : ndarray of uint8
        The bytes.
    offsets : ndarray of int64, shape (n_entries + 1,)
        Where each entry begins, and the end.
    key_length : int
        Length of the basket's key, which ROOT counts in where it refers to earlier bytes.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    key_length: int


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of an entry, within those of its basket.

    Attributes
    ----------
    data : ndarray of uint8
        The basket's bytes.
    start, stop : int
        Where the entry begins and ends.
    key_length : int
        See :class:`Basket`.
    """

    data: NDArray[np.uint8]
    start: int
    stop: int
    key_length: int


class BranchReader:
    """Entries of a branch as bytes, basket by basket, read ahead.

    Parameters
    ----------
    file : RootFile
        The file.
    branch : uproot.TBranch
        The branch.
    """

    def __init__(self, file: RootFile, branch: Any) -> None:
        self._file = file
        self._branch = branch
        self._starts = np.asarray(branch.entry_offsets, np.int64)
        n_free = branch.num_baskets - len(branch.embedded_baskets)
        self._n_free = int(n_free)
        self._seeks = np.asarray(branch.member("fBasketSeek"), np.int64)
        self._sizes = np.asarray(branch.member("fBasketBytes"), np.int64)
        if len(self._starts) != branch.num_baskets + 1 or (np.diff(self._starts) < 0).any():
            raise ValueError(f"branch {branch.name}: its list of baskets is damaged")
        self._index = -1
        self._basket: Basket | UnreadableEvent | None = None
        self._ahead: dict[int, Future[Basket]] = {}

    @property
    def n_entries(self) -> int:
        """Entries of the branch."""
        return int(self._starts[-1])

    def entry(self, entry: int) -> Span:
        """The bytes of an entry.

        Raises
        ------
        UnreadableEvent
            If the basket is damaged.
        """
        index = int(np.searchsorted(self._starts, entry, "right")) - 1
        if not 0 <= index < len(self._starts) - 1:
            raise UnreadableEvent(f"branch {self._branch.name} has no entry {entry}")
        basket = self._get(index)
        place = entry - int(self._starts[index])
        start, stop = basket.offsets[place : place + 2].tolist()
        return Span(basket.data, start, stop, basket.key_length)

    def baskets(self) -> Iterator[Basket]:
        """All baskets, in order.

        Raises
        ------
        UnreadableEvent
            If one is damaged.
        """
        for index in range(len(self._starts) - 1):
            yield self._get(index)

    def _get(self, index: int) -> Basket:
        if index != self._index:
            self._index, self._basket = index, None  # frees the last one before the next is made
            try:
                if self._file.read_ahead:
                    self._read_ahead(index)
                    self._basket = self._ahead.pop(index).result()
                else:
                    self._basket = self._load(index)
            except BASKET_ERRORS as error:
                first, stop = int(self._starts[index]), int(self._starts[index + 1])
                entries = (
                    f"entry {first}" if stop == first + 1 else f"entries {first} to {stop - 1}"
                )
                self._basket = UnreadableEvent(
                    f"basket {index} of branch {self._branch.name} ({entries}) is damaged:"
                    f" {one_line(error)}"
                )
        if isinstance(self._basket, UnreadableEvent):
            raise self._basket
        assert self._basket is not None
        return self._basket

    def _read_ahead(self, index: int) -> None:
        """Have this basket and the next ones read; forget what is not near."""
        for known in list(self._ahead):
            if not index <= known <= index + _AHEAD_BASKETS:
                self._ahead.pop(known).cancel()
        n_bytes = 0
        for near in range(index, min(index + _AHEAD_BASKETS + 1, len(self._starts) - 1)):
            if near > index:
                n_bytes += int(self._sizes[near]) if near < self._n_free else 0
                if n_bytes > _AHEAD_BYTES:
                    break
            if near not in self._ahead:
                self._ahead[near] = self._file.pool.submit(self._load, near)

    def _load(self, index: int) -> Basket:
        n_entries = int(self._starts[index + 1] - self._starts[index])
        if index >= self._n_free:
            return self._load_embedded(index, n_entries)
        key, content, key_length = self._file.read_key(
            int(self._seeks[index]), int(self._sizes[index])
        )
        fields = _BASKET.unpack_from(key, key_length - _BASKET.size - 1)
        _, _, _, held, last = fields
        if held != n_entries:
            raise ValueError(f"it holds {held} entries, the tree says {n_entries}")
        border = last - key_length
        if border == len(content):
            return Basket(content, _even_offsets(border, n_entries), key_length)
        # behind the data: how many offsets, the offsets, one more number
        if not 0 <= border <= len(content) or len(content) - border != 4 * (n_entries + 2):
            raise ValueError("its list of entries does not fit its head")
        stored = content[border:].view(">i4").astype(np.int64)
        if stored[0] != n_entries + 1:
            raise ValueError("its list of entries does not fit its head")
        offsets = stored[1:] - key_length
        offsets[-1] = border
        return Basket(content[:border], _checked(offsets, border), key_length)

    def _load_embedded(self, index: int, n_entries: int) -> Basket:
        """A basket that lies in the tree's own description, where uproot found it."""
        try:
            found = self._branch.basket(index)
            data, held, offsets = np.array(found.data), found.num_entries, found.byte_offsets
            key_length = int(found.member("fKeylen"))
        except ROOT_ERRORS as error:
            raise ValueError(one_line(error)) from error
        if held != n_entries:
            raise ValueError(f"it holds {held} entries, the tree says {n_entries}")
        if offsets is None:
            return Basket(data, _even_offsets(len(data), n_entries), key_length)
        return Basket(data, _checked(np.asarray(offsets, np.int64), len(data)), key_length)


def _even_offsets(n_bytes: int, n_entries: int) -> NDArray[np.int64]:
    """Offsets of entries that are all of one length."""
    if n_entries <= 0 or n_bytes % n_entries:
        raise ValueError("its entries have no list and are not of one length")
    return np.arange(n_entries + 1, dtype=np.int64) * (n_bytes // n_entries)


def _checked(offsets: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    if offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
        raise ValueError("its list of entries is not in order")
    return offsets
