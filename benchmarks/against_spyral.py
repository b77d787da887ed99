"""attpc-filter beside Spyral's PointcloudPhase, on the same raw run, one core each, in one go.

    python benchmarks/against_spyral.py RAW_RUN.h5 [--repeats 5] [--csv FILE]

The whole job of attpc-filter (read, hits, projection, model, tags, link streams) runs as its own
process on a run of the same events repeated to 20 times the length, so that its start does not
weigh; its events/s are those of the manifest, from opening the run to the last renamed file. Both
programs are pinned to one core and take turns. Then the peak memory at two lengths.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import SimpleQueue
from pathlib import Path

import h5py
import numpy as np
from long_run import make_long_run


def spyral_events_per_s(run: Path, workspace: Path) -> float:
    """Events/s of Spyral's PointcloudPhase on a run, in this process."""
    from spyral import DetectorParameters, FribParameters, GetParameters, PadParameters
    from spyral.core.config import DEFAULT_MAP
    from spyral.core.run_stacks import form_run_string
    from spyral.core.schema import PhaseResult
    from spyral.phases.pointcloud_phase import PointcloudPhase

    phase = PointcloudPhase(
        GetParameters(20.0, 50.0, 20.0, 50.0, 40.0),
        FribParameters(100.0, 50.0, 20.0, 500.0, 100.0, 1100, 1),
        DetectorParameters(1.68, 9500.0, 1000.0, 25.0, 38.0, 278.0, 12.5, Path(), False),
        PadParameters(DEFAULT_MAP, DEFAULT_MAP, DEFAULT_MAP),
    )
    number = int(run.stem.removeprefix("run_"))
    assert form_run_string(number) == run.stem
    phase.get_artifact_path(workspace).mkdir(parents=True, exist_ok=True)
    phase.create_assets(workspace)
    payload = PhaseResult(artifacts={"trace": run}, successful=True, run_number=number)
    start = time.perf_counter()
    phase.run(payload, workspace, SimpleQueue(), np.random.default_rng(1))
    seconds = time.perf_counter() - start
    with h5py.File(phase.construct_artifact(payload, workspace).artifacts["pointcloud"]) as file:
        return len(file["cloud"]) / seconds


def spyral_readable(run: Path, target: Path) -> int:
    """Copy a run with the silicon names and the event range that Spyral's reader needs."""
    shutil.copyfile(run, target)
    with h5py.File(target, "r+") as file:
        events = file["events"]
        for event in events.values():
            for name in list(event.get("get", {})):
                if name.startswith("si_"):
                    event["get"][name.replace("si_", "silicon_", 1)] = event["get"][name]
        events.attrs.modify("max_event", int(events.attrs["max_event"]) + 1)
        return len(events)


def run_filter(run: Path, out: Path, *options: str) -> tuple[float, float]:
    """Events/s and peak memory [MiB] of ``attpc-filter run`` as its own process."""
    command = [sys.executable, "-m", "attpc_filter.cli", "run", str(run), "--out", str(out)]
    command += ["--overwrite", "--no-picture", *options]
    subprocess.run(command, capture_output=True, check=True)
    manifest = json.loads((out / "manifest.json").read_text())
    return manifest["runs"][0]["events_per_s"], manifest["peak_memory_bytes"] / 2**20


def main() -> None:
    """Measure, print a table, and append it to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long", type=int, nargs=2, default=(1300, 13000), metavar="N_EVENTS")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # children inherit it
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "spyral").mkdir()
        readable = place / "spyral" / options.run.name
        n_events = spyral_readable(options.run, readable)
        with h5py.File(readable) as file:
            events = file["events"].values()
            pads = [event["get/pads" if "get" in event else "get_traces"] for event in events]
            rows["traces an event"] = sum(map(len, pads)) / n_events
        long = place / options.run.name
        make_long_run(options.run, long, 20 * n_events)
        spyral_events_per_s(readable, place / "warm")
        run_filter(long, place / "out")
        theirs, multi = [], []
        for turn in range(options.repeats):
            theirs.append(spyral_events_per_s(readable, place / f"workspace{turn}"))
            multi.append(run_filter(long, place / "out")[0])
        rows["Spyral PointcloudPhase [events/s]"] = statistics.median(theirs)
        rows["attpc-filter run, multi hits [events/s]"] = statistics.median(multi)
        rows["ratio, median of pairs"] = statistics.median(
            ours / other for ours, other in zip(multi, theirs, strict=True)
        )
        for length in options.long:
            make_long_run(options.run, long, length)
            rows[f"peak memory at {length} events [MB]"] = run_filter(long, place / "out")[1]
    machine = f"{platform.processor() or platform.machine()}, one core of {os.cpu_count()}"
    for name, value in rows.items():
        print(f"{name:45} {value:12.1f}")
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["quantity", "value", "repeats", "machine"])
            for name, value in rows.items():
                writer.writerow([name, f"{value:.1f}", options.repeats, machine])


if __name__ == "__main__":
    main()
