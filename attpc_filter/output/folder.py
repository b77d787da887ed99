"""The output folder: whose it is, who works in it, and commits of many files at once.

The manifest lists the folder's own files; others are neither written nor removed.
"""

import contextlib
import copy
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.journal import (
    HIDDEN_NAME,
    JOURNAL_NAME,
    Journal,
    UnfinishedCommit,
    carry_out,
    finish,
    inside,
)
from attpc_filter.output.lock import FolderLock
from attpc_filter.output.manifest import MANIFEST_NAME, Manifest, read_manifest
from attpc_filter.output.staging import Staging, new_file, write_text

#: How long a reader waits for a command that is in the middle of a commit [s].
_PATIENCE_S = 10.0


class OutputFolder:
    """An output folder that a command works in, with its lock; within ``with``.

    What a command left unfinished is finished, or removed, first.

    Parameters
    ----------
    path : Path
        The folder.
    create : bool
        Make it if it is not there, or is no output yet.

    Attributes
    ----------
    path : Path
        The folder.
    books : Manifest
        As they are on the disk; :meth:`books_to_change` gives a copy.

    Raises
    ------
    UsageError
        If it cannot be an output folder, is none, or another command works in it.
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if create:
            _make(path)
        elif not is_begun(path):
            read_manifest(path)  # says what is wrong
        self._lock = FolderLock(path)
        try:
            finish(path)
            has_books = os.path.lexists(path / MANIFEST_NAME)
            self.books = read_manifest(path) if has_books or not create else Manifest()
            self._owned = self.books.own_files() if has_books else set()
        except BaseException:
            self._lock.release()
            raise
        self.is_unfinished = False

    def owns(self, name: str) -> bool:
        """Whether a file is the folder's own, or there is none of that name."""
        return name in self._owned or not os.path.lexists(self.path / name)

    def books_to_change(self) -> Manifest:
        """A copy of the books, to be committed."""
        return copy.deepcopy(self.books)

    def staging(self) -> "FolderStaging":
        """A commit of files of this folder."""
        return FolderStaging(self)

    def write_books(self, books: Manifest) -> None:
        """Commit the books alone."""
        with self.staging() as staging:
            staging.commit(books)

    def close(self) -> None:
        """Let other commands work in it."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class FolderStaging(Staging):
    """Files of an output folder on their way to their final names, with the books about them."""

    def __init__(self, folder: OutputFolder) -> None:
        super().__init__()
        self._folder = folder

    def _place(self, final: Path) -> Path:
        """Make a file in the hidden folder, unless a file that is not ours has the final name.

        It is as deep in the output folder as the streams, whose relative links hold in both places.
        """
        out = self._folder.path
        name = final.relative_to(out).as_posix()
        inside(out, name)
        if not self._folder.owns(name):
            raise OutputError(
                f"{final}: exists and is not listed in {MANIFEST_NAME}, so it stays; move it away,"
                " or choose another folder"
            )
        return new_file(out / HIDDEN_NAME, final)

    def commit(self, books: Manifest | None = None) -> None:
        """Give all files their names, with the books that list them: all of it, or nothing.

        Files that the books listed before, and do not list now, are removed.

        Parameters
        ----------
        books : Manifest
            The books as they are from now on.

        Raises
        ------
        OutputError
            If nothing was changed.
        UnfinishedCommit
            If the next command has to finish it.
        """
        folder = self._folder
        assert books is not None
        final = folder.path / MANIFEST_NAME
        write_text(self.path(final), books.to_json(), final)
        self._sync_files()
        renames = [
            (staged.name, final.relative_to(folder.path).as_posix())
            for final, staged in self._files.items()
        ]
        removals = sorted(
            name
            for name in folder._owned - books.own_files()
            if os.path.lexists(folder.path / name)
        )
        try:
            carry_out(folder.path, Journal(renames, removals))
        except UnfinishedCommit:
            folder.is_unfinished = True
            self._files.clear()
            raise
        self._files.clear()
        folder.books, folder._owned = copy.deepcopy(books), books.own_files()


def is_begun(out: Path) -> bool:
    """Whether a command left a commit unfinished in a folder."""
    return (out / HIDDEN_NAME / JOURNAL_NAME).exists()


def settle(out: Path) -> None:
    """Finish what a command left unfinished in an output folder, for one that only reads it.

    Raises
    ------
    UsageError
        If another command works in it and does not come to an end of its commit.
    OutputError
        If it cannot be finished.
    """
    end = time.monotonic() + _PATIENCE_S
    while is_begun(out):
        try:
            with contextlib.closing(OutputFolder(out)):
                return
        except UsageError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def check_folder(out: Path) -> None:
    """Check that a folder can be an output folder, before it is made.

    Raises
    ------
    UsageError
        If it cannot.
    """
    try:
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out}: a file of that name exists")
        if os.path.lexists(out / MANIFEST_NAME):
            read_manifest(out)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}: {error.filename}") from error


def _make(out: Path) -> None:
    check_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}: {error.filename}") from error


def require_space(out: Path, n_bytes: int) -> None:
    """Raise OutputError if the folder's disk has less room than copies of a run need."""
    free = shutil.disk_usage(out).free
    if free < n_bytes:
        raise OutputError(
            f"{out}: {free / 1e9:.1f} GB free, copies of the events need {n_bytes / 1e9:.1f} GB;"
            " free some, or take --streams link"
        )
