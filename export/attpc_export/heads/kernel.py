"""A kernel machine as a head, for few labels: logistic regression on similarities to labelled ones.

The regression sees the Gaussian similarities of an event to all labelled events, orthogonalised, as
scikit-learn's ``Nystroem`` gives them with every labelled event as a landmark: kernel logistic
regression. The labelled latents become constants of the graph.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

#: Similarity exp(-this * distance² / numbers in the latent), the latent being standardised.
_SHARPNESS = 0.3
_MOST_ITERATIONS = 2000
#: Labelled events that similarities are taken to; of more, so many are drawn.
_MOST_SUPPORTS = 1000


@dataclass(frozen=True, slots=True)
class KernelHead:
    """Kernel logistic regression on the latent, whose softmax are the scores.

    Attributes
    ----------
    mean, scale : ndarray of float64, shape (latent_size,)
        The latent is standardised by them.
    support : ndarray of float64, shape (n_support, latent_size)
        Standardised latents of labelled events.
    sharpness : float
        Similarity is exp(-sharpness * distance²).
    weight : ndarray of float64, shape (n_classes, n_support)
        Of each similarity.
    bias : ndarray of float64, shape (n_classes,)
        Biases.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    support: NDArray[np.float64]
    sharpness: float
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def logits(self, latent: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logarithms of the scores but for a constant an event, shape (n_events, n_classes)."""
        place = (latent - self.mean) / self.scale
        square = (
            (place**2).sum(1)[:, None] + (self.support**2).sum(1) - 2.0 * place @ self.support.T
        )
        logits: NDArray[np.float64] = np.exp(-self.sharpness * square) @ self.weight.T + self.bias
        return logits


def fit_kernel(
    latent: NDArray[np.float32],
    label: NDArray[np.int64],
    inverse_regularisation: float,
    reference: NDArray[np.float32],
) -> KernelHead:
    """Fit a kernel logistic regression with balanced class weights.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents of labelled events.
    label : ndarray of int64, shape (n_events,)
        Classes, 0 to n_classes - 1, each of them there.
    inverse_regularisation : float
        scikit-learn's C.
    reference : ndarray of float32, shape (n_others, latent_size)
        Latents by which the latent is standardised: events with and without a label.
    """
    scaler = StandardScaler().fit(reference.astype(np.float64))
    place = scaler.transform(latent.astype(np.float64))
    sharpness = _SHARPNESS / latent.shape[1]
    n_support = min(len(place), _MOST_SUPPORTS)
    similar = Nystroem(gamma=sharpness, n_components=n_support, random_state=0).fit(place)
    regression = LogisticRegression(
        C=inverse_regularisation, class_weight="balanced", max_iter=_MOST_ITERATIONS
    ).fit(similar.transform(place), label)
    weight = np.asarray(regression.coef_, np.float64)
    bias = np.asarray(regression.intercept_, np.float64)
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference of their logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return KernelHead(
        np.asarray(scaler.mean_),
        np.asarray(scaler.scale_),
        np.asarray(similar.components_),
        sharpness,
        weight @ similar.normalization_,
        bias,
    )


class KernelScores(nn.Module):
    """A :class:`KernelHead` in PyTorch, as a bundle runs it.

    Parameters
    ----------
    head : KernelHead
        The head.
    """

    support: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, head: KernelHead) -> None:
        super().__init__()
        self.sharpness = head.sharpness
        for name in ("mean", "scale", "support", "weight", "bias"):
            self.register_buffer(name, torch.from_numpy(getattr(head, name)).float())

    def forward(self, latent: Tensor) -> Tensor:
        """Scores, shape (n_events, n_classes)."""
        place = (latent - self.mean) / self.scale
        own = place.square().sum(1, keepdim=True)
        square = own + self.support.square().sum(1) - 2.0 * place @ self.support.T
        similar = torch.exp(-self.sharpness * square)
        return torch.softmax(similar @ self.weight.T + self.bias, 1)
