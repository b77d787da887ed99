"""Half precision: the tags stay, or the bundle is not written."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from attpc_export.bundles.half import halve
from attpc_export.cli import main
from onnx import TensorProto, helper, numpy_helper

from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from tests import tiny_models
from tests.export.conftest import Training
from tests.export.generated import write_run


def arguments(bundle: Path, data: Path, out: Path, *more: str) -> list[str]:
    return ["half", str(bundle), "--data", str(data), "--out", str(out), *more]


def test_the_bundle_says_how_many_tags_differ(
    training: Training, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "half.onnx"
    assert main(arguments(bundle, training.data, out, "--most", "0.02")) == 0
    assert "of 180 events" in capsys.readouterr().out
    before, after = load_bundle(str(bundle)), load_bundle(str(out))
    described = after.contract.training["half"]
    assert described["of_sha256"] == before.sha256
    assert described["events"] == 180
    assert described["tags_flipped"] <= 3
    assert after.contract.input_shapes == before.contract.input_shapes

    kinds = [tensor.data_type for tensor in onnx.load(out).graph.initializer]
    assert kinds.count(TensorProto.FLOAT16) > 5
    images = np.random.default_rng(1).random((9, 2, 16, 16)).astype(np.float32)
    one, other = (Scorer(b, "cpu").score({"projection": images}) for b in (before, after))
    assert 0 < np.abs(one - other).max() < 0.01


def test_two_in_a_row_are_not_cast_between() -> None:
    """Convolution, rectifier, convolution: cast to float16 once and back once."""
    weights = numpy_helper.from_array(np.full((1, 1, 1, 1), 0.1, np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "one"),
        helper.make_node("Relu", ["a"], ["b"], "rectifier"),
        helper.make_node("Conv", ["b", "w"], ["c"], "two"),
        helper.make_node("Add", ["c", "x"], ["y"], "sum"),
    ]
    shape = ["n", 1, 2, 2]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    halved = halve(model.SerializeToString())
    onnx.checker.check_model(halved)
    kinds = [node.op_type for node in halved.graph.node]
    assert kinds == ["Cast", "Conv", "Relu", "Conv", "Cast", "Add"]
    assert len(halved.graph.initializer) == 1


def test_a_bundle_whose_tags_differ_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weight of 1e-9 is 0 in half precision: all scores are equal then."""
    data, _ = write_run(tmp_path / "data", 5, 30, seed=2)
    bundle, out = _write_faint_model(tmp_path / "faint.onnx"), tmp_path / "half.onnx"
    assert main(arguments(bundle, data, out)) == 2
    error = capsys.readouterr().err
    assert "30 of 30 events get another tag in half precision (100.00%), more than 0.10%" in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "faint.onnx"]
    assert main(arguments(bundle, data, out, "--most", "1")) == 0


def _write_faint_model(path: Path) -> Path:
    """Says proton of every event with a lit pixel."""
    nodes = [
        helper.make_node("ReduceSum", ["projection", "axes"], ["sum"], keepdims=0),
        helper.make_node("Unsqueeze", ["sum", "last"], ["latent"]),
        helper.make_node("MatMul", ["latent", "weights"], ["product"]),
        helper.make_node("Mul", ["product", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    constants = {
        "axes": np.array([1, 2, 3]),
        "last": np.array([1]),
        "weights": np.array([[1e-9, 0.0, -1e-9]], np.float32),
        "scale": np.array([1e9], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "faint",
        [helper.make_tensor_value_info("projection", TensorProto.FLOAT, ["n", 1, 64, 64])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["n", 1]),
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {tiny_models.METADATA_KEY: json.dumps(tiny_models.contract())})
    path.write_bytes(model.SerializeToString())
    return path
