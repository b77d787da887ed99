"""Heads that cluster: k-means, Gaussian mixture, a model's own clusters, and what each one is.

Every one gives the probabilities of clusters and multiplies them by the share of each class in a
cluster, which comes from labelled events or from the user.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from attpc_export.data.labelled import UNLABELLED
from attpc_export.models.base import LatentModel

ClusterKind = Literal["kmeans", "mixture", "own"]

_STARTS = 10
#: Half of the events belong to their nearest centre with odds of exp(5) to the second nearest.
_MEDIAN_LOG_ODDS = 5.0
_MIXTURE_REGULARISATION = 1e-4


@dataclass(frozen=True, slots=True)
class ClusterHead:
    """Clusters of the latent, and the classes in each.

    Attributes
    ----------
    kind : {"kmeans", "mixture", "own"}
        How an event is assigned: by its distance to the centres, by Gaussians, by the model.
    share : ndarray of float64, shape (n_clusters, n_classes)
        Share of each class in each cluster; rows sum to 1.
    mean : ndarray of float64, shape (latent_size,)
        Subtracted from the latent first (not ``own``).
    components : ndarray of float64, shape (n_components, latent_size)
        The latent is then projected on these; empty: it is not (not ``own``).
    centres : ndarray of float64, shape (n_clusters, n_components or latent_size)
        Centres of the clusters (not ``own``).
    precision : ndarray of float64, shape (n_clusters, n_components, n_components)
        Of ``mixture``: factors whose product with its transpose is a Gaussian's inverse covariance.
    offset : ndarray of float64, shape (n_clusters,)
        Of ``mixture``: logarithm of a Gaussian's weight and normalisation.
    sharpness : float
        Of ``kmeans``: log odds of two clusters for a difference of 1 in squared distance.
    """

    kind: ClusterKind
    share: NDArray[np.float64]
    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    centres: NDArray[np.float64]
    precision: NDArray[np.float64]
    offset: NDArray[np.float64]
    sharpness: float


def fit_clusters(
    kind: ClusterKind,
    latent: NDArray[np.float32],
    n_clusters: int,
    n_components: int,
    seed: int,
) -> ClusterHead:
    """Cluster latents, without labels; the shares of the classes are still equal.

    Parameters
    ----------
    kind : {"kmeans", "mixture"}
        Which way.
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    n_clusters : int
        Clusters.
    n_components : int
        Principal components that the latent is reduced to first; 0: it is not.
    seed : int
        Of the starts.
    """
    mean = latent.mean(axis=0, dtype=np.float64)
    centred = latent - mean
    components = np.empty((0, latent.shape[1]))
    if n_components:
        pca = PCA(min(n_components, *latent.shape), random_state=seed).fit(centred)
        components = pca.components_.astype(np.float64)
        mean = mean + pca.mean_
        centred = (latent - mean) @ components.T
    precision, offset, sharpness = np.empty(0), np.empty(0), 0.0
    if kind == "kmeans":
        found = KMeans(n_clusters, n_init=_STARTS, random_state=seed).fit(centred)
        centres = found.cluster_centers_
        square = np.sort(found.transform(centred) ** 2, axis=1)
        gap = float(np.median(square[:, 1] - square[:, 0]))
        sharpness = _MEDIAN_LOG_ODDS / max(gap, 1e-12)
    else:
        gaussians = GaussianMixture(
            n_clusters, n_init=3, random_state=seed, reg_covar=_MIXTURE_REGULARISATION
        ).fit(centred)
        centres, precision = gaussians.means_, gaussians.precisions_cholesky_
        log_determinant = np.log(np.diagonal(precision, axis1=1, axis2=2)).sum(axis=1)
        offset = np.log(gaussians.weights_) + log_determinant
    share = np.full((n_clusters, 1), 1.0)
    return ClusterHead(
        kind, share, mean, components, centres.astype(np.float64), precision, offset, sharpness
    )


def own_clusters() -> ClusterHead:
    """A head that takes the model's own clusters; the shares of the classes are not known yet."""
    nothing = np.empty(0)
    return ClusterHead("own", nothing, nothing, np.empty((0, 0)), nothing, nothing, nothing, 0.0)


