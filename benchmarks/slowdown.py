"""Catch a slowdown: ratios between steps that are measured in the same run, never a clock.

    python benchmarks/slowdown.py [--run sample/run_0101.h5] [--repeats 5]

Exits with 1 if a ratio of processor times is beyond its limit. The limits leave room for another
machine and a busy one: about two to three times what is usual.

* Reading an event, beside h5py's low-level read of its traces alone.
* Rebuilding a trace, beside what Spyral does with one: a baseline by Fourier transform and SciPy's
  `find_peaks`.
* The whole job, beside the sum of reading, rebuilding, projecting and scoring.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from long_run import make_long_run
from numpy.typing import NDArray
from scipy.signal import find_peaks

from attpc_filter.bench import JOB, READ, bench
from attpc_filter.config import Config
from attpc_filter.formats.registry import open_run
from attpc_filter.records import N_HARDWARE_COLUMNS

_N_EVENTS = 1000
_N_TRACES = 1000


def scipy_seconds(traces: NDArray[np.int16], repeats: int) -> float:
    """Processor time [s] that SciPy needs for the peaks of traces, shape (n, 512)."""
    sinc = np.fft.ifftshift(np.sinc(np.arange(-256, 256) / 20.0))
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        samples = traces.astype(np.float64)
        above = samples - samples.mean(axis=1, keepdims=True) > 1.5 * samples.std(
            axis=1, keepdims=True
        )
        base = np.where(above, np.nanmean(np.where(above, np.nan, samples), 1)[:, None], samples)
        signal = samples - np.fft.ifft(np.fft.fft(base, axis=1) * sinc, axis=1).real
        for trace in signal:
            find_peaks(trace, distance=50.0, prominence=20.0, width=(1.0, 50.0), rel_height=0.95)
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def main() -> int:
    """Measure and compare; 1 if a ratio is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("sample/run_0101.h5"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / options.run.name
        make_long_run(options.run, run, _N_EVENTS)
        steps = {
            step.name: step
            for step in bench(run, Config(threads=1), _N_EVENTS, options.repeats, print)
        }
    with open_run(options.run) as short:
        matrices = [record.traces for record in short.records() if record.traces is not None]
    traces = np.concatenate(matrices)[:_N_TRACES, N_HARDWARE_COLUMNS:]
    cost = {name: step.cpu_us_per_event for name, step in steps.items()}
    rebuild = steps["rebuild"]
    ours = rebuild.cpu_us_per_event * rebuild.sample.n_events / rebuild.sample.n_traces
    theirs = scipy_seconds(traces, options.repeats) / len(traces) * 1e6
    parts = cost[READ] + cost["rebuild"] + cost["model inputs"] + cost["score"]
    ratios = [
        ("reading / h5py's low-level read", cost[READ] / cost["h5py, low level, one buffer"], 2.0),
        ("rebuilding a trace / SciPy on it", ours / theirs, 1 / 30),
        ("whole job / its parts", cost[JOB] / parts, 3.5),
    ]
    for name, ratio, limit in ratios:
        print(f"{name:35} {ratio:8.3f}  limit {limit:.3f}  {'ok' if ratio <= limit else 'SLOW'}")
    return int(any(ratio > limit for _, ratio, limit in ratios))


if __name__ == "__main__":
    sys.exit(main())
