"""Starts a training from weights that are there: a run folder's, or those in a bundle's graph."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from attpc_export.data.labelled import take_events
from attpc_export.judging.run_bundle import run_bundle
from attpc_export.models.base import LatentModel
from attpc_export.training.fit import BEST_NAME, Inputs, apply_in_batches
from attpc_export.training.material import Material
from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import Bundle, load_bundle

#: Name of the latent model in what is exported; its weights' names begin with it.
_PREFIX = "model."
#: Largest difference of a latent between the bundle and the model with its weights.
_TOLERANCE = 1e-3
_N_COMPARED = 64
#: Events by which the moments are measured that a bundle's graph no longer has.
_N_MEASURED = 512
_CPU = torch.device("cpu")

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a training starts.

    Attributes
    ----------
    folder : Path or None
        Run folder of another training.
    bundle : Bundle or None
        Or a bundle.
    """

    folder: Path | None = None
    bundle: Bundle | None = None

    @property
    def sha256(self) -> str | None:
        """Fingerprint of the bundle."""
        return self.bundle.sha256 if self.bundle else None

    def fit_material(self, material: Material) -> Material:
        """Have events projected as the weights are used to.

        Raises
        ------
        UsageError
            If the configuration asks for other inputs than the bundle reads.
        """
        if self.bundle is None:
            return material
        contract, config = self.bundle.contract, material.config
        own, other = material.projection, contract.projection
        scale = other.scale if other else 1.0
        for name, wanted, found in (
            ("projection", other, own and replace(own, scale=scale)),
            ("points", contract.points, config.points),
            ("hits", contract.hits, config.hits),
            ("clean", contract.clean, config.clean),
        ):
            if wanted != found:
                raise UsageError(
                    f"--start {self.bundle.path}: was trained with other settings {name}; take the"
                    f" configuration that it was made with: {wanted}"
                )
        return replace(material, projection=other)

    def load_weights(self, model: LatentModel, material: Material) -> None:
        """Give a model the weights.

        Raises
        ------
        UsageError
            If they are those of a model of another shape.
        """
        if self.bundle is not None:
            load_bundle_weights(self.bundle, model, material)
        elif self.folder is not None:
            load_folder_weights(self.folder, model)


def find_start(start: str) -> Start:
    """Look up where to start: a run folder, a bundle that ships, or the path of a bundle.

    Raises
    ------
    UsageError
        If there is no such bundle.
    """
    if not start:
        return Start()
    if Path(start).is_dir():
        return Start(folder=Path(start))
    return Start(bundle=load_bundle(start))


