"""Projections and point sets to scores: the ONNX Runtime session that runs a bundle."""

from collections.abc import Mapping
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
        self._padded = {
            name: np.zeros((batch_size, *shape), np.float32)
            for name, shape in bundle.contract.input_shapes.items()
        }

    def score(self, inputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Score a batch of events.

        Parameters
        ----------
        inputs : mapping of str to ndarray of float32
            What the graph reads, see :meth:`Contract.make_inputs`; any number of events.

        Returns
        -------
        ndarray of float32, shape (n_events, n_classes)
            A row an event; not finite where the graph gave no number.
        """
        scores = np.empty((_length(inputs), self._n_classes), np.float32)
        self._run(inputs, {"scores": scores})
        return scores

    def score_with_latent(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score a batch of events; the latents, shape (n_events, latent_size), come with them."""
        n_events = _length(inputs)
        scores = np.empty((n_events, self._n_classes), np.float32)
        latents = np.empty((n_events, self.latent_size), np.float32)
        self._run(inputs, {"scores": scores, "latent": latents})
        return scores, latents

    def _run(
        self,
        inputs: Mapping[str, NDArray[np.float32]],
        outputs: dict[str, NDArray[np.float32]],
    ) -> None:
        """Fill the outputs, a row an event."""
        n_events = _length(inputs)
        for start in range(0, n_events, self.batch_size):
            n_rows = min(self.batch_size, n_events - start)
            part = {name: rows[start : start + n_rows] for name, rows in inputs.items()}
            if n_rows < self.batch_size:
                for name, padded in self._padded.items():
                    padded[:n_rows] = part[name]
                    padded[n_rows:] = 0.0
                part = self._padded
            results = self._session.run(list(outputs), part)
            for output, result in zip(outputs.values(), results, strict=True):
                output[start : start + n_rows] = result[:n_rows]


def _length(inputs: Mapping[str, NDArray[np.float32]]) -> int:
    """Number of events."""
    return len(next(iter(inputs.values())))
