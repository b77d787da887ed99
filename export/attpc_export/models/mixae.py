"""MIXAE: an autoencoder a cluster, and a network that assigns events (Zhang et al. 2017)."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor, nn

from attpc_export.models.base import LatentModel
from attpc_export.models.layers import (
    ConvolutionSettings,
    make_decoder,
    make_encoder,
    pixel_cross_entropy,
    shape_after,
)

_N_HIDDEN = 64
_EVENTS_A_BATCH = 256
_KMEANS_STARTS = 20
_STEPS_TO_LEARN_KMEANS = 300
_LEAST = 1e-6
_LEAST_ENTROPY = 0.01


@dataclass(frozen=True, slots=True)
class MixaeSettings:
    """MIXAE.

    Attributes
    ----------
    n_clusters : int
        Clusters, and autoencoders.
    convolutions : ConvolutionSettings
        Of each autoencoder.
    latent_size : int
        Numbers in the latent of each autoencoder; the model's latent is all of them.
    theta, alpha, gamma : float
        Weights of the loss: the reconstruction, summed over pixels, is divided by theta, the
        entropy of an event's assignment multiplied by alpha, the inverse entropy of the batch's
        mean assignment by gamma.
    pretraining_epochs : int
        Epochs in which all autoencoders see all events alike; then the assignments start from
        k-means on the latents, instead of from chance. 0: no such start, as published [epochs].
    """

    n_clusters: int = 3
    convolutions: ConvolutionSettings = field(
        default_factory=lambda: ConvolutionSettings(
            (64, 32, 16, 8), (3, 3, 3, 3), "leaky_relu", False
        )
    )
    latent_size: int = 20
    theta: float = 10.0
    alpha: float = 0.1
    gamma: float = 3162.0
    pretraining_epochs: int = 0

    def __post_init__(self) -> None:
        if self.latent_size < 1 or self.n_clusters < 2:
            raise ValueError("latent_size must be positive, n_clusters at least 2")
        if self.theta <= 0 or self.alpha < 0 or self.gamma < 0 or self.pretraining_epochs < 0:
            raise ValueError(
                "theta must be positive, alpha, gamma, pretraining_epochs not negative"
            )


class Mixae(LatentModel):
    """A mixture of autoencoders (thesis, section 4.6.2).

    Parameters
    ----------
    settings : MixaeSettings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    apart: Tensor

    def __init__(self, settings: MixaeSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.settings = settings
        self.latent_size = settings.n_clusters * settings.latent_size
        filters, rows, columns = shape_after(settings.convolutions, image_shape)
        self.encoders = nn.ModuleList(
            nn.Sequential(
                make_encoder(settings.convolutions, image_shape[0]),
                nn.Flatten(),
                nn.Linear(filters * rows * columns, settings.latent_size),
            )
            for _ in range(settings.n_clusters)
        )
        self.decoders = nn.ModuleList(
            make_decoder(settings.convolutions, settings.latent_size, image_shape)
            for _ in range(settings.n_clusters)
        )
        self.assignment = nn.Sequential(
            nn.Linear(self.latent_size, _N_HIDDEN),
            nn.LeakyReLU(0.1),
            nn.Linear(_N_HIDDEN, settings.n_clusters),
        )
        # 1 once the assignments say which autoencoder draws an event
        self.register_buffer("apart", torch.tensor(float(settings.pretraining_epochs == 0)))

    def encode(self, images: Tensor) -> Tensor:
        """Latents of all autoencoders (see :meth:`LatentModel.encode`)."""
        return torch.cat([encoder(images) for encoder in self.encoders], 1)

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Mean of the autoencoders' projections by assignment (:meth:`LatentModel.reconstruct`)."""
        drawn = torch.stack([torch.sigmoid(logits) for logits in self._decode(latent)], 1)
        return (self.assign(latent).exp()[:, :, None, None, None] * drawn).sum(1)

    def assign(self, latent: Tensor) -> Tensor:
        """The assignment network (see :meth:`LatentModel.assign`)."""
        return torch.log_softmax(self.assignment(latent), 1)

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the mixture (thesis, equation 4.55; :meth:`LatentModel.loss`)."""
        latent = self.encode(images)
        log_share = self.assign(latent)
        error = torch.stack([pixel_cross_entropy(x, images) for x in self._decode(latent)], 1)
        alike = error.mean(1).mean() / self.settings.theta
        mixture = (
            (log_share.exp() * error).sum(1).mean() / self.settings.theta
            + self.settings.alpha * entropy(log_share.exp()).mean()
            + self.settings.gamma * _inverse(entropy(log_share.exp().mean(0)))
        )
        return self.apart * mixture + (1.0 - self.apart) * alike, latent

    def start_epoch(
        self, epoch: int, inputs: tuple[NDArray[np.float32], ...], device: torch.device
    ) -> bool:
        """Start the assignments from k-means (see :meth:`LatentModel.start_epoch`)."""
        if not self.settings.pretraining_epochs or epoch != self.settings.pretraining_epochs:
            return False
        images = inputs[0]
        with torch.no_grad():
            latent = torch.cat(
                [
                    self.encode(torch.from_numpy(images[i : i + _EVENTS_A_BATCH]).to(device))
                    for i in range(0, len(images), _EVENTS_A_BATCH)
                ]
            )
        seed = int(torch.randint(2**31, ()))
        clusters = KMeans(self.settings.n_clusters, n_init=_KMEANS_STARTS, random_state=seed)
        # standardised: a few events far out in one number are no cluster
        scaled = (latent - latent.mean(0)) / latent.std(0).clamp(min=_LEAST)
        found = torch.from_numpy(clusters.fit_predict(scaled.cpu().numpy())).long().to(device)
        optimizer = torch.optim.Adam(self.assignment.parameters(), 1e-2)
        for _ in range(_STEPS_TO_LEARN_KMEANS):
            optimizer.zero_grad()
            F.nll_loss(self.assign(latent), found).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        optimizer.zero_grad()
        self.apart.fill_(1.0)
        return True

    def _decode(self, latent: Tensor) -> list[Tensor]:
        parts = latent.chunk(self.settings.n_clusters, 1)
        return [decoder(part) for decoder, part in zip(self.decoders, parts, strict=True)]


def _inverse(batch_entropy: Tensor) -> Tensor:
    """1 / entropy; below a least value its tangent: finite, and steep, with one cluster alone."""
    floor = batch_entropy.clamp(min=_LEAST_ENTROPY)
    return 1.0 / floor + (floor - batch_entropy) / _LEAST_ENTROPY**2


def entropy(share: Tensor) -> Tensor:
    """Entropy of distributions along the last axis [nat]."""
    return -(share * share.clamp(min=_LEAST).log()).sum(-1)
