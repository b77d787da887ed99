"""How the cost of an event goes with cores, run length, traces, hits and model.

    python benchmarks/scaling.py RAW_RUN.h5 [--repeats 3] [--csv FILE] [--png FILE]

Runs are made of the traces of the given one, in the layout of attpc_merger 1.0. Cores: the whole
job with one thread and with two, and two jobs of one thread at a time. Run length: events of 50
traces, added by hard links. Traces: events of random traces of the run. Hits: events of 400
traces, of which only so many have a peak. Image: the network of `default`, untrained, on views of
so many pixels a side. Model: the bundles that ship. What is not about cores or length is processor
time, step by step, as ``attpc-filter bench`` takes it, on runs of 128 events: their whole job has
the opening and the closing of its files on top.
"""

import argparse
import csv
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import matplotlib
import numpy as np
from against_spyral import run_filter, spyral_readable
from attpc_export.bundles.export import export_graph
from attpc_export.bundles.write import write_bundle
from attpc_export.config import load_config
from attpc_export.heads.linear import ScoringModel, undecided_head
from attpc_export.models.registry import build_model
from long_run import make_long_run
from numpy.typing import NDArray

from attpc_filter.bench import JOB, READ, bench, processor
from attpc_filter.config import Config
from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.hits import rebuild_hits
from attpc_filter.records import Record
from attpc_filter.score.bundle import load_bundle
from attpc_filter.tagging.plan import make_plan

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_N_EVENTS = 128
_N_DIFFERENT = 32
_LENGTHS = (1_000, 10_000, 100_000)
_TRACES = (50, 200, 400, 800, 1600)
_HITS = (0, 100, 200, 400)
_SIZES = (32, 64, 128)
_PRESET = Path(__file__).parents[1] / "export" / "configs" / "default.yaml"
_STEPS = (READ, "rebuild", "model inputs", "score", JOB)


@dataclass(frozen=True)
class Row:
    """A measured number: what was varied, to which value, and what came of it."""

    varied: str
    value: str
    quantity: str
    number: float


def write_run(path: Path, matrices: Sequence[NDArray[np.int16]]) -> None:
    """Write a run in the layout of attpc_merger 1.0, an event a trace matrix."""
    with h5py.File(path, "w") as file:
        events = file.create_group("events")
        events.attrs["version"] = "libattpc_merger:1.0"
        events.attrs["min_event"], events.attrs["max_event"] = 0, len(matrices)
        for number, matrix in enumerate(matrices):
            events[f"event_{number}/get_traces"] = matrix


def of_cores(run: Path, place: Path, repeats: int) -> list[Row]:
    """Measure the job on one core, with two threads on two, and two jobs on two, in turns."""
    available = os.sched_getaffinity(0)
    one_core = {max(available)}
    long, other = place / "run_0001.h5", place / "run_0002.h5"
    make_long_run(run, long, 6_000)
    make_long_run(run, other, 6_000)
    measured: dict[str, list[float]] = {}
    for turn in range(1 + repeats):
        rates = {
            "1 job of 1 thread": run_filter([long], place, one_core, 1)[0],
            "1 job of 2 threads": run_filter([long], place, available, 2)[0],
            "2 jobs of 1 thread": run_filter([long, other], place, available, 1)[0],
        }
        if turn:
            for what, rate in rates.items():
                measured.setdefault(what, []).append(rate)
    os.sched_setaffinity(0, available)
    one = measured["1 job of 1 thread"]
    rows = []
    for what, rates in measured.items():
        ratio = statistics.median(a / b for a, b in zip(rates, one, strict=True))
        rows.append(Row("cores", what, "events/s", statistics.median(rates)))
        rows.append(Row("cores", what, "times one core", ratio))
    return rows


def of_length(traces: NDArray[np.int16], place: Path) -> list[Row]:
    """Measure the job at several run lengths."""
    short, long = place / "short.h5", place / "run_0003.h5"
    write_run(short, np.array_split(traces[: 50 * _N_DIFFERENT], _N_DIFFERENT))
    cores = os.sched_getaffinity(0)
    rows = []
    for length in _LENGTHS:
        make_long_run(short, long, length)
        rate, memory = run_filter([long], place, cores, len(cores))
        rows.append(Row("events", str(length), "events/s", rate))
        rows.append(Row("events", str(length), "peak memory [MiB]", memory))
    return rows


