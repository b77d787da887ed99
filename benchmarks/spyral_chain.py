"""Spyral's chain with the filter before the point clouds, beside Spyral's chain alone.

    python benchmarks/spyral_chain.py RUN.h5... [--keep proton carbon] [--repeats 3] [--csv FILE]

Raw run to point clouds, clusters and estimates, in one process on one core, the two in turn, each
run for itself. Before the clock starts, both chains have seen a few events, so that what numba
compiles is compiled. The run may be one of attpc_merger 2.0 as it was written: Spyral gets a copy
that it can open.

What the two chains leave is compared: clusters and estimates of the kept events, ion-chamber counts
and scalers. For that each event gets a random generator of its own: PointcloudPhase adds up to a
thousandth of a time bucket to each peak, from one generator a process, so that an event's last
digits would depend on the events before it.
"""

import argparse
import csv
import os
import platform
import shutil
import statistics
import tempfile
import time
from multiprocessing import SimpleQueue
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import spyral.phases.estimation_phase
import spyral.phases.pointcloud_phase
from attpc_filter_spyral import TraceFilterPhase
from numpy.random import SeedSequence
from spyral import (
    DEFAULT_MAP,
    ClusterParameters,
    ClusterPhase,
    ContinuityJoinParameters,
    DetectorParameters,
    EstimateParameters,
    EstimationPhase,
    FribParameters,
    GetParameters,
    HdbscanParameters,
    PadParameters,
    PhaseLike,
    Pipeline,
    PointcloudPhase,
    create_reader,
)

DETECTOR = DetectorParameters(1.68, 9500.0, 1000.0, 25.0, 38.0, 278.0, 12.5, Path(), False)
CLUSTER = ClusterParameters(
    50,
    HdbscanParameters(3, 0.05, 10, 10.0),
    None,
    None,
    ContinuityJoinParameters(0.4, 0.2),
    0.5,
    0.05,
)
RUN = 1

_estimate_physics = spyral.phases.estimation_phase.estimate_physics


def estimate_with_number(*arguments: Any) -> Any:
    """The enum that EstimationPhase 1.1.2 leaves in its table as a number: polars refuses it."""
    result = _estimate_physics(*arguments)
    if result is not None:
        result.direction = result.direction.value
    return result


def reader_with_seeds(path: Path, run: int) -> Any:
    """Spyral's reader, each event with a random generator of its own."""
    reader = create_reader(path, run)
    read = reader.read_event
    reader.read_event = lambda event, get, frib, _: read(
        event, get, frib, np.random.default_rng([run, event])
    )
    return reader


class TimedFilter(TraceFilterPhase):  # type: ignore[misc]  # Spyral is not typed
    """The filter, with the seconds that it took."""

    seconds = 0.0

    def run(self, *arguments: Any) -> Any:
        """Run the phase."""
        start = time.perf_counter()
        result = super().run(*arguments)
        self.seconds = time.perf_counter() - start
        return result


def spyral_phases() -> list[PhaseLike]:
    """From raw to estimates."""
    return [
        PointcloudPhase(
            GetParameters(20.0, 50.0, 20.0, 50.0, 40.0),
            FribParameters(100.0, 50.0, 20.0, 500.0, 100.0, 1100, 1),
            DETECTOR,
            PadParameters(DEFAULT_MAP, DEFAULT_MAP, DEFAULT_MAP),
        ),
        ClusterPhase(CLUSTER, DETECTOR),
        EstimationPhase(EstimateParameters(30, 100.0), DETECTOR),
    ]


def readable(run: Path, target: Path, n_events: int | None = None) -> int:
    """Copy a run, or its first events, so that Spyral opens it; gives the number of events."""
    shutil.copyfile(run, target)
    with h5py.File(target, "r+") as file:
        events = file["events"]
        numbers = sorted(int(name.removeprefix("event_")) for name in events)
        for number in numbers[n_events:] if n_events else []:
            del events[f"event_{number}"]
        numbers = numbers[:n_events]
        for number in numbers:
            get = events[f"event_{number}"].get("get", {})
            for name in [name for name in get if name.startswith("si_")]:
                if name.replace("si_", "silicon_") not in get:
                    get[name.replace("si_", "silicon_")] = get[name]
        events.attrs.modify("max_event", numbers[-1] + 1)  # its reader leaves out the last one
    return len(numbers)


def run_chain(phases: list[PhaseLike], workspace: Path, traces: Path) -> float:
    """Seconds of a chain on the run in ``traces``."""
    pipeline = Pipeline(phases, [True] * len(phases), workspace, traces)
    pipeline.create_workspace()
    pipeline.create_assets()
    queue: SimpleQueue[Any] = SimpleQueue()
    start = time.perf_counter()
    pipeline.run([RUN], queue, SeedSequence(1))
    seconds = time.perf_counter() - start
    if not (workspace / "Estimation" / f"run_{RUN:04d}.parquet").exists():
        raise RuntimeError(f"the chain broke off in {workspace}")
    return seconds


