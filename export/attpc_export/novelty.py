"""Gives a bundle a sense of what it does not know: how unlike the training events an event is.

The latents of the training events are described by Gaussians of one common covariance around a few
centres of each class; the novelty is the Mahalanobis distance to the nearest centre (Lee et al.,
arXiv 1807.03888, with several centres, because noise is of many kinds). It becomes part of the
bundle's graph.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf

from attpc_export.data import (
    UNLABELLED,
    fingerprint,
    hash_files,
    load_events,
    run_files,
    split_events,
    take_events,
)
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.score.bundle import METADATA_KEY, load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.staging import Staging

#: Share of the events kept back from training that are more novel than the threshold.
DEFAULT_SHARE = 0.005
#: Largest difference between the graph's novelty and the one computed here, relative to it.
TOLERANCE = 1e-3
_CENTRES_A_CLASS = 8


@dataclass(frozen=True, slots=True)
class Novelty:
    """Where the training events lie in the latent.

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
        Mean of the latents.
    whitening : ndarray of float64, shape (d, d)
        Makes the covariance within a cluster the identity: (latent - mean) @ whitening.
    centres : ndarray of float64, shape (n_centres, d)
        Centres of the clusters, whitened.
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    centres: NDArray[np.float64]

    def of(self, latent: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mahalanobis distance to the nearest centre, shape (n_events,)."""
        white = (latent - self.mean) @ self.whitening
        square = ((white[:, None] - self.centres) ** 2).sum(axis=2)
        distance: NDArray[np.float64] = np.sqrt(square.min(axis=1))
        return distance


def fit_novelty(latent: NDArray[np.float32], label: NDArray[np.int64], seed: int) -> Novelty:
    """Describe where events lie in the latent.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, d)
        Latents of labelled events.
    label : ndarray of int64, shape (n_events,)
        Their classes.
    seed : int
        Seed of the clustering.
    """
    found: list[NDArray[np.float64]] = []
    residual = np.empty(latent.shape)
    spread = latent.std(axis=0) + 1e-6
    for index in np.unique(label):
        rows = np.flatnonzero(label == index)
        n_centres = max(1, min(_CENTRES_A_CLASS, len(rows) // 20))
        clusters = KMeans(n_centres, n_init=4, random_state=seed).fit(latent[rows] / spread)
        for number in range(n_centres):
            members = rows[clusters.labels_ == number]
            found.append(latent[members].mean(axis=0, dtype=np.float64))
            residual[members] = latent[members] - found[-1]
    covariance = LedoitWolf(assume_centered=True).fit(residual).covariance_
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, values.max() * 1e-6))
    mean = latent.mean(axis=0, dtype=np.float64)
    return Novelty(mean, whitening, (np.array(found) - mean) @ whitening)


def add_novelty(
    model: str,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    share: float = DEFAULT_SHARE,
) -> float:
    """Write a copy of a bundle whose graph gives a novelty, with a threshold for it.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    data, labels : sequence of Path
        The runs and labels that it was trained on; the split into training and validation is that
        of its training.
    out : Path
        File to write.
    share : float
        The threshold lets this share of the validation events be uncertain for their novelty.

    Returns
    -------
    float
        The threshold.

    Raises
    ------
    UsageError
        If the data are not those of its training, or it has a novelty already.
    OutputError
        If the graph gives another novelty than was computed, or cannot be written.
    """
    bundle = load_bundle(model)
    contract = bundle.contract
    if contract.novelty_threshold is not None:
        raise UsageError(f"model {bundle.path}: has a novelty; start from what export wrote")
    files = hash_files([file for path in data for file in run_files(path)] + list(labels))
    if fingerprint(files) != contract.training.get("fingerprint"):
        raise UsageError(
            f"--data: not the runs and labels that {bundle.path.name} was trained on; `attpc-filter"
            " models` lists them"
        )
    split = contract.training["split"]
    names = [event_class.name for event_class in contract.classes]
    arguments = (names, contract.hits, contract.detector, split["group_column"])
    events = load_events(data, labels, *arguments)
    taken = ~np.isin(events.kind, np.array(split.get("left_out_kinds", ()), np.str_))
    events = events.take(np.flatnonzero(taken & (events.hits.counts >= contract.hits.min_hits)))
    kept_back = split_events(events.group, split["validation"], contract.training["seed"])

    scorer = Scorer(bundle, "cpu")
    latent = np.empty((len(events), scorer.latent_size), np.float32)
    for start in range(0, len(events), scorer.batch_size):
        rows = np.arange(start, min(start + scorer.batch_size, len(events)))
        inputs = contract.make_inputs(take_events(events.hits, rows))
        latent[rows] = scorer.run(inputs, ["latent"])["latent"]
    fitted = np.flatnonzero(~kept_back & (events.label != UNLABELLED))
    novelty = fit_novelty(latent[fitted], events.label[fitted], contract.training["seed"])
    threshold = float(np.quantile(novelty.of(latent[kept_back]), 1.0 - share))

    described = {"share": share, "centres": len(novelty.centres), "events": len(fitted)}
    contract = replace(
        contract,
        novelty_threshold=threshold,
        training=contract.training | {"novelty": described},
    )
    graph = extend_graph(bundle.graph, novelty, json.dumps(asdict(contract), sort_keys=True))
    try:
        with Staging() as staging:
            staged = staging.path(out)
            staged.write_bytes(graph)
            inputs = contract.make_inputs(
                take_events(events.hits, np.arange(min(200, len(events))))
            )
            found = Scorer(load_bundle(str(staged)), "cpu").run(inputs, ["novelty"])["novelty"]
            expected = novelty.of(latent[: len(found)])
            difference = float(np.max(np.abs(found - expected) / (1.0 + expected)))
            if not difference <= TOLERANCE:
                raise OutputError(
                    f"{out}: not written: its novelty differs by {difference:.2g} from what was"
                    f" computed, more than {TOLERANCE:g}"
                )
            staging.commit()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    return threshold


def extend_graph(graph: bytes, novelty: Novelty, contract: str) -> bytes:
    """Append the output ``novelty`` to a bundle's graph, and replace its contract.

    Parameters
    ----------
    graph : bytes
        ONNX file with the output ``latent``.
    novelty : Novelty
        What to append.
    contract : str
        The new contract as JSON.
    """
    model = onnx.load_model_from_string(graph)
    # |white - centre|^2 = |white|^2 - 2 white . centre + |centre|^2
    constants = {
        "mean": novelty.mean,
        "whitening": novelty.whitening,
        "twice": -2.0 * novelty.centres.T,
        "squares": (novelty.centres**2).sum(axis=1),
    }
    for name, values in constants.items():
        tensor = numpy_helper.from_array(values.astype(np.float32), f"novelty_{name}")
        model.graph.initializer.append(tensor)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "novelty_axis"))
    steps = [
        ("Sub", ["latent", "mean"], "centred", {}),
        ("MatMul", ["centred", "whitening"], "white", {}),
        ("MatMul", ["white", "twice"], "product", {}),
        ("Add", ["product", "squares"], "relative", {}),
        ("ReduceMin", ["relative", "axis"], "nearest", {"keepdims": 0}),
        ("ReduceSumSquare", ["white", "axis"], "own", {"keepdims": 0}),
        ("Add", ["nearest", "own"], "square", {}),
        ("Relu", ["square"], "positive", {}),
    ]
    for kind, inputs, output, attributes in steps:
        named = [name if name == "latent" else f"novelty_{name}" for name in inputs]
        model.graph.node.append(
            helper.make_node(kind, named, [f"novelty_{output}"], f"novelty_{output}", **attributes)
        )
    model.graph.node.append(helper.make_node("Sqrt", ["novelty_positive"], ["novelty"], "novelty"))
    (latent,) = (output for output in model.graph.output if output.name == "latent")
    events = latent.type.tensor_type.shape.dim[0].dim_param
    model.graph.output.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, [events]))
    helper.set_model_props(model, {METADATA_KEY: contract})
    onnx.checker.check_model(model)
    extended: bytes = model.SerializeToString()
    return extended
