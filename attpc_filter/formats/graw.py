"""Runs of GET's own frames (``.graw``), before anybody merged them.

An event is made as attpc_merger makes it: the frames of one event number, of all AsAds. Events are
numbered from 0 in the order of GET's numbers, which are kept as ``id``; gaps in GET's numbers
leave none in ours. The time stamp is that of the last frame that is not of CoBo 10, ``other`` that
of CoBo 10, whose clock is the other DAQ's. Nothing is subtracted; the fixed-pattern-noise channels
11, 22, 45 and 56 are no traces; time buckets without a sample are 0. Traces come in the order of
CoBo, AsAd, AGET and channel.

An event that is not whole is unreadable, and its reason says what is missing: a frame of an AsAd
that the run has, or one that is damaged, or there twice with different samples. A frame that is
there twice with the same bytes is taken once.

Streams are attpc_merger 2.0 files in mode ``copy``. In mode ``link`` they are lists of events, a
text line each: HDF5 cannot refer to samples that are packed in 12 bits of a word. There are no FRIB
data in such files, so that downscale triggers of the ion chamber cannot be recognised.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import EmptyRunError, InputError
from attpc_filter.formats import graw_kernels as kernels
from attpc_filter.formats.graw_files import (
    close_files,
    files_of_run,
    list_frames,
    open_files,
    stack_of,
)
from attpc_filter.formats.graw_stream import GrawCopy, GrawList
from attpc_filter.formats.run import Allocate, Run, Stream, StreamMode, allocate_new, run_number
from attpc_filter.records import N_TIME_BUCKETS, N_TRACE_COLUMNS, Record

#: Channels of an AGET that follow the fixed pattern noise, and have no pad.
FPN_CHANNELS = (11, 22, 45, 56)
#: The CoBo whose clock is that of the other DAQ, in attpc_merger.
_COBO_OF_OTHER_CLOCK = 10

_WHY = {
    kernels.CUT: "it cannot be read whole",
    kernels.BAD_ITEM: "a sample has no channel: damaged",
    kernels.PADDING_COUNTED: "it counts more samples than it has: damaged",
    kernels.UNEVEN: "full readout whose AGETs do not have the same samples: damaged",
}

#: One line for people: what such runs cannot tell.
NO_FRIB_DATA = (
    "GET frames without FRIB data: downscale triggers of the ion chamber cannot be recognised,"
    " normalise with the merged run"
)


class GrawRun(Run):
    """A run of GET frames.

    Parameters
    ----------
    path : Path
        A folder with the run's files, or one of them (see
        :func:`attpc_filter.formats.graw_files.files_of_run`).
    channels : ndarray of int64, shape (n, 5), optional
        CoBo, AsAd, AGET, channel and pad of each channel that has a pad; the others are left out.
        Without, every channel is a trace of pad -1.

    Raises
    ------
    InputError
        If there is no such file, no frame in it, or none of a CoBo and AsAd that has pads.
    """

    format_name = "GET frames"

    def __init__(self, path: Path, channels: NDArray[np.int64] | None = None) -> None:
        super().__init__(path)
        self.number = _run_number(path)
        self.n_samples = N_TIME_BUCKETS
        self.knows_pads = channels is not None
        self.files = files_of_run(path)
        self._files = open_files(self.files)
        try:
            self.table = list_frames(self._files)
            self._arrange(path, channels)
        except BaseException:
            self.close()
            raise

    @property
    def notes(self) -> list[str]:
        """What a person must know of the run, a line each."""
        notes = [NO_FRIB_DATA]
        if lost := int(self.table.damaged_bytes.sum()):
            at = ", ".join(self.files[i].name for i in np.flatnonzero(self.table.damaged_bytes))
            notes.append(f"{lost:,} damaged bytes were passed over in {at}")
        if self._unmapped:
            asads = ", ".join(self._name(pair) for pair in self._unmapped)
            notes.append(f"no pads for {asads} in the detector's channel map: left out")
        return notes

    @property
    def details(self) -> list[tuple[str, str]]:
        """What ``attpc-filter inspect`` says besides."""
        frames = self.table.frames
        kinds = Counter("full" if full else "partial" for full in frames[:, kernels.FULL].tolist())
        short = sum(1 for number, _ in self.events if self._missing(number))
        return [
            ("files", f"{len(self.files)}: {self.files[0].name} to {self.files[-1].name}"),
            ("frames", ", ".join(f"{n:,} {kind} readout" for kind, n in sorted(kinds.items()))),
            ("AsAds", ", ".join(map(self._name, self._expected))),
            ("GET events", f"{self.event_id(0)} to {self.event_id(len(self.events) - 1)}"),
            ("without all frames", f"{short:,} events"),
            *(("note", note) for note in self.notes),
        ]

    def event_id(self, event: int) -> int:
        """GET's number of an event."""
        return int(self.table.frames[self._starts[event], kernels.EVENT]) & 0xFFFFFFFF

    def times(self, event: int) -> tuple[int, int]:
        """Time stamps of an event [10 ns], as attpc_merger writes them: GET's, and CoBo 10's."""
        frames = self.table.frames[self._starts[event] : self._starts[event + 1]]
        other = frames[:, kernels.COBO] == _COBO_OF_OTHER_CLOCK
        mutant, clock = frames[~other, kernels.TIME], frames[other, kernels.TIME]
        return (int(mutant[-1]) if len(mutant) else 0, int(clock[-1]) if len(clock) else 0)

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read one event; if it is not whole, the record says why."""
        rows, reasons = self._frames_of(event)
        if not reasons:
            n_rows, damage = self._decode(rows)
            if not damage:
                traces = allocate(n_rows)
                np.take(self._matrix, self._order(n_rows), axis=0, out=traces)
                return Record(event, name, traces, is_complete=True)
            reasons = [damage]
        return Record(event, name, reason="; ".join(reasons))

    def read_what_is_there(self, event: int) -> NDArray[np.int16]:
        """Traces of an event, whole or not, shape (n_traces, 517)."""
        rows, _ = self._frames_of(event)
        n_rows, _ = self._decode(rows)
        return self._matrix[self._order(n_rows)]

    def stream_suffix(self, mode: StreamMode) -> str:
        """Suffix of a stream's file."""
        return ".h5" if mode == "copy" else ".txt"

    def close(self) -> None:
        """Close the files."""
        close_files(self._files)
        self._files = []

    def _arrange(self, path: Path, channels: NDArray[np.int64] | None) -> None:
        frames = self.table.frames
        if not len(frames):
            raise EmptyRunError(f"{path}: {self.format_name} without a single event")
        keys = frames[:, kernels.COBO] << 8 | frames[:, kernels.ASAD]
        pairs, self._pairs, counts = np.unique(keys, return_inverse=True, return_counts=True)
        self._require_frames(path)
        # the AsAds that the run has; a single frame of another one, in a file of this one's, is
        # damaged
        files = self.table.files
        usual = {np.bincount(self._pairs[files == i]).argmax() for i in np.unique(files)}
        self._expected = [
            pair
            for row, (pair, count) in enumerate(zip(pairs.tolist(), counts, strict=True))
            if count > 1 or row in usual
        ]
        self._pads = _pads_of(pairs, channels)
        has_pads = (self._pads > kernels.NO_PAD).any(axis=1)
        self._unmapped = [int(pair) for pair in pairs[~has_pads] if pair in self._expected]
        if not has_pads.any():
            raise InputError(
                f"{path}: frames of {', '.join(map(self._name, self._expected))}, of which the"
                " detector's channel map knows none; give the detector that the run was taken with"
            )
        begins = np.flatnonzero(np.diff(frames[:, kernels.EVENT], prepend=-1))
        self._starts = np.append(begins, len(frames))
        self.events = [(number, f"event_{number}") for number in range(len(begins))]
        n_rows = int((self._pads > kernels.NO_PAD).sum())
        self._matrix = np.empty((n_rows, N_TRACE_COLUMNS), np.int16)
        self._content = np.empty(int(frames[:, kernels.N_BYTES].max()), np.uint8)
        self._rows_of = np.empty(kernels.N_KEYS, np.int32)

    def _require_frames(self, path: Path) -> None:
        """Refuse a run one of whose files has no frame, unless it is the empty last one."""
        there = np.unique(self.table.files).tolist()
        stacks = {stack_of(self.files[index]) for index in there}
        for index in sorted(set(range(len(self.files))) - set(there)):
            file = self.files[index]
            if file.stat().st_size or stack_of(file) not in stacks:
                raise InputError(
                    f"{path}: no GET frame in {file.name}, and all events would lack what was in"
                    " it; copy it again, or move it elsewhere to read the run without it"
                )

    def _missing(self, event: int) -> list[int]:
        there = self.table.frames[self._starts[event] : self._starts[event + 1]]
        keys = set((there[:, kernels.COBO] << 8 | there[:, kernels.ASAD]).tolist())
        return [pair for pair in self._expected if pair not in keys]

    def _frames_of(self, event: int) -> tuple[NDArray[np.int64], list[str]]:
        """Frames of an event, one an AsAd, and what is wrong with them."""
        keys = self._pairs[self._starts[event] : self._starts[event + 1]]
        rows = np.arange(self._starts[event], self._starts[event + 1])
        reasons = [f"no frame of {self._name(pair)}" for pair in self._missing(event)]
        first = np.append(True, keys[1:] != keys[:-1])
        for row in rows[~first].tolist():
            if self._bytes(row) != self._bytes(row - 1):
                reasons.append(f"two frames of {self._name(self._key(row))} that differ")
        rows = rows[first]
        reasons += [
            f"a frame of {self._name(self._key(row))}, the only one in the run: damaged"
            for row in rows.tolist()
            if self._key(row) not in self._expected
        ]
        reasons += [
            f"damaged bytes follow the frame of {self._name(self._key(row))}"
            for row in rows.tolist()
            if self.table.frames[row, kernels.DOUBTFUL]
        ]
        return rows, reasons

    def _key(self, row: int) -> int:
        frame = self.table.frames[row]
        return int(frame[kernels.COBO] << 8 | frame[kernels.ASAD])

    def _bytes(self, row: int) -> bytes:
        frame = self.table.frames[row]
        file = self._files[self.table.files[row]]
        return os.pread(file, int(frame[kernels.N_BYTES]), int(frame[kernels.OFFSET]))

    def _order(self, n_rows: int) -> NDArray[np.int64]:
        """The order of the traces that were decoded: by CoBo, AsAd, AGET and channel."""
        cobo, asad, aget, channel = self._matrix[:n_rows, :4].T.astype(np.int64)
        return np.argsort(cobo << 17 | asad << 9 | aget << 7 | channel)

    def _decode(self, rows: NDArray[np.int64]) -> tuple[int, str]:
        table = self.table
        files = np.array(self._files)[table.files[rows]]
        n_rows, damaged, status = kernels.decode_event(
            files,
            table.frames[rows],
            self._pairs[rows],
            self._pads,
            self._content,
            self._rows_of,
            self._matrix,
        )
        if status == kernels.GOOD:
            return n_rows, ""
        return n_rows, f"frame of {self._name(self._key(int(rows[damaged])))}: {_WHY[status]}"

    @staticmethod
    def _name(pair: int) -> str:
        return f"CoBo {pair >> 8} AsAd {pair & 255}"


