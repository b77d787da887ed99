"""Ar1: an autoencoder whose encoder starts from the features of a frozen backbone."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attpc_export.models.backbone import Backbone, BackboneSettings
from attpc_export.models.base import LatentModel
from attpc_export.models.latent import LatentLayer, LatentSettings
from attpc_export.models.layers import (
    ConvolutionSettings,
    make_activation,
    make_decoder,
    pixel_cross_entropy,
)


@dataclass(frozen=True, slots=True)
class Ar1Settings:
    """Ar1.

    Attributes
    ----------
    backbone : BackboneSettings
        The frozen backbone.
    dense : tuple of int
        Widths of the dense layers between its features and the latent.
    convolutions : ConvolutionSettings
        The decoder mirrors these.
    latent : LatentSettings
        The latent and the loss of its distribution.
    """

    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    dense: tuple[int, ...] = (256,)
    convolutions: ConvolutionSettings = field(default_factory=ConvolutionSettings)
    latent: LatentSettings = field(default_factory=LatentSettings)

    def __post_init__(self) -> None:
        if self.backbone.trained:
            raise ValueError("backbone.trained: the backbone of Ar1 is frozen")


class Ar1(LatentModel):
    """An autoencoder on a backbone's features that redraws the image (thesis, section 5.0.3).

    Parameters
    ----------
    settings : Ar1Settings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    def __init__(self, settings: Ar1Settings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.latent_size = settings.latent.size
        self.backbone = Backbone(settings.backbone, image_shape)
        width = self.backbone.n_features
        # features of a backbone reach from 0 to some 100
        layers: list[nn.Module] = [nn.BatchNorm1d(width, affine=False)]
        for outputs in settings.dense:
            layers += [nn.Linear(width, outputs), make_activation(settings.convolutions.activation)]
            width = outputs
        self.dense = nn.Sequential(*layers)
        self.latent = LatentLayer(width, settings.latent)
        self.decoder = make_decoder(settings.convolutions, settings.latent.size, image_shape)

    def frozen_part(self) -> nn.Module:
        """The backbone (see :meth:`LatentModel.frozen_part`)."""
        return self.backbone

    def encode(self, images: Tensor, features: Tensor | None = None) -> Tensor:
        """Map projections to latents (see :meth:`LatentModel.encode`)."""
        latent: Tensor = self.latent(self._dense(images, features))
        return latent

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Map latents back to projections (see :meth:`LatentModel.reconstruct`)."""
        return torch.sigmoid(self.decoder(latent))

    def loss(self, images: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cross-entropy over pixels, and the latent's loss (see :meth:`LatentModel.loss`)."""
        sample, latent, latent_loss = self.latent.draw(self._dense(images, features))
        return pixel_cross_entropy(self.decoder(sample), images).mean() + latent_loss, latent

    def _dense(self, images: Tensor, features: Tensor | None) -> Tensor:
        dense: Tensor = self.dense(self.backbone(images) if features is None else features)
        return dense
