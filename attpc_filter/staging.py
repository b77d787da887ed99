"""Output is complete or absent: files are written beside their final names and renamed together."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attpc_filter.errors import OutputError

_SUFFIX = ".partial"


class Staging:
    """The files of one run on their way to their final names.

    Within ``with``: :meth:`path` gives a hidden name beside the final one, :meth:`commit` renames
    all that were asked for. What was not committed is removed, whatever happened.
    """

    def __init__(self) -> None:
        self._files: dict[Path, Path] = {}

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
        """Sync all files and give them their final names; an interrupt waits until that is done."""
        try:
            with interrupts_deferred():
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
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with interrupts_deferred():
            for staged in self._files:
                staged.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that it is complete or absent; an interrupt waits until that is done."""
    with interrupts_deferred(), Staging() as staging:
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


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM act only after the block (in the main thread, which gets them)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {n: signal.signal(n, lambda number, _: seen.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if seen:
        signal.raise_signal(seen[0])
