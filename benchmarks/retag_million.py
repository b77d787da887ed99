"""Re-tagging a million stored events, and scoring from a hit store beside scoring from raw.

    python benchmarks/retag_million.py RAW_RUN.h5 [--events 1000000] [--csv FILE]

Each measured command runs as its own process on one core. The tag table is one that
``attpc-filter run`` writes, its scores drawn at random. Link streams are written too, and
re-tagged so that one event in a hundred changes its stream. For the hit store the events of the run
are repeated to a run of 1300.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
from long_run import make_long_run
from numpy.typing import NDArray

from attpc_filter.output.manifest import Manifest, RunOutcome
from attpc_filter.output.tag_table import TagWriter
from attpc_filter.tag import assign_tags

CLASSES = ["proton", "carbon", "noise"]
STREAMS = [*CLASSES, "uncertain", "unreadable"]
BATCH = 65_536
STORE_EVENTS = 1300
REPEATS = 3


def seconds_of(*arguments: object) -> float:
    """Wall time of a command of attpc-filter, from start to end of the process."""
    command = [sys.executable, "-m", "attpc_filter.cli", *map(str, arguments)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def write_output(out: Path, n_events: int, streams: bool) -> NDArray[np.float32]:
    """Write an output folder with one run; gives the scores, shape (n_events, n_classes)."""
    rng = np.random.default_rng(46)
    scores = rng.dirichlet([0.3, 0.3, 0.3], n_events).astype(np.float32)
    n_hits = rng.integers(0, 400, n_events)
    passthrough = rng.random(n_events) < 0.01
    scores[(n_hits < 5) | passthrough] = np.nan
    events = np.arange(n_events)
    thresholds = dict.fromkeys(CLASSES, 0.5)
    tags, reasons = assign_tags(
        scores, n_hits, passthrough, [""] * n_events, CLASSES, list(thresholds.values()), 5
    )
    metadata = {"model": "none", "model_sha256": "0", "classes": CLASSES, "thresholds": thresholds}
    table = out / "tags" / "run_0001.parquet"
    table.parent.mkdir(parents=True)
    writer = TagWriter(table, CLASSES, metadata | {"min_hits": 5})
    for start in range(0, n_events, BATCH):
        part = slice(start, start + BATCH)
        scored = np.isfinite(scores[part, 0])
        writer.add(1, events[part], tags[part], scores[part], scored, n_hits[part], reasons[part])
    writer.close()
    counts = {tag: tags.count(tag) for tag in [*STREAMS, "passthrough"]}
    outcome = RunOutcome("run_0001.h5", 1, "attpc_merger 1.0", n_events=n_events, counts=counts)
    outcome.tag_table = "tags/run_0001.parquet"
    if streams:
        for label in STREAMS:
            held = [
                event
                for event, tag in zip(events.tolist(), tags, strict=True)
                if tag == label or (tag == "passthrough" and label in CLASSES)
            ]
            path = out / label / "run_0001.h5"
            path.parent.mkdir()
            with h5py.File(path, "w", libver=("v108", "latest")) as file:
                group = file.create_group("events")
                group.attrs["version"] = "libattpc_merger:1.0"
                for event in held:
                    name = f"event_{event}".encode()
                    target = b"/events/" + name
                    group.id.links.create_external(name, b"../raw/run_0001.h5", target)
            outcome.streams[label] = {"path": f"{label}/run_0001.h5", "events": len(held)}
    outcome.mode, outcome.thresholds = "link" if streams else "none", thresholds
    books = Manifest(thresholds=thresholds, runs=[outcome], exit_status=0)
    (out / "manifest.json").write_text(books.to_json(), encoding="utf-8")
    return scores


def measure_retag(place: Path, n_events: int) -> dict[str, float]:
    """Seconds of re-tagging, with tag tables alone and with streams."""
    rows: dict[str, float] = {}
    tags_only = place / "tags only"
    write_output(tags_only, n_events, streams=False)
    wishes = ("--purity", "proton=0.95", "--thresholds", "carbon=0.7")
    rows[f"re-tagging {n_events} events, tags [s]"] = float(
        np.median([seconds_of("retag", tags_only, *wishes) for _ in range(REPEATS)])
    )
    with_streams = place / "with streams"
    scores = write_output(with_streams, n_events, streams=True)
    protons = np.sort(scores[(scores[:, 0] >= 0.5), 0])
    threshold = float(protons[n_events // 100])
    wish = f"proton={threshold}"
    name = f"re-tagging {n_events} events, tags and link streams, 1% move [s]"
    times = []
    for _ in range(REPEATS):  # there, and back to the first thresholds
        times.append(seconds_of("retag", with_streams, "--thresholds", wish))
        seconds_of("retag", with_streams)
    rows[name] = float(np.median(times))
    history = json.loads((with_streams / "manifest.json").read_text())["history"]
    rows["events that moved"] = history[0]["changed"]
    return rows


def measure_store(raw: Path, place: Path) -> dict[str, float]:
    """Size of the hit store, and events/s from it and from raw."""
    short, long = place / "short", place / raw.name
    seconds_of("run", raw, "--out", short, "--keep-hits", "--streams", "none", "--no-picture")
    share = (short / "hits" / raw.name).stat().st_size / raw.stat().st_size
    make_long_run(raw, long, STORE_EVENTS)
    options = ("--streams", "none", "--no-picture", "--restart")
    rates: dict[str, list[float]] = {"raw": [], "store": []}
    for _ in range(REPEATS):  # in turn, so that both see the same machine
        seconds_of("run", long, "--out", place / "a", "--keep-hits", *options)
        store = place / "a" / "hits" / raw.name
        seconds_of("run", long, "--out", place / "c", *options)
        seconds_of("run", store, "--out", place / "b", *options)
        for what, folder in (("raw", "c"), ("store", "b")):
            manifest = json.loads((place / folder / "manifest.json").read_text())
            rates[what].append(manifest["runs"][0]["events_per_s"])
    name = f"tags/{raw.stem}.parquet"
    a, b = (pq.read_table(place / folder / name).column("tag") for folder in "ab")
    return {
        "hit store / raw run [bytes]": share,
        "events/s from raw": float(np.median(rates["raw"])),
        "events/s from the hit store": float(np.median(rates["store"])),
        "ratio, median of pairs": float(np.median(np.divide(rates["store"], rates["raw"]))),
        "tags that differ": sum(x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)),
    }


def main() -> None:
    """Measure, print, and write a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # children inherit it
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_retag(Path(folder), options.events)
        rows |= measure_store(options.raw, Path(folder))
    machine = f"{platform.processor() or platform.machine()}, one core of {os.cpu_count()}"
    for name, value in rows.items():
        print(f"{name:62} {value:12.4g}")
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["quantity", "value", "repeats", "machine"])
            writer.writerows([n, f"{v:.4g}", REPEATS, machine] for n, v in rows.items())


if __name__ == "__main__":
    main()
