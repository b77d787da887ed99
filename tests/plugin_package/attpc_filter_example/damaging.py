"""A format for tests: some of its events crash the process that reads them, or never end.

A text file: ``events that end their reader``, and then a line an event: ``fine``, ``crash`` or
``hang``. A damaged file does the same to HDF5, but not in every version of the library.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np

from attpc_filter import Allocate, Events, Format, InputFile, Record, Run, allocate_new

_FIRST_LINE = "events that end their reader"


class DamagingRun(Run):
    """A run in such a file."""

    format_name = "damaging text"

    def __init__(self, path: Path, events: Events | None) -> None:
        super().__init__(path)
        self._words = path.read_text(encoding="ascii").splitlines()[1:]
        found = [(number, str(number)) for number in range(len(self._words))]
        self.events = found if events is None else events
        self.n_samples = 512

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read an event, or end the process that does."""
        word = self._words[event]
        if word == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "hang":
            time.sleep(3600)
        return Record(event, name, traces=np.zeros((1, 517), np.int16))

    def close(self) -> None:
        """Nothing is open."""


def _recognise(file: InputFile) -> bool:
    return file.head.startswith(_FIRST_LINE.encode())


def _open(file: InputFile, events: Events | None) -> Run:
    return DamagingRun(file.path, events)


FORMAT = Format(DamagingRun.format_name, _recognise, _open)
