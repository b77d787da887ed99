"""attpc-filter beside Spyral's PointcloudPhase, on the same raw run, one core each, in one go.

    python benchmarks/against_spyral.py RAW_RUN.h5 [--repeats 5] [--lengths N ...] [--csv FILE]

Both read the same file: a copy of the run with the names that Spyral looks for. The whole job of
attpc-filter (read, hits, projections, model, tags, link streams) runs as its own process on a run
of the same events, repeated to 12,000 so that its start does not weigh; its events/s are those of
the manifest, from opening the run to the last renamed file. They take turns: Spyral and
attpc-filter on one core, attpc-filter with one hit a pad (`peak`), attpc-filter on two cores, and
two of attpc-filter at a time, a core and a run each, which is all that the machine gives; and
between them rebuilding alone, and reading alone beside HDF5's own low-level read of the same
matrices. Then its peak memory at several lengths.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import SimpleQueue
from pathlib import Path

import h5py
import numpy as np
import onnx
from long_run import make_long_run

from attpc_filter.bench import processor
from attpc_filter.formats.hdf5.ceilings import bare_reads
from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.rebuild.hits import HitSettings, rebuild_hits
from attpc_filter.records import N_TRACE_COLUMNS
from attpc_filter.score.bundle import load_bundle
from attpc_filter.tagging.stages import BUFFER_TRACES

_N_EVENTS = 12_000


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


def steps_alone(run_file: Path) -> dict[str, float]:
    """Events/s of reading and traces/s of rebuilding, in this process, medians of five.

    Rebuilt is what was just read into a buffer, as in a job; the clock runs for rebuilding only.
    """
    detector = load_detector()
    buffer = np.empty((BUFFER_TRACES, N_TRACE_COLUMNS), np.int16)

    with open_run(run_file) as run:

        def rebuild() -> float:
            n_traces, seconds = 0, 0.0
            for part in run.parts(run.events, buffer):
                n_traces += sum(len(r.traces) for r in part if r.traces is not None)
                began = time.perf_counter()
                rebuild_hits(part, detector, HitSettings())
                seconds += time.perf_counter() - began
            return n_traces / seconds

        def read() -> None:
            for _ in run.parts(run.events, buffer):
                pass

        rebuild()
        bare = bare_reads(run, buffer)["h5py, low level, one buffer"]
        return {
            "multi hits alone, one core": statistics.median(rebuild() for _ in range(5)),
            "reading alone, one core": len(run.events) / median_s(read),
            "HDF5 alone, low level, one core": len(run.events) / median_s(bare),
        }


def median_s(work: Callable[[], None]) -> float:
    """Seconds that something takes, after it was done once."""
    work()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


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


def with_hits_of_mode(model: Path, mode: str, target: Path) -> None:
    """Copy a bundle whose contract asks for hits of another mode: for speed, not for tags."""
    bundle = onnx.load(model)
    for entry in bundle.metadata_props:
        if entry.key == "attpc_filter.contract":
            contract = json.loads(entry.value)
            contract["hits"]["mode"] = mode
            entry.value = json.dumps(contract)
    onnx.save(bundle, target)


def run_filter(
    runs: Sequence[Path], place: Path, cores: set[int], threads: int, *options: object
) -> tuple[float, float]:
    """Run ``attpc-filter run`` on each of the runs at a time, every one as its own process.

    Returns
    -------
    rate : float
        Events/s, added up.
    memory : float
        Peak memory of the largest [MiB].
    """
    os.sched_setaffinity(0, cores)  # the children inherit it
    outs = [place / f"out {index}" for index in range(len(runs))]
    processes = []
    for run, out in zip(runs, outs, strict=True):
        command = [sys.executable, "-m", "attpc_filter.cli", "run", run, "--out", out]
        command += ["--restart", "--no-picture", "--threads", threads, *options]
        silent = subprocess.DEVNULL
        processes.append(subprocess.Popen([*map(str, command)], stdout=silent, stderr=silent))
    if any([process.wait() for process in processes]):
        raise SystemExit(f"attpc-filter failed on one of {', '.join(map(str, runs))}")
    manifests = [json.loads((out / "manifest.json").read_text()) for out in outs]
    rates = [manifest["runs"][0]["events_per_s"] for manifest in manifests]
    return sum(rates), max(manifest["peak_memory_bytes"] for manifest in manifests) / 2**20


def main() -> None:
    """Measure, print a table, and write it to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=(1_000, 100_000), metavar="N_EVENTS"
    )
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    available = sorted(os.sched_getaffinity(0))
    one, two = {available[-1]}, set(available[-2:])
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
        long, other = place / options.run.name, place / "run_9999.h5"
        make_long_run(readable, long, _N_EVENTS)
        shutil.copyfile(long, other)
        peak = place / "peak.onnx"
        with_hits_of_mode(load_bundle("default").path, "peak", peak)
        measured: dict[str, list[float]] = {}
        for turn in range(1 + options.repeats):
            os.sched_setaffinity(0, one)
            found = {
                "Spyral PointcloudPhase": spyral_events_per_s(readable, place / f"spyral{turn}"),
                "multi hits, one core": run_filter([long], place, one, 1)[0],
                "peak hits, one core": run_filter([long], place, one, 1, "--model", peak)[0],
            } | steps_alone(readable)
            if len(two) == 2:
                found["multi hits, two cores"] = run_filter([long], place, two, 2)[0]
                found["two jobs, a core each"] = run_filter([long, other], place, two, 1)[0]
            if turn:  # the first one warms up
                for name, rate in found.items():
                    measured.setdefault(name, []).append(rate)
        for name, rates in measured.items():
            unit = "traces/s" if name.startswith("multi hits alone") else "events/s"
            rows[f"{name} [{unit}]"] = statistics.median(rates)
        pairs = [
            ("multi hits, one core", "Spyral PointcloudPhase"),
            ("peak hits, one core", "Spyral PointcloudPhase"),
            ("multi hits, two cores", "multi hits, one core"),
            ("two jobs, a core each", "multi hits, one core"),
            ("HDF5 alone, low level, one core", "reading alone, one core"),
        ]
        for ours, other in pairs:
            if ours in measured:
                ratios = [a / b for a, b in zip(measured[ours], measured[other], strict=True)]
                rows[f"{ours} / {other}"] = statistics.median(ratios)
        for length in options.lengths:
            make_long_run(readable, long, length)
            rows[f"peak memory at {length} events [MiB]"] = run_filter([long], place, two, 2)[1]
    machine = f"{processor()}, {len(available)} cores"
    for name, value in rows.items():
        print(f"{name:60} {value:12.2f}")
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["quantity", "value", "repeats", "machine"])
            for name, value in rows.items():
                writer.writerow([name, f"{value:.2f}", options.repeats, machine])


if __name__ == "__main__":
    main()
