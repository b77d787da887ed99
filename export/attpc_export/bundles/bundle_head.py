"""Gives a bundle another head: its encoder stays, its scores become those of the new one."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import compose
from onnx.utils import Extractor
from torch import nn

from attpc_export.bundles.export import export_module
from attpc_export.bundles.write import require_bundle_name, require_close, write_bundle
from attpc_export.data.labelled import take_events
from attpc_export.data.seen import describe_labelled
from attpc_export.heads.cross_validation import CrossValidation, cross_validate
from attpc_export.heads.kernel import KernelHead, KernelScores, fit_kernel
from attpc_export.heads.linear import Head, fit_head
from attpc_export.judging.run_bundle import ReadOptions, ScoredEvents, run_bundle, score_runs
from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import Bundle, load_bundle

#: Largest difference between the new graph's scores and the head's.
TOLERANCE = 1e-4
_N_COMPARED = 200
#: scikit-learn's C of a kernel machine; its similarities are small numbers.
_KERNEL_REGULARISATION = 20.0

Kind = Literal["kernel", "logistic"]


def fit_bundle_head(
    model: str,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    kind: Kind = "kernel",
    inverse_regularisation: float | None = None,
    options: ReadOptions | None = None,
) -> CrossValidation:
    """Fit a head on a bundle's latents of labelled events, and write the bundle with it.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    data, labels : sequence of Path
        Runs and labels; events without a label say how the latent spreads.
    out : Path
        Bundle to write.
    kind : {"kernel", "logistic"}
        Kernel machine, or logistic regression.
    inverse_regularisation : float, optional
        scikit-learn's C; 20 for a kernel machine, 1 for a logistic regression if left out.
    options : ReadOptions, optional
        The head's classes, if they are not the bundle's; the z calibration and how labels are read.
        Copies of one physics event are never divided in the cross-validation.

    Raises
    ------
    UsageError
        If a class has too few labels.
    OutputError
        If the bundle cannot be written.
    """
    bundle = load_bundle(model)
    require_bundle_name(out)
    options = options or ReadOptions()
    scored = score_runs(bundle, data, labels, options)
    contract = options.apply(bundle.contract)
    names = [event_class.name for event_class in contract.classes]
    head, result = fit_on_latents(scored, names, kind, inverse_regularisation)
    made = {"kind": kind} | asdict(result) | describe_labelled(scored.events, data, labels)
    bundle = replace(bundle, contract=contract)
    write_with_head(bundle, scores_of_head(head), scored, out, made)
    return result


def fit_on_latents(
    scored: ScoredEvents,
    names: list[str],
    kind: Kind,
    inverse_regularisation: float | None = None,
) -> tuple[Head | KernelHead, CrossValidation]:
    """Fit a head on the latents of labelled events, calibrated by cross-validation.

    Parameters
    ----------
    scored : ScoredEvents
        Events; those without a label say how the latent spreads.
    names : list of str
        Names of the classes.
    kind, inverse_regularisation
        As in :func:`fit_bundle_head`.

    Raises
    ------
    UsageError
        If a class has too few labels.
    """
    rows = np.flatnonzero(scored.events.label >= 0)
    label, latent = scored.events.label[rows], scored.latent[rows]
    for name, count in zip(names, np.bincount(label, minlength=len(names)), strict=True):
        if count < 2:
            raise UsageError(f"--labels: {count} {name} among the events of --data; label more")
    default = _KERNEL_REGULARISATION if kind == "kernel" else 1.0
    strength = default if inverse_regularisation is None else inverse_regularisation

    def fit(some: NDArray[np.int64]) -> Head | KernelHead:
        if kind == "logistic":
            return fit_head(latent[some], label[some], strength)
        return fit_kernel(latent[some], label[some], strength, scored.latent)

    found = cross_validate(fit, latent, label, scored.events.group[rows], names)
    head = fit(np.arange(len(rows)))
    weight, bias = head.weight / found.temperature, head.bias / found.temperature
    return replace(head, weight=weight, bias=bias), found


def scores_of_head(head: Head | KernelHead) -> nn.Module:
    """The head as a module that maps latents to scores."""
    if isinstance(head, KernelHead):
        return KernelScores(head)
    linear = nn.Linear(head.weight.shape[1], len(head.bias))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.weight))
        linear.bias.copy_(torch.from_numpy(head.bias))
    return nn.Sequential(linear, nn.Softmax(1))


def write_with_head(
    bundle: Bundle, head: nn.Module, scored: ScoredEvents, out: Path, made: dict[str, Any]
) -> None:
    """Write a bundle with another head, after a comparison with PyTorch.

    Parameters
    ----------
    bundle : Bundle
        Whose encoder stays, with the contract of the new head's classes; a novelty that it gives is
        not kept, it belongs to the old head.
    head : Module
        Maps latents to scores.
    scored : ScoredEvents
        Events with the bundle's latents, some of which are compared.
    out : Path
        File to write.
    made : dict
        What the contract says about the head, as ``training["head"]``.

    Raises
    ------
    OutputError
        If the graph's scores are not the head's, or the file cannot be written.
    """
    contract = replace(
        bundle.contract,
        novelty_threshold=None,
        training=bundle.contract.training | {"head": made},
    )
    some = np.arange(min(_N_COMPARED, len(scored.events)))
    with torch.no_grad():
        expected = head.eval()(torch.from_numpy(scored.latent[some])).numpy()

    def check(written: Bundle) -> None:
        found = run_bundle(written, take_events(scored.events.hits, some), ["scores"])["scores"]
        difference = float(np.abs(found - expected).max())
        require_close(difference, TOLERANCE, out, "its scores differ from the head's")

    model = replace_head(bundle.graph, head, scored.latent.shape[1])
    write_bundle(model, contract, out, check)


def replace_head(graph: bytes, head: nn.Module, latent_size: int) -> onnx.ModelProto:
    """Cut a graph behind its latent, and append a head.

    Parameters
    ----------
    graph : bytes
        ONNX file with the output ``latent``.
    head : Module
        Maps latents to scores.
    latent_size : int
        Numbers in a latent.
    """
    whole = onnx.load_model_from_string(graph)
    encoder = Extractor(whole).extract_model([node.name for node in whole.graph.input], ["latent"])
    appended = export_module(
        head,
        {"latent": torch.zeros(2, latent_size)},
        ["scores"],
        ({0: torch.export.Dim("events")},),
        whole.opset_import[0].version,
    )
    appended.ir_version = encoder.ir_version
    appended = compose.add_prefix(appended, "head_")
    merged = compose.merge_models(
        encoder,
        appended,
        io_map=[("latent", "head_latent")],
        outputs=["latent", "head_scores"],
    )
    for node in merged.graph.node:
        node.output[:] = ["scores" if name == "head_scores" else name for name in node.output]
    (scores,) = (output for output in merged.graph.output if output.name == "head_scores")
    scores.name = "scores"
    return merged
