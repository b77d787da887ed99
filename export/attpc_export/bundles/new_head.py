"""Gives a bundle another head: its encoder stays, its scores become those of the new one."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import compose
from onnx.utils import Extractor
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn
from tqdm import trange

from attpc_export.bundles.export import export_module
from attpc_export.data.labelled import Events, load_events, take_events
from attpc_export.heads.kernel import KernelHead, KernelScores, fit_kernel
from attpc_export.heads.linear import Head, fit_head, temperature_of
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import METADATA_KEY, Bundle, Contract, load_bundle
from attpc_filter.score.scorer import Scorer

#: Largest difference between the new graph's scores and the head's.
TOLERANCE = 1e-4
_N_COMPARED = 200
_FOLDS = 5
#: scikit-learn's C of a kernel machine; its similarities are small numbers.
_KERNEL_REGULARISATION = 20.0

Kind = Literal["kernel", "logistic"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Events as a bundle sees them.

    Attributes
    ----------
    events : Events
        Those with enough hits to be scored.
    latent : ndarray of float32, shape (n_events, latent_size)
        Their latents.
    scores : ndarray of float32, shape (n_events, n_classes)
        Their scores.
    """

    events: Events
    latent: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fit:
    """How good a new head is, by labelled events that did not fit it.

    Attributes
    ----------
    events_by_class : dict of str to int
        Labelled events.
    folds : int
        Parts of the cross-validation.
    f1 : dict of str to float
        Of each class.
    temperature : float
        Its logits were divided by it.
    """

    events_by_class: dict[str, int]
    folds: int
    f1: dict[str, float]
    temperature: float

    def describe(self) -> str:
        """A few lines of text."""
        by_class = ", ".join(f"{n} {name}" for name, n in self.events_by_class.items())
        each = "  ".join(f"{name} {value:.3f}" for name, value in self.f1.items())
        macro = float(np.mean(list(self.f1.values())))
        return (
            f"labelled: {by_class}\nf1, cross-validated in {self.folds} parts:"
            f" macro {macro:.3f}  {each}"
        )


def encode_events(
    bundle: Bundle, data: Sequence[Path], labels: Sequence[Path] = (), group_column: str = ""
) -> Encoded:
    """Read runs and run a bundle on them.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    data, labels : sequence of Path
        Runs, and tables of labels.
    group_column : str
        See :func:`attpc_export.data.labelled.load_events`.

    Raises
    ------
    UsageError
        If no event has enough hits.
    """
    contract = bundle.contract
    names = [event_class.name for event_class in contract.classes]
    events = load_events(data, labels, names, contract.hits, contract.detector, group_column)
    events = events.take(np.flatnonzero(events.hits.counts >= contract.hits.min_hits))
    if not len(events):
        raise UsageError(f"--data: no event has {contract.hits.min_hits} hits or more")
    return Encoded(events, *run_bundle(bundle, events))


def run_bundle(bundle: Bundle, events: Events) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Latents and scores of events, a row an event; all have hits enough."""
    contract = bundle.contract
    scorer = Scorer(bundle, "cpu")
    latent = np.empty((len(events), scorer.latent_size), np.float32)
    scores = np.empty((len(events), len(contract.classes)), np.float32)
    # disable=None: a bar on a terminal, nothing elsewhere
    for start in trange(0, len(events), scorer.batch_size, desc="latents", disable=None):
        rows = np.arange(start, min(start + scorer.batch_size, len(events)))
        inputs = contract.make_inputs(take_events(events.hits, rows))
        latent[rows], scores[rows] = scorer.run(inputs, ["latent", "scores"]).values()
    return latent, scores


def fit_new_head(
    model: str,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    kind: Kind = "kernel",
    inverse_regularisation: float | None = None,
    group_column: str = "",
) -> Fit:
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
    group_column : str
        Column of the labels with the number of the physics event, whose copies are never divided
        in the cross-validation; empty: none.

    Raises
    ------
    UsageError
        If a class has too few labels.
    OutputError
        If the bundle cannot be written.
    """
    bundle = load_bundle(model)
    encoded = encode_events(bundle, data, labels, group_column)
    names = [event_class.name for event_class in bundle.contract.classes]
    head, result = fit_on_latents(encoded, names, kind, inverse_regularisation)
    write_with_head(bundle, scores_of_head(head), encoded, out, {"kind": kind} | asdict(result))
    return result


