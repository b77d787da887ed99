"""One event for the page: its hits as they are made for filtering, its traces, its bytes."""

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter import (
    CleanSettings,
    Config,
    Detector,
    Hits,
    HitSettings,
    Record,
    Run,
    find_signal,
    open_run,
    rebuild_hits,
    subtract_baseline,
)
from attpc_filter_web.catalogue import Catalogue

#: Columns of a trace matrix: the pad, and the first sample.
_PAD, _SAMPLES = 4, 5
#: Columns that the page gets of each hit, as float32, one column after the other.
COLUMNS = ("x", "y", "z", "charge", "time_bucket", "pad", "signal")
#: Events are kept in memory up to so many bytes, and runs up to so many open files.
_MOST_BYTES = 256 << 20
_MOST_RUNS = 8


@dataclass(frozen=True, slots=True)
class EventView:
    """An event as the page shows it.

    Attributes
    ----------
    hits : Hits
        Of one event, in ascending order of charge: the strongest is drawn last.
    is_signal : ndarray of bool, shape (n_hits,)
        False for hits that the cleaning takes for noise.
    traces : ndarray of int16, shape (n_traces, 5 + n_samples), or None
        The trace matrix, if the file holds traces.
    fingerprint : str
        Of the hits: pads, time buckets and charges.
    reason : str
        Why the event cannot be read; empty if it can.
    """

    hits: Hits
    is_signal: NDArray[np.bool_]
    traces: NDArray[np.int16] | None
    fingerprint: str
    reason: str

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return len(self.hits.x) * 36 + (0 if self.traces is None else self.traces.nbytes)


class EventReader:
    """Reads events of a catalogue; keeps the last ones. Safe to use from several threads.

    Parameters
    ----------
    catalogue : Catalogue
        The events.
    detector : Detector
        Pads and drift.
    settings : HitSettings
        How traces become hits: the bundle's.
    clean : CleanSettings
        Which hits count as noise: the bundle's, or the cut on neighbours where the bundle has none.
    config : Config
        What to read of ROOT files.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        detector: Detector,
        settings: HitSettings,
        clean: CleanSettings,
        config: Config,
    ) -> None:
        self.detector = detector
        self.settings = settings
        self.clean = replace(clean, mode="neighbours") if clean.mode == "none" else clean
        self._catalogue = catalogue
        self._config = config
        self._lock = threading.Lock()
        self._runs: OrderedDict[int, tuple[Run, dict[int, str]]] = OrderedDict()
        self._kept: OrderedDict[int, EventView] = OrderedDict()
        self._n_bytes = 0

    def read(self, row: int) -> EventView:
        """Read the event of a row of the catalogue."""
        with self._lock:
            if row in self._kept:
                self._kept.move_to_end(row)
                return self._kept[row]
            view = self._view(self._record(row))
            self._kept[row] = view
            self._n_bytes += view.n_bytes
            while self._n_bytes > _MOST_BYTES and len(self._kept) > 1:
                self._n_bytes -= self._kept.popitem(last=False)[1].n_bytes
            return view

    def compile(self) -> None:
        """Compile what makes hits and baselines, so that the first click need not wait for it."""
        trace = np.zeros((1, _SAMPLES + self.detector.n_samples), np.int16)
        record = Record(0, "", traces=trace)
        find_signal(rebuild_hits([record], self.detector, self.settings), self.clean)
        self._baseline(trace[0, _SAMPLES:])

    def trace(self, row: int, pad: int) -> dict[str, Any] | None:
        """A pad's traces with baselines and peaks, as JSON holds them; None if there is none."""
        view = self.read(row)
        if view.traces is None:
            return None
        rows = view.traces[view.traces[:, _PAD] == pad]
        if not len(rows):
            return None
        on_pad = view.hits.pad == pad
        plane = self.detector.plane
        offset = float(plane.time_offset[pad]) if 0 <= pad < len(plane.x) else 0.0
        return {
            "pad": pad,
            "hardware": rows[:, :_PAD].tolist(),
            "samples": rows[:, _SAMPLES:].tolist(),
            "baselines": [self._baseline(row[_SAMPLES:]) for row in rows],
            "peaks": (view.hits.time_bucket[on_pad] - offset).round(2).tolist(),
            "charges": view.hits.charge[on_pad].round(1).tolist(),
        }

    def _baseline(self, samples: NDArray[np.int16]) -> list[float]:
        signal = subtract_baseline(samples, self.settings.baseline_window_scale)
        baseline: list[float] = (samples - signal).tolist()
        return baseline

    def _record(self, row: int) -> Record:
        source = int(self._catalogue.source[row])
        number = int(self._catalogue.event[row])
        run, names = self._open(source)
        if number not in names:
            return Record(number, "", reason="the event is not in the run's file any more")
        return run.read(number, names[number])

    def _open(self, source: int) -> tuple[Run, dict[int, str]]:
        if source not in self._runs:
            run = open_run(self._catalogue.sources[source].path, self._config.root_options)
            self._runs[source] = run, dict(run.events)
            if len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)[1][0].close()
        self._runs.move_to_end(source)
        return self._runs[source]

    def _view(self, record: Record) -> EventView:
        hits = rebuild_hits([record], self.detector, self.settings)
        digest = hashlib.sha256()
        for column in (hits.pad, hits.time_bucket, hits.charge):
            digest.update(np.ascontiguousarray(column).tobytes())
        order = np.argsort(hits.charge, kind="stable")
        names = ("pad", "x", "y", "z", "time_bucket", "charge", "integral")
        hits = Hits(hits.offsets, **{name: getattr(hits, name)[order] for name in names})
        traces = None if record.traces is None else record.traces.copy()
        return EventView(
            hits=hits,
            is_signal=find_signal(hits, self.clean),
            traces=traces,
            fingerprint=digest.hexdigest()[:16],
            reason=record.reason,
        )


