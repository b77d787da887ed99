"""One command at a time in an output folder.

``.attpc_filter/lock`` is locked with ``flock``, which the system lets go of whatever ends the
process. On file systems without such locks ``.attpc_filter/lock.owner`` is made, which only one
process can; it stays behind if the process is killed, and the next command on that machine sees
that its process is gone.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.journal import HIDDEN_NAME
from attpc_filter.output.staging import cannot_write

LOCK_NAME = "lock"
OWNER_NAME = "lock.owner"
_TRIES = 20


class FolderLock:
    """The lock of an output folder.

    Parameters
    ----------
    out : Path
        The folder; it exists.

    Raises
    ------
    UsageError
        If another command works in the folder: the line names its machine and its process.
    OutputError
        If the folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._hidden = out / HIDDEN_NAME
        self._path = self._hidden / LOCK_NAME
        self._owner: Path | None = None
        for _ in range(_TRIES):
            self._make_hidden_folder()
            if self._lock():
                return
        raise OutputError(f"{self._path}: cannot be locked: it comes and goes")

    def release(self) -> None:
        """Let others work in the folder; leave nothing behind but what is unfinished."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._owner is not None:
            with contextlib.suppress(OSError):
                self._owner.unlink()
        os.close(self._descriptor)
        with contextlib.suppress(OSError):  # a journal is in it
            self._hidden.rmdir()

    def _make_hidden_folder(self) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                self._hidden.mkdir()
            is_folder = stat.S_ISDIR(self._hidden.lstat().st_mode)
        except FileNotFoundError:  # another command has just removed it
            return
        except OSError as error:
            raise cannot_write(self._hidden, error) from error
        if not is_folder:
            raise OutputError(f"{self._hidden}: not a folder of attpc-filter; move it away")

    def _lock(self) -> bool:
        """Take the lock; False if its file was removed meanwhile, by the command that had it."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o666)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise cannot_write(self._path, error) from error
        try:
            self._take(descriptor)
            with contextlib.suppress(OSError):
                if os.fstat(descriptor).st_ino == self._path.lstat().st_ino:
                    self._descriptor = descriptor
                    self._say_who(descriptor)
                    return True
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return False

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise self._refused(self._path) from None
            self._own(self._hidden / OWNER_NAME)

    def _own(self, owner: Path) -> None:
        """Do without ``flock``, which this file system does not have."""
        for _ in range(2):
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(owner, flags, 0o666)
            except FileExistsError:
                if not _has_ended(_read(owner)):
                    raise self._refused(
                        owner, f"; if that process has ended, remove {owner}"
                    ) from None
                with contextlib.suppress(OSError):
                    owner.unlink()
                continue
            except OSError as error:
                raise cannot_write(owner, error) from error
            self._owner = owner
            self._say_who(descriptor)
            os.close(descriptor)
            return
        raise self._refused(owner)

    def _refused(self, path: Path, remedy: str = "") -> UsageError:
        held = _read(path)
        who = f"process {held['pid']} on {held['host']}, since {held['since']}" if held else "it"
        return UsageError(
            f"{self._out}: another command works in this folder ({who}); wait for its end, or"
            f" choose another folder{remedy}"
        )

    def _say_who(self, descriptor: int) -> None:
        who = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with contextlib.suppress(OSError):  # the disk is full: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(who).encode(), 0)


def _read(path: Path) -> dict[str, Any]:
    """Who has the lock; empty if the file does not say."""
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return {"host": str(who["host"]), "pid": int(who["pid"]), "since": str(who["since"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _has_ended(who: dict[str, Any]) -> bool:
    """Whether it is certain that the process is gone: one of this machine that is not there."""
    if not who or who["host"] != socket.gethostname():
        return False
    if who["pid"] == os.getpid():  # in a container that was started anew
        return True
    try:
        os.kill(who["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