def fit_on_latents(
    encoded: Encoded, names: list[str], kind: Kind, inverse_regularisation: float | None = None
) -> tuple[Head | KernelHead, Fit]:
    """Fit a head on the latents of labelled events, calibrated by cross-validation.

    Parameters
    ----------
    encoded : Encoded
        Events; those without a label say how the latent spreads.
    names : list of str
        Names of the classes.
    kind, inverse_regularisation
        As in :func:`fit_new_head`.

    Raises
    ------
    UsageError
        If a class has too few labels.
    """
    label = encoded.events.label
    rows = np.flatnonzero(label >= 0)
    counts = np.bincount(label[rows], minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        if count < 2:
            raise UsageError(f"--labels: {count} {name} among the events of --data; label more")

    default = _KERNEL_REGULARISATION if kind == "kernel" else 1.0
    strength = default if inverse_regularisation is None else inverse_regularisation

    def fit(some: NDArray[np.int64]) -> Head | KernelHead:
        if kind == "logistic":
            return fit_head(encoded.latent[some], label[some], strength)
        return fit_kernel(encoded.latent[some], label[some], strength, encoded.latent)

    folds = min(_FOLDS, int(counts.min()))
    logits = np.zeros((len(rows), len(names)))
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for fitted, others in parts.split(rows, label[rows], encoded.events.group[rows]):
        if len(np.unique(label[rows[fitted]])) < len(names):
            raise UsageError("--labels: too few physics events of a class to cross-validate")
        logits[others] = fit(rows[fitted]).logits(encoded.latent[rows[others]])
    temperature = temperature_of(logits, label[rows])
    f1 = f1_score(label[rows], logits.argmax(1), average=None, zero_division=0.0)
    head = fit(rows)
    head = replace(head, weight=head.weight / temperature, bias=head.bias / temperature)
    by_class = dict(zip(names, counts.tolist(), strict=True))
    return head, Fit(by_class, folds, dict(zip(names, map(float, f1), strict=True)), temperature)


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
    bundle: Bundle, head: nn.Module, encoded: Encoded, out: Path, made: dict[str, Any]
) -> None:
    """Write a bundle with another head, after a comparison with PyTorch.

    Parameters
    ----------
    bundle : Bundle
        Whose encoder stays; a novelty that it gives is not kept, it belongs to the old head.
    head : Module
        Maps latents to scores.
    encoded : Encoded
        Events, some of which are compared.
    out : Path
        File to write.
    made : dict
        What the contract says about the head, as ``training["head"]``.

    Raises
    ------
    OutputError
        If the graph's scores are not the head's, or the file cannot be written.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out}: a bundle's name ends in .onnx")
    contract = replace(
        bundle.contract,
        novelty_threshold=None,
        training=bundle.contract.training | {"head": made},
    )
    some = np.arange(min(_N_COMPARED, len(encoded.events)))
    with torch.no_grad():
        expected = head.eval()(torch.from_numpy(encoded.latent[some])).numpy()
    graph = replace_head(bundle.graph, head, encoded.latent.shape[1], contract)
    try:
        with Staging() as staging:
            staged = staging.path(out)
            staged.write_bytes(graph)
            inputs = contract.make_inputs(take_events(encoded.events.hits, some))
            found = Scorer(load_bundle(str(staged)), "cpu").score(inputs)
            difference = float(np.abs(found - expected).max())
            if not difference <= TOLERANCE:
                raise OutputError(
                    f"{out}: not written: its scores differ by {difference:.2g} from the head's,"
                    f" more than {TOLERANCE:g}"
                )
            staging.commit()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error


def replace_head(graph: bytes, head: nn.Module, latent_size: int, contract: Contract) -> bytes:
    """Cut a graph behind its latent, and append a head.

    Parameters
    ----------
    graph : bytes
        ONNX file with the output ``latent``.
    head : Module
        Maps latents to scores.
    latent_size : int
        Numbers in a latent.
    contract : Contract
        What the new file says about itself.
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
    onnx.helper.set_model_props(
        merged, {METADATA_KEY: json.dumps(asdict(contract), sort_keys=True)}
    )
    onnx.checker.check_model(merged)
    result: bytes = merged.SerializeToString()
    return result
