"""Tiny ONNX models whose scores are known beforehand: they count lit pixels, or points, or both.

The graphs are built node by node and the contract is plain JSON: nothing of ``attpc_filter`` takes
part. With ``s`` lit pixels the scores are the softmax of ``-(s - centre)^2 / 40``, the centres 30
(proton), 60 (carbon) and 10 (noise).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("proton", "carbon", "noise")
CENTRES = (30.0, 60.0, 10.0)
THRESHOLD = 0.6
METADATA_KEY = "attpc_filter.contract"


def contract(**changes: Any) -> dict[str, Any]:
    """The contract of the counting model; ``changes`` replace entries of the top level."""
    return {
        "version": 1,
        "name": "counter",
        "description": "counts lit pixels",
        "classes": [
            {"name": "proton", "pdg": 2212, "threshold": THRESHOLD},
            {"name": "carbon", "pdg": 1000060120, "threshold": THRESHOLD},
            {"name": "noise", "pdg": 0, "threshold": THRESHOLD},
        ],
        "hits": {
            "mode": "multi",
            "baseline_window_scale": 20.0,
            "peak_separation": 50.0,
            "peak_prominence": 20.0,
            "peak_max_width": 50.0,
            "peak_threshold": 40.0,
            "max_peaks": 5,
            "drop_beam_pads": True,
            "min_hits": 5,
        },
        "detector": {
            "micromegas_time_bucket": 38.0,
            "window_time_bucket": 278.0,
            "detector_length": 1000.0,
        },
        "projection": {
            "views": ["xy"],
            "size": 64,
            "radius_mm": 280.0,
            "z_low_mm": -50.0,
            "z_high_mm": 1050.0,
            "scale": 10.0,
        },
        "training": {"note": "none: counts pixels"},
        "versions": {"onnx": onnx.__version__},
    } | changes


def scores_of(lit_pixels: int) -> NDArray[np.float64]:
    """The scores that the counting model must give, by numpy."""
    logits = -((lit_pixels - np.array(CENTRES)) ** 2) / 40.0
    exponentials = np.exp(logits - logits.max())
    result: NDArray[np.float64] = exponentials / exponentials.sum()
    return result


def write_model(
    path: Path,
    text: str | None = "",
    *,
    size: int = 64,
    channels: int = 1,
    n_scores: int = 3,
    nan_above: float | None = None,
    endless_above: float | None = None,
    outputs: tuple[str, ...] = ("scores", "latent"),
    reads: tuple[str, ...] = ("projection",),
) -> Path:
    """Write the counting model.

    Parameters
    ----------
    path : Path
        ONNX file.
    text : str or None
        The contract's JSON; empty: the one that fits; None: no contract.
    size, channels, n_scores : int
        Shapes of the graph, to make it disagree with its contract.
    nan_above : float, optional
        Scores are NaN for events with more lit pixels.
    endless_above : float, optional
        The graph takes years for a batch with an event that has more lit pixels.
    outputs : tuple of str
        Outputs of the graph; ``novelty`` and ``energy`` are the count, ``interval`` is one less
        and one more, ``energy_band`` is all three.
    reads : tuple of str
        Its inputs, ``projection`` and ``points`` (256 of them): lit pixels and hits are added up.
    """

    def constant(name: str, values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(values, dtype), name)

    counting = {
        "projection": [
            helper.make_node("Sign", ["projection"], ["lit"]),
            helper.make_node("ReduceSum", ["lit", "image_axes"], ["projection_count"], keepdims=0),
        ],
        "points": [
            helper.make_node("Gather", ["points", "is_hit"], ["hits"], axis=2),
            helper.make_node("ReduceSum", ["hits", "last_axis"], ["points_count"], keepdims=0),
        ],
    }
    inputs = {"projection": [channels, size, size], "points": [256, 5]}
    initializers = [
        constant("is_hit", 4, np.int64),
        constant("image_axes", [1, 2, 3], np.int64),
        constant("last_axis", [1], np.int64),
        constant("centres", [list(CENTRES)[:n_scores]]),
        constant("width", [-40.0]),
        constant("limit", [1e9 if nan_above is None else nan_above]),
        constant("zero", [0.0]),
        constant("one", [1.0]),
    ]
    nodes = [
        *(node for name in reads for node in counting[name]),
        helper.make_node("Sum", [f"{name}_count" for name in reads], ["count"]),
        helper.make_node("Unsqueeze", ["count", "last_axis"], ["latent"]),
        helper.make_node("Sub", ["latent", "centres"], ["distance"]),
        helper.make_node("Mul", ["distance", "distance"], ["square"]),
        helper.make_node("Div", ["square", "width"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["clean_scores"], axis=1),
        # sqrt of a negative number: NaN above the limit
        helper.make_node("Sub", ["limit", "latent"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["nan_or_zero"]),
        helper.make_node(
            "Add",
            ["clean_scores", "nan_or_zero"],
            ["scores" if endless_above is None else "scores_before"],
        ),
        helper.make_node("Squeeze", ["latent", "last_axis"], ["novelty"]),
        helper.make_node("Identity", ["novelty"], ["energy"]),
        helper.make_node("Add", ["latent", "one"], ["above"]),
        helper.make_node("Sub", ["latent", "one"], ["below"]),
        helper.make_node("Concat", ["below", "above"], ["interval"], axis=1),
        helper.make_node("Concat", ["latent", "below", "above"], ["energy_band"], axis=1),
    ]
    if endless_above is not None:
        nodes += _endless_nodes()
        initializers += [
            constant("endless_limit", [endless_above]),
            constant("forever", 1 << 50, np.int64),
            constant("once", 1, np.int64),
            constant("go_on", True, np.bool_),
        ]
    shapes = {"scores": ["n", n_scores], "latent": ["n", 1], "clean_scores": ["n", n_scores]}
    shapes |= {"novelty": ["n"], "energy": ["n"], "interval": ["n", 2], "energy_band": ["n", 3]}
    graph = helper.make_graph(
        nodes,
        "counter",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *inputs[name]])
            for name in reads
        ],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, shapes[o]) for o in outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if text is not None:
        helper.set_model_props(model, {METADATA_KEY: text or json.dumps(contract())})
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def _endless_nodes() -> list[onnx.NodeProto]:
    """Nodes between ``scores_before`` and ``scores``: a loop that adds a zero, once or for ever."""
    scalar, flag = TensorProto.FLOAT, TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["goes_on_next"]),
            helper.make_node("Sin", ["value"], ["value_next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", flag, []),
            helper.make_tensor_value_info("value", scalar, [1]),
        ],
        [
            helper.make_tensor_value_info("goes_on_next", flag, []),
            helper.make_tensor_value_info("value_next", scalar, [1]),
        ],
    )
    return [
        helper.make_node("ReduceMax", ["count"], ["most"], keepdims=0),
        helper.make_node("Squeeze", ["endless_limit"], ["most_allowed"]),
        helper.make_node("Greater", ["most", "most_allowed"], ["is_endless"]),
        helper.make_node("Where", ["is_endless", "forever", "once"], ["turns"]),
        helper.make_node("Loop", ["turns", "go_on", "zero"], ["looped"], body=body),
        helper.make_node("Add", ["scores_before", "looped"], ["scores"]),
    ]
