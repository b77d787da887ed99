"""How fast GET's own frames are read on one core, in bytes of the files.

    python benchmarks/graw_reading.py [RUN.h5] [--events 100] [--repeats 7] [--csv FILE]

Writes the events of a run of raw traces with GET channels as frames (the independent writer of the
tests), once in partial and once in full readout, and reads every event into a trace matrix. The
files are opened and listed anew in every repeat. Best of all repeats, by processor time and by the
clock; on a machine that others use too, the former is the fairer one. Without a run: events of 100
random channels an AsAd.
"""

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from attpc_filter.formats.graw import GrawRun
from attpc_filter.formats.registry import open_run
from tests import graw_files


def simulate(n_events: int) -> dict[int, np.ndarray]:
    """Events of four AsAds with 100 channels each."""
    rng = np.random.default_rng(1)
    keys = [(0, a, g, c) for a in range(4) for g in range(4) for c in range(68)]
    events = {}
    for event in range(n_events):
        rows = [k for k in keys if k[3] not in graw_files.FPN and rng.random() < 100 / 256]
        samples = rng.integers(200, 4000, (len(rows), 512))
        events[event] = np.column_stack([rows, np.zeros(len(rows)), samples]).astype(np.int16)
    return events


def read_all(path: Path) -> None:
    """Read every event into one buffer."""
    buffer = np.empty((20_000, 517), np.int16)
    with GrawRun(path) as run:
        for event, name in run.events:
            record = run.read(event, name, lambda rows: buffer[:rows])
            assert not record.reason, record.reason


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if options.run is None:
        events = simulate(options.events)
    else:
        with open_run(options.run) as run:
            records = [run.read(*event) for event in run.events[: options.events]]
        events = {r.event: r.traces for r in records if r.traces is not None}
    rows = []
    for readout in ("partial", "full"):
        with tempfile.TemporaryDirectory() as folder:
            style = graw_files.Style(readout)
            path = graw_files.write_run(Path(folder) / "run_0001", events, style)
            n_bytes = sum(file.stat().st_size for file in path.iterdir())
            times = []
            for _ in range(1 + options.repeats):
                began, cpu_began = time.perf_counter(), time.process_time()
                read_all(path)
                times.append((time.process_time() - cpu_began, time.perf_counter() - began))
            cpu, wall = (n_bytes / best / 1e6 for best in np.min(times[1:], axis=0))
            print(
                f"{readout:8} {len(events)} events, {n_bytes / 1e6:.1f} MB:"
                f" {cpu:.0f} MB/s of processor time, {wall:.0f} MB/s by the clock"
            )
            rows.append([readout, len(events), n_bytes, round(cpu), round(wall)])
    if options.csv is not None:
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["readout", "events", "bytes", "cpu_mb_per_s", "mb_per_s"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
