"""The head: logistic regression on the latent, calibrated, and the module that a bundle holds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor, nn

from attpc_export.heads.clusters import ClusterHead, ClusterScores, load_clusters, save_clusters
from attpc_export.models.base import LatentModel

_MOST_ITERATIONS = 2000
#: Temperatures that calibration may choose from.
_COLDEST, _HOTTEST = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Head:
    """A linear layer on the latent whose softmax are the scores.

    Attributes
    ----------
    weight : ndarray of float64, shape (n_classes, latent_size)
        Weights.
    bias : ndarray of float64, shape (n_classes,)
        Biases.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def logits(self, latent: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logarithms of the scores but for a constant an event, shape (n_events, n_classes)."""
        logits: NDArray[np.float64] = latent @ self.weight.T + self.bias
        return logits


def fit_head(
    latent: NDArray[np.float32],
    label: NDArray[np.int64],
    inverse_regularisation: float,
) -> Head:
    """Fit a logistic regression with balanced class weights.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    label : ndarray of int64, shape (n_events,)
        Classes, 0 to n_classes - 1, each of them there.
    inverse_regularisation : float
        scikit-learn's C; the latent is standardised first.

    Returns
    -------
    Head
        The regression, standardisation included.
    """
    scaler = StandardScaler()
    regression = LogisticRegression(
        C=inverse_regularisation, class_weight="balanced", max_iter=_MOST_ITERATIONS
    )
    make_pipeline(scaler, regression).fit(latent.astype(np.float64), label)
    weight = np.asarray(regression.coef_, np.float64)
    bias = np.asarray(regression.intercept_, np.float64)
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference of their logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    return Head(weight, bias - weight @ scaler.mean_)


def undecided_head(n_classes: int, latent_size: int) -> Head:
    """A head that gives every class the same score: nobody has said yet what is what."""
    return Head(np.zeros((n_classes, latent_size)), np.zeros(n_classes))


def calibrate(head: Head, latent: NDArray[np.float32], label: NDArray[np.int64]) -> Head:
    """Divide the logits by the temperature that makes the scores of unseen events honest.

    Parameters
    ----------
    head : Head
        As fitted.
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents of labelled events that trained neither encoder nor head.
    label : ndarray of int64, shape (n_events,)
        Their classes.

    Returns
    -------
    Head
        With the smallest cross-entropy, each class with equal weight as in :func:`fit_head`.
    """
    temperature = temperature_of(head.logits(latent), label)
    return Head(head.weight / temperature, head.bias / temperature)


def temperature_of(logits: NDArray[np.float64], label: NDArray[np.int64]) -> float:
    """Find the temperature by which logits must be divided to make honest scores.

    Parameters
    ----------
    logits : ndarray of float64, shape (n_events, n_classes)
        Logits of events that did not make them.
    label : ndarray of int64, shape (n_events,)
        Their classes.

    Returns
    -------
    float
        That of the smallest cross-entropy, each class with equal weight as in :func:`fit_head`.
    """
    share = compute_sample_weight("balanced", label) / len(label)

    def cross_entropy(log_temperature: float) -> float:
        log_scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(share @ log_scores[np.arange(len(label)), label])

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))


def weigh_classes(head: Head, shares: Sequence[float]) -> Head:
    """Turn scores for equally frequent classes into those for classes of the given shares.

    Parameters
    ----------
    head : Head
        Fitted and calibrated with balanced class weights.
    shares : sequence of float
        Share of each class; empty leaves the head as it is.
    """
    return replace(head, bias=head.bias + np.log(shares)) if shares else head


def save_head(head: Head | ClusterHead, path: Path) -> None:
    """Write a head as JSON."""
    if isinstance(head, ClusterHead):
        return save_clusters(head, path)
    entries = {"weight": head.weight.tolist(), "bias": head.bias.tolist()}
    path.write_text(json.dumps(entries), encoding="utf-8")


def load_head(path: Path) -> Head | ClusterHead:
    """Read a head back."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    if "kind" in entries:
        return load_clusters(path)
    return Head(np.array(entries["weight"]), np.array(entries["bias"]))


class ScoringModel(nn.Module):
    """Encoder and head fused: what a bundle runs.

    Parameters
    ----------
    model : LatentModel
        The encoder.
    head : Head or ClusterHead
        The head.
    """

    head: nn.Module

    def __init__(self, model: LatentModel, head: Head | ClusterHead) -> None:
        super().__init__()
        self.model = model
        if isinstance(head, ClusterHead):
            self.head = ClusterScores(head, model)
            self.eval()
            return
        self.head = nn.Linear(model.latent_size, len(head.bias))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weight))
            self.head.bias.copy_(torch.from_numpy(head.bias))
        self.eval()

    def forward(self, projection: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores, shape (n_events, n_classes), each row summing to 1, and the latent."""
        inputs = (projection,) if features is None else (projection, features)
        latent = self.model.encode(*inputs)
        found = self.head(latent)
        if isinstance(self.head, nn.Linear):
            found = torch.softmax(found, dim=1)
        return found, latent
