"""An encoder of point sets alone: hits in, latent out, no projection."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attpc_export.models.base import LatentModel
from attpc_export.models.point_encoder import PointEncoder, PointEncoderSettings

#: Lengths are in this unit inside [mm].
_UNIT_MM = 100.0
#: Keeps logarithms and roots finite.
_LITTLE = 1e-4
#: Numbers that :func:`summarise` gives.
N_SUMMARY = 18


@dataclass(frozen=True, slots=True)
class PointsSettings:
    """Shape of the encoder.

    Attributes
    ----------
    points : PointEncoderSettings
        Of the encoder that reads hits.
    summary : bool
        Whether a summary of the hits (how many, charge, extent) is joined to the latent.
    """

    points: PointEncoderSettings = field(default_factory=PointEncoderSettings)
    summary: bool = True


class Points(LatentModel):
    """A point-set encoder as a latent model; it has no loss of its own.

    Parameters
    ----------
    settings : PointsSettings
        Its shape.
    image_shape : tuple of int
        Of no projection: it reads none.
    """

    reads_points = True
    reads_images = False

    def __init__(self, settings: PointsSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.points = PointEncoder(settings.points)
        self.summary = settings.summary
        self.latent_size = settings.points.latent_size + (N_SUMMARY if settings.summary else 0)

    def encode(self, points: Tensor) -> Tensor:
        """Map point sets to latents (see :meth:`LatentModel.encode`)."""
        latent: Tensor = self.points(points)
        return torch.cat([latent, summarise(points)], 1) if self.summary else latent

    def loss(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """No loss, and the latents (see :meth:`LatentModel.loss`)."""
        return torch.zeros((), device=points.device), self.encode(points)


def summarise(points: Tensor) -> Tensor:
    """Summarise the hits of events; the same however an event is turned about the beam axis.

    Parameters
    ----------
    points : Tensor of float32, shape (n_events, n_points, 5)
        See :data:`attpc_filter.rebuild.point_set.POINT_FEATURES`.

    Returns
    -------
    Tensor of float32, shape (n_events, 18)
        Log of the number of hits; mean, spread and maximum of the log charge; of the radius; mean,
        spread and peakedness along z; how charge goes with radius; first and second harmonic over
        the azimuth of the hits and of their radius; logs of the extents across and along the beam.
    """
    is_hit = points[..., 4]
    n_hits = is_hit.sum(1).clamp(min=1.0)
    share = is_hit / n_hits[:, None]

    def mean(values: Tensor) -> Tensor:
        return (values * share).sum(1)

    def spread(values: Tensor) -> Tensor:
        return torch.sqrt(mean((values - mean(values)[:, None]) ** 2) + _LITTLE)

    x, y, z = points[..., 0] / _UNIT_MM, points[..., 1] / _UNIT_MM, points[..., 2] / _UNIT_MM
    charge = points[..., 3]
    radius = torch.sqrt(x * x + y * y + _LITTLE)
    cosine, sine = x / radius, y / radius
    waves = []
    for real, imaginary in ((cosine, sine), (cosine**2 - sine**2, 2.0 * cosine * sine)):
        for weight in (is_hit, radius):
            square = mean(real * weight) ** 2 + mean(imaginary * weight) ** 2
            waves.append(torch.sqrt(square + _LITTLE))
    away = charge - mean(charge)[:, None], radius - mean(radius)[:, None]
    along = z - mean(z)[:, None]
    xx, yy = spread(x) ** 2, spread(y) ** 2
    xy = mean((x - mean(x)[:, None]) * (y - mean(y)[:, None]))
    round_ = torch.sqrt((xx - yy) ** 2 + 4.0 * xy**2 + _LITTLE)
    return torch.stack(
        [
            torch.log(n_hits),
            mean(charge),
            spread(charge),
            (charge * is_hit).amax(1),
            mean(radius),
            spread(radius),
            (radius * is_hit).amax(1),
            mean(z),
            spread(z),
            mean(along**4) / (mean(along**2) ** 2 + 1e-2),
            mean(away[0] * away[1]),
            *waves,
            torch.log(xx + yy + round_),
            torch.log((xx + yy - round_).clamp(min=_LITTLE)),
            torch.log(spread(z)),
        ],
        1,
    )
