"""attpc-filter beside Spyral's PointcloudPhase, on runs as users have them, one core each.

    python benchmarks/against_spyral.py RAW_RUN.h5 [--events 1000 9000] [--repeats 5] [--csv FILE]

The events of a run in attpc_merger's 2.0 layout stand in long runs in every layout that the merger
and its relatives write (``layouts.py``). The whole job of attpc-filter (read, hits, projections,
model, tags, link streams) runs on each as a process of its own, and its events/s are those of the
wall clock from the start of the program to its end. Spyral reads a copy of the run with the names
that its reader needs, in this process, without its start. They take turns, so that each ratio is of
one turn. What to quote is the slowest layout in use.

With 2.0 runs as the merger writes them besides: one hit a pad (`peak`), copies of the events, the
bundle `accurate`, no streams, two cores, and two jobs at a time, a core and a run each, which is
all that the machine gives; rebuilding alone, and reading alone beside HDF5's own low-level read.
Then the peak memory at several lengths.
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
from layouts import LAYOUTS, write_layout

from attpc_filter.bench import processor
from attpc_filter.formats.hdf5.ceilings import bare_reads
from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.rebuild.hits import HitSettings, rebuild_hits
from attpc_filter.records import N_TRACE_COLUMNS
from attpc_filter.score.bundle import load_bundle
from attpc_filter.tagging.stages import BUFFER_TRACES

#: The layout that is measured in all ways: the newest one, as the merger writes it.
AS_WRITTEN = "attpc_merger 2.0"
SPYRAL = "Spyral PointcloudPhase"


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
        Events/s of all together, from the start of the programs to the end of the last.
    memory : float
        Peak memory of the largest [MiB].
    """
    os.sched_setaffinity(0, cores)  # the children inherit it
    outs = [place / f"out {index}" for index in range(len(runs))]
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
    processes = []
    began = time.perf_counter()
    for run, out in zip(runs, outs, strict=True):
        command = [sys.executable, "-m", "attpc_filter.cli", "run", run, "--out", out]
        command += ["--no-picture", "--threads", threads, *options]
        silent = subprocess.DEVNULL
        processes.append(subprocess.Popen([*map(str, command)], stdout=silent, stderr=silent))
    statuses = [process.wait() for process in processes]
    seconds = time.perf_counter() - began
    if any(statuses):
        raise SystemExit(f"attpc-filter failed on one of {', '.join(map(str, runs))}")
    manifests = [json.loads((out / "manifest.json").read_text()) for out in outs]
    n_events = sum(manifest["n_events"] for manifest in manifests)
    return n_events / seconds, max(m["peak_memory_bytes"] for m in manifests) / 2**20


def main() -> None:
    """Measure, print a table, and write it to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run in attpc_merger's 2.0 layout")
    parser.add_argument("--events", type=int, nargs="+", default=(1_000, 9_000), metavar="N")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=(1_000, 100_000), metavar="N_EVENTS"
    )
    parser.add_argument(
        "--layouts-only", action="store_true", help="only the layouts beside Spyral, one core each"
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
            rows["traces an event"] = (
                sum(len(event["get/pads"]) for event in file["events"].values()) / n_events
            )
        runs: dict[tuple[str, int], Path] = {}
        for index, layout in enumerate(LAYOUTS):
            for length in options.events:
                runs[layout, length] = place / f"run_{index + 1}{length:07}.h5"
                write_layout(options.run, layout, runs[layout, length], length)
        as_written = runs[AS_WRITTEN, max(options.events)]
        other = place / "run_9999.h5"
        shutil.copyfile(as_written, other)
        peak = place / "peak.onnx"
        with_hits_of_mode(load_bundle("default").path, "peak", peak)
        measured: dict[str, list[float]] = {}
        for turn in range(1 + options.repeats):
            os.sched_setaffinity(0, one)
            found = {SPYRAL: spyral_events_per_s(readable, place / f"spyral{turn}")}
            for (layout, length), run in runs.items():
                found[f"{layout}, {length} events"] = run_filter([run], place, one, 1)[0]
            if not options.layouts_only:
                for name, more in (
                    ("peak hits", ("--model", peak)),
                    ("copies", ("--streams", "copy")),
                    ("accurate", ("--model", "accurate")),
                    ("no streams", ("--streams", "none")),
                ):
                    found[name] = run_filter([as_written], place, one, 1, *more)[0]
                found |= steps_alone(readable)
                if len(two) == 2:
                    found["two cores"] = run_filter([as_written], place, two, 2)[0]
                    found["two jobs, a core each"] = run_filter([as_written, other], place, two, 1)[
                        0
                    ]
            if turn:  # the first one warms up
                for name, rate in found.items():
                    measured.setdefault(name, []).append(rate)
        for name, rates in measured.items():
            unit = "traces/s" if name.startswith("multi hits alone") else "events/s"
            rows[f"{name} [{unit}]"] = statistics.median(rates)
        whole = f"{AS_WRITTEN}, {max(options.events)} events"
        jobs = [f"{layout}, {length} events" for layout, length in runs]
        pairs = [(job, SPYRAL) for job in (*jobs, "peak hits", "copies", "accurate")]
        pairs += [(f"{layout}, {max(options.events)} events", whole) for layout in LAYOUTS]
        pairs += [(name, whole) for name in ("no streams", "two cores", "two jobs, a core each")]
        pairs += [("HDF5 alone, low level, one core", "reading alone, one core")]
        for ours, theirs in pairs:
            if ours in measured and ours != theirs:
                ratios = [a / b for a, b in zip(measured[ours], measured[theirs], strict=True)]
                rows[f"{ours} / {theirs}"] = statistics.median(ratios)
        for length in () if options.layouts_only else options.lengths:
            write_layout(options.run, AS_WRITTEN, as_written, length)
            rows[f"peak memory at {length} events [MiB]"] = run_filter([as_written], place, two, 2)[
                1
            ]
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