def clusters_of(workspace: Path) -> dict[int, list[bytes]]:
    """All that the clusters of each event hold, by event number."""
    found: dict[int, list[bytes]] = {}
    with h5py.File(workspace / "Cluster" / f"run_{RUN:04d}.h5") as file:
        for name, event in file["cluster"].items():
            held = [repr(sorted(event.attrs.items())).encode()]

            def keep(name: str, thing: Any, held: list[bytes] = held) -> None:
                held.append(f"{name} {sorted(thing.attrs.items())}".encode())
                if isinstance(thing, h5py.Dataset):
                    held.append(np.asarray(thing[()]).tobytes())

            event.visititems(keep)
            found[int(name.removeprefix("event_"))] = held
    return found


def differences(alone: Path, filtered: Path, kept: set[int]) -> dict[str, int]:
    """Compare what two chains left of the kept events, and their normalisation."""
    clusters, of_kept = clusters_of(alone), clusters_of(filtered)
    tables = [
        pq.read_table(place / "Estimation" / f"run_{RUN:04d}.parquet").to_pylist()
        for place in (alone, filtered)
    ]
    rows = [row for row in tables[0] if row["event"] in kept]
    folders = [place / "Pointcloud" for place in (alone, filtered)]
    counts = [(folder / f"run_{RUN:04d}_gated_ic_scaler.txt").read_text() for folder in folders]
    scalers = [pq.read_table(folder / f"run_{RUN:04d}_scaler.parquet") for folder in folders]
    return {
        "kept events with clusters": len(clusters.keys() & kept),
        "clusters that differ [events]": sum(
            clusters.get(event) != of_kept.get(event) for event in kept | of_kept.keys()
        ),
        "estimates of kept events": len(rows),
        "estimates that differ": sum(a != b for a, b in zip(rows, tables[1], strict=False))
        + abs(len(rows) - len(tables[1])),
        "ion-chamber counts that differ": int(counts[0] != counts[1]),
        "scalers that differ": int(not scalers[0].equals(scalers[1])),
    }


def measure(raw: Path, keep: list[str], repeats: int) -> dict[str, float]:
    """Wall times of both chains on one run, and how their results differ."""
    file_name = f"run_{RUN:04d}.h5"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("traces", "few"):
            (place / name).mkdir()
        n_events = readable(raw, place / "traces" / file_name)
        readable(raw, place / "few" / file_name, 12)
        for number, phases in enumerate(_both(keep)):
            run_chain(phases, place / f"warm {number}", place / "few")
        alone, filtered, own = [], [], []
        for turn in range(repeats):
            without, with_filter = _both(keep)
            alone.append(run_chain(without, place / f"alone {turn}", place / "traces"))
            filtered.append(run_chain(with_filter, place / f"with {turn}", place / "traces"))
            own.append(with_filter[0].seconds)
        table = pq.read_table(place / "with 0" / "TraceFilter" / f"run_{RUN:04d}_tags.parquet")
        events, tags = table.column("event").to_pylist(), table.column("tag").to_pylist()
        kept = {
            event for event, tag in zip(events, tags, strict=True) if tag in (*keep, "passthrough")
        }
        differ = differences(place / "alone 0", place / "with 0", kept)
    away = 1 - len(kept) / n_events
    falls = [1 - b / a for a, b in zip(alone, filtered, strict=True)]
    return {
        "events": n_events,
        "events kept": len(kept),
        "fraction filtered away": away,
        "Spyral alone [s]": statistics.median(alone),
        "Spyral with the filter [s]": statistics.median(filtered),
        "of which the filter [s]": statistics.median(own),
        "fall of the wall time": statistics.median(falls),
        "demanded: 0.8 x fraction": 0.8 * away,
        **differ,
    }


def all_runs(measured: list[dict[str, float]]) -> dict[str, float]:
    """All runs together: sums, and what follows from them."""
    total = {name: sum(run[name] for run in measured) for name in measured[0]}
    total["fraction filtered away"] = 1 - total["events kept"] / total["events"]
    total["demanded: 0.8 x fraction"] = 0.8 * total["fraction filtered away"]
    fall = 1 - total["Spyral with the filter [s]"] / total["Spyral alone [s]"]
    total["fall of the wall time"] = fall
    return total


def main() -> None:
    """Measure, print, and write a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, nargs="+")
    parser.add_argument("--keep", nargs="+", default=["proton", "carbon"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    spyral.phases.estimation_phase.estimate_physics = estimate_with_number
    spyral.phases.pointcloud_phase.create_reader = reader_with_seeds
    measured = {raw.stem: measure(raw, options.keep, options.repeats) for raw in options.raw}
    if len(measured) > 1:
        measured["all"] = all_runs(list(measured.values()))
    rows = [(run, name, f"{v:.4g}") for run, found in measured.items() for name, v in found.items()]
    for run, name, value in rows:
        print(f"{run:10} {name:45} {value:>10}")
    machine = f"{platform.processor() or platform.machine()}, one core of {os.cpu_count()}"
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "quantity", "value", "repeats", "machine"])
            writer.writerows([*row, options.repeats, machine] for row in rows)


def _both(keep: list[str]) -> tuple[list[PhaseLike], list[PhaseLike]]:
    return spyral_phases(), [TimedFilter(keep, DETECTOR), *spyral_phases()]


if __name__ == "__main__":
    main()
