"""Output is complete or absent: files are written under random names and renamed together.

:class:`Staging` is for files that stand alone: each is complete or absent, whatever happens. In an
output folder use :class:`attpc_filter.output.folder.OutputFolder`: there all files of a commit get
their names, or none does.
"""

import contextlib
import errno
import json
import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attpc_filter.errors import OutputError
from attpc_filter.interrupts import interrupts_noted

#: What ``fsync`` of a folder says on file systems that have no such thing.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


class Staging:
    """Files on their way to their final names.

    Within ``with``: :meth:`path` gives a hidden name to write under, :meth:`commit` renames all
    that were asked for. What was not committed is removed, whatever happened. Interrupts wait: see
    :func:`attpc_filter.interrupts.interrupts_noted`.
    """

    def __init__(self) -> None:
        self._files: dict[Path, Path] = {}  # staged names by final ones
        self._noted = ExitStack()

    def path(self, final: Path) -> Path:
        """The name to write a file under until it is complete; an empty file of that name is made.

        Asked again for the same file, it gives the same name.

        Raises
        ------
        OutputError
            If no file can be made there.
        """
        if final not in self._files:
            self._files[final] = self._place(final)
        return self._files[final]

    def _place(self, final: Path) -> Path:
        return new_file(final.parent, final)

    def commit(self) -> None:
        """Sync all files and give them their final names.

        Raises
        ------
        OutputError
            If a file was not written, or cannot be synced or renamed.
        """
        self._sync_files()
        for final, staged in self._files.items():
            rename(staged, final)
        for folder in {final.parent for final in self._files}:
            sync_folder(folder)
        self._files.clear()

    def _sync_files(self) -> None:
        for final, staged in self._files.items():
            sync_file(staged, final)

    def __enter__(self) -> Self:
        self._noted.enter_context(interrupts_noted())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._noted:
            for staged in self._files.values():
                with contextlib.suppress(OSError):
                    staged.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that it is complete or absent; an interrupt waits until that is done."""
    with Staging() as staging:
        write_text(staging.path(path), json.dumps(content, indent=1) + "\n", path)
        staging.commit()


def write_text(staged: Path, text: str, final: Path) -> None:
    """Write a text file under its staged name; an error names the final one."""
    try:
        staged.write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(final, error) from error


def new_file(folder: Path, final: Path) -> Path:
    """Make an empty file of a random name, and the folder if need be; errors name ``final``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}") from error
    path = folder / f".{secrets.token_hex(8)}.partial"
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o666))
    except OSError as error:
        raise cannot_write(final, error) from error
    return path


def rename(staged: Path, final: Path) -> None:
    """Give a file its final name, in place of a file that has it."""
    try:
        os.replace(staged, final)
    except OSError as error:
        raise cannot_write(final, error) from error


def sync_file(path: Path, final: Path) -> None:
    """Have a file that was written reach its disk; errors name ``final``.

    Raises
    ------
    OutputError
        If that fails, or the file is empty: it was asked for and not written.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(descriptor).st_size == 0:
                raise OutputError(f"{final}: cannot be written: nothing was written into it")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise cannot_write(final, error) from error


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach its disk, on file systems that can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to raise where the system refuses to write a file."""
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")
