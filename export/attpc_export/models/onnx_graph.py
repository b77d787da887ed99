"""An ONNX file as a PyTorch module: the operations that convolutional backbones are made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from attpc_filter.errors import UsageError


class OnnxGraph(nn.Module):
    """A graph with one input and one output (the first), node by node.

    Parameters
    ----------
    path : Path
        ONNX file of opset 13 or later.

    Raises
    ------
    UsageError
        If it holds an operation that is not known here.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            graph = onnx.load(path).graph
        except OSError:
            raise
        except Exception as error:  # protobuf has errors of its own
            raise UsageError(f"model.weights: {path}: not an ONNX file: {error}") from error
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        inputs = [node.name for node in graph.input if node.name not in weights]
        if len(inputs) != 1:
            raise UsageError(f"model.weights: {path}: has {len(inputs)} inputs, a backbone has one")
        self.input, self.output = inputs[0], graph.output[0].name
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        #: Shapes, axes and other whole numbers: part of the graph, not of its weights.
        self.constants: dict[str, Tensor] = {}
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                weights[node.output[0]] = numpy_helper.to_array(attributes["value"])
            elif node.op_type not in _OPERATIONS:
                raise UsageError(
                    f"model.weights: {path}: operation {node.op_type} is not known here; a"
                    f" backbone is made of {', '.join(sorted(_OPERATIONS))}"
                )
            else:
                self.nodes.append((node.op_type, list(node.input), node.output[0], attributes))
        for name, array in weights.items():
            tensor = torch.from_numpy(np.array(array))
            if tensor.is_floating_point():
                self.register_parameter(_plain(name), nn.Parameter(tensor.float()))
            else:
                self.constants[name] = tensor
        self._weight_names = [name for name in weights if name not in self.constants]

    def forward(self, images: Tensor) -> Tensor:
        """Run the graph."""
        values: dict[str, Any] = {"": None, self.input: images, **self.constants}
        values |= {name: self.get_parameter(_plain(name)) for name in self._weight_names}
        for kind, inputs, output, attributes in self.nodes:
            values[output] = _OPERATIONS[kind](attributes, *(values[name] for name in inputs))
        result: Tensor = values[self.output]
        return result


def _plain(name: str) -> str:
    return "weight_" + "".join(c if c.isalnum() else "_" for c in name)


def _same_padding(images: Tensor, attributes: dict[str, Any], kernel: list[int]) -> list[int]:
    """Padding in PyTorch's order (left, right, top, bottom) of ONNX's pads or auto_pad."""
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
        return [left, right, top, bottom]
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    padding: list[int] = []
    for axis in (1, 0):
        size, stride = images.shape[2 + axis], strides[axis]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        less = total // 2
        padding += [less, total - less] if auto == "SAME_UPPER" else [total - less, less]
    return padding


def _conv(a: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padded = F.pad(x, _same_padding(x, a, list(weight.shape[2:])))
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return F.conv2d(padded, weight, bias, strides, 0, dilations, a.get("group", 1))


def _max_pool(a: dict[str, Any], x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    padded = F.pad(x, _same_padding(x, a, kernel), value=-torch.inf)
    return F.max_pool2d(
        padded, kernel, a.get("strides", [1, 1]), ceil_mode=bool(a.get("ceil_mode"))
    )


def _average_pool(a: dict[str, Any], x: Tensor) -> Tensor:
    kernel, padding = a["kernel_shape"], _same_padding(x, a, a["kernel_shape"])
    if any(padding) and not a.get("count_include_pad"):
        raise UsageError("model.weights: AveragePool with padding that does not count")
    padded = F.pad(x, padding)
    return F.avg_pool2d(
        padded, kernel, a.get("strides", [1, 1]), ceil_mode=bool(a.get("ceil_mode"))
    )


def _batch_norm(
    a: dict[str, Any], x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, a.get("epsilon", 1e-5))


def _clip(
    a: dict[str, Any], x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _gemm(a: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    left = x.T if a.get("transA") else x
    right = weight.T if a.get("transB") else weight
    product: Tensor = a.get("alpha", 1.0) * (left @ right)
    return product if bias is None else product + a.get("beta", 1.0) * bias


def _reduce_mean(a: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = a.get("axes") if axes is None else axes.tolist()
    return x.mean(over, keepdim=bool(a.get("keepdims", 1)))


def _reshape(a: dict[str, Any], x: Tensor, shape: Tensor) -> Tensor:
    sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())]
    # the first axis counts events, whatever number the file was written with
    return x.reshape(x.shape[0], *sizes[1:])


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda a, x, y: x + y,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Conv": _conv,
    "Div": lambda a, x, y: x / y,
    "Dropout": lambda a, x, *_: x,
    "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "HardSigmoid": lambda a, x: torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda a, x: F.hardswish(x),
    "Identity": lambda a, x: x,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "MaxPool": _max_pool,
    "Mul": lambda a, x, y: x * y,
    "ReduceMean": _reduce_mean,
    "Relu": lambda a, x: F.relu(x),
    "Reshape": _reshape,
    "Sigmoid": lambda a, x: torch.sigmoid(x),
    "Sub": lambda a, x, y: x - y,
}
