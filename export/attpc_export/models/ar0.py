"""Ar0, the thesis' convolutional autoencoder, trained end to end; VAE and MMD are its latents."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attpc_export.models.base import LatentModel
from attpc_export.models.latent import LatentLayer, LatentSettings
from attpc_export.models.layers import (
    ConvolutionSettings,
    make_decoder,
    make_encoder,
    pixel_cross_entropy,
    shape_after,
)


@dataclass(frozen=True, slots=True)
class Ar0Settings:
    """Ar0.

    Attributes
    ----------
    convolutions : ConvolutionSettings
        Encoder and decoder.
    latent : LatentSettings
        The latent and the loss of its distribution.
    """

    convolutions: ConvolutionSettings = field(default_factory=ConvolutionSettings)
    latent: LatentSettings = field(default_factory=LatentSettings)


class Ar0(LatentModel):
    """A convolutional autoencoder (thesis, sections 4.1 to 4.4 and 7.3).

    Parameters
    ----------
    settings : Ar0Settings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    def __init__(self, settings: Ar0Settings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.latent_size = settings.latent.size
        filters, rows, columns = shape_after(settings.convolutions, image_shape)
        self.encoder = make_encoder(settings.convolutions, image_shape[0])
        self.latent = LatentLayer(filters * rows * columns, settings.latent)
        self.decoder = make_decoder(settings.convolutions, settings.latent.size, image_shape)

    def encode(self, images: Tensor) -> Tensor:
        """Map projections to latents (see :meth:`LatentModel.encode`)."""
        latent: Tensor = self.latent(self.encoder(images).flatten(1))
        return latent

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Map latents back to projections (see :meth:`LatentModel.reconstruct`)."""
        return torch.sigmoid(self.decoder(latent))

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy over pixels, and the latent's loss (see :meth:`LatentModel.loss`)."""
        sample, latent, latent_loss = self.latent.draw(self.encoder(images).flatten(1))
        return pixel_cross_entropy(self.decoder(sample), images).mean() + latent_loss, latent
