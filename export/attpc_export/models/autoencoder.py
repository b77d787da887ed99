"""A convolutional autoencoder: strided convolutions down to the latent, and back."""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attpc_export.models.base import LatentModel


@dataclass(frozen=True, slots=True)
class AutoencoderSettings:
    """Shape of a convolutional autoencoder.

    Attributes
    ----------
    filters : tuple of int
        Filters of each encoder stage; a stage halves the image.
    extra_convolutions : tuple of int
        Convolutions of stride 1 after the strided one, of each stage.
    kernels : tuple of int
        Kernel of each stage's strided convolution [pixels]; the extra ones have 3.
    decoder_filters : tuple of int
        Filters of the decoder after the dense layer and after each doubling but the last; as many
        as the encoder has stages.
    latent_size : int
        Numbers in the latent.
    """

    filters: tuple[int, ...] = (8, 16, 32, 64)
    extra_convolutions: tuple[int, ...] = (0, 1, 2, 1)
    kernels: tuple[int, ...] = (5, 3, 3, 3)
    decoder_filters: tuple[int, ...] = (32, 32, 16, 8)
    latent_size: int = 64

    def __post_init__(self) -> None:
        lengths = {
            len(self.filters),
            len(self.extra_convolutions),
            len(self.kernels),
            len(self.decoder_filters),
        }
        if len(lengths) > 1 or not self.filters:
            raise ValueError(
                "filters, extra_convolutions, kernels and decoder_filters need one number a stage"
            )
        if min(*self.filters, *self.decoder_filters, *self.kernels, self.latent_size) < 1:
            raise ValueError("filters, kernels and latent_size must be positive")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("kernels must be odd, so that a stage halves the image exactly")


class Autoencoder(LatentModel):
    """A convolutional autoencoder with binary cross-entropy on the pixels.

    Parameters
    ----------
    settings : AutoencoderSettings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    def __init__(self, settings: AutoencoderSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, size, _ = image_shape
        stages = len(settings.filters)
        if size % 2**stages:
            raise ValueError(
                f"{stages} stages halve an image {stages} times: projection.size must be a multiple"
                f" of {2**stages}, not {size}"
            )
        self.latent_size = settings.latent_size
        side = size // 2**stages
        self.encoder = nn.Sequential(
            *_encoder_layers(settings, channels),
            nn.Flatten(),
            nn.Linear(settings.filters[-1] * side * side, settings.latent_size),
        )
        self.decoder = nn.Sequential(*_decoder_layers(settings, channels, side))

    def encode(self, images: Tensor) -> Tensor:
        """Map projections to latents (see :meth:`LatentModel.encode`)."""
        latent: Tensor = self.encoder(images)
        return latent

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Map latents back to projections (see :meth:`LatentModel.reconstruct`)."""
        return torch.sigmoid(self.decoder(latent))

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy a pixel (see :meth:`LatentModel.loss`)."""
        latent = self.encode(images)
        # pixels of another run can exceed the scale; a target above 1 has no cross-entropy
        target = images.clamp(max=1.0)
        return F.binary_cross_entropy_with_logits(self.decoder(latent), target), latent


def _encoder_layers(settings: AutoencoderSettings, channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for filters, extra, kernel in zip(
        settings.filters, settings.extra_convolutions, settings.kernels, strict=True
    ):
        layers += _convolution(channels, filters, kernel, stride=2)
        for _ in range(extra):
            layers += _convolution(filters, filters, 3, stride=1)
        channels = filters
    return layers


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    # no bias: the normalisation behind it has one
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _decoder_layers(settings: AutoencoderSettings, channels: int, side: int) -> list[nn.Module]:
    first = settings.decoder_filters[0]
    layers: list[nn.Module] = [
        nn.Linear(settings.latent_size, first * side * side),
        nn.ReLU(),
        nn.Unflatten(1, (first, side, side)),
    ]
    for inputs, outputs in itertools.pairwise(settings.decoder_filters):
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    layers.append(nn.ConvTranspose2d(settings.decoder_filters[-1], channels, 4, 2, 1))
    return layers
