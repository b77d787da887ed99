"""Looks at runs: what a person must know of them before a model is made for them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_export.data.labelled import run_files
from attpc_filter.errors import UsageError
from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.clean import CleanSettings, clean_hits
from attpc_filter.rebuild.detector import Detector
from attpc_filter.rebuild.hits import HitSettings, rebuild_hits
from attpc_filter.records import PAD_COLUMN, Hits, Record

#: Events of a run that are looked at, evenly spread over it.
EVENTS_A_RUN = 300
_RECORDS_A_BATCH = 50
#: Share of hits outside the chamber from which on the calibration is doubted: of the simulated
#: 46Ar runs with noise laid over them a fifth of the hits lies outside.
_OUTSIDE = 0.35
#: Hits without others around them may lie anywhere: electronic noise knows no chamber.
_SIGNAL = CleanSettings(mode="neighbours", neighbours=3, radius_mm=18.0)
#: A pad is hot if it has so many times the hits of the median pad, ...
_HOT = 20.0
#: ... and pads are called dead only if the median pad has so many hits.
_LEAST_MEDIAN = 3.0


@dataclass(frozen=True, slots=True)
class Look:
    """What runs look like.

    Attributes
    ----------
    runs, events, events_seen : int
        Runs; their events; those that were looked at.
    unreadable : int
        Events of those that could not be read.
    samples : int
        Samples of a trace; 0 where there are no traces.
    hits_an_event : list of float
        Quantiles 5%, 50%, 95%.
    charge_adc : list of float
        The same of the hits' charge [ADC].
    z_mm : list of float
        The same of z [mm] of hits that have others around them, by the given calibration.
    length_mm : float
        Length of the chamber [mm].
    z_outside : float
        Share of these hits more than 20 mm outside the chamber.
    traces_without_pad : float
        Share of the traces whose pad is none of the plane.
    pads_hit : int
        Pads with a hit.
    hot_pads : list of int
        Pads with more than 20 times the hits of the median pad.
    dead_pads : int
        Pads without a hit; -1 where too few events were seen to tell.
    """

    runs: int
    events: int
    events_seen: int
    unreadable: int
    samples: int
    hits_an_event: list[float]
    charge_adc: list[float]
    z_mm: list[float]
    length_mm: float
    z_outside: float
    traces_without_pad: float
    pads_hit: int
    hot_pads: list[int]
    dead_pads: int

    def describe(self) -> list[str]:
        """Lines for a person, warnings included."""
        hits, charge, z = self.hits_an_event, self.charge_adc, self.z_mm
        lines = [
            f"{self.runs} runs, {self.events} events; looked at {self.events_seen},"
            f" {self.unreadable} of them unreadable",
            f"hits an event: {hits[1]:.0f} (90% between {hits[0]:.0f} and {hits[2]:.0f})",
            f"charge of a hit: {charge[1]:.0f} ADC (90% between {charge[0]:.0f} and"
            f" {charge[2]:.0f})",
            f"z: {z[1]:.0f} mm (90% between {z[0]:.0f} and {z[2]:.0f}) in a chamber of"
            f" {self.length_mm:.0f} mm",
        ]
        if self.samples:
            lines.append(
                f"traces of {self.samples} samples; {self.traces_without_pad:.1%} of no pad"
            )
        if self.hot_pads:
            some = ", ".join(map(str, self.hot_pads[:8]))
            lines.append(f"hot pads: {len(self.hot_pads)} ({some})")
        if self.dead_pads >= 0:
            lines.append(f"pads without a hit: {self.dead_pads}")
        if self.z_outside > _OUTSIDE:
            lines.append(
                f"WARNING: {self.z_outside:.0%} of the hits lie outside the chamber along z: the"
                " detector's time buckets are wrong"
            )
        if self.traces_without_pad > 0.05:
            lines.append("WARNING: many traces belong to no pad: the pad plane is another one")
        if hits[1] < 5:
            lines.append("WARNING: half of the events have fewer than 5 hits and are not scored")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Entries for a YAML file."""
        return asdict(self)


def look_at_runs(paths: Sequence[Path], detector: Detector, settings: HitSettings) -> Look:
    """Read events of each run and rebuild their hits.

    Parameters
    ----------
    paths : sequence of Path
        Run files, and folders of run files.
    detector : Detector
        Pads and z calibration.
    settings : HitSettings
        How hits are made.

    Raises
    ------
    UsageError
        If no event could be read.
    InputError
        If a run cannot be opened.
    """
    files = [file for path in paths for file in run_files(path)]
    parts: list[Hits] = []
    n_events = n_seen = n_unreadable = n_traces = n_padless = n_samples = 0
    n_pads = len(detector.plane.x)
    for file in files:
        with open_run(file) as run:
            n_events += len(run.events)
            n_samples = run.n_samples or n_samples
            step = max(1, len(run.events) // EVENTS_A_RUN)
            chosen = run.events[::step]
            for start in range(0, len(chosen), _RECORDS_A_BATCH):
                batch = chosen[start : start + _RECORDS_A_BATCH]
                records = [run.read(event, name) for event, name in batch]
                records = [record for record in records if not record.passthrough]
                n_seen += len(records)
                n_unreadable += sum(bool(record.reason) for record in records)
                counted = [_count_traces(record, n_pads) for record in records]
                n_traces += sum(total for total, _ in counted)
                n_padless += sum(without for _, without in counted)
                parts.append(rebuild_hits(records, detector, settings))
    counts = np.concatenate([part.counts for part in parts]) if parts else np.empty(0)
    if not counts.sum():
        raise UsageError("--runs: no event has a hit; is it the right folder?")
    z = np.concatenate([clean_hits(part, _SIGNAL).z for part in parts])
    z = z if len(z) else np.concatenate([part.z for part in parts])
    pad = np.concatenate([part.pad for part in parts])
    length = detector.calibration.detector_length
    hot, dead = _judge_pads(np.bincount(pad[(pad >= 0) & (pad < n_pads)], minlength=n_pads))
    return Look(
        runs=len(files),
        events=n_events,
        events_seen=n_seen,
        unreadable=n_unreadable,
        samples=n_samples,
        hits_an_event=_quantiles(counts),
        charge_adc=_quantiles(np.concatenate([part.charge for part in parts])),
        z_mm=_quantiles(z),
        length_mm=length,
        z_outside=round(float(((z < -20.0) | (z > length + 20.0)).mean()), 4),
        traces_without_pad=round(n_padless / n_traces, 4) if n_traces else 0.0,
        pads_hit=len(np.unique(pad[pad >= 0])),
        hot_pads=hot,
        dead_pads=dead,
    )


def _count_traces(record: Record, n_pads: int) -> tuple[int, int]:
    """Traces of an event, and those of no pad."""
    if record.traces is None:
        return 0, 0
    pad = record.traces[:, PAD_COLUMN]
    return len(pad), int(((pad < 0) | (pad >= n_pads)).sum())


def _judge_pads(n_hits: NDArray[np.int64]) -> tuple[list[int], int]:
    hit = n_hits[n_hits > 0]
    median = float(np.median(hit)) if len(hit) else 0.0
    hot = np.flatnonzero(n_hits > _HOT * max(median, 1.0))
    order = hot[np.argsort(-n_hits[hot])]
    # beam pads, which give no hit, count as dead here
    dead = int((n_hits == 0).sum()) if median >= _LEAST_MEDIAN else -1
    return order.tolist(), dead


def _quantiles(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 1) for value in np.quantile(values, [0.05, 0.5, 0.95])]
