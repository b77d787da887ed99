"""An image encoder and a point-set encoder under one head: their errors differ."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attpc_export.models.autoencoder import Autoencoder, AutoencoderSettings
from attpc_export.models.base import LatentModel
from attpc_export.models.point_encoder import PointEncoder, PointEncoderSettings


@dataclass(frozen=True, slots=True)
class JointSettings:
    """Shapes of the two encoders.

    Attributes
    ----------
    images : AutoencoderSettings
        Of the autoencoder that reads projections.
    points : PointEncoderSettings
        Of the encoder that reads hits.
    hidden : float
        In training either encoder's part of the latent is hidden for this share of the events, so
        that neither leans on the other.
    """

    images: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    points: PointEncoderSettings = field(default_factory=PointEncoderSettings)
    hidden: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 <= self.hidden <= 0.5:
            raise ValueError(f"hidden: {self.hidden:g} is not in [0, 0.5]")


class Joint(LatentModel):
    """A convolutional autoencoder and a point-set encoder; the latent is that of both, joined.

    Parameters
    ----------
    settings : JointSettings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    reads_points = True

    def __init__(self, settings: JointSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.images = Autoencoder(settings.images, image_shape)
        self.points = PointEncoder(settings.points)
        self.hidden = settings.hidden
        self.latent_size = self.images.latent_size + settings.points.latent_size

    def encode(self, images: Tensor, points: Tensor) -> Tensor:  # type: ignore[override]
        """Map projections and point sets to latents (see :meth:`LatentModel.encode`)."""
        return torch.cat([self.images.encode(images), self.points(points)], dim=1)

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Map latents back to projections (see :meth:`LatentModel.reconstruct`)."""
        return self.images.reconstruct(latent[:, : self.images.latent_size])

    def loss(  # type: ignore[override]
        self, images: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of the autoencoder (see :meth:`LatentModel.loss`)."""
        own_loss, of_images = self.images.loss(images)
        of_points = self.points(points)
        if self.training:
            draw = torch.rand(len(images), 1, device=images.device)
            of_images = of_images * (draw >= self.hidden)
            of_points = of_points * (draw < 1.0 - self.hidden)
        return own_loss, torch.cat([of_images, of_points], dim=1)
