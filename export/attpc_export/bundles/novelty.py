"""Gives a bundle a sense of what it does not know: how unlike the training events an event is.

The latents of the training events of each class are described by a Gaussian; the novelty of an
event is its Mahalanobis distance from the class that it is scored as (after Lee et al., arXiv
1807.03888), in units of a distance that few events of that class exceed. It becomes part of the
bundle's graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor
from sklearn.covariance import LedoitWolf

from attpc_export.bundles.write import assemble, require_close, write_bundle
from attpc_export.data.labelled import (
    UNLABELLED,
    Events,
    fingerprint,
    hash_files,
    load_events,
    run_files,
    split_events,
    take_events,
)
from attpc_export.judging.run_bundle import run_bundle, score_events
from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import Bundle, load_bundle
from attpc_filter.score.contract import Contract

#: Share of the events kept back from training that are more novel than :data:`THRESHOLD`.
DEFAULT_SHARE = 0.005
THRESHOLD = 1.0
#: Largest difference between the graph's novelty and the one computed here, relative to it.
TOLERANCE = 1e-3
_N_COMPARED = 200
#: Of the runs that a head was fitted on afterwards, this fraction sets the scale.
_KEPT_BACK = 0.5
_LEAST_EVENTS = 10


@dataclass(frozen=True, slots=True)
class Novelty:
    """Where the events of each class lie in the latent.

    Attributes
    ----------
    mean : ndarray of float64, shape (n_classes, d)
        Mean of each class.
    whitening : ndarray of float64, shape (n_classes, d, d)
        Makes the covariance of a class the identity, and a novelty of 1 a distance of 1:
        (latent - mean) @ whitening.
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]

    def of(self, latent: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distance from the class with the highest score, shape (n_events,)."""
        found = scores.argmax(axis=1)
        novelty = np.empty(len(latent))
        for index in range(len(self.mean)):
            rows = found == index
            white = (latent[rows] - self.mean[index]) @ self.whitening[index]
            novelty[rows] = np.sqrt((white**2).sum(axis=1))
        return novelty


def fit_novelty(latent: NDArray[np.float32], label: NDArray[np.int64], n_classes: int) -> Novelty:
    """Describe where events lie in the latent, in units of standard deviations.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, d)
        Latents of labelled events.
    label : ndarray of int64, shape (n_events,)
        Their classes, each of them there.
    n_classes : int
        Classes.
    """
    means, whitenings = [], []
    for index in range(n_classes):
        gaussian = LedoitWolf().fit(latent[label == index].astype(np.float64))
        values, vectors = np.linalg.eigh(gaussian.covariance_)
        means.append(gaussian.location_)
        whitenings.append(vectors / np.sqrt(values))
    return Novelty(np.array(means), np.array(whitenings))


def in_units_of(
    novelty: Novelty,
    latent: NDArray[np.float32],
    scores: NDArray[np.float32],
    share: float,
) -> Novelty:
    """Scale distances so that a share of the given events of each class exceed 1.

    Parameters
    ----------
    novelty : Novelty
        As fitted.
    latent : ndarray of float32, shape (n_events, d)
        Latents of events that fitted nothing.
    scores : ndarray of float32, shape (n_events, n_classes)
        Their scores.
    share : float
        The share, 0 to 1.
    """
    distance, found = novelty.of(latent, scores), scores.argmax(axis=1)
    limits = [
        np.quantile(distance[found == index], 1.0 - share) if (found == index).any() else np.inf
        for index in range(len(novelty.mean))
    ]
    return replace(novelty, whitening=novelty.whitening / np.reshape(limits, (-1, 1, 1)))


def add_novelty(
    model: str,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    share: float = DEFAULT_SHARE,
) -> None:
    """Write a copy of a bundle whose graph gives a novelty, with a threshold for it.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    data, labels : sequence of Path
        The runs and labels that it was trained on; the split into training and validation is that
        of its training. Of a bundle whose head was fitted afterwards (``fit-bundle-head``,
        ``name-clusters``): runs to be filtered, and labels if there are any.
    out : Path
        File to write.
    share : float
        The threshold lets this share of the validation events of each class be uncertain for their
        novelty.

    Raises
    ------
    UsageError
        If the data are not those of its training, or hold too few events of a class.
    OutputError
        If the graph gives another novelty than was computed, or cannot be written.
    """
    bundle = load_bundle(model)
    contract = bundle.contract
    if contract.novelty_threshold is not None:
        graph = remove_novelty(bundle.graph)
        contract = replace(contract, novelty_threshold=None)
        bundle = assemble(graph, contract, bundle.path)
    events, kept_back = _load_split(bundle, data, labels)
    scored = score_events(bundle, events)
    latent, scores = scored.latent, scored.scores
    label = events.label
    if "head" in contract.training:
        # a few labels say too little about where a class lies: what the head scores says the rest
        label = np.where(label == UNLABELLED, scores.argmax(axis=1), label)
    fitted = np.flatnonzero(~kept_back & (label != UNLABELLED))
    _require_enough(label[fitted], contract)
    novelty = fit_novelty(latent[fitted], label[fitted], len(contract.classes))
    novelty = in_units_of(novelty, latent[kept_back], scores[kept_back], share)
    described = {"share": share, "events": len(fitted), "events_kept_back": int(kept_back.sum())}
    contract = replace(
        contract,
        novelty_threshold=THRESHOLD,
        training=contract.training | {"novelty": described},
    )
    some = np.arange(min(_N_COMPARED, len(events)))

    def check(written: Bundle) -> None:
        names = ["novelty"]
        found = run_bundle(written, take_events(events.hits, some), names)["novelty"]
        expected = novelty.of(latent[some], scores[some])
        difference = float(np.max(np.abs(found - expected) / (1.0 + expected)))
        require_close(difference, TOLERANCE, out, "its novelty differs from what was computed")

    write_bundle(extend_graph(bundle.graph, novelty), contract, out, check)


def remove_novelty(graph: bytes) -> onnx.ModelProto:
    """Take the output ``novelty``, and all that only it needs, out of a graph."""
    model = onnx.load_model_from_string(graph)
    inputs = [node.name for node in model.graph.input]
    outputs = [node.name for node in model.graph.output if node.name != "novelty"]
    reduced: onnx.ModelProto = Extractor(model).extract_model(inputs, outputs)
    return reduced


def _load_split(
    bundle: Bundle, data: Sequence[Path], labels: Sequence[Path]
) -> tuple[Events, NDArray[np.bool_]]:
    """Events, and which of them are kept back to set the scale."""
    contract = bundle.contract
    names = [event_class.name for event_class in contract.classes]
    arguments = (names, contract.hits, contract.detector.load())
    if "head" in contract.training:
        events = load_events(data, labels, *arguments)
        events = events.take(np.flatnonzero(events.hits.counts >= contract.hits.min_hits))
        return events, split_events(events.group, _KEPT_BACK, 0)
    files = hash_files([file for path in data for file in run_files(path)] + list(labels))
    if fingerprint(files) != contract.training.get("fingerprint"):
        raise UsageError(
            f"--data: not the runs and labels that {bundle.path.name} was trained on; `attpc-filter"
            " models` lists them"
        )
    split = contract.training["split"]
    events = load_events(data, labels, *arguments, split["group_column"])
    taken = ~np.isin(events.kind, np.array(split.get("left_out_kinds", ()), np.str_))
    events = events.take(np.flatnonzero(taken & (events.hits.counts >= contract.hits.min_hits)))
    return events, split_events(events.group, split["validation"], contract.training["seed"])


def _require_enough(label: NDArray[np.int64], contract: Contract) -> None:
    counts = np.bincount(label, minlength=len(contract.classes))
    for event_class, count in zip(contract.classes, counts, strict=True):
        if count < _LEAST_EVENTS:
            raise UsageError(
                f"--data: {count} events of {event_class.name}, a novelty needs {_LEAST_EVENTS} of"
                " each class; give more runs"
            )


def extend_graph(graph: bytes, novelty: Novelty) -> onnx.ModelProto:
    """Append the output ``novelty`` to a bundle's graph.

    Parameters
    ----------
    graph : bytes
        ONNX file with the outputs ``latent`` and ``scores``.
    novelty : Novelty
        What to append.
    """
    model = onnx.load_model_from_string(graph)
    n_classes, size = novelty.mean.shape
    # all classes in one product: columns of one class after those of the other
    whitening = novelty.whitening.transpose(1, 0, 2).reshape(size, -1)
    offset = np.einsum("cd,cde->ce", novelty.mean, novelty.whitening).reshape(-1)
    constants = {
        "whitening": whitening.astype(np.float32),
        "offset": offset.astype(np.float32),
        "shape": np.array([-1, n_classes, size]),
        "last_axis": np.array([2]),
        "class_axis": np.array([1]),
    }
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(values, f"novelty_{name}"))
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("MatMul", ["latent", "novelty_whitening"], "novelty_turned", {}),
        ("Sub", ["novelty_turned", "novelty_offset"], "novelty_flat", {}),
        ("Reshape", ["novelty_flat", "novelty_shape"], "novelty_white", {}),
        (
            "ReduceSumSquare",
            ["novelty_white", "novelty_last_axis"],
            "novelty_square",
            {"keepdims": 0},
        ),
        ("ArgMax", ["scores"], "novelty_class", {"axis": 1, "keepdims": 1}),
        ("GatherElements", ["novelty_square", "novelty_class"], "novelty_own", {"axis": 1}),
        ("Squeeze", ["novelty_own", "novelty_class_axis"], "novelty_of_class", {}),
        ("Sqrt", ["novelty_of_class"], "novelty", {}),
    ]
    for kind, inputs, output, attributes in steps:
        model.graph.node.append(helper.make_node(kind, inputs, [output], output, **attributes))
    (latent,) = (output for output in model.graph.output if output.name == "latent")
    events = latent.type.tensor_type.shape.dim[0].dim_param
    model.graph.output.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, [events]))
    return model
