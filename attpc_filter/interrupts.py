"""Interrupts are noted when they come, and obeyed between two steps of the work."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

#: Ctrl-C; what Slurm sends before the end, by itself or if asked to; a terminal that is gone.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
#: Whether an interrupt came within :func:`interrupts_noted`, and how deep that is nested. No lock
#: is taken for it: a signal may come while the one before it is being noted.
_noted = False
_depth = 0


@contextlib.contextmanager
def interrupts_noted() -> Iterator[None]:
    """Only take note of :data:`INTERRUPTS`; they act in :func:`check_interrupted`, or at the end.

    An exception out of a signal's handler can come between any two steps of Python, is lost where
    it comes while an object is taken down (which h5py does all the time), and would then leave the
    job running. Blocks within one another end with the outermost. Signals that are ignored, or
    that end the process at once, do as before.
    """
    global _noted, _depth
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    handlers: dict[signal.Signals, Any] = {}
    if _depth == 0:
        _noted = False
        for number in INTERRUPTS:
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, _note)
    _depth += 1
    try:
        yield
        if _depth == 1:
            check_interrupted()
    finally:
        _depth -= 1
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if _depth == 0:
            _noted = False


def _note(*_: object) -> None:
    global _noted
    _noted = True


def check_interrupted() -> None:
    """Raise KeyboardInterrupt if an interrupt was noted."""
    if _noted:
        raise KeyboardInterrupt