def load_folder_weights(run_folder: Path, model: LatentModel) -> None:
    """Give a model the weights that another training found.

    Raises
    ------
    UsageError
        If the folder holds no finished epoch, or a model of another shape.
    """
    try:
        found = torch.load(run_folder / BEST_NAME, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"fit.start: {run_folder} holds no training: {BEST_NAME}: {error.strerror}"
        ) from error
    weights = {k.removeprefix(_PREFIX): v for k, v in found.items() if k.startswith(_PREFIX)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(
            f"fit.start: {run_folder} holds another model; the sections model must be the same"
        ) from error


def load_bundle_weights(bundle: Bundle, model: LatentModel, material: Material) -> None:
    """Give a model the weights of a bundle's encoder, and check that its latents are the same.

    A graph holds no decoder: that keeps its random weights. Where the exporter merged a
    normalisation into the convolution before it, its mean and variance are measured on the training
    events, so that the model gives the same latents in training as in the graph.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    model : LatentModel
        A model of the same shape.
    material : Material
        Events whose inputs are made as the bundle's.

    Raises
    ------
    UsageError
        If the latents differ: the model has another shape, or the bundle is half precision.
    """
    graph = onnx.load_model_from_string(bundle.graph).graph
    tensors = {
        t.name.removeprefix(_PREFIX): numpy_helper.to_array(t)
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT
    }
    tensors |= _transposed_weights(graph, tensors)
    merged = _fill(model, tensors)
    model.eval()
    rows = material.train[:_N_MEASURED]
    inputs = material.inputs(rows)
    _measure_moments(model, merged, inputs)
    some = tuple(part[:_N_COMPARED] for part in inputs)
    latent = torch.cat(apply_in_batches(model.encode, some, _CPU)).numpy()
    hits = take_events(material.events.hits, rows[:_N_COMPARED])
    # the hits of a training are clean already: what the bundle cleans again stays as it is
    expected = run_bundle(bundle, hits, ["latent"])["latent"]
    same = latent.shape == expected.shape
    largest = max(1.0, float(np.abs(expected).max()))
    if not (same and float(np.abs(latent - expected).max()) <= _TOLERANCE * largest):
        raise UsageError(
            f"--start {bundle.path}: its encoder is not the configuration's model: take the section"
            " model of the configuration that it was made with (export/configs has those of default"
            " and accurate); a bundle of half precision cannot be trained on"
        )


def _fill(model: nn.Module, tensors: Tensors) -> dict[nn.Module, NDArray[np.float32]]:
    """Copy weights by name; return the biases of normalisations that were merged."""
    merged: dict[nn.Module, NDArray[np.float32]] = {}
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, value in model.named_parameters():
            found = tensors.get(name)
            if found is not None and found.shape == tuple(value.shape):
                value.copy_(torch.from_numpy(found.copy()))
    for name, module in modules.items():
        bias = tensors.get(f"{name}.weight_bias")
        if not isinstance(module, nn.Conv2d) or bias is None:
            continue
        parent, _, index = name.rpartition(".")
        following = modules.get(f"{parent}.{int(index) + 1}") if index.isdigit() else None
        if isinstance(following, nn.BatchNorm2d):
            merged[following] = bias
            _set_moments(following, torch.zeros(len(bias)), torch.ones(len(bias)), bias)
    return merged


def _set_moments(
    norm: nn.Module, mean: Tensor, variance: Tensor, bias: NDArray[np.float32]
) -> None:
    """Give a normalisation moments with which it only adds a bias."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(torch.sqrt(variance + norm.eps))
        norm.bias.copy_(torch.from_numpy(bias.copy()) + mean)


def _measure_moments(
    model: LatentModel, merged: dict[nn.Module, NDArray[np.float32]], inputs: Inputs
) -> None:
    """Set the moments of merged normalisations to those of what they are given."""
    sums: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in merged}

    def note(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        sums[norm].append((given[0].mean((0, 2, 3)), given[0].square().mean((0, 2, 3))))

    hooks = [norm.register_forward_pre_hook(note) for norm in merged]
    apply_in_batches(model.encode, inputs, _CPU)
    for hook in hooks:
        hook.remove()
    for norm, bias in merged.items():
        mean = torch.stack([m for m, _ in sums[norm]]).mean(0)
        square = torch.stack([s for _, s in sums[norm]]).mean(0)
        # a channel that never changes keeps the variance 1, which changes nothing
        variance = square - mean * mean
        variance = torch.where(variance > 1e-8, variance, torch.ones_like(variance))
        _set_moments(norm, mean, variance, bias)


def _transposed_weights(graph: onnx.GraphProto, tensors: Tensors) -> Tensors:
    """Weights of linear layers that the exporter wrote as a product and a sum.

    The product's matrix has lost its name; the bias that is added to the product has kept it.
    """
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    found: Tensors = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (tuple(node.input), tuple(node.input)[::-1]):
            name = bias.removeprefix(_PREFIX)
            matrix = tensors.get(products.get(product, "").removeprefix(_PREFIX))
            if name.endswith(".bias") and name in tensors and matrix is not None:
                found[f"{name.removesuffix('bias')}weight"] = np.ascontiguousarray(matrix.T)
    return found
