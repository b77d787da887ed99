"""Output is complete or absent: files are written beside their final names and renamed together."""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attpc_filter.errors import OutputError
from attpc_filter.interrupts import interrupts_noted

_SUFFIX = ".partial"


class Staging:
    """The files of one run on their way to their final names.

    Within ``with``: :meth:`path` gives a hidden name beside the final one, :meth:`commit` renames
    all that were asked for. What was not committed is removed, whatever happened. Interrupts wait:
    see :func:`interrupts_noted`.
    """

    def __init__(self) -> None:
        self._files: dict[Path, Path] = {}
        self._noted = ExitStack()

    def path(self, final: Path) -> Path:
        """The name to write a file under until it is complete."""
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{final.parent}: cannot be created: {error.strerror}") from error
        staged = final.with_name(f".{final.name}{_SUFFIX}")
        self._files[staged] = final
        return staged

    def commit(self) -> None:
        """Sync all files and give them their final names."""
        try:
            for staged in self._files:
                _sync(staged)
            for staged, final in self._files.items():
                os.replace(staged, final)
            for folder in {final.parent for final in self._files.values()}:
                _sync(folder)
            self._files.clear()
        except OSError as error:
            raise OutputError(f"{error.filename}: cannot be written: {error.strerror}") from error

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
            for staged in self._files:
                staged.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that it is complete or absent; an interrupt waits until that is done."""
    with Staging() as staging:
        try:
            staging.path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        staging.commit()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
