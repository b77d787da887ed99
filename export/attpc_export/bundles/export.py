"""From a run folder to a bundle: one ONNX file that is compared with PyTorch before it exists."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attpc_export.bundles.write import require_bundle_name, require_close, write_bundle
from attpc_export.heads.linear import ScoringModel
from attpc_export.training.fit import Inputs
from attpc_export.training.run_folder import (
    REFERENCE_INPUTS,
    REFERENCE_NAME,
    load_run,
)
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.score.bundle import Bundle, Contract

#: Largest difference between ONNX Runtime and PyTorch that a bundle may have.
TOLERANCE = 1e-4
#: Batch sizes at which the two are compared.
BATCH_SIZES = (1, 2, 7, 64)

#: Version of the operations.
OPSET = 20


def export_bundle(run_folder: Path, out: Path) -> Path:
    """Write the bundle of a finished training.

    The graph is compared with PyTorch at several batch sizes, on real images, an empty and a full
    one, and with what the model gave at the end of its training: a bundle that differs is not
    written.

    Parameters
    ----------
    run_folder : Path
        What ``attpc-export train`` wrote.
    out : Path
        File to write; its folder is made if needed.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    UsageError
        If the folder holds no finished training.
    OutputError
        If the bundle differs from the model, or cannot be written.
    """
    require_bundle_name(out)
    try:
        scoring, contract = load_run(run_folder)
        with np.load(run_folder / REFERENCE_NAME) as arrays:
            reference = dict(arrays)
    except OSError as error:
        raise UsageError(
            f"{run_folder}: holds no finished training: {Path(error.filename or '').name}:"
            f" {error.strerror or error}"
        ) from error
    except (KeyError, ValueError, RuntimeError) as error:  # torch: weights of another shape
        first = str(error).splitlines()[0]
        raise UsageError(f"{run_folder}: its files do not fit together: {first}") from error
    _require_unchanged(scoring, reference, run_folder)

    def check(written: Bundle) -> None:
        difference = largest_difference(written.path, scoring, _inputs_of(reference))
        require_close(difference, TOLERANCE, out, "ONNX Runtime differs from PyTorch")

    write_bundle(export_graph(scoring, contract), contract, out, check)
    return out


def export_graph(scoring: ScoringModel, contract: Contract) -> onnx.ModelProto:
    """Export the fused model as ONNX, any number of events a batch."""
    shapes = contract.input_shapes
    return export_module(
        scoring,
        {name: torch.zeros(2, *shape) for name, shape in shapes.items()},
        ["scores", "latent"],
        tuple({0: torch.export.Dim("events")} for _ in shapes),
    )


def export_module(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic_shapes: tuple[Any, ...] | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Export a module as ONNX.

    Parameters
    ----------
    module : Module
        What to export.
    inputs : mapping of str to Tensor
        An example of each input, by the name that it gets.
    outputs : sequence of str
        Names of the outputs.
    dynamic_shapes : tuple, optional
        Axes of the inputs that can have any length, as torch.export has it; none if left out.
    opset : int
        Version of the operations.
    """
    # the exporter warns of what it could do were torchvision there; errors are still raised
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            external_data=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    assert program is not None  # dynamo=True gives a program
    proto = program.model_proto
    _forget_origins(proto.graph)
    return proto


def _forget_origins(graph: onnx.GraphProto) -> None:
    """Take out the exporter's notes on the source lines of each node: paths of this machine."""
    for node in graph.node:
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_origins(attribute.g)
    for value in [*graph.value_info, *graph.input, *graph.output]:
        del value.metadata_props[:]
    del graph.metadata_props[:]


def largest_difference(graph: Path, scoring: ScoringModel, inputs: Inputs) -> float:
    """Largest difference of any score or latent between ONNX Runtime and PyTorch, on the CPU.

    Latents that exceed 1 are compared in units of the largest: a backbone's reach some 100.

    Parameters
    ----------
    graph : Path
        ONNX file.
    scoring : ScoringModel
        What it was made from.
    inputs : tuple of ndarray of float32, the first axis of each n_events long
        What it reads of real events; one of zeros and one of ones are added.

    Returns
    -------
    float
        NaN if either gives no number.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(graph), options, ["CPUExecutionProvider"])
    differences = [0.0]
    names = [node.name for node in session.get_inputs()]
    for batch in _batches(inputs):
        with torch.no_grad():
            expected = scoring(*map(torch.from_numpy, batch))
        found = session.run(["scores", "latent"], dict(zip(names, batch, strict=True)))
        differences += [_difference(f, e.numpy()) for f, e in zip(found, expected, strict=True)]
    return float(np.max(differences))  # unlike max(), it keeps NaN


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _inputs_of(reference: dict[str, NDArray[np.float32]]) -> Inputs:
    return tuple(reference[name] for name in REFERENCE_INPUTS if name in reference)


def _batches(inputs: Inputs) -> Iterator[Inputs]:
    zeros = tuple(np.zeros_like(part[:1]) for part in inputs)
    ones = tuple(np.ones_like(part[:1]) for part in inputs)
    yield zeros
    yield ones
    pool = [np.concatenate(parts) for parts in zip(inputs, zeros, ones, strict=True)]
    for size in BATCH_SIZES:
        yield tuple(np.resize(part, (size, *part.shape[1:])) for part in pool)


def _require_unchanged(
    scoring: ScoringModel, reference: dict[str, NDArray[np.float32]], run_folder: Path
) -> None:
    with torch.no_grad():
        scores, latent = scoring(*map(torch.from_numpy, _inputs_of(reference)))
    difference = max(
        _difference(scores.numpy(), reference["scores"]),
        _difference(latent.numpy(), reference["latent"]),
    )
    if not difference <= TOLERANCE:
        raise OutputError(
            f"{run_folder}: not exported: its model differs by {difference:.2g} from what it gave"
            " when it was trained; its files were changed or mixed, train anew"
        )
