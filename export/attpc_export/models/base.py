"""What every latent model offers, whatever it is made of."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attpc_filter.errors import UsageError


class LatentModel(nn.Module, ABC):
    """A model that gives each projection a latent from which the projection can be redrawn.

    A model lives in a file of its own, together with the dataclass of its settings, and is listed
    in :data:`attpc_export.models.registry.MODELS`.

    A model with a frozen part in front takes what that gives as a second argument of ``encode`` and
    ``loss``; without it, it computes it. One that reads hits takes point sets, float32 (n_events,
    n_points, 5), as second argument.

    Attributes
    ----------
    latent_size : int
        Numbers in a latent.
    reads_images, reads_points : bool
        Whether it reads projections, and hits (besides, or alone).
    """

    reads_images: ClassVar[bool] = True
    reads_points: ClassVar[bool] = False
    latent_size: int

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Map projections to latents, without randomness: this is what a bundle runs.

        Parameters
        ----------
        images : Tensor of float32, shape (n_events, channels, size, size)
            Projections, in [0, 1].

        Returns
        -------
        Tensor of float32, shape (n_events, latent_size)
            The latents.
        """

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Map latents back to projections.

        Parameters
        ----------
        latent : Tensor of float32, shape (n_events, latent_size)
            The latents.

        Returns
        -------
        Tensor of float32, shape (n_events, channels, size, size)
            Projections, in [0, 1].

        Raises
        ------
        UsageError
            If the model has no decoder.
        """
        raise UsageError(f"{type(self).__name__} has no decoder: it redraws nothing")

    @abstractmethod
    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Judge a batch without its labels.

        Parameters
        ----------
        images : Tensor of float32, shape (n_events, channels, size, size)
            Projections.

        Returns
        -------
        loss : Tensor of float32, shape ()
            What training makes small, labels aside: mean over the batch.
        latent : Tensor of float32, shape (n_events, latent_size)
            The latents that the loss was computed with; the labels' loss starts from them.
        """

    def frozen_part(self) -> nn.Module | None:
        """The part in front of the model that is never trained, if there is one.

        It maps projections to features, float32 (n_events, n_features). As they never change, a
        training computes them once.
        """
        return None

    def assign(self, latent: Tensor) -> Tensor:
        """Assign latents to the model's own clusters.

        Parameters
        ----------
        latent : Tensor of float32, shape (n_events, latent_size)
            The latents.

        Returns
        -------
        Tensor of float32, shape (n_events, n_clusters)
            Logarithms of the probabilities.

        Raises
        ------
        UsageError
            If the model does not cluster.
        """
        raise UsageError(
            f"{type(self).__name__} has no clusters of its own: take another head.kind than own"
        )

    def start_epoch(
        self, epoch: int, inputs: tuple[NDArray[np.float32], ...], device: torch.device
    ) -> bool:
        """Do what a model does before an epoch with all its events at once.

        Parameters
        ----------
        epoch : int
            From 0.
        inputs : tuple of ndarray, the first axis of each n_events long
            What :meth:`loss` will see, batch by batch.
        device : torch.device
            Where the model is.

        Returns
        -------
        bool
            Whether the loss is another one from now on, so that earlier losses say nothing about
            which weights are best.
        """
        return False
