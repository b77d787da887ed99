"""What every latent model offers, whatever it is made of."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class LatentModel(nn.Module, ABC):
    """A model that gives each projection a latent from which the projection can be redrawn.

    A model lives in a file of its own, together with the dataclass of its settings, and is listed
    in :data:`attpc_export.registry.MODELS`.

    Attributes
    ----------
    latent_size : int
        Numbers in a latent.
    """

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

    @abstractmethod
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
        """

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
