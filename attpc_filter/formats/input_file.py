"""A file that is to be opened as a run, and what a format recognises it by."""

import os
import re
import stat
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.hdf5.file import open_file
from attpc_filter.root_options import RootOptions

_HEAD_BYTES = 512
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


_NO_FORMAT = ", which is no event format; attpc-filter import makes a run of clouds in text"
#: How text files begin that lie beside runs, and what they are.
_TEXTS = (
    (
        re.compile(rb"\s*Event ID\s*:"),
        "a single event as text (x, y, z, time bucket, charge), as ATTPCROOT's macros leave it;"
        " attpc-filter import makes a run of such files",
    ),
    (
        re.compile(rb"(?s:.{0,400})ANGLES:"),
        "the geometry of a detector with strips as text; attpc-filter detector new begins a"
        " detector file, for pads",
    ),
    (
        re.compile(rb"\s*[\[{]"),
        "JSON, which is no event format; attpc-filter import makes a run of clouds in text",
    ),
    (re.compile(rb"\s*<"), "XML or a web page" + _NO_FORMAT),
    (
        re.compile(rb"[\t\n\r -~]*\Z"),
        "a text file" + _NO_FORMAT,
    ),
)


def describe_head(head: bytes) -> str:
    """What a file is that no format knows, judged by how it begins; empty if it does not tell."""
    if not head:
        return "an empty file"
    for begins, what in _TEXTS:
        if begins.match(head):
            return what
    return ""


class InputFile:
    """A file that is to be opened as a run, or a folder of files that are one run.

    Parameters
    ----------
    path : Path
        The file.
    root : RootOptions, optional
        What to read if it is a ROOT file.
    channels : ndarray of int64, shape (n, 5), optional
        CoBo, AsAd, AGET, channel and pad, for files that know no pads.
    follow_links : bool, optional
        Whether the links of an HDF5 file may lead anywhere.

    Attributes
    ----------
    head : bytes
        Its first 512 bytes, or all if it has fewer; empty for a folder.

    Raises
    ------
    InputError
        If it is not there, is no regular file, or cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        root: RootOptions | None = None,
        channels: NDArray[np.int64] | None = None,
        follow_links: bool = False,
    ) -> None:
        self.path = path
        self.root = root
        self.channels = channels
        self._follow_links = follow_links
        self._hdf5: h5py.File | None = None
        self.head = b""
        try:
            kind = path.stat().st_mode
            if stat.S_ISDIR(kind):
                return
            if not stat.S_ISREG(kind):  # opening a pipe would wait for a writer
                raise InputError(f"{path}: a pipe or a device, not a run file")
            with open(path, "rb") as file:
                self.head = file.read(_HEAD_BYTES)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except PermissionError as error:
            raise InputError(f"{path}: not readable for you (permissions)") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be opened: {error.strerror}") from error

    @property
    def hdf5(self) -> h5py.File | None:
        """The file opened by h5py, once; None if it is no HDF5 file.

        Raises
        ------
        InputError
            If it is one but cannot be opened.
        """
        if self._hdf5 is None and self.head and self._has_hdf5_signature():
            self._hdf5 = open_file(self.path, self._follow_links)
        return self._hdf5

    def close(self) -> None:
        """Close what was opened; a run that was made of it does so itself."""
        if self._hdf5 is not None:
            self._hdf5.close()

    def _has_hdf5_signature(self) -> bool:
        """Whether the signature stands at the start, or behind a user block of 512 x 2^n bytes."""
        if self.head.startswith(_HDF5_SIGNATURE):
            return True
        with open(self.path, "rb") as file:
            size, at = os.fstat(file.fileno()).st_size, _HEAD_BYTES
            while at < size:
                file.seek(at)
                if file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE:
                    return True
                at *= 2
        return False
