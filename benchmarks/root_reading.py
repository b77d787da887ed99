"""How fast ATTPCROOT trees are read, beside uproot reading and decompressing the same bytes.

    python benchmarks/root_reading.py RAW.root [--repeats 7] [--csv FILE]

Reads every entry of a run of traces into trace matrices, on one core and on two, and lets uproot
read and decompress the same baskets (nothing else: uproot cannot decode them). Both take turns, the
best of all repeats counts, processor time stands beside the time on the clock (on a machine that
others use too, the former is the fairer one). Then the peak memory of reading the first tenth of
the run and of reading all of it, each in a process of its own.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uproot

from attpc_filter.formats.registry import open_run
from attpc_filter.records import N_TRACE_COLUMNS

_MEMORY = """
import sys
from itertools import islice
from attpc_filter.formats.registry import open_run
from attpc_filter.execute.memory import peak_memory_bytes
with open_run(sys.argv[1]) as run:
    for record in islice(run.records(), int(len(run.events) * float(sys.argv[2]))):
        assert not record.reason, record.reason
print(peak_memory_bytes())
"""


def read_all(path: Path) -> tuple[int, int]:
    """Read every entry into one buffer; entries and pads."""
    buffer = np.empty((20_000, N_TRACE_COLUMNS), np.int16)
    n_pads = 0
    with open_run(path) as run:
        for event, name in run.events:
            record = run.read(event, name, lambda rows: buffer[:rows])
            assert not record.reason, record.reason
            n_pads += 0 if record.traces is None else len(record.traces)
        return len(run.events), n_pads


def decompress_all(path: Path) -> None:
    """Have uproot read and decompress the baskets of the pads, one after the other."""
    with uproot.open(path) as file:
        branch = file["cbmsim"]["AtRawEvent"]["AtRawEvent.fPadList"]
        for index in range(branch.num_baskets):
            branch.basket(index)


def best(work: Callable[[], object], others: Callable[[], object], repeats: int) -> list[float]:
    """Least time on the clock and least processor time [s] of both, taking turns."""
    times = [np.inf] * 4
    for _ in range(repeats):
        for place, job in enumerate((work, others)):
            clock, processor = time.perf_counter(), time.process_time()
            job()
            times[2 * place] = min(times[2 * place], time.perf_counter() - clock)
            times[2 * place + 1] = min(times[2 * place + 1], time.process_time() - processor)
    return times


def peak_bytes(path: Path, share: float) -> int:
    """Peak memory of a process that reads a share of the entries."""
    command = [sys.executable, "-c", _MEMORY, str(path), str(share)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, print, and write a table if asked for one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    n_entries, n_pads = read_all(options.run)  # compiles, and warms the page cache
    cores = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, object]] = []
    for n_cores in (1, 2):
        if len(cores) < n_cores:
            break
        os.sched_setaffinity(0, cores[:n_cores])
        ours, ours_cpu, theirs, theirs_cpu = best(
            lambda: read_all(options.run), lambda: decompress_all(options.run), options.repeats
        )
        rows.append(
            {
                "cores": n_cores,
                "pads_per_s": round(n_pads / ours),
                "pads_per_cpu_s": round(n_pads / ours_cpu),
                "uproot_decompress_pads_per_s": round(n_pads / theirs),
                "uproot_decompress_pads_per_cpu_s": round(n_pads / theirs_cpu),
                "time_over_uproots": round(ours / theirs, 3),
            }
        )
    os.sched_setaffinity(0, cores)
    machine = f"{platform.machine()}, {platform.processor() or 'processor unknown'}"
    print(f"{options.run.name}: {n_entries} entries, {n_pads} pads; {machine}")
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    tenth, whole = peak_bytes(options.run, 0.1), peak_bytes(options.run, 1.0)
    print(f"peak memory: {tenth / 1e6:.0f} MB a tenth, {whole / 1e6:.0f} MB the whole run")
    if options.csv:
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
