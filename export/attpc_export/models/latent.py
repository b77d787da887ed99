"""The latent layer of an autoencoder, and the losses that give its latents a known distribution.

``kl`` makes the autoencoder variational (Kingma and Welling 2013; with a weight other than 1 the
beta-VAE of Higgins et al. 2017). ``mmd`` compares the latents of a batch with samples of a mixture
of Gaussians (Zhao, Song and Ermon 2017, InfoVAE; the mixture is the thesis').
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LatentSettings:
    """A latent and what its distribution should be.

    Attributes
    ----------
    size : int
        Numbers in the latent.
    loss : {"none", "kl", "mmd"}
        Nothing; the Kullback-Leibler divergence to a normal distribution; the maximum mean
        discrepancy to a mixture of unit Gaussians.
    weight : float
        Factor beta on that loss; the reconstruction's, summed over pixels, has the factor 1.
    n_gaussians : int
        Gaussians of the mixture (``mmd``).
    separation : float
        Distance of each pair of their means [standard deviations] (``mmd``).
    """

    size: int = 64
    loss: Literal["none", "kl", "mmd"] = "none"
    weight: float = 1.0
    n_gaussians: int = 2
    separation: float = 3.0

    def __post_init__(self) -> None:
        if self.size < 1 or self.weight < 0 or self.n_gaussians < 1 or self.separation < 0:
            raise ValueError("size and n_gaussians must be positive, weight not negative")
        if self.loss == "mmd" and self.n_gaussians > self.size:
            raise ValueError("n_gaussians: no more than numbers in the latent")


class LatentLayer(nn.Module):
    """A dense layer to the latent, or two of them to its mean and log-variance.

    Parameters
    ----------
    n_inputs : int
        Numbers that come in.
    settings : LatentSettings
        What comes out.
    """

    def __init__(self, n_inputs: int, settings: LatentSettings) -> None:
        super().__init__()
        self.settings = settings
        self.mean = nn.Linear(n_inputs, settings.size)
        self.log_variance = nn.Linear(n_inputs, settings.size) if settings.loss == "kl" else None

    def forward(self, inputs: Tensor) -> Tensor:
        """The latent without randomness, shape (n_events, size): the mean."""
        mean: Tensor = self.mean(inputs)
        return mean

    def draw(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw latents.

        Returns
        -------
        sample : Tensor of float32, shape (n_events, size)
            What a decoder starts from: in training, of a variational layer, mean + exp(log_variance
            / 2) * noise, else the mean.
        mean : Tensor of float32, shape (n_events, size)
            The latent without randomness.
        loss : Tensor of float32, shape ()
            The weighted loss of the distribution.
        """
        mean = self(inputs)
        if self.log_variance is not None:
            log_variance = self.log_variance(inputs)
            loss = self.settings.weight * kl_to_normal(mean, log_variance).mean()
            if not self.training:
                return mean, mean, loss
            noise = torch.randn_like(mean)
            return mean + torch.exp(0.5 * log_variance) * noise, mean, loss
        if self.settings.loss == "mmd":
            prior = draw_mixture(len(mean), self.settings, mean.device)
            return mean, mean, self.settings.weight * squared_mmd(prior, mean)
        return mean, mean, mean.new_zeros(())


def kl_to_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence to N(0, 1) of independent Gaussians, shape (n_events,).

    Parameters
    ----------
    mean, log_variance : Tensor of float32, shape (n_events, size)
        Of each number of the latent.
    """
    return 0.5 * (log_variance.exp() + mean.square() - 1.0 - log_variance).sum(1)


def squared_mmd(one: Tensor, other: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples, shape ().

    The kernel is exp(-|x - y|^2 / size^2), as in the implementation that the thesis took over.

    Parameters
    ----------
    one, other : Tensor of float32, shape (n, size) and (m, size)
        Samples.
    """
    return _mean_kernel(one, one) - 2.0 * _mean_kernel(one, other) + _mean_kernel(other, other)


def mixture_means(settings: LatentSettings) -> Tensor:
    """Means of the mixture's Gaussians, shape (n_gaussians, size), all equally far apart.

    They are corners of a simplex about the origin.
    """
    corners = torch.eye(settings.n_gaussians, settings.size) * settings.separation / math.sqrt(2.0)
    return corners - corners.mean(0)


def draw_mixture(n: int, settings: LatentSettings, device: torch.device) -> Tensor:
    """Draw from the mixture of unit Gaussians, shape (n, size)."""
    means = mixture_means(settings).to(device)
    chosen = torch.randint(settings.n_gaussians, (n,), device=device)
    return means[chosen] + torch.randn(n, settings.size, device=device)


def _mean_kernel(one: Tensor, other: Tensor) -> Tensor:
    size = one.shape[1]
    square = one.square().sum(1)[:, None] - 2.0 * one @ other.T + other.square().sum(1)[None, :]
    return torch.exp(-square.clamp(min=0.0) / size**2).mean()