def to_bytes(view: EventView, about: dict[str, Any]) -> bytes:
    """An event as the page reads it.

    Parameters
    ----------
    view : EventView
        The event.
    about : dict
        What else the page shall know.

    Returns
    -------
    bytes
        Length of the header (uint32, little-endian); the header, JSON, filled up with spaces to a
        multiple of four bytes; the columns of :data:`COLUMNS`, float32, little-endian.
    """
    hits = view.hits
    header = about | {
        "n_hits": len(hits.x),
        "columns": COLUMNS,
        "fingerprint": view.fingerprint,
        "reason": view.reason,
        "has_traces": view.traces is not None,
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    columns = [getattr(hits, name) for name in COLUMNS[:-1]] + [view.is_signal]
    body = np.stack([column.astype("<f4") for column in columns])
    content: bytes = np.nan_to_num(body).tobytes()
    return len(text).to_bytes(4, "little") + text + content


def pad_corners(detector: Detector) -> NDArray[np.float32]:
    """Corners of every pad, shape (n_pads, 4, 2) [mm].

    The AT-TPC's pads are triangles, point up and point down in turn; the table of pads holds the
    middle of their height. Pads of any other plane are drawn as squares that just touch.
    """
    plane = detector.plane
    x, y, scale = plane.x, plane.y, plane.scale
    if not _has_triangles(detector):
        half = _pitch(x, y) / 2 * scale / max(float(scale.max()), 1e-6)
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float32)
        centre = np.stack([x, y], axis=1)[:, None]
        squares: NDArray[np.float32] = (centre + signs * half[:, None, None]).astype(np.float32)
        return squares
    half = _BIG_HALF_SIDE_MM * scale
    height = np.sqrt(3, dtype=np.float32) * half
    # columns are half a side apart; a row's pads point up and down in turn
    column = np.round(x / half).astype(np.int64)
    row = np.floor(y / height).astype(np.int64)
    up = np.where((column + row) % 2 == _UP_PARITY, 1, -1).astype(np.float32)
    base, tip = y - up * height / 2, y + up * height / 2
    corners = np.stack([x - half, base, x + half, base, x, tip, x, tip], axis=1)
    triangles: NDArray[np.float32] = corners.reshape(-1, 4, 2).astype(np.float32)
    return triangles


#: Half a side of the AT-TPC's big pads; the small ones have half of it.
_BIG_HALF_SIDE_MM = np.float32(4.90825)
_N_AT_TPC_PADS = 10_240
#: Seen in the table: the first big pad right of the small ones, above the axis, points down.
_UP_PARITY = 1


def _has_triangles(detector: Detector) -> bool:
    plane = detector.plane
    return len(plane.x) == _N_AT_TPC_PADS and set(np.unique(plane.scale)) == {0.5, 1.0}


def _pitch(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """Smallest distance between two of the first pads."""
    place = np.stack([x, y], axis=1)[:2000]
    distance = np.linalg.norm(place[:50, None] - place[None], axis=2)
    distance = distance[distance > 0]
    return float(distance.min()) if len(distance) else 5.0
