"""Standard output and error that may be closed, full or gone: results count without them."""

import os
import sys
from typing import Any, TextIO, cast


class _Forgiving:
    """A text stream that goes silent where the one behind it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._go_silent()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._go_silent()

    def _go_silent(self) -> None:
        """Send what is written from now on, and what waits to be written, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgive_terminal() -> None:
    """Let a closed, full or lost stdout or stderr of this process be no error of its command."""
    for descriptor in range(3):  # else a file of results could get the number of one that is closed
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        setattr(sys, name, cast(TextIO, _Forgiving(stream)))
