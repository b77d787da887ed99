"""pytpc's files: raw traces under ``get``, cleaned hits under ``clean``."""

import re
from typing import Any

import h5py
import numpy as np
from h5py import h5g

from attpc_filter.formats.hdf5.file import read_points, read_traces
from attpc_filter.formats.hdf5.run import Hdf5Run, TraceRun
from attpc_filter.formats.points import pad_numbers, require_finite, without_warnings
from attpc_filter.formats.run import Allocate


class GetRun(TraceRun):
    """Raw traces: ``get/N``, and nothing else."""

    format_name = "pytpc get"
    container = "get"
    event_name = re.compile(r"(\d+)")
    event_groups = ("get",)
    event_part = re.compile(r"get/\d+")

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether there is ``get`` without the merger's ``meta``."""
        return isinstance(file.get("get"), h5py.Group) and "meta" not in file

    def paths_to_read(self, name: bytes) -> tuple[bytes, bytes, bytes]:
        """Paths of the traces, and of no register."""
        return name, b"", b""

    def is_passthrough(self, register: int) -> bool:
        """No event is."""
        return False

    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        return {"traces": read_traces(group, name, allocate, self.n_samples)}


class CleanRun(Hdf5Run):
    """Cleaned hits: ``clean/N``, columns x, y [mm], time bucket, charge, and then others."""

    format_name = "pytpc clean"
    container = "clean"
    event_name = re.compile(r"(\d+)")
    event_groups = ("clean",)
    event_part = re.compile(r"clean/\d+")

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether there is a group ``clean``."""
        return isinstance(file.get("clean"), h5py.Group)

    @without_warnings
    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        table = read_points(group, name, columns=4)
        require_finite(table, range(4))
        x, y, time_bucket, charge = table[:, :4].T
        pad = pad_numbers(table[:, 4]) if table.shape[1] > 4 else np.full(len(table), -1.0)
        no_z = np.full(len(table), np.nan)
        no_integral = np.zeros(len(table))
        points = np.column_stack([x, y, no_z, time_bucket, charge, no_integral, pad])
        return {"points": points}


FORMATS = (GetRun, CleanRun)
