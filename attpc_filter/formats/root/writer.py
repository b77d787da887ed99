"""ROOT files that we write: one tree each, and a label beside it that says what the file is."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uproot

from attpc_filter import __version__
from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.root.file import ROOT_ERRORS, RootFile, one_line

#: Object beside the tree that says what the file is.
LABEL = "attpc_filter"

#: zlib at its lowest level: fast enough, and ROOT stores it with a checksum, zstd without.
_COMPRESSION_LEVEL = 1


class TreeWriter:
    """A ROOT file with one tree, written batch by batch, and a label beside it.

    Parameters
    ----------
    path : Path
        File to write.
    tree : str
        Name of the tree.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """

    def __init__(self, path: Path, tree: str) -> None:
        self._path = path
        self._name = tree
        self._tree: Any = None
        try:
            self._handle = open(path, "w+b")  # noqa: SIM115  a name with a colon misleads uproot
            self._file = uproot.recreate(self._handle, compression=uproot.ZLIB(_COMPRESSION_LEVEL))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error

    def extend(self, types: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        """Add rows; the first time, make the tree with columns of these types."""
        try:
            if self._tree is None:
                self._tree = self._file.mktree(self._name, dict(types))
            if len(next(iter(columns.values()))):
                self._tree.extend(dict(columns))
        except ROOT_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {one_line(error)}") from error

    def close(self, label: Mapping[str, Any], n_rows: int) -> None:
        """Write the label, close the file, and see whether the tree has its rows."""
        try:
            self._file[LABEL] = json.dumps({"attpc_filter": __version__, **label})
            self._file.close()
            self._handle.close()
            with open(self._path, "rb") as handle, uproot.open(handle) as written:
                held = int(written[self._name].num_entries)
        except ROOT_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {one_line(error)}") from error
        if held != n_rows:
            raise OutputError(f"{self._path}: {n_rows} rows were written, it holds {held}")

    def abort(self) -> None:
        """Close the file as it is."""
        for close in (self._file.close, self._handle.close):
            with suppress(*ROOT_ERRORS):
                os.truncate(self._path, 0)  # on a full disk it could not be closed otherwise
                close()


def read_label(file: RootFile) -> dict[str, Any] | None:
    """What a ROOT file says that we wrote; None if it says nothing."""
    if file.keys.get(LABEL) != "TObjString":
        return None
    try:
        label = json.loads(str(file.directory[LABEL]))
    except ROOT_ERRORS as error:
        raise InputError(f"{file.path}: object {LABEL}: damaged: {one_line(error)}") from error
    return label if isinstance(label, dict) else None
