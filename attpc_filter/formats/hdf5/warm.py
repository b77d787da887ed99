"""Calls to the compiled functions of the HDF5 formats, so that they are compiled ahead of a run."""

import io
from pathlib import Path

import h5py
import numpy as np

from attpc_filter.formats.hdf5 import kernels, link_kernels
from attpc_filter.formats.hdf5.merger import Merger2Run
from attpc_filter.records import N_HARDWARE_COLUMNS

_N_COLUMNS = N_HARDWARE_COLUMNS + 512


def call_reading() -> None:
    """Read an empty event with the compiled functions."""
    if kernels.AVAILABLE:
        with _in_memory() as file:
            run = Merger2Run(Path("warm.h5"), file)
            buffer = np.empty((1, _N_COLUMNS), np.int16)
            list(run.parts([(0, "event_0")], buffer))


def call_linking() -> None:
    """Link an empty event with the compiled functions."""
    if link_kernels.AVAILABLE:
        with _in_memory() as file, _in_memory() as target:
            del target["events/event_0"]
            events = file["events"].id, target["events"].id
            link_kernels.Linker(Merger2Run.usual_event, *events, "events", b"warm.h5").link(
                b"event_0"
            )
            link_kernels.link_parts(file.id, target.id, b"warm.h5", [b"/none"])


def _in_memory() -> h5py.File:
    """A file in memory with one event without traces."""
    file = h5py.File(io.BytesIO(), "w")
    event = file.create_group("events/event_0")
    file["events"].attrs["version"] = Merger2Run.versions[0]
    for name in Merger2Run.usual_event.names:
        event[f"get/{name.decode()}"] = np.empty((0, _N_COLUMNS), np.int16)
    event["get"].attrs["id"] = np.uint32(0)
    return file
