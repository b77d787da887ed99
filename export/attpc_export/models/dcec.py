"""DCEC: deep clustering with a convolutional autoencoder (Guo, Liu, Zhu and Yin 2017)."""

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor, nn

from attpc_export.models.base import LatentModel
from attpc_export.models.layers import ConvolutionSettings, make_decoder, make_encoder, shape_after

_EVENTS_A_BATCH = 256
_KMEANS_STARTS = 20


@dataclass(frozen=True, slots=True)
class DcecSettings:
    """DCEC.

    Attributes
    ----------
    convolutions : ConvolutionSettings
        Encoder and decoder.
    latent_size : int
        Numbers in the latent.
    n_clusters : int
        Clusters.
    pretraining_epochs : int
        Epochs of reconstruction alone, before k-means places the centroids [epochs].
    target_epochs : int
        The target distribution is renewed every so many epochs [epochs].
    cluster_weight : float
        Factor gamma on the clustering loss; the mean squared error of a pixel has the factor 1.
    """

    convolutions: ConvolutionSettings = field(
        default_factory=lambda: ConvolutionSettings((32, 64, 128), (5, 5, 3), "relu", False)
    )
    latent_size: int = 10
    n_clusters: int = 3
    pretraining_epochs: int = 20
    target_epochs: int = 5
    cluster_weight: float = 0.1

    def __post_init__(self) -> None:
        if min(self.latent_size, self.target_epochs, self.n_clusters - 1) < 1:
            raise ValueError("latent_size, target_epochs must be positive, n_clusters at least 2")
        if self.pretraining_epochs < 1 or self.cluster_weight < 0:
            raise ValueError("pretraining_epochs must be positive, cluster_weight not negative")


class Dcec(LatentModel):
    """A convolutional autoencoder with centroids in its latent (thesis, section 4.6.1).

    The target distribution is that of a copy of the encoder and the centroids, made when it is
    renewed, so that it stays what it was until then.

    Parameters
    ----------
    settings : DcecSettings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    clustering: Tensor
    frequency: Tensor

    def __init__(self, settings: DcecSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.settings = settings
        self.latent_size = settings.latent_size
        self.student = _Student(settings, image_shape)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.decoder = make_decoder(settings.convolutions, settings.latent_size, image_shape)
        self.register_buffer("clustering", torch.zeros(()))  # 1 once the centroids are placed
        self.register_buffer("frequency", torch.ones(settings.n_clusters))

    def train(self, mode: bool = True) -> "Dcec":
        """Switch to training; the copy that makes the target stays as it is."""
        super().train(mode)
        self.teacher.eval()
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Map projections to latents (see :meth:`LatentModel.encode`)."""
        latent: Tensor = self.student.encoder(images)
        return latent

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Map latents back to projections (see :meth:`LatentModel.reconstruct`)."""
        return torch.sigmoid(self.decoder(latent))

    def assign(self, latent: Tensor) -> Tensor:
        """Student's t-distribution about the centroids (see :meth:`LatentModel.assign`)."""
        return self.student.assign(latent)

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error and clustering loss (thesis, equation 4.51; :meth:`LatentModel.loss`)."""
        latent = self.encode(images)
        error = F.mse_loss(self.reconstruct(latent), images)
        with torch.no_grad():
            target = sharpened(
                self.teacher.assign(self.teacher.encoder(images)).exp(), self.frequency
            )
        divergence = F.kl_div(self.assign(latent), target, reduction="batchmean")
        return error + self.clustering * self.settings.cluster_weight * divergence, latent

    def start_epoch(
        self, epoch: int, inputs: tuple[NDArray[np.float32], ...], device: torch.device
    ) -> bool:
        """Place the centroids, renew the target (see :meth:`LatentModel.start_epoch`)."""
        since = epoch - self.settings.pretraining_epochs
        if since < 0 or since % self.settings.target_epochs:
            return False
        images = inputs[0]
        with torch.no_grad():
            latent = torch.cat(
                [
                    self.encode(torch.from_numpy(images[i : i + _EVENTS_A_BATCH]).to(device))
                    for i in range(0, len(images), _EVENTS_A_BATCH)
                ]
            )
            if since == 0:
                seed = int(torch.randint(2**31, ()))
                clusters = KMeans(
                    self.settings.n_clusters, n_init=_KMEANS_STARTS, random_state=seed
                )
                clusters.fit(latent.cpu().numpy())
                self.student.centroids.copy_(torch.from_numpy(clusters.cluster_centers_))
                self.clustering.fill_(1.0)
            self.teacher.load_state_dict(self.student.state_dict())
            self.frequency.copy_(self.teacher.assign(latent).exp().sum(0))
        return since == 0


class _Student(nn.Module):
    """Encoder and centroids."""

    def __init__(self, settings: DcecSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        filters, rows, columns = shape_after(settings.convolutions, image_shape)
        self.encoder = nn.Sequential(
            make_encoder(settings.convolutions, image_shape[0]),
            nn.Flatten(),
            nn.Linear(filters * rows * columns, settings.latent_size),
        )
        self.centroids = nn.Parameter(torch.randn(settings.n_clusters, settings.latent_size))

    def assign(self, latent: Tensor) -> Tensor:
        """Logarithms of equation 4.48, shape (n_events, n_clusters)."""
        square = (latent[:, None] - self.centroids).square().sum(2)
        return torch.log_softmax(-torch.log1p(square), 1)


def sharpened(assignment: Tensor, frequency: Tensor) -> Tensor:
    """The target distribution (thesis, equation 4.49), shape (n_events, n_clusters).

    Parameters
    ----------
    assignment : Tensor of float32, shape (n_events, n_clusters)
        Soft assignments.
    frequency : Tensor of float32, shape (n_clusters,)
        Their sums over all events.
    """
    weight = assignment.square() / frequency.clamp(min=1e-6)
    return weight / weight.sum(1, keepdim=True)
