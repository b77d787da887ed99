"""Single objects of HDF5 files: whether they are there and readable, and copies of them."""

import math
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5o, h5p, h5s, h5t

from attpc_filter.formats.hdf5.file import HDF5_ERRORS, encode, is_sound, require_working_disk
from attpc_filter.formats.hdf5.links import LINK_ACCESS, require_own_data

_CHUNK_BYTES = 1 << 20
_LONGEST_TEXT = 1 << 20
#: Numbers that are copied at once; more of them are linked.
_MOST_BYTES = 1 << 30
#: Small files cannot expand without bound: gzip makes 1 byte of 1,032 at best.
_MUCH, MOST_EXPANSION = 64 << 20, 1000
#: Copies go to disk at once: what a cache holds back fails later, where no one can handle it.
_UNCACHED = h5p.create(h5p.DATASET_ACCESS)
_UNCACHED.set_chunk_cache(0, 0, 1.0)


def link_exists(group: h5g.GroupID, path: str) -> bool:
    """Whether every link of a path is there; the last may lead nowhere."""
    parts = path.split("/")
    return all(
        group.links.exists(encode("/".join(parts[: depth + 1])), lapl=LINK_ACCESS)
        for depth in range(len(parts))
    )


def opens(group: h5g.GroupID, name: str) -> bool:
    """Whether an object can be opened. A link to elsewhere exists even if it leads nowhere."""
    try:
        h5o.open(group, name.encode())
    except HDF5_ERRORS:
        return False
    return True


def copy_attributes(source: h5g.GroupID, target: h5g.GroupID) -> None:
    """Copy all attributes of one group or dataset to another, types as they are."""
    for index in range(h5a.get_num_attrs(source)):
        attribute = h5a.open(source, index=index)
        require_sound_attribute(attribute)
        copy = h5a.create(target, attribute.name, attribute.get_type(), attribute.get_space())
        if attribute.get_space().get_simple_extent_type() != h5s.NULL:
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
            copy.write(values)


def require_sound_attribute(attribute: h5a.AttrID) -> None:
    """Raise ValueError if the type of an attribute is damaged: HDF5 would crash on its values."""
    if not _is_safe(attribute.get_type()):
        raise ValueError(f"attribute {attribute.name!r} has a strange type: damaged")


def _is_safe(kind: h5t.TypeID) -> bool:
    """Whether values of a type, texts included, can be read into memory."""
    if isinstance(kind, h5t.TypeCompoundID):
        parts = [kind.get_member_type(i) for i in range(kind.get_nmembers())]
        return is_sound(kind) and all(map(_is_safe, parts))
    if kind.get_class() == h5t.ARRAY:
        n_values = math.prod(kind.get_array_dims())
        return kind.get_size() == n_values * kind.get_super().get_size() and _is_safe(
            kind.get_super()
        )
    if kind.get_class() == h5t.VLEN:
        return _is_safe(kind.get_super())
    if kind.get_class() == h5t.ENUM:
        return is_sound(kind.get_super())
    if kind.get_class() == h5t.STRING:
        return bool(kind.is_variable_str()) or 0 < kind.get_size() <= _LONGEST_TEXT
    return kind.get_class() in (h5t.INTEGER, h5t.FLOAT, h5t.REFERENCE) and is_sound(kind)


def copy_object(source: h5g.GroupID, path: bytes, target: h5g.GroupID, name: bytes) -> int:
    """Copy a group or dataset with all below it; the datasets' chunks get checksums.

    Links are followed, so that the copy stands alone; a dataset that has several names in its
    event keeps them.

    Returns
    -------
    int
        Bytes of numbers that were copied.
    """
    copied: dict[tuple[int, Any], bytes] = {}
    n_bytes = 0

    def copy(item: Any, place: bytes) -> None:
        nonlocal n_bytes
        info = h5o.get_info(item)
        key = (info.fileno, info.addr)
        if key in copied:
            target.links.create_hard(place, target, copied[key])
            return
        copied[key] = place
        if isinstance(item, h5g.GroupID):
            made: Any = h5g.create(target, place)
            copy_attributes(item, made)
            for child in item:
                copy(h5o.open(item, child, lapl=LINK_ACCESS), place + b"/" + child)
        elif isinstance(item, h5d.DatasetID):
            n_bytes += _copy_dataset(item, target, place)
        else:  # a committed type
            h5o.copy(item, b".", target, place)

    copy(h5o.open(source, path, lapl=LINK_ACCESS), name)
    return n_bytes


def is_readable(source: h5g.GroupID, path: bytes) -> bool:
    """Whether an object can be opened and read with all below it."""
    seen: set[tuple[int, Any]] = set()

    def read(item: Any) -> None:
        info = h5o.get_info(item)
        if (info.fileno, info.addr) in seen:
            return
        seen.add((info.fileno, info.addr))
        for index in range(h5a.get_num_attrs(item)):
            require_sound_attribute(h5a.open(item, index=index))
        if isinstance(item, h5g.GroupID):
            for child in item:
                read(h5o.open(item, child, lapl=LINK_ACCESS))
        elif isinstance(item, h5d.DatasetID):
            require_own_data(item)
            _require_possible_size(item)
            h5py.Dataset(item)[()]

    try:
        read(h5o.open(source, path, lapl=LINK_ACCESS))
    except HDF5_ERRORS as error:
        require_working_disk(error)
        return False
    return True


def _require_possible_size(dataset: h5d.DatasetID) -> int:
    """Raise ValueError if a dataset claims to hold more than it can; gives its bytes."""
    n_bytes: int = math.prod(dataset.shape or ()) * dataset.get_type().get_size()
    most = MOST_EXPANSION * dataset.get_storage_size()
    if n_bytes > _MOST_BYTES or n_bytes > max(_MUCH, most):
        raise ValueError(f"a dataset claims {n_bytes / 1e9:,.1f} GB: a damaged header")
    return n_bytes


def _copy_dataset(dataset: h5d.DatasetID, target: h5g.GroupID, name: bytes) -> int:
    require_own_data(dataset)
    n_bytes = _require_possible_size(dataset)
    shape = dataset.shape
    kind = dataset.get_type()
    size = int(np.prod(shape)) if shape else 0
    if not size or not _is_flat(kind):
        h5o.copy(dataset, b".", target, name)
        return n_bytes
    row_bytes = max(size // shape[0], 1) * kind.get_size()
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk((max(1, min(shape[0], _CHUNK_BYTES // row_bytes)), *shape[1:]))
    creation.set_fletcher32()
    space = h5s.create_simple(shape)
    made = h5d.create(target, name, kind, space, creation, dapl=_UNCACHED)
    copy_attributes(dataset, made)
    values = np.empty(shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, values, kind)
    made.write(h5s.ALL, h5s.ALL, values, kind)
    return n_bytes


def _is_flat(kind: h5t.TypeID) -> bool:
    """Whether values of a type are numbers, or rows of numbers, that refer to nothing else."""
    if isinstance(kind, h5t.TypeCompoundID):
        members = range(kind.get_nmembers())
        return is_sound(kind) and all(_is_flat(kind.get_member_type(i)) for i in members)
    return kind.get_class() in (h5t.INTEGER, h5t.FLOAT) and is_sound(kind)
