"""An encoder of point sets: each hit sees what lies around it, then all are pooled.

Neighbours are weighed by Gaussians of their distance at a few fixed widths, so that a neighbourhood
is a product of matrices: no search for nearest neighbours, no list of indices, and a graph of plain
operations. From the moments of a neighbourhood (its centre, extent and direction, seen from the
beam axis) follow features that do not change when an event is turned about the beam axis but do
when it is mirrored. As in PointNet++ and DGCNN (arXiv 1706.02413, 1801.07829) further layers let
hits exchange what they have learned, and maximum, mean and the first two harmonics of the azimuth
pool it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Lengths are in this unit inside, so that coordinates and their squares are near 1 [mm].
_UNIT_MM = 100.0
_CENTRE_Z_MM = 500.0
#: Rough mean and spread of radius [unit], z [unit] and log charge.
_MEAN = (0.7, 0.0, 5.5)
_SPREAD = (0.4, 3.0, 1.2)
_MEAN_LOG_NEIGHBOURS = 1.5
_MEAN_LOG_HITS = 5.0
#: Squared distance at which rows without a hit stand apart.
_FAR = 1.0e4
#: What keeps them out of a maximum; numbers behind a layer normalisation are smaller.
_BELOW_ALL = 30.0
#: exp of less is not worth the denormal numbers that it can be.
_LEAST_EXPONENT = -20.0
_FEATURES_A_SCALE = 11


@dataclass(frozen=True, slots=True)
class PointEncoderSettings:
    """Shape of an encoder of point sets.

    Attributes
    ----------
    scales_mm : tuple of float
        Widths (standard deviations) of the neighbourhoods [mm].
    width : int
        Numbers that a hit carries from layer to layer.
    message : int
        Numbers that a hit tells its neighbours, each scale.
    layers : int
        Rounds of telling.
    harmonics : int
        Numbers of a hit whose first and second harmonic over the azimuth are pooled.
    latent_size : int
        Numbers in the latent.
    """

    scales_mm: tuple[float, ...] = (20.0, 60.0, 180.0)
    width: int = 64
    message: int = 16
    layers: int = 2
    harmonics: int = 16
    latent_size: int = 64

    def __post_init__(self) -> None:
        sizes = (self.width, self.message, self.layers, self.harmonics, self.latent_size)
        if not self.scales_mm or min(*self.scales_mm, *sizes) <= 0:
            raise ValueError("scales_mm and all sizes must be positive")


class PointEncoder(nn.Module):
    """Maps point sets to latents.

    Parameters
    ----------
    settings : PointEncoderSettings
        Its shape.
    """

    def __init__(self, settings: PointEncoderSettings) -> None:
        super().__init__()
        width, n_scales = settings.width, len(settings.scales_mm)
        self.scales = [scale / _UNIT_MM for scale in settings.scales_mm]
        self.embed = nn.Sequential(
            nn.Linear(len(_MEAN) + _FEATURES_A_SCALE * n_scales, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )
        self.layers = nn.ModuleList(
            _Exchange(width, settings.message, n_scales) for _ in range(settings.layers)
        )
        self.harmonics = nn.Linear(width, settings.harmonics)
        self.widen = nn.Linear(width, 2 * width)
        self.pooled = nn.Sequential(
            nn.Linear(4 * width + 2 * settings.harmonics + 1, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, settings.latent_size),
        )

    def forward(self, points: Tensor) -> Tensor:
        """Map point sets to latents.

        Parameters
        ----------
        points : Tensor of float32, shape (n_events, n_points, 5)
            See :data:`attpc_filter.rebuild.point_set.POINT_FEATURES`.

        Returns
        -------
        Tensor of float32, shape (n_events, latent_size)
            The latents.
        """
        is_hit = points[..., 4:5]
        x = points[..., 0] / _UNIT_MM
        y = points[..., 1] / _UNIT_MM
        z = (points[..., 2] - _CENTRE_Z_MM) / _UNIT_MM
        log_charge = points[..., 3]
        radius = torch.sqrt(x * x + y * y).clamp(min=1e-3)
        cosine, sine = x / radius, y / radius

        # sums of squares cancel: the nearer to the origin an event lies, the less is lost
        n_hits = is_hit.sum(1).clamp(min=1.0)
        near = z - (z * is_hit[..., 0]).sum(1, keepdim=True) / n_hits
        position = torch.stack([x, y, near], -1)
        square = (position * position).sum(-1, keepdim=True)
        apart = (square + _FAR * (1.0 - is_hit)).transpose(1, 2)
        distance = square + apart - 2.0 * torch.bmm(position, position.transpose(1, 2))
        seconds = [x * x, x * y, y * y, x * near, y * near, near * near]
        moments = [torch.ones_like(x), x, y, near, *seconds]
        columns = torch.stack([*moments, log_charge], -1)

        own = torch.stack([radius, z, log_charge], -1)
        features = [(own - own.new_tensor(_MEAN)) / own.new_tensor(_SPREAD)]
        kernels = []
        for scale in self.scales:
            exponent = (distance * (-0.5 / scale**2)).clamp(min=_LEAST_EXPONENT, max=0.0)
            kernel = torch.exp(exponent)
            summed = torch.bmm(kernel, columns)
            kernels.append((kernel, 1.0 / summed[..., :1]))
            features.append(_describe_neighbours(summed, position, log_charge, cosine, sine, scale))
        hits = self.embed(torch.cat(features, -1))

        for layer in self.layers:
            event = torch.cat([(hits * is_hit).sum(1) / n_hits, _maximum(hits, is_hit)], -1)
            hits = layer(hits, kernels, event)

        wide = F.relu(self.widen(hits)) * is_hit
        waves = self.harmonics(hits) * is_hit
        first = _amplitude(waves, cosine, sine, n_hits)
        second = _amplitude(waves, cosine**2 - sine**2, 2.0 * cosine * sine, n_hits)
        pooled = [wide.sum(1) / n_hits, wide.amax(1), first, second]
        latent: Tensor = self.pooled(torch.cat([*pooled, torch.log(n_hits) - _MEAN_LOG_HITS], -1))
        return latent


class _Exchange(nn.Module):
    """Hits tell their neighbours, at every scale, and learn from them and from the whole event."""

    def __init__(self, width: int, message: int, n_scales: int) -> None:
        super().__init__()
        self.tell = nn.ModuleList(nn.Linear(width, message) for _ in range(n_scales))
        self.hear = nn.Linear(width + message * n_scales, width)
        self.see = nn.Linear(2 * width, width, bias=False)
        self.learn = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, hits: Tensor, kernels: list[tuple[Tensor, Tensor]], event: Tensor) -> Tensor:
        told = [
            torch.bmm(kernel, tell(hits)) * norm
            for tell, (kernel, norm) in zip(self.tell, kernels, strict=True)
        ]
        heard = self.hear(torch.cat([hits, *told], -1)) + self.see(event)[:, None]
        result: Tensor = self.norm(hits + self.learn(F.relu(heard)))
        return result


def _describe_neighbours(
    summed: Tensor,
    position: Tensor,
    log_charge: Tensor,
    cosine: Tensor,
    sine: Tensor,
    scale: float,
) -> Tensor:
    """Features of each hit's neighbourhood, in the directions radial, tangential and along z.

    Parameters
    ----------
    summed : Tensor, shape (n_events, n_points, 11)
        Weighted sums over the neighbours: 1, x, y, z, xx, xy, yy, xz, yz, zz, log charge.
    position : Tensor, shape (n_events, n_points, 3)
        Own x, y, z.
    log_charge, cosine, sine : Tensor, shape (n_events, n_points)
        Own log charge, and the direction of the hit from the beam axis.
    scale : float
        Width of the neighbourhood.

    Returns
    -------
    Tensor, shape (n_events, n_points, 11)
        Log of the number of neighbours, their charge relative to the own, the way to their centre
        and the covariance of their positions.
    """
    x, y, z = position.unbind(-1)
    count = summed[..., 0]
    mean = summed / summed[..., :1]
    mx, my, mz = mean[..., 1], mean[..., 2], mean[..., 3]
    dx, dy, dz = (mx - x) / scale, (my - y) / scale, (mz - z) / scale
    xx, xy, yy = mean[..., 4] - mx * mx, mean[..., 5] - mx * my, mean[..., 6] - my * my
    xz, yz, zz = mean[..., 7] - mx * mz, mean[..., 8] - my * mz, mean[..., 9] - mz * mz
    covariance = [
        cosine**2 * xx + 2.0 * cosine * sine * xy + sine**2 * yy,
        sine**2 * xx - 2.0 * cosine * sine * xy + cosine**2 * yy,
        cosine * sine * (yy - xx) + (cosine**2 - sine**2) * xy,
        cosine * xz + sine * yz,
        cosine * yz - sine * xz,
        zz,
    ]
    return torch.stack(
        [
            torch.log(count) - _MEAN_LOG_NEIGHBOURS,
            mean[..., 10] - log_charge,
            dx * cosine + dy * sine,
            dy * cosine - dx * sine,
            dz,
            *(entry / scale**2 for entry in covariance),
        ],
        -1,
    )


def _maximum(hits: Tensor, is_hit: Tensor) -> Tensor:
    return (hits - _BELOW_ALL * (1.0 - is_hit)).amax(1)


def _amplitude(waves: Tensor, cosine: Tensor, sine: Tensor, n_hits: Tensor) -> Tensor:
    """Amplitude of a harmonic over the azimuth: the same however an event is turned."""
    real = (waves * cosine[..., None]).sum(1) / n_hits
    imaginary = (waves * sine[..., None]).sum(1) / n_hits
    return torch.sqrt(real**2 + imaginary**2 + 1e-6)
