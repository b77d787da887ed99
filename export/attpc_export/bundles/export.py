"""From a run folder to a bundle: one ONNX file that is compared with PyTorch before it exists."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attpc_export.config import Config, load_config
from attpc_export.heads.linear import ScoringModel, load_head
from attpc_export.models.registry import NO_IMAGE, build_model
from attpc_export.training.fit import BEST_NAME, Inputs, Trainee
from attpc_export.training.train import (
    CONFIG_NAME,
    DATA_NAME,
    HEAD_NAME,
    REFERENCE_INPUTS,
    REFERENCE_NAME,
    SCORES_NAME,
    VERSIONS_NAME,
)
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import METADATA_KEY, Contract, load_bundle

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
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out}: a bundle's name ends in .onnx")
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
    graph = export_graph(scoring, contract)
    try:
        with Staging() as staging:
            staged = staging.path(out)
            staged.write_bytes(graph)
            _require_equal(staged, scoring, _inputs_of(reference), out)
            load_bundle(str(staged))
            staging.commit()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    return out


def load_run(run_folder: Path) -> tuple[ScoringModel, Contract]:
    """Load the model of a finished training, with the contract of its bundle."""
    config = load_config(run_folder / CONFIG_NAME)
    data = _read_json(run_folder / DATA_NAME)
    contract = _make_contract(run_folder, config, data)
    shape = config.projection.with_scale(1.0).shape if config.reads_images else NO_IMAGE
    model = build_model(config.model, shape)
    trainee = Trainee(model, config.n_answers, config.fit)
    weights = torch.load(run_folder / BEST_NAME, map_location="cpu", weights_only=True)
    trainee.load_state_dict(weights)
    return ScoringModel(trainee.model, load_head(run_folder / HEAD_NAME)), contract


def export_graph(scoring: ScoringModel, contract: Contract) -> bytes:
    """Export the fused model as ONNX, any number of events a batch, with its contract inside."""
    shapes = contract.input_shapes
    proto = export_module(
        scoring,
        {name: torch.zeros(2, *shape) for name, shape in shapes.items()},
        ["scores", "latent"],
        tuple({0: torch.export.Dim("events")} for _ in shapes),
    )
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    graph: bytes = proto.SerializeToString()
    return graph


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


def _require_equal(graph: Path, scoring: ScoringModel, inputs: Inputs, out: Path) -> None:
    difference = largest_difference(graph, scoring, inputs)
    if not difference <= TOLERANCE:
        raise OutputError(
            f"{out}: not written: ONNX Runtime differs from PyTorch by {difference:.2g}, more than"
            f" {TOLERANCE:g}"
        )


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


def _make_contract(run_folder: Path, config: Config, data: dict[str, Any]) -> Contract:
    scale = data.pop("scale")
    return Contract(
        name=config.name,
        description=config.description,
        classes=config.classes,
        hits=config.hits,
        detector=config.detector,
        clean=config.clean,
        projection=config.projection.with_scale(scale) if config.reads_images else None,
        training={
            **data,
            "seed": config.seed,
            "split": asdict(config.split),
            "validation": _read_json(run_folder / SCORES_NAME),
        },
        versions=_read_json(run_folder / VERSIONS_NAME),
        points=config.points,
    )


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
