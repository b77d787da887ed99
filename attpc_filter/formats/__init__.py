"""Event-record formats: one file a format; each knows how to recognise, read and write it.

What comes after does not know which file an event came from.
"""

from pathlib import Path

from attpc_filter.formats import attpcroot_hdf5, merger, pytpc, spyral
from attpc_filter.formats.hdf5 import open_hdf5_run
from attpc_filter.formats.run import Run, Stream, StreamMode

__all__ = ["Run", "Stream", "StreamMode", "open_run"]

_HDF5_FORMATS = (*merger.FORMATS, *spyral.FORMATS, *pytpc.FORMATS, *attpcroot_hdf5.FORMATS)


def open_run(path: Path | str) -> Run:
    """Open a run file, whatever its format; recognised by content, not by name.

    Parameters
    ----------
    path : Path or str
        The file.

    Returns
    -------
    Run
        The open run; use it as a context manager.

    Raises
    ------
    InputError
        If the file cannot be opened, is of no known format, or holds no events.
    """
    return open_hdf5_run(Path(path), _HDF5_FORMATS)
