"""How fast this machine's HDF5 gives trace matrices away: the ceilings of reading."""

import os
from collections.abc import Callable

import numpy as np
from h5py import h5d, h5s, h5t
from numpy.typing import NDArray

from attpc_filter.formats.hdf5.run import Hdf5Run
from attpc_filter.formats.run import Run


def bare_reads(run: Run, buffer: NDArray[np.int16]) -> dict[str, Callable[[], None]]:
    """Ways to read the trace matrices of a run with nothing besides.

    Parameters
    ----------
    run : Run
        The run.
    buffer : ndarray of int16, shape (rows, 517)
        Room for the largest event.

    Returns
    -------
    dict of str to callable
        By what they do; each reads all events of the run. Empty for runs that are no HDF5 files or
        hold no trace matrices; without the file offsets if a matrix is not stored in one piece.
    """
    if not isinstance(run, Hdf5Run):
        return {}
    file = run.file
    paths = [run.matrix_path(name) for _, name in run.events]
    paths = [path for path in paths if path in file and file[path].dtype == np.int16]
    encoded = [path.encode() for path in paths]
    if not paths or max(file[path].shape[0] for path in paths) > len(buffer):
        return {}

    def high_level() -> None:
        for path in paths:
            file[path][:]

    def low_level() -> None:
        for path in encoded:
            dataset = h5d.open(file.id, path)
            dataset.read(h5s.ALL, h5s.ALL, buffer[: dataset.shape[0]], h5t.NATIVE_INT16)

    def at_offsets() -> None:
        descriptor = os.open(file.filename, os.O_RDONLY)
        try:
            for path in encoded:
                dataset = h5d.open(file.id, path)
                room = buffer[: dataset.shape[0]]
                os.preadv(descriptor, [memoryview(room)], dataset.get_offset())  # type: ignore[arg-type]
        finally:
            os.close(descriptor)

    reads = {"h5py": high_level, "h5py, low level, one buffer": low_level}
    if all(file[path].id.get_offset() is not None for path in paths):
        reads["file offsets, one buffer"] = at_offsets
    return reads
