"""What every format offers: a run to read events from, and streams to write them to."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import InputError, OutputError
from attpc_filter.records import N_TRACE_COLUMNS, Hits, Record

#: How a stream holds its events: by reference to the input, or as a copy of its own.
StreamMode = Literal["link", "copy"]

#: Number and object name of events.
Events = list[tuple[int, str]]

#: Gives an array of int16 for a trace matrix of so many rows, one column a hardware number and
#: sample; what needs other columns makes an array of its own.
Allocate = Callable[[int], NDArray[np.int16]]


def allocate_new(rows: int) -> NDArray[np.int16]:
    """Room for a trace matrix in an array of its own."""
    return np.empty((rows, N_TRACE_COLUMNS), np.int16)


class UnreadableEvent(Exception):
    """One event cannot be read; the message is the reason that goes into the tag table."""


class Stream(ABC):
    """An output file in the layout of its run, to which events are added one by one."""

    @abstractmethod
    def add(self, record: Record, hits: Hits | None = None) -> None:
        """Add an event of the run, untouched.

        Parameters
        ----------
        record : Record
            The event; its traces and points may be gone, they are not looked at.
        hits : Hits, optional
            The hits that were rebuilt of its traces, for a stream that takes them
            (:meth:`Run.takes_hits`).
        """

    @abstractmethod
    def close(self) -> None:
        """Flush and close the file, and verify that it holds what was added.

        Raises
        ------
        OutputError
            If it cannot be written or does not hold the events that were added.
        """

    @abstractmethod
    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""


#: Creates a stream of a run: a path, the mode, and what the stream holds.
StreamMaker = Callable[["Run", Path, StreamMode, str], Stream]


@dataclass(frozen=True, slots=True)
class Move:
    """An event that goes from one stream of a run to another, because its tag has changed.

    Attributes
    ----------
    event : int
        Its number.
    source, target : str
        Labels of the streams.
    """

    event: int
    source: str
    target: str


class Run(ABC):
    """An open run file.

    Attributes
    ----------
    format_name : str
        The format, in words.
    path : Path
        The file.
    number : int
        Run number, from the file's name; 0 if the name holds none.
    events : list of (int, str)
        Number and object name of every event that is there, ascending by number. Gaps stay gaps.
    n_samples : int or None
        Samples of a trace, as the first events have them; an event with another number is
        unreadable. None if the first events hold no traces.
    hits_made : dict or None
        How the file's hits were made from traces, if it holds such and says so.
    stream_maker : callable or None
        Creates its streams; None if its format has none. The registry sets it.
    files : list of Path
        All its files.
    knows_pads : bool
        Whether its traces know their pads: in the file, or by the channels that it was opened with.
    """

    format_name: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = run_number(path)
        self.events: Events = []
        self.n_samples: int | None = None
        self.hits_made: dict[str, Any] | None = None
        self.stream_maker: StreamMaker | None = None
        self.files = [path]
        self.knows_pads = True

    @property
    def has_streams(self) -> bool:
        """Whether streams can be made of it."""
        return self.stream_maker is not None

    @property
    def n_bytes(self) -> int:
        """Size of all its files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def notes(self) -> list[str]:
        """What a person must know before the events are used, a line each."""
        return []

    def stream_suffix(self, mode: StreamMode) -> str:
        """Suffix of a stream's file: that of the run's, unless the format says otherwise."""
        return self.path.suffix

    @property
    def details(self) -> list[tuple[str, str]]:
        """What else there is to say of it, for ``attpc-filter inspect``: titles and texts."""
        return []

    @abstractmethod
    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read one event; if it cannot be read, the record says why."""

    def require_detector(self, name: str, n_samples: int) -> None:
        """Refuse a detector that the run's traces are not of.

        Parameters
        ----------
        name : str
            The detector's name.
        n_samples : int
            Samples of its traces.

        Raises
        ------
        InputError
            If the run's traces have another number of samples, or know no pads.
        """
        if not self.knows_pads:
            raise InputError(
                f"{self.path}: {self.format_name} know no pads, and detector {name} does not say"
                " which channel reads which; give its table the columns cobo, asad, aget and"
                " channel"
            )
        if self.n_samples not in (None, n_samples):
            raise InputError(
                f"{self.path}: traces of {self.n_samples} samples, the detector {name} has"
                f" {n_samples}; give the --detector that it was taken with"
            )

    def takes_hits(self, mode: Literal["link", "copy", "none"]) -> bool:
        """Whether its streams take the hits that are rebuilt (see :meth:`Stream.add`)."""
        return False

    def create_stream(self, path: Path, mode: StreamMode, label: str) -> Stream:
        """Create a stream of this run.

        Parameters
        ----------
        path : Path
            File to write; it must come to lie in the folder where it is created.
        mode : {"link", "copy"}
            Refer to the run's file by a relative path, or copy the events.
        label : str
            What the stream holds, kept with it.

        Raises
        ------
        OutputError
            If the format has no streams, or the file cannot be written.
        """
        if self.stream_maker is None:
            raise OutputError(f"{self.path}: a {self.format_name} makes no streams; filter its run")
        return self.stream_maker(self, path, mode, label)

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def parts(self, events: Events, buffer: NDArray[np.int16]) -> Iterator[list[Record]]:
        """Read events in parts of as many as a buffer has room for.

        Parameters
        ----------
        events : list of (int, str)
            Which events.
        buffer : ndarray of int16, shape (n_rows, 5 + n_samples)
            Room for their traces, used again for every part.

        Yields
        ------
        list of Record
            Events in their order, at least one; one that needs more than the whole buffer has an
            array of its own.
        """
        used = 0

        def allocate(rows: int) -> NDArray[np.int16]:
            nonlocal used
            used += rows
            return buffer[used - rows : used] if used <= len(buffer) else allocate_new(rows)

        records: list[Record] = []
        for event, name in events:
            records.append(self.read(event, name, allocate))
            if used + used / len(records) > len(buffer):  # hardly room for another of their size
                yield records
                records, used = [], 0
        if records:
            yield records

    def records(self, allocate: Allocate = allocate_new) -> Iterator[Record]:
        """Read all events in ascending order."""
        for event, name in self.events:
            yield self.read(event, name, allocate)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run_number(path: Path) -> int:
    """Run number in a file's name: the last digits after ``run``, else the last digits, else 0.

    One character that is no letter may stand between ``run`` and the digits: ``run_0101`` and
    ``RUN-101`` are 101; in ``runs2024_0101`` none follow, so it is 101 too. A number of more than
    64 bits is none: 0.
    """
    after_run = re.findall(r"run[^a-z0-9]?(\d+)", path.stem, re.IGNORECASE | re.ASCII)
    digits = (after_run or re.findall(r"[0-9]+", path.stem) or ["0"])[-1]
    number = int(digits) if len(digits) < 100 else 0
    return number if number < 1 << 63 else 0
