"""Half precision: a bundle whose convolutions and products are float16, if its tags stay the same.

What the graph reads and gives stays float32, and so does everything between that is no convolution,
product or what directly follows one: distances in mm, squared, do not fit into float16.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from attpc_export.bundles.write import (
    assemble,
    require_bundle_name,
    require_close,
    write_bundle,
)
from attpc_export.data.labelled import fingerprint, hash_files, run_files
from attpc_export.judging.run_bundle import score_events, score_runs
from attpc_filter.errors import OutputError
from attpc_filter.score.bundle import Bundle, load_bundle

#: Largest share of events whose tag may differ.
DEFAULT_MOST = 0.001
_N_COMPARED = 200

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: Keep the precision of what they are given.
_FOLLOWING = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "Reshape", "Transpose"})


@dataclass(frozen=True, slots=True)
class Flips:
    """Events whose tag by one bundle is not that by another.

    Attributes
    ----------
    events : int
        Events with enough hits to be scored.
    flipped : int
        Those whose tags differ.
    """

    events: int
    flipped: int

    @property
    def share(self) -> float:
        """Share of the events."""
        return self.flipped / self.events


def write_half(model: str, data: Sequence[Path], out: Path, most: float = DEFAULT_MOST) -> Flips:
    """Write a copy of a bundle in half precision, with the share of flipped tags in its contract.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    data : sequence of Path
        Run files, and folders of run files, on which tags are compared.
    out : Path
        File to write.
    most : float
        Largest share of events whose tag may differ.

    Returns
    -------
    Flips
        How many tags differ from the bundle's, on ONNX Runtime's CPU provider.

    Raises
    ------
    UsageError
        If the bundle cannot be loaded or the data hold no event to compare.
    OutputError
        If more tags differ, or the file cannot be written.
    """
    bundle = load_bundle(model)
    contract = bundle.contract
    require_bundle_name(out)
    before = score_runs(bundle, data)
    model = halve(bundle.graph)
    after = score_events(assemble(model, contract, out), before.events)
    tags = zip(before.tag_names(), after.tag_names(), strict=True)
    flips = Flips(len(before.events), sum(one != other for one, other in tags))
    if flips.share > most:
        raise OutputError(
            f"{out}: not written: {flips.flipped} of {flips.events} events get another tag"
            f" in half precision ({flips.share:.2%}), more than {most:.2%}"
        )
    described = {
        "of_sha256": bundle.sha256,
        "events": flips.events,
        "tags_flipped": flips.flipped,
        "data": fingerprint(hash_files(f for path in data for f in run_files(path))),
    }
    contract = replace(contract, training=contract.training | {"half": described})

    def check(written: Bundle) -> None:
        some = before.events.take(np.arange(min(_N_COMPARED, len(before.events))))
        found = score_events(written, some).scores
        difference = float(np.abs(found - after.scores[: len(some)]).max())
        require_close(difference, 0.0, out, "its scores differ from those that were compared")

    write_bundle(model, contract, out, check)
    return flips


def halve(graph: bytes) -> onnx.ModelProto:
    """Make the convolutions and products with weights of a graph float16.

    Its inputs and outputs stay float32. A number is cast once, and not at all between two nodes
    that are both float16.
    """
    model = onnx.load_model_from_string(graph)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    halves: dict[str, str] = {}  # what there is in float16, by its name in float32
    only_half: set[str] = set()

    def half(name: str) -> str:
        if name not in halves:
            halves[name] = f"{name}_half"
            if name in weights:
                values = numpy_helper.to_array(weights[name]).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(values, halves[name]))
            else:
                nodes.append(_cast(name, halves[name], onnx.TensorProto.FLOAT16))
        return halves[name]

    def single(name: str) -> str:
        if name in only_half:
            only_half.remove(name)
            nodes.append(_cast(halves[name], name, onnx.TensorProto.FLOAT))
        return name

    for node in model.graph.node:
        heavy = node.op_type in _PRODUCTS and any(name in weights for name in node.input)
        # the square of a distance, in units that make 1 unusual, stays float32
        if (heavy and not node.name.startswith("novelty")) or (
            node.op_type in _FOLLOWING and node.input[0] in only_half
        ):
            n_data = 1 if node.op_type in _FOLLOWING else len(node.input)  # then come whole numbers
            node.input[:n_data] = [half(name) if name else "" for name in node.input[:n_data]]
            (output,) = node.output
            halves[output] = node.output[0] = f"{output}_half"
            only_half.add(output)
        else:
            node.input[:] = [single(name) for name in node.input]
        nodes.append(node)
    for value in model.graph.output:
        single(value.name)
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)
    return model


def _cast(name: str, to_name: str, kind: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [name], [to_name], f"cast_{to_name}_{kind}", to=kind)
