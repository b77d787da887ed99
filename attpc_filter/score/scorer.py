"""Projections to scores: the ONNX Runtime session that runs a bundle."""

from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import Bundle

_CUDA = "CUDAExecutionProvider"

Device = Literal["auto", "cpu", "cuda"]


class Scorer:
    """Runs a bundle's graph on batches of one fixed shape.

    One fixed shape, because CUDA searches its convolutions anew for every other one.

    Parameters
    ----------
    bundle : Bundle
        The model.
    device : {"auto", "cpu", "cuda"}
        ``cuda`` insists, ``auto`` takes CUDA where there is one.
    threads : int
        Threads of the CPU provider.
    batch_size : int
        Events a call of the graph.

    Attributes
    ----------
    device : str
        What the session got: ``cpu`` or ``cuda``.
    latent_size : int
        Numbers of a latent; 0 if the graph does not declare it.

    Raises
    ------
    UsageError
        If CUDA is demanded and the session did not get it.
    """

    def __init__(
        self, bundle: Bundle, device: Device = "auto", threads: int = 1, batch_size: int = 64
    ) -> None:
        wants_cuda = device != "cpu" and _CUDA in onnxruntime.get_available_providers()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # threads that spin while they wait would take the cores from reading and rebuilding
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if wants_cuda:
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
            # takes what it needs and no more, so that several processes can share a GPU
            providers.insert(0, (_CUDA, {"arena_extend_strategy": "kSameAsRequested"}))
        self._session = onnxruntime.InferenceSession(bundle.graph, options, providers=providers)
        # asked for CUDA in vain, ONNX Runtime falls back to the CPU without an exception
        got_cuda = _CUDA in self._session.get_providers()
        if device == "cuda" and not got_cuda:
            raise UsageError(
                "--device cuda: ONNX Runtime got no CUDA session; install attpc-filter[gpu] without"
                " onnxruntime beside it and check the driver with nvidia-smi, or take --device cpu"
            )
        self.device = "cuda" if got_cuda else "cpu"
        self.batch_size = batch_size
        widths = {node.name: node.shape[1] for node in self._session.get_outputs()}
        self._n_classes = len(bundle.contract.classes)
        self.latent_size = widths["latent"] if isinstance(widths["latent"], int) else 0
        self._input = np.zeros((batch_size, *bundle.contract.projection.shape), np.float32)

    def score(self, projections: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score a batch of events.

        Parameters
        ----------
        projections : ndarray of float32, shape (n_events, channels, size, size)
            The images; any number of events.

        Returns
        -------
        ndarray of float32, shape (n_events, n_classes)
            A row an event; not finite where the graph gave no number.
        """
        scores = np.empty((len(projections), self._n_classes), np.float32)
        self._run(projections, {"scores": scores})
        return scores

    def score_with_latent(
        self, projections: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score a batch of events; the latents, shape (n_events, latent_size), come with them."""
        scores = np.empty((len(projections), self._n_classes), np.float32)
        latents = np.empty((len(projections), self.latent_size), np.float32)
        self._run(projections, {"scores": scores, "latent": latents})
        return scores, latents

    def _run(
        self, projections: NDArray[np.float32], outputs: dict[str, NDArray[np.float32]]
    ) -> None:
        """Fill the outputs, a row an event."""
        for start in range(0, len(projections), self.batch_size):
            part = projections[start : start + self.batch_size]
            images = part
            if len(part) < self.batch_size:
                self._input[: len(part)] = part
                self._input[len(part) :] = 0.0
                images = self._input
            results = self._session.run(list(outputs), {"projection": images})
            for output, result in zip(outputs.values(), results, strict=True):
                output[start : start + len(part)] = result[: len(part)]
