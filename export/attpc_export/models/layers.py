"""What several models are built of: strided convolutions and their mirror image, activations."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid"]

_LEAK = 0.1
_NORMALISATION_EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class ConvolutionSettings:
    """Strided convolutions down to a small image, and a decoder that mirrors them.

    Attributes
    ----------
    filters : tuple of int
        Filters of each layer; a layer halves the image.
    kernels : tuple of int
        Kernel of each layer [pixels].
    activation : {"relu", "leaky_relu", "tanh", "sigmoid"}
        After each layer.
    normalise : bool
        Normalise batches: after the activation if it is not bounded, before it if it is.
    """

    filters: tuple[int, ...] = (8, 16, 32, 64)
    kernels: tuple[int, ...] = (5, 5, 3, 3)
    activation: Activation = "leaky_relu"
    normalise: bool = True

    def __post_init__(self) -> None:
        if len(self.filters) != len(self.kernels) or not self.filters:
            raise ValueError("filters and kernels need one number a layer")
        if min(*self.filters, *self.kernels) < 1:
            raise ValueError("filters and kernels must be positive")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("kernels must be odd, so that a layer halves the image exactly")


def shape_after(
    settings: ConvolutionSettings, image_shape: tuple[int, int, int]
) -> tuple[int, int, int]:
    """(filters, rows, columns) of what the convolutions make of an image.

    Raises
    ------
    ValueError
        If the image cannot be halved as often.
    """
    times, size = len(settings.filters), image_shape[1]
    if size % 2**times:
        raise ValueError(
            f"{times} layers halve an image {times} times: projection.size must be a multiple of"
            f" {2**times}, not {size}"
        )
    return settings.filters[-1], size // 2**times, size // 2**times


def make_encoder(settings: ConvolutionSettings, channels: int) -> nn.Sequential:
    """Convolutions of stride 2 with "same" padding (thesis, section 7.3.1)."""
    layers: list[nn.Module] = []
    for filters, kernel in zip(settings.filters, settings.kernels, strict=True):
        layers.append(nn.Conv2d(channels, filters, kernel, 2, kernel // 2))
        layers += _activated(settings, filters)
        channels = filters
    return nn.Sequential(*layers)


def make_decoder(
    settings: ConvolutionSettings, n_inputs: int, image_shape: tuple[int, int, int]
) -> nn.Sequential:
    """A dense layer and transposed convolutions, mirroring the encoder; gives logits of pixels."""
    filters, rows, columns = shape_after(settings, image_shape)
    layers: list[nn.Module] = [
        nn.Linear(n_inputs, filters * rows * columns),
        make_activation(settings.activation),
        nn.Unflatten(1, (filters, rows, columns)),
    ]
    widths = [*reversed(settings.filters), image_shape[0]]
    pairs = list(itertools.pairwise(widths))
    for number, ((inputs, outputs), kernel) in enumerate(
        zip(pairs, reversed(settings.kernels), strict=True), 1
    ):
        layers.append(nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, 1))
        if number < len(pairs):
            layers += _activated(settings, outputs)
    return nn.Sequential(*layers)


def make_activation(name: Activation) -> nn.Module:
    """Activation by its name."""
    if name == "leaky_relu":
        return nn.LeakyReLU(_LEAK)
    others: dict[str, nn.Module] = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}
    return others[name]


def pixel_cross_entropy(logits: Tensor, images: Tensor) -> Tensor:
    """Binary cross-entropy of each event, shape (n_events,), summed over its pixels."""
    # pixels of another run can exceed the scale; a target above 1 has no cross-entropy
    target = images.clamp(max=1.0)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return losses.flatten(1).sum(1)


def count_pixels(image_shape: Sequence[int]) -> int:
    """Pixels of an image, all channels together."""
    channels, rows, columns = image_shape
    return channels * rows * columns


def _activated(settings: ConvolutionSettings, filters: int) -> list[nn.Module]:
    activation = make_activation(settings.activation)
    if not settings.normalise:
        return [activation]
    normalisation = nn.BatchNorm2d(filters, _NORMALISATION_EPSILON)
    bounded = settings.activation in ("tanh", "sigmoid")
    return [normalisation, activation] if bounded else [activation, normalisation]
