"""Half precision: a bundle whose convolutions and products are float16, if its tags stay the same.

What the graph reads and gives stays float32, and so does everything between that is no convolution,
product or what directly follows one: distances in mm, squared, do not fit into float16.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from attpc_export.data.labelled import fingerprint, hash_files, load_events, run_files, take_events
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.records import Hits
from attpc_filter.score.bundle import METADATA_KEY, Bundle, load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.tag import assign_tags

#: Largest share of events whose tag may differ.
DEFAULT_MOST = 0.001

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
    names = [event_class.name for event_class in contract.classes]
    hits = load_events(data, [], names, contract.hits, contract.detector).hits
    hits = take_events(hits, np.flatnonzero(hits.counts >= contract.hits.min_hits))
    if not hits.n_events:
        raise UsageError("--data: no event with enough hits to be scored")
    graph = halve(bundle.graph)
    try:
        with Staging() as staging:
            staged = staging.path(out)
            staged.write_bytes(graph)
            before, after = tags_of(bundle, hits), tags_of(load_bundle(str(staged)), hits)
            flips = Flips(hits.n_events, sum(a != b for a, b in zip(before, after, strict=True)))
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
            proto = onnx.load_model_from_string(graph)
            onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
            staged.write_bytes(proto.SerializeToString())
            load_bundle(str(staged))
            staging.commit()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    return flips


def halve(graph: bytes) -> bytes:
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
    onnx.checker.check_model(model)
    halved: bytes = model.SerializeToString()
    return halved


def _cast(name: str, to_name: str, kind: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [name], [to_name], f"cast_{to_name}_{kind}", to=kind)


def tags_of(bundle: Bundle, hits: Hits, device: str = "cpu") -> list[str]:
    """Tag of each event by a bundle with its own thresholds."""
    contract = bundle.contract
    scorer = Scorer(bundle, device)
    outputs = ["scores"] if contract.novelty_threshold is None else ["scores", "novelty"]
    parts: list[dict[str, Any]] = []
    for start in range(0, hits.n_events, scorer.batch_size):
        rows = np.arange(start, min(start + scorer.batch_size, hits.n_events))
        parts.append(scorer.run(contract.make_inputs(take_events(hits, rows)), outputs))
    found = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
    tags, _ = assign_tags(
        found["scores"],
        hits.counts,
        np.zeros(hits.n_events, np.bool_),
        [""] * hits.n_events,
        [event_class.name for event_class in contract.classes],
        [event_class.threshold for event_class in contract.classes],
        contract.hits.min_hits,
        novelty=found.get("novelty"),
        novelty_threshold=contract.novelty_threshold,
    )
    return tags
