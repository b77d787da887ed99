"""What a GPU gives, in one command: scoring, traces to tags, waiting, tags that differ.

    python benchmarks/gpu.py RAW_RUN [--model default] [--traces TRACES.onnx] [--half HALF.onnx]
        [--device cuda] [--peaks PCIE_GB_S MEMORY_GB_S TFLOP_S] [--csv OUT.csv]

TRACES.onnx and HALF.onnx are what `attpc-export traces` and `attpc-export half` make of the model.

* Scoring alone at several batch sizes, beside its floor: bytes that must cross PCIe, bytes of
  memory that must be read or written (inputs, weights, outputs once each), and operations of the
  graph's products. With the peak rates of the device's data sheet (`--peaks`) the floor is a rate:
  the slowest of the three.
* Traces to tags without writing: hits made on the CPU, and by the graph. By one process, with the
  share of the time in which nothing was being computed on the device, copies by ONNX Runtime itself
  included in what is computed; and by as many processes as a job has (`--threads`).
* Tags that differ from those of the model on the CPU provider.

Medians over repeats. Everything also runs on the CPU provider (`--device cpu`): the provider that
was measured stands in every line.
"""

import argparse
import csv
import math
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from attpc_filter.bench import processor
from attpc_filter.config import Config
from attpc_filter.execute.base import InProcess, tag_events
from attpc_filter.execute.choose import make_executor
from attpc_filter.formats.registry import open_run
from attpc_filter.score.bundle import Bundle, load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.tagging.plan import make_plan

_PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Work:
    """What a call of a graph takes at least.

    Attributes
    ----------
    operations : int
        Multiplications and additions of convolutions and products.
    transferred, memory : int
        Bytes of inputs and outputs; of these and the weights.
    unknown : int
        Products that were not counted: their shape depends on the data.
    """

    operations: int
    transferred: int
    memory: int
    unknown: int

    def floor_s(self, peaks: Sequence[float]) -> float:
        """Seconds by peak rates: PCIe and memory [GB/s], arithmetic [TFLOP/s]."""
        pcie, memory, arithmetic = peaks
        return max(
            self.transferred / pcie / 1e9,
            self.memory / memory / 1e9,
            self.operations / arithmetic / 1e12,
        )


@dataclass(frozen=True)
class Row:
    """A measurement; a line of the table."""

    what: str
    provider: str
    per_s: float
    unit: str
    floor_per_s: float | str = ""
    gb_transferred_per_s: float | str = ""
    gflop_per_s: float | str = ""
    device_waits: float | str = ""
    tags_differ: str = ""


def count_work(graph: bytes, n_events: int) -> Work:
    """Count what a graph does to a batch of events, from its shapes."""
    model = onnx.load_model_from_string(graph)
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = n_events
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, list[int] | None] = {}
    sizes: dict[str, int] = {}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        tensor = value.type.tensor_type
        known = all(dim.HasField("dim_value") for dim in tensor.shape.dim)
        shapes[value.name] = [dim.dim_value for dim in tensor.shape.dim] if known else None
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        sizes[value.name] = math.prod(shapes[value.name] or [0]) * kind.itemsize
    weights = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    shapes |= weights
    operations = unknown = 0
    for node in inferred.node:
        if node.op_type in _PRODUCTS:
            weight, output = shapes.get(node.input[1]), shapes.get(node.output[0])
            if weight is None or output is None:
                unknown += 1
            elif node.op_type == "Conv":
                operations += 2 * math.prod(output) * math.prod(weight[1:])
            else:
                summed = shapes[node.input[0]]
                is_turned = any(a.name == "transA" and a.i for a in node.attribute)
                operations += 2 * math.prod(output) * (summed[-2 if is_turned else -1] or 0)
    transferred = sum(sizes[value.name] for value in [*inferred.input, *inferred.output])
    held = sum(len(onnx.numpy_helper.to_array(t).tobytes()) for t in inferred.initializer)
    return Work(operations, transferred, transferred + held, unknown)