def share_by_labels(
    cluster: NDArray[np.int64], label: NDArray[np.int64], n_clusters: int, n_classes: int
) -> NDArray[np.float64]:
    """Share of each class in each cluster, from labelled events.

    Each class counts as much as any other, whatever its number of labels, as in the logistic
    regression. One event of each class is added to each cluster, so that none has certainty from
    a few labels.

    Parameters
    ----------
    cluster, label : ndarray of int64, shape (n_events,)
        Cluster and class of each event; events without a label are left out.
    n_clusters, n_classes : int
        How many there are.

    Returns
    -------
    ndarray of float64, shape (n_clusters, n_classes)
        Rows sum to 1.
    """
    labelled = label != UNLABELLED
    counts = np.zeros((n_clusters, n_classes))
    np.add.at(counts, (cluster[labelled], label[labelled]), 1.0)
    total = counts.sum(axis=0)
    weighted = (counts + 1.0 / n_classes) / np.maximum(total, 1.0)
    found: NDArray[np.float64] = weighted / weighted.sum(axis=1, keepdims=True)
    return found


def share_by_names(clusters: tuple[str, ...], classes: list[str]) -> NDArray[np.float64]:
    """Share of each class in each cluster, as the user names them.

    Parameters
    ----------
    clusters : tuple of str
        Class of each cluster.
    classes : list of str
        Names of the classes.
    """
    share = np.zeros((len(clusters), len(classes)))
    for number, name in enumerate(clusters):
        share[number, classes.index(name)] = 1.0
    return share


class ClusterScores(nn.Module):
    """A :class:`ClusterHead` in PyTorch, as a bundle runs it.

    Parameters
    ----------
    head : ClusterHead
        The head.
    model : LatentModel, optional
        The model; its own clusters are used if the head says so.
    """

    share: Tensor
    mean: Tensor
    components: Tensor
    centres: Tensor
    precision: Tensor
    offset: Tensor

    def __init__(self, head: ClusterHead, model: LatentModel | None = None) -> None:
        super().__init__()
        self.kind, self.sharpness = head.kind, head.sharpness
        self.assign_own = None if model is None else model.assign
        for field in fields(head)[1:-1]:
            value = torch.from_numpy(getattr(head, field.name)).float()
            self.register_buffer(field.name, value)

    def clusters(self, latent: Tensor) -> Tensor:
        """Logarithms of the clusters' probabilities, shape (n_events, n_clusters)."""
        if self.kind == "own":
            assert self.assign_own is not None  # such a head is never without its model
            return self.assign_own(latent)
        place = latent - self.mean
        if len(self.components):
            place = place @ self.components.T
        if self.kind == "kmeans":
            # |place - centre|^2 less |place|^2, which all clusters share
            closeness = 2.0 * place @ self.centres.T - self.centres.square().sum(1)
            return torch.log_softmax(self.sharpness * closeness, 1)
        distance = torch.einsum("nkd,kde->nke", place[:, None] - self.centres, self.precision)
        return torch.log_softmax(self.offset - 0.5 * distance.square().sum(2), 1)

    def forward(self, latent: Tensor) -> Tensor:
        """Scores, shape (n_events, n_classes)."""
        return self.clusters(latent).exp() @ self.share


def save_clusters(head: ClusterHead, path: Path) -> None:
    """Write a head as JSON."""
    entries = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in asdict(head).items()
    }
    path.write_text(json.dumps(entries), encoding="utf-8")


def load_clusters(path: Path) -> ClusterHead:
    """Read a head back."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    columns: dict[str, Any] = {
        name: np.array(value, np.float64) if isinstance(value, list) else value
        for name, value in entries.items()
    }
    return ClusterHead(**columns)
