"""Spyral's chain with the filter before the point clouds, beside Spyral's chain alone.

    python benchmarks/spyral_chain.py RAW_RUN.h5 [--keep proton carbon] [--repeats 3] [--csv FILE]

Raw run to point clouds, clusters and estimates, in one process on one core, the two in turn. Before
the clock starts, both chains have seen a few events, so that what numba compiles is compiled. The
run may be one of attpc_merger 2.0 as it was written: Spyral gets a copy that it can open.
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
import pyarrow.parquet as pq
import spyral.phases.estimation_phase
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


def main() -> None:
    """Measure, print, and write a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--keep", nargs="+", default=["proton", "carbon"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    spyral.phases.estimation_phase.estimate_physics = estimate_with_number
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("traces", "few"):
            (place / name).mkdir()
        file_name = f"run_{RUN:04d}.h5"
        n_events = readable(options.raw, place / "traces" / file_name)
        readable(options.raw, place / "few" / file_name, 12)
        for number, phases in enumerate(_both(options.keep)):
            run_chain(phases, place / f"warm {number}", place / "few")
        alone, filtered = [], []
        for turn in range(options.repeats):
            without, with_filter = _both(options.keep)
            alone.append(run_chain(without, place / f"alone {turn}", place / "traces"))
            filtered.append(run_chain(with_filter, place / f"with {turn}", place / "traces"))
        table = place / "with 0" / "TraceFilter" / f"run_{RUN:04d}_tags.parquet"
        tags = pq.read_table(table).column("tag").to_pylist()
    kept = sum(tag in (*options.keep, "passthrough") for tag in tags)
    away = 1 - kept / n_events
    falls = [1 - b / a for a, b in zip(alone, filtered, strict=True)]
    rows = {
        "events": n_events,
        "events kept": kept,
        "fraction filtered away": away,
        "Spyral alone [s]": statistics.median(alone),
        "Spyral with the filter [s]": statistics.median(filtered),
        "fall of the wall time, median of pairs": statistics.median(falls),
        "demanded: 0.8 x fraction": 0.8 * away,
    }
    machine = f"{platform.processor() or platform.machine()}, one core of {os.cpu_count()}"
    for name, value in rows.items():
        print(f"{name:45} {value:10.3f}")
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["quantity", "value", "repeats", "machine"])
            writer.writerows([n, f"{v:.4g}", options.repeats, machine] for n, v in rows.items())


def _both(keep: list[str]) -> tuple[list[PhaseLike], list[PhaseLike]]:
    return spyral_phases(), [TraceFilterPhase(keep, DETECTOR), *spyral_phases()]


if __name__ == "__main__":
    main()