def create_graw_stream(run: Run, path: Path, mode: StreamMode, label: str) -> Stream:
    """Create a stream of a run of GET frames (see :meth:`Run.create_stream`)."""
    assert isinstance(run, GrawRun)
    return (GrawCopy if mode == "copy" else GrawList)(run, path, label)


def _run_number(path: Path) -> int:
    """Run number: from the nearest of file and folders whose name has one, else 0."""
    names = [path, *path.absolute().parents]
    named = next((name for name in names if re.search(r"run\D?\d", name.name, re.I)), None)
    return 0 if named is None else run_number(Path(named.name))


def _pads_of(pairs: Iterable[int], channels: NDArray[np.int64] | None) -> NDArray[np.int32]:
    """Pad of each AGET and channel, a row for each AsAd: shape (n_asads, 512)."""
    pairs = list(pairs)
    key = np.arange(kernels.N_KEYS)
    none = np.where(key % 128 < kernels.N_CHANNELS, kernels.NO_PAD, kernels.NO_CHANNEL)
    pads = np.tile(none.astype(np.int32), (len(pairs), 1))
    if channels is None:
        pads[:, (none == kernels.NO_PAD)] = kernels.UNKNOWN_PAD
    else:
        row_of = {pair: row for row, pair in enumerate(pairs)}
        for cobo, asad, aget, channel, pad in channels.tolist():
            row = row_of.get(cobo << 8 | asad)
            if row is not None:
                pads[row, aget << 7 | channel] = pad
    pads[:, np.isin(key % 128, FPN_CHANNELS)] = kernels.NO_PAD
    return pads
