"""What a reader sees in an HDF5 file, byte for byte, links followed."""

import hashlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np


def object_content(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Everything below an object by relative path: kind, type, shape, bytes, attributes."""
    content: dict[str, Any] = {"": _describe(item)}

    def visit(group: h5py.Group, prefix: str) -> None:
        for name in group:
            child = group[name]
            path = f"{prefix}/{name}"
            content[path] = _describe(child)
            if isinstance(child, h5py.Group):
                visit(child, path)

    if isinstance(item, h5py.Group):
        visit(item, "")
    return content


def file_content(file: h5py.File, leave_out: Callable[[str], bool]) -> dict[str, Any]:
    """Everything in a file by absolute path, less what is to be left out (with all below it)."""
    content: dict[str, Any] = {}

    def visit(group: h5py.Group, prefix: str) -> None:
        content[prefix or "/"] = _describe(group)
        for name in group:
            path = f"{prefix}/{name}"
            if leave_out(path.lstrip("/")):
                continue
            child = group[name]
            if isinstance(child, h5py.Group):
                visit(child, path)
            else:
                content[path] = _describe(child)

    visit(file, "")
    return content


def _describe(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    description: dict[str, Any] = {"kind": type(item).__name__, "attributes": _attributes(item)}
    if isinstance(item, h5py.Dataset):
        description |= _value(item[()], item.dtype, item.shape)
    return description


def _attributes(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    described = {}
    for name in item.attrs:
        held = h5py.h5a.open(item.id, name.encode())
        described[name] = _value(item.attrs[name], held.dtype, held.shape)
    return described


def _value(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> dict[str, Any]:
    if isinstance(value, h5py.Empty):
        data: Any = "empty"
    elif dtype.hasobject:
        data = np.asarray(value).tolist()
    else:
        data = hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
    return {"dtype": dtype.str if dtype.names is None else str(dtype), "shape": shape, "data": data}
