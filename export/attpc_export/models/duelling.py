"""Ar0 with a duelling decoder: a second one that draws another picture of the same event.

Seybold, Fertig, Alemi and Fischer 2019. The charge histogram and the net charge are the thesis',
the Hough transform is the one that it names as promising and did not try.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attpc_export.models.ar0 import Ar0, Ar0Settings
from attpc_export.models.layers import make_activation

_N_HIDDEN = 128
_N_ANGLES = 32
_N_DISTANCES = 33  # odd: lines through the centre lie in the middle of a bin
#: Largest distance of a line from the centre, in halves of the image's side; corners are at 1.41.
_REACH = 1.5
#: Images are averaged down to so many pixels a side before they are transformed.
_HOUGH_SIZE = 64


@dataclass(frozen=True, slots=True)
class DuellingSettings(Ar0Settings):
    """Ar0 with a second decoder.

    Attributes
    ----------
    second : {"histogram", "net_charge", "hough"}
        What it draws: the share of lit pixels by their value, the logarithm of the event's summed
        pixels, or the Hough transform of its first view for straight lines.
    second_weight : float
        Factor lambda on its loss.
    bins : int
        Bins of the histogram, from 0 to 1.
    """

    second: Literal["histogram", "net_charge", "hough"] = "histogram"
    second_weight: float = 1.0
    bins: int = 40

    def __post_init__(self) -> None:
        if self.bins < 1 or self.second_weight < 0:
            raise ValueError("bins must be positive, second_weight not negative")


class Duelling(Ar0):
    """Ar0 with a second decoder (thesis, equation 4.29).

    Parameters
    ----------
    settings : DuellingSettings
        Its shape.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    def __init__(self, settings: DuellingSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__(settings, image_shape)
        self.settings = settings
        self.hough = HoughTransform(image_shape[1]) if settings.second == "hough" else None
        outputs = {"histogram": settings.bins, "net_charge": 1, "hough": _N_ANGLES * _N_DISTANCES}
        self.second = nn.Sequential(
            nn.Linear(settings.latent.size, _N_HIDDEN),
            make_activation(settings.convolutions.activation),
            nn.Linear(_N_HIDDEN, outputs[settings.second]),
        )

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ar0's loss and the second decoder's (see :meth:`LatentModel.loss`)."""
        loss, latent = super().loss(images)
        return loss + self.settings.second_weight * self.second_loss(latent, images), latent

    def second_loss(self, latent: Tensor, images: Tensor) -> Tensor:
        """Loss of the second decoder, shape ()."""
        found = self.second(latent)
        if self.settings.second == "histogram":
            wanted = charge_histogram(images, self.settings.bins)
            return -(wanted * torch.log_softmax(found, 1)).sum(1).mean()
        if self.settings.second == "net_charge":
            return F.mse_loss(found[:, 0], net_charge(images))
        assert self.hough is not None
        wanted = self.hough(images).flatten(1)
        losses = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
        return losses.sum(1).mean()


def charge_histogram(images: Tensor, bins: int) -> Tensor:
    """Share of the lit pixels in each bin of their value from 0 to 1, shape (n_events, bins).

    The last bin takes what is beyond. An event without lit pixels has zeros.
    """
    pixels = images.flatten(1)
    number = (pixels * bins).long().clamp(0, bins - 1)
    lit = (pixels > 0).to(pixels.dtype)
    counts = pixels.new_zeros(len(pixels), bins).scatter_add(1, number, lit)
    return counts / lit.sum(1, keepdim=True).clamp(min=1.0)


def net_charge(images: Tensor) -> Tensor:
    """Logarithm of 1 + the sum of an event's pixels, shape (n_events,)."""
    return images.flatten(1).sum(1).log1p()


class HoughTransform(nn.Module):
    """Sums of pixels along straight lines, by the lines' angle and distance from the centre.

    A line's normal has the angle k * pi / 32 to the horizontal; its distance is binned
    over three halves of the image's side to either side.

    Parameters
    ----------
    size : int
        Side of the images [pixels].
    """

    number: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.factor = max(1, size // _HOUGH_SIZE)
        side = size // self.factor
        centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2.0 - 1.0
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        angle = torch.arange(_N_ANGLES, dtype=torch.float64) * math.pi / _N_ANGLES
        distance = x.flatten() * angle.cos()[:, None] + y.flatten() * angle.sin()[:, None]
        share = (distance / _REACH + 1.0) / 2.0
        number = (share * _N_DISTANCES).long().clamp(0, _N_DISTANCES - 1)
        self.register_buffer("number", number, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Transforms of the first view, shape (n_events, angles, distances), largest value 1."""
        pixels = F.avg_pool2d(images[:, :1], self.factor).flatten(1)
        found = torch.stack(
            [
                pixels.new_zeros(len(pixels), _N_DISTANCES).index_add(1, number, pixels)
                for number in self.number
            ],
            1,
        )
        return found / found.amax((1, 2), keepdim=True).clamp(min=1e-6)
