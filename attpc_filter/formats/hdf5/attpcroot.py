"""Hits as ATTPCROOT's AtHDF5WriteTask writes them: HDF5, a table of hits an event."""

import re
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5o

from attpc_filter.formats.hdf5.file import (
    HDF5_ERRORS,
    names_in,
    read_array,
    require_targets,
    translated,
)
from attpc_filter.formats.hdf5.links import LINK_ACCESS, require_own_data
from attpc_filter.formats.hdf5.run import Hdf5Run
from attpc_filter.formats.points import require_finite, without_warnings
from attpc_filter.formats.run import Allocate, UnreadableEvent

_COLUMNS = ("x", "y", "z", "t", "A")
#: Older files call time and charge otherwise.
_OTHER_NAMES = {"t": ("t", "time"), "A": ("A", "charge", "amplitude")}


class HitRun(Hdf5Run):
    """Hits: ``Event_[N]/HitArray``, in older files the table ``Event_[N]`` itself."""

    format_name = "ATTPCROOT hits (HDF5)"
    container = "/"
    event_name = re.compile(r"Event_\[(\d+)\]")
    event_groups = ()
    event_part = re.compile(r"Event_\[\d+\]")

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether there are objects ``Event_[N]``."""
        return any(cls.event_name.fullmatch(name) for name in names_in(file.id))

    @without_warnings
    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        with translated:
            try:
                table = h5o.open(group, name, lapl=LINK_ACCESS)
            except HDF5_ERRORS:
                require_targets(group, name)
                raise
            held = names_in(table) if isinstance(table, h5g.GroupID) else None
        if held is not None:
            if "HitArray" not in held:
                raise UnreadableEvent(f"no HitArray; it holds {', '.join(held) or 'nothing'}")
            with translated:
                table = h5o.open(table, b"HitArray", lapl=LINK_ACCESS)
        if not isinstance(table, h5d.DatasetID):
            raise UnreadableEvent("no table of hits, but another kind of object")
        require_own_data(table)
        with translated:
            kind = table.dtype
        names = kind.names
        if names is None:
            raise UnreadableEvent(f"hits of type {kind}, expected a table with x, y, z, t, A")
        hits = read_array(table).reshape(-1)
        columns = []
        for column in _COLUMNS:
            known = [n for n in _OTHER_NAMES.get(column, (column,)) if n in names]
            if not known:
                raise UnreadableEvent(f"hits without {column}; columns: {', '.join(names)}")
            values = hits[known[0]]
            if values.ndim != 1 or values.dtype.kind not in "iuf":
                raise UnreadableEvent(f"hits whose {known[0]} is no number but {values.dtype}")
            columns.append(values.astype(np.float64))
        x, y, z, time_bucket, charge = columns
        none = np.zeros(len(hits))
        points = np.column_stack([x, y, z, time_bucket, charge, none, none - 1.0])
        require_finite(points, range(7))
        return {"points": points}


FORMATS = (HitRun,)
