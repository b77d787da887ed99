"""DRAW: a recurrent autoencoder that paints the image in steps (Gregor et al. 2015).

As in the thesis (section 4.5), every glimpse has the same size, the latent need not be random, and
the image can be read and painted by convolutions in place of attention.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

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
class DrawSettings:
    """DRAW.

    Attributes
    ----------
    steps : int
        Steps in which the image is painted.
    reading : {"attention", "convolution"}
        How the image is read and painted.
    convolutions : ConvolutionSettings
        Of ``convolution``.
    read_filters, write_filters : int
        Gaussian filters along a side of a glimpse (``attention``).
    stride : float
        Distance delta of the filters' centres [pixels] (``attention``).
    encoder_size, decoder_size : int
        Widths of the recurrent cells.
    latent : LatentSettings
        Latent of one step; the model's is that of all steps, one after the other.
    """

    steps: int = 3
    reading: Literal["attention", "convolution"] = "convolution"
    convolutions: ConvolutionSettings = field(
        default_factory=lambda: ConvolutionSettings((8, 8, 8, 8), (5, 5, 3, 3))
    )
    read_filters: int = 15
    write_filters: int = 20
    stride: float = 0.8
    encoder_size: int = 256
    decoder_size: int = 256
    latent: LatentSettings = field(default_factory=lambda: LatentSettings(size=10))

    def __post_init__(self) -> None:
        sizes = (self.read_filters, self.write_filters, self.encoder_size, self.decoder_size)
        if min(self.steps, *sizes) < 1 or self.stride <= 0:
            raise ValueError("steps, filters, sizes and stride must be positive")


class Draw(LatentModel):
    """DRAW (thesis, equations 4.30 to 4.35).

    Parameters
    ----------
    settings : DrawSettings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    def __init__(self, settings: DrawSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.settings = settings
        self.latent_size = settings.steps * settings.latent.size
        self.image_shape = image_shape
        self.reader: nn.Module
        self.writer: nn.Module
        if settings.reading == "attention":
            self.reader = AttentionReader(settings, image_shape)
            self.writer = AttentionWriter(settings, image_shape)
            n_read = 2 * image_shape[0] * settings.read_filters**2
        else:
            self.reader = ConvolutionReader(settings, image_shape)
            self.writer = make_decoder(settings.convolutions, settings.decoder_size, image_shape)
            filters, rows, columns = shape_after(settings.convolutions, image_shape)
            n_read = filters * rows * columns
        self.encoder = nn.LSTMCell(n_read + settings.decoder_size, settings.encoder_size)
        self.latent = LatentLayer(settings.encoder_size, settings.latent)
        self.decoder = nn.LSTMCell(settings.latent.size, settings.decoder_size)

    def encode(self, images: Tensor) -> Tensor:
        """Latents of all steps, one after the other (see :meth:`LatentModel.encode`)."""
        return self._paint(images, random=False)[1]

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Map latents back to projections (see :meth:`LatentModel.reconstruct`)."""
        canvas = latent.new_zeros(len(latent), *self.image_shape)
        state = self._start(latent, self.settings.decoder_size)
        for sample in latent.chunk(self.settings.steps, 1):
            state = self.decoder(sample, state)
            canvas = canvas + self.writer(state[0])
        return torch.sigmoid(canvas)

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the last canvas, latent loss of each step (:meth:`LatentModel.loss`)."""
        canvas, latent, latent_loss = self._paint(images, random=True)
        return pixel_cross_entropy(canvas, images).mean() + latent_loss, latent

    def _paint(self, images: Tensor, random: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The canvas as logits, the latents, and their loss."""
        canvas = torch.zeros_like(images)
        encoder = self._start(images, self.settings.encoder_size)
        decoder = self._start(images, self.settings.decoder_size)
        latents, total = [], images.new_zeros(())
        for _ in range(self.settings.steps):
            error = images - torch.sigmoid(canvas)
            glimpse = self.reader(images, error, decoder[0])
            encoder = self.encoder(torch.cat([glimpse, decoder[0]], 1), encoder)
            if random:
                sample, latent, loss = self.latent.draw(encoder[0])
                total = total + loss
            else:
                sample = latent = self.latent(encoder[0])
            latents.append(latent)
            decoder = self.decoder(sample, decoder)
            canvas = canvas + self.writer(decoder[0])
        return canvas, torch.cat(latents, 1), total

    @staticmethod
    def _start(like: Tensor, size: int) -> tuple[Tensor, Tensor]:
        zeros = like.new_zeros(like.shape[0], size)  # len() would fix the number of events
        return zeros, zeros


class ConvolutionReader(nn.Module):
    """Reads image and error image by convolutions."""

    def __init__(self, settings: DrawSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers = make_encoder(settings.convolutions, 2 * image_shape[0])

    def forward(self, images: Tensor, error: Tensor, state: Tensor) -> Tensor:
        """The glimpses, shape (n_events, n_read); the decoder's state is of no effect."""
        glimpse: Tensor = self.layers(torch.cat([images, error], 1)).flatten(1)
        return glimpse


class AttentionReader(nn.Module):
    """Reads image and error image through a grid of Gaussian filters (equation 4.44)."""

    def __init__(self, settings: DrawSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.window = AttentionWindow(
            settings.decoder_size, settings.read_filters, settings.stride, image_shape
        )

    def forward(self, images: Tensor, error: Tensor, state: Tensor) -> Tensor:
        """The glimpses, shape (n_events, 2 * channels * filters * filters)."""
        across, up, intensity = self.window(state)
        pictures = torch.cat([images, error], 1)
        glimpse = up[:, None] @ pictures @ across[:, None].mT
        found: Tensor = (intensity[:, None, None] * glimpse).flatten(1)
        return found


class AttentionWriter(nn.Module):
    """Paints through a grid of Gaussian filters (equation 4.45)."""

    def __init__(self, settings: DrawSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, filters = image_shape[0], settings.write_filters
        self.window = AttentionWindow(settings.decoder_size, filters, settings.stride, image_shape)
        self.dense = nn.Linear(settings.decoder_size, channels * filters**2)
        self.shape = (channels, filters, filters)

    def forward(self, state: Tensor) -> Tensor:
        """What is added to the canvas, shape (n_events, channels, size, size)."""
        across, up, intensity = self.window(state)
        patch = self.dense(state).unflatten(1, self.shape)
        painted: Tensor = intensity[:, None, None] * (up[:, None].mT @ patch @ across[:, None])
        return painted


class AttentionWindow(nn.Module):
    """Where a grid of filters lies, as the decoder's state has it."""

    def __init__(
        self, n_state: int, n_filters: int, stride: float, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.n_filters, self.stride, self.image_shape = n_filters, stride, image_shape
        self.dense = nn.Linear(n_state, 4)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Filters across and up, and the intensity, shape (n_events, 1)."""
        x, y, log_variance, log_intensity = self.dense(state).split(1, 1)
        _, rows, columns = self.image_shape
        across = filter_bank(
            (columns + 1) / 2 * (x + 1), log_variance.exp(), self.n_filters, self.stride, columns
        )
        up = filter_bank(
            (rows + 1) / 2 * (y + 1), log_variance.exp(), self.n_filters, self.stride, rows
        )
        return across, up, log_intensity.exp()


def filter_bank(
    centre: Tensor, variance: Tensor, n_filters: int, stride: float, size: int
) -> Tensor:
    """Gaussian filters on a line of pixels (thesis, equations 4.36 and 4.42).

    Parameters
    ----------
    centre : Tensor of float32, shape (n_events, 1)
        Centre of the row of filters [pixels, from 1].
    variance : Tensor of float32, shape (n_events, 1)
        Of each filter [pixels^2].
    n_filters : int
        Filters in the row.
    stride : float
        Distance of their means [pixels].
    size : int
        Pixels of the line.

    Returns
    -------
    Tensor of float32, shape (n_events, n_filters, size)
        Each filter sums to 1, or to less where it lies off the line.
    """
    place = torch.arange(1, n_filters + 1, device=centre.device) - n_filters / 2 - 0.5
    mean = (centre + place * stride)[:, :, None]
    pixel = torch.arange(1, size + 1, device=centre.device)
    bank = torch.exp(-(pixel - mean).square() / (2.0 * variance.clamp(min=1e-4)[:, :, None]))
    return bank / bank.sum(2, keepdim=True).clamp(min=1e-6)
