"""The GPU benchmark: its counts against numbers made by hand; all of it, tiny, on the CPU."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.gpu import Work, count_work, covered_s

ROOT = Path(__file__).parents[1]


def test_operations_and_bytes_of_a_graph() -> None:
    """A convolution of 2 x 8 x 8 to 4 x 4 x 4 with 3 x 3 kernels, and a product of 64 by 3."""
    weights = {"kernels": (4, 2, 3, 3), "matrix": (64, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "kernels"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["events", 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["events", 3])],
        [numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    work = count_work(model.SerializeToString(), 5)
    in_and_out = 5 * 4 * (2 * 8 * 8 + 3)
    assert work == Work(
        operations=5 * 2 * (4 * 4 * 4 * (2 * 3 * 3) + 64 * 3),
        transferred=in_and_out,
        memory=in_and_out + 4 * (4 * 2 * 3 * 3 + 64 * 3),
        unknown=0,
    )
    assert work.floor_s((1e-3, 1.0, 1.0)) == pytest.approx(in_and_out / 1e6)
    assert work.floor_s((1.0, 1.0, 1e-6)) == pytest.approx(work.operations / 1e6)


def test_time_that_is_covered() -> None:
    assert covered_s([(3.0, 4.0), (0.0, 2.0), (1.0, 2.5), (1.2, 1.3)]) == 3.5
    assert covered_s([]) == 0.0


def test_all_of_it_on_the_cpu_provider(counter_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "gpu.csv"
    sizes = ["--batches", "1", "4", "--repeats", "1", "--events", "6", "--threads", "2"]
    command = [sys.executable, "benchmarks/gpu.py", "sample/run_0101.h5", "--device", "cpu"]
    command += ["--model", str(counter_model), "--half", str(counter_model), *sizes]
    done = subprocess.run(
        [*command, "--peaks", "25", "2000", "60", "--csv", str(table)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("provider cpu: ")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["provider"] for row in rows} == {"cpu"}
    assert [row["unit"] for row in rows] == ["images/s"] * 4 + ["events/s"] * 4
    assert all(float(row["per_s"]) > 0 for row in rows)
    assert [row["tags_differ"] for row in rows[4:]] == ["0 of 6"] * 4
    for alone, together in (rows[4:6], rows[6:]):
        assert alone["what"].endswith(", 1 at a time")
        assert 0 <= float(alone["device_waits"]) < 1
        assert together["what"].endswith(", 2 at a time")