def of_steps(run: Path, varied: str, value: object, config: Config, repeats: int) -> list[Row]:
    """Measure processor time an event, step by step."""
    steps = {step.name: step for step in bench(run, config, _N_EVENTS, repeats, lambda _: None)}
    return [
        Row(varied, str(value), f"{name} [us/event]", steps[name].cpu_us_per_event)
        for name in _STEPS
    ]


def write_untrained(path: Path, size: int) -> None:
    """Write a bundle with the network of `default` for views of another size: for its cost."""
    contract = load_bundle("default").contract
    projection = replace(contract.projection, size=size)
    contract = replace(contract, projection=projection, novelty_threshold=None)
    model = build_model(load_config(_PRESET).model, projection.shape)
    head = undecided_head(len(contract.classes), model.latent_size)
    write_bundle(export_graph(ScoringModel(model, head), contract), contract, path, lambda _: None)


def main() -> None:
    """Measure, print a table, and write it to a CSV file and a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    config = Config(threads=1)
    plan = make_plan(config)
    with open_run(options.run) as run:
        matrices = [record.traces for record in run.records() if record.traces is not None]
    chance = np.random.default_rng(1)
    traces = chance.permutation(np.concatenate(matrices))
    each = [Record(0, "", traces=trace[None]) for trace in traces[:20_000]]
    hits = rebuild_hits(each, plan.detector, plan.contract.hits)
    lit, dark = traces[:20_000][hits.counts > 0], traces[:20_000][hits.counts == 0]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made, long = place / "made.h5", place / "run_0004.h5"

        def measure(events: Sequence[NDArray[np.int16]], varied: str, value: int) -> None:
            write_run(made, events)
            make_long_run(made, long, _N_EVENTS)
            rows.extend(of_steps(long, varied, value, config, options.repeats))

        readable = place / options.run.name
        spyral_readable(options.run, readable)
        rows += of_cores(readable, place, options.repeats)
        rows += of_length(traces, place)
        for n in _TRACES:
            measure([chance.choice(traces, n) for _ in range(_N_DIFFERENT)], "traces", n)
        for n in _HITS:
            events = [
                np.concatenate([chance.choice(lit, n), chance.choice(dark, 400 - n)])
                for _ in range(_N_DIFFERENT)
            ]
            measure(events, "traces with hits, of 400", n)
        for size in _SIZES:
            untrained = place / "untrained.onnx"
            write_untrained(untrained, size)
            model = Config(threads=1, model=str(untrained))
            rows += of_steps(long, "pixels a side of a view", size, model, options.repeats)
        for name in ("default", "accurate"):
            model = Config(threads=1, model=name)
            rows += of_steps(long, "model", name, model, options.repeats)
    for row in rows:
        print(f"{row.varied:28} {row.value:20} {row.quantity:28} {row.number:10.1f}")
    if options.csv:
        machine = f"{processor()}, {os.cpu_count()} cores"
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["varied", "value", "quantity", "number", "repeats", "machine"])
            for row in rows:
                number = f"{row.number:.2f}"
                cells = [row.varied, row.value, row.quantity, number, options.repeats, machine]
                writer.writerow(cells)
    if options.png:
        draw(rows, options.png)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw what is not about cores."""
    figure, places = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")

    def curve(place: plt.Axes, varied: str, quantity: str, label: str = "") -> None:
        found = [row for row in rows if (row.varied, row.quantity) == (varied, quantity)]
        values = [float(row.value) for row in found]
        place.plot(values, [row.number for row in found], "o-", label=label)

    curve(places[0], "events", "events/s")
    places[0].set(xscale="log", xlabel="events in the run", ylabel="events/s", title="run length")
    titles = {
        "traces": "traces an event",
        "traces with hits, of 400": "traces with hits, of 400 an event",
        "pixels a side of a view": "image size",
    }
    for place, (varied, title) in zip(places[1:], titles.items(), strict=True):
        for name in _STEPS:
            curve(place, varied, f"{name} [us/event]", name)
        place.set(xlabel=varied, ylabel="processor time an event [us]", title=title)
    for place in places:
        place.set_ylim(bottom=0)
    places[1].legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
