"""Events moved from stream to stream of a ROOT run, without the run itself.

Whatever its mode, a ROOT stream is a tree with a row an event; a row that leaves one stream is as
good in another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from attpc_filter.errors import InputError
from attpc_filter.formats.root.file import ROOT_ERRORS, RootFile, one_line
from attpc_filter.formats.root.stream import STREAM_TREE, stream_types
from attpc_filter.formats.root.writer import TreeWriter, read_label
from attpc_filter.formats.run import Move

_ROWS_A_READ = 64


def move_root_events(
    streams: Mapping[str, Path], moves: Sequence[Move], staged: Callable[[Path], Path]
) -> None:
    """Write the streams anew that events leave or enter.

    Parameters
    ----------
    streams : mapping of str to Path
        The run's streams by label; they stay as they are.
    moves : sequence of Move
        Which events go where.
    staged : callable
        Gives the name to write a stream under until all are complete.

    Raises
    ------
    InputError
        If a stream is not there, is damaged, or lacks an event that should leave it.
    OutputError
        If a stream cannot be written, or does not hold what it should.
    """
    with ExitStack() as stack:
        olds = {
            label: stack.enter_context(closing(_Stream(path))) for label, path in streams.items()
        }
        for move in moves:
            if move.event not in olds[move.source].rows:
                raise InputError(
                    f"{streams[move.source]}: event {move.event} is not there, though the tag"
                    " table says so"
                )
        for label, path in streams.items():
            leave = {move.event for move in moves if move.source == label}
            come = [(move.event, move.source) for move in moves if move.target == label]
            if not leave and not come:
                continue
            stay = [(event, label) for event in olds[label].rows if event not in leave]
            _write(staged(path), sorted([*stay, *come]), olds, olds[label])


def _write(
    path: Path, events: Sequence[tuple[int, str]], olds: Mapping[str, "_Stream"], old: "_Stream"
) -> None:
    writer = TreeWriter(path, STREAM_TREE)
    try:
        types = next((olds[label].types for _, label in events), old.types)
        for source, first, stop in _ranges(events, olds):
            writer.extend(types, source.read(first, stop))
        if not events:
            writer.extend(types, old.read(0, 0))
        writer.close(old.label, len(events))
    except BaseException:
        writer.abort()
        raise


def _ranges(
    events: Sequence[tuple[int, str]], olds: Mapping[str, "_Stream"]
) -> Iterator[tuple["_Stream", int, int]]:
    """The rows of the events, those that follow each other in one stream together."""
    at = 0
    while at < len(events):
        label = events[at][1]
        first = olds[label].rows[events[at][0]]
        length = 1
        while (
            at + length < len(events)
            and length < _ROWS_A_READ
            and events[at + length][1] == label
            and olds[label].rows[events[at + length][0]] == first + length
        ):
            length += 1
        yield olds[label], first, first + length
        at += length


class _Stream:
    """A stream, open for reading.

    Attributes
    ----------
    label : dict
        What it says of itself.
    types : dict of str to str
        Its columns.
    rows : dict of int to int
        Row of each event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = RootFile(path)
        try:
            label = read_label(self._file)
            if label is None or label.get("kind") != "stream":
                raise InputError(f"{path}: no stream of attpc-filter")
            self._tree = self._file.tree(STREAM_TREE)
            names = {str(branch.name) for branch in self._tree.branches}
            events = np.asarray(self._tree["event"].array(library="np"))
        except ROOT_ERRORS as error:
            self._file.close()
            raise InputError(f"{path}: damaged: {one_line(error)}") from error
        self.label = label
        self.types = stream_types(traces="adc" in names, hits="hits_x" in names)
        self.rows = {int(event): row for row, event in enumerate(events)}

    def read(self, first: int, stop: int) -> dict[str, Any]:
        """The columns of rows ``first`` to ``stop``, as a writer takes them."""
        prefix = "hits_"
        try:
            columns = {
                str(branch.name): branch.array(entry_start=first, entry_stop=stop)
                for branch in self._tree.branches
                if str(branch.name) in self.types or str(branch.name).startswith(prefix)
            }
        except ROOT_ERRORS as error:
            raise InputError(f"{self._path}: damaged: {one_line(error)}") from error
        hits = {n.removeprefix(prefix): columns.pop(n) for n in list(columns) if n[:5] == prefix}
        return columns | ({"hits": ak.zip(hits)} if hits else {})

    def close(self) -> None:
        """Close the file."""
        self._file.close()
