"""The hit store: the rebuilt hits of every event of a run, in columns.

An HDF5 file of layout version 1. The root's attributes: ``attpc_filter_hits`` (the version),
``source`` and ``source_format`` (the run's file), ``run`` (its number), and, as JSON, ``made``
(what decides which hits traces become), its SHA-256 ``made_sha256``, and ``calibration`` (how time
buckets became z).

``events``, a row an event in ascending order: ``number`` (int64), ``name`` (of the event's object
in the run), ``passthrough`` (0 or 1), ``reason`` (why it could not be read; empty if it could),
``origin`` (of its hits: 0 none, 1 traces, 2 points, 3 points that had no z), ``first_hit`` (int64,
one row more than there are events: hits ``first_hit[i]`` to ``first_hit[i + 1]`` are event i's).

``hits``, a row a hit in the order of the event's traces: ``pad`` (int32), ``x``, ``y``, ``z`` [mm],
``time_bucket``, ``charge`` [ADC], ``integral`` [ADC x time buckets] (float32).

Nothing is rounded: a hit read back is the hit that was made. The columns are shuffled, compressed
with gzip and carry checksums (fletcher32); these three filters are part of every HDF5 library.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from attpc_filter import __version__
from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.hdf5.file import HDF5_ERRORS, translated
from attpc_filter.formats.hdf5.links import require_own_data
from attpc_filter.formats.hdf5.run import Hdf5File
from attpc_filter.formats.run import Allocate, Run, UnreadableEvent, allocate_new
from attpc_filter.records import POINT_COLUMNS, Hits, Origin, Point, Record
from attpc_filter.texts import read_json

#: Version of the layout.
STORE_VERSION = 1

_EVENT_COLUMNS = ("number", "name", "passthrough", "reason", "origin", "first_hit")
_COLUMNS = ("pad", "x", "y", "z", "time_bucket", "charge", "integral")
#: Our columns in the places of :data:`attpc_filter.records.POINT_COLUMNS`.
_POINT_NAMES = tuple(name.removesuffix("_mm").removesuffix("_adc") for name in POINT_COLUMNS)
_NONE, _POINTS = int(Origin.NONE), int(Origin.POINTS)
_CHUNK_ROWS = 32_768
#: Hits that are read at once.
_BLOCK_HITS = 65_536
_FILTERS = {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True}


class HitWriter:
    """Writes a hit store batch by batch.

    Parameters
    ----------
    path : Path
        File to write.
    run : Run
        Whose hits they are.
    made : dict
        What decides which hits traces become.
    calibration : dict
        How time buckets became z.
    """

    def __init__(
        self, path: Path, run: Run, made: dict[str, Any], calibration: dict[str, Any]
    ) -> None:
        self._path = path
        self._numbers: list[int] = []
        self._names: list[bytes] = []
        self._passthrough: list[bool] = []
        self._reasons: list[bytes] = []
        self._origins: list[NDArray[np.uint8]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._n_hits = 0
        text = json.dumps(made, sort_keys=True)
        try:
            self._file = h5py.File(path, "w")
            self._file.attrs.update(
                {
                    "attpc_filter": __version__,
                    "attpc_filter_hits": STORE_VERSION,
                    "source": str(run.path.resolve()),
                    "source_format": run.format_name,
                    "run": run.number,
                    "made": text,
                    "made_sha256": hashlib.sha256(text.encode()).hexdigest(),
                    "calibration": json.dumps(calibration, sort_keys=True),
                }
            )
            group = self._file.create_group("hits")
            for name in _COLUMNS:
                kind = np.int32 if name == "pad" else np.float32
                group.create_dataset(
                    name, (0,), kind, maxshape=(None,), chunks=(_CHUNK_ROWS,), **_FILTERS
                )
        except HDF5_ERRORS as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error

    def add(self, records: Sequence[Record], origins: NDArray[np.uint8], hits: Hits) -> None:
        """Add a batch of events."""
        self._numbers += [record.event for record in records]
        self._names += [record.name.encode("utf-8", "surrogateescape") for record in records]
        self._passthrough += [record.passthrough for record in records]
        self._reasons += [record.reason.encode("utf-8", "replace") for record in records]
        self._origins.append(origins)
        self._counts.append(hits.counts)
        start, self._n_hits = self._n_hits, self._n_hits + len(hits.pad)
        try:
            for name in _COLUMNS:
                column = self._file["hits"][name]
                column.resize(self._n_hits, axis=0)
                column[start:] = getattr(hits, name)
        except HDF5_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error

    def close(self) -> None:
        """Write the list of events, and verify that the file holds what was added."""
        counts = np.concatenate(self._counts)
        columns: dict[str, NDArray[Any]] = {
            "number": np.array(self._numbers, np.int64),
            "name": np.array(self._names, np.bytes_),
            "passthrough": np.array(self._passthrough, np.uint8),
            "reason": np.array(self._reasons, np.bytes_),
            "origin": np.concatenate(self._origins),
            "first_hit": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        }
        try:
            group = self._file.create_group("events")
            for name, values in columns.items():
                group.create_dataset(
                    name, data=values, chunks=(min(len(values), _CHUNK_ROWS),), **_FILTERS
                )
            self._file.close()
            with h5py.File(self._path, "r") as file:
                held = len(file["events/number"]), len(file["hits/pad"])
        except HDF5_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        if held != (len(counts), self._n_hits):
            raise OutputError(
                f"{self._path}: {len(counts)} events with {self._n_hits} hits were added, it"
                f" holds {held[0]} with {held[1]}"
            )

    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""
        with contextlib.suppress(*HDF5_ERRORS):
            self._file.close()


class HitStoreRun(Hdf5File):
    """A hit store as a run, so that another model can score its events.

    It makes no streams: they would hold hits, and what comes after wants the run.
    """

    format_name = "attpc-filter hit store"

    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path, file)
        version = int(file.attrs["attpc_filter_hits"])
        if version != STORE_VERSION:
            raise InputError(
                f"{path}: a hit store of version {version}, this attpc-filter reads {STORE_VERSION}"
            )
        for group, columns in (("events", _EVENT_COLUMNS), ("hits", _COLUMNS)):
            for column in columns:
                require_own_data(file[group][column].id)
        events = file["events"]
        names = [name.decode("utf-8", "surrogateescape") for name in events["name"][()]]
        self.events = list(zip(events["number"][()].tolist(), names, strict=True))
        self._index = {name: index for index, name in enumerate(names)}
        self._passthrough = events["passthrough"][()].astype(bool).tolist()
        self._reasons = events["reason"][()].tolist()
        self._origins = events["origin"][()].tolist()
        self._first_hit = events["first_hit"][()]
        # open for as long as the run, so that HDF5 keeps the chunk in which a block ends
        self._columns = [file["hits"][name] for name in _POINT_NAMES]
        n_hits = {len(column) for column in self._columns}
        n_events = {len(self._passthrough), len(self._reasons), len(self._origins)}
        ascending = bool((np.diff(self._first_hit, prepend=0) >= 0).all())
        if (
            len(self._first_hit) != len(names) + 1
            or n_events != {len(names)}
            or n_hits != {int(self._first_hit[-1])}
            or not ascending
        ):
            raise InputError(f"{path}: damaged: its columns do not fit each other")
        made = read_json(file.attrs["made"])
        #: The hits were moved and turned into the models' frame, with the z that they have.
        self._in_model_frame = "frame" in made
        if int(Origin.TRACES) in self._origins or self._in_model_frame:
            self.hits_made = made
        self._block = np.empty((len(_POINT_NAMES), 0))
        self._block_start = self._block_stop = 0  # hits in the block

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether the root says that it is a hit store."""
        return "attpc_filter_hits" in file.attrs

    def read(self, event: int, name: str, allocate: Allocate = allocate_new) -> Record:
        """Read one event; its z is left to the calibration where it was so in the run."""
        index = self._index[name]
        record = Record(
            event,
            name,
            passthrough=self._passthrough[index],
            in_model_frame=self._in_model_frame,
            reason=self._reasons[index].decode("utf-8", "replace"),
        )
        if self._origins[index] == _NONE:
            return record
        try:
            record.points = self._points(index)
        except UnreadableEvent as error:
            record.reason = str(error)
        else:
            if self._origins[index] != _POINTS and not self._in_model_frame:
                record.points[:, Point.Z] = np.nan
        return record

    def _points(self, index: int) -> NDArray[np.float64]:
        """Hits of an event, in the columns of points; read with many that follow."""
        start, stop = int(self._first_hit[index]), int(self._first_hit[index + 1])
        if start < self._block_start or stop > self._block_stop:
            last = np.searchsorted(self._first_hit, start + _BLOCK_HITS, side="right") - 1
            end = max(stop, int(self._first_hit[last]))
            block = np.empty((len(_POINT_NAMES), end - start))
            for row, column in zip(block, self._columns, strict=True):
                with translated:
                    row[:] = column[start:end]
            # only now: what cannot be read raises, and must not be taken for the next event's
            self._block, self._block_start, self._block_stop = block, start, end
        return self._block[:, start - self._block_start : stop - self._block_start].T.copy()