def score_rows(
    bundle: Bundle, name: str, device: str, batches: Sequence[int], repeats: int, peaks: Any
) -> list[Row]:
    """Measure scoring alone, of what lies in this machine's memory, at several batch sizes."""
    rows = []
    for size in batches:
        scorer = Scorer(bundle, device, batch_size=size)
        rng = np.random.default_rng(0)
        for room in scorer.buffers.values():
            room[:] = rng.random(room.shape, np.float32) * (rng.random(room.shape) < 0.05)
        calls = max(256 // size, 1)
        seconds = median_s(lambda s=scorer, n=calls: [s.run_buffers() for _ in range(n)], repeats)
        work = count_work(bundle.graph, size)
        rows.append(
            Row(
                f"{name}, scoring, {size} a batch",
                scorer.device,
                round(size * calls / seconds, 1),
                "images/s",
                round(size / work.floor_s(peaks), 1) if peaks else "",
                round(work.transferred * calls / seconds / 1e9, 3),
                round(work.operations * calls / seconds / 1e9, 1),
            )
        )
    return rows


def stream_row(
    run_file: Path, model: str, name: str, device: str, threads: int, options: argparse.Namespace
) -> tuple[Row, list[str]]:
    """Measure traces to tags, nothing written; the row and the tags."""
    config = Config(model=model, device=device, threads=threads)
    plan = make_plan(config)
    watched = _Watched()
    shares: list[float] = []
    tags: list[str] = []
    with open_run(run_file) as run, make_executor(config) as executor:
        executor.load(plan)
        executor.wait()
        alone = isinstance(executor, InProcess)
        if isinstance(executor, InProcess):
            watched.watch(executor.stages.scorer)
        run.events = run.events[: options.events]

        def work() -> None:
            watched.intervals.clear()
            began = time.perf_counter()
            with tag_events(run, plan, executor) as batches:
                tags[:] = [tag for batch in batches for tag in batch.tags]
            shares.append(1.0 - covered_s(watched.intervals) / (time.perf_counter() - began))

        seconds = median_s(work, options.repeats)
        row = Row(
            f"{name}, traces to tags, {config.n_threads} at a time",
            executor.device,
            round(len(run.events) / seconds, 1),
            "events/s",
            device_waits=round(statistics.median(shares[1:]), 3) if alone else "",
        )
    return row, tags


class _Watched:
    """A session that notes when it runs."""

    def __init__(self) -> None:
        self.intervals: list[tuple[float, float]] = []

    def watch(self, scorer: Scorer) -> None:
        """Stand before the scorer's session."""
        self._session: onnxruntime.InferenceSession = scorer._session
        scorer._session = self

    def run_with_iobinding(self, binding: onnxruntime.IOBinding) -> None:
        began = time.perf_counter()
        self._session.run_with_iobinding(binding)
        self.intervals.append((began, time.perf_counter()))


def covered_s(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, -math.inf
    for began, ended in sorted(intervals):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total


def median_s(work: Any, repeats: int) -> float:
    """Median time of a call [s], after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def device_name(device: str) -> str:
    """Name of the GPU, or of the processor."""
    if device == "cpu":
        return processor()
    number = device.partition(":")[2] or "0"
    asked = ["nvidia-smi", "-i", number, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--traces", help="the model's bundle that reads raw traces")
    parser.add_argument("--half", help="the model's bundle in half precision")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--peaks", type=float, nargs=3, metavar=("PCIE_GB_S", "MEMORY_GB_S", "TFLOP_S")
    )
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()

    models = {"model": options.model, "half": options.half, "traces": options.traces}
    models = {name: model for name, model in models.items() if model}
    device = Scorer(load_bundle(options.model), options.device).device
    machine = device_name(device)
    print(f"provider {device}: {machine}; ONNX Runtime {onnxruntime.__version__}")
    rows = []
    for name in ("model", "half"):
        if name in models:
            bundle = load_bundle(models[name])
            arguments = (device, options.batches, options.repeats, options.peaks)
            rows += score_rows(bundle, name, *arguments)
    for name, model in models.items():
        work = count_work(load_bundle(model).graph, 64)
        print(
            f"{name}, a batch: {work.operations / 1e9:.3f} GFLOP in products"
            f" ({work.unknown} not counted), {work.transferred / 1e6:.1f} MB in and out,"
            f" {work.memory / 1e6:.1f} MB with weights"
        )
    _, expected = stream_row(options.run, options.model, "model", "cpu", 1, options)
    n_threads = Config(threads=options.threads).n_threads
    for name, model in models.items():
        for threads in sorted({1, n_threads}):
            row, tags = stream_row(options.run, model, name, device, threads, options)
            flipped = sum(a != b for a, b in zip(tags, expected, strict=True))
            rows.append(Row(**(asdict(row) | {"tags_differ": f"{flipped} of {len(tags)}"})))
    for row in rows:
        values = [
            f"{field.name} {value}"
            for field in fields(Row)[4:]
            if (value := getattr(row, field.name)) != ""
        ]
        print(f"{row.what:36} {row.provider}: {row.per_s:,} {row.unit}  {'  '.join(values)}")
    if options.csv:
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["machine", *(field.name for field in fields(Row))])
            writer.writeheader()
            writer.writerows({"machine": machine, **asdict(row)} for row in rows)


if __name__ == "__main__":
    main()
