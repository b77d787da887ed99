"""Projections and point sets to scores: the ONNX Runtime session that runs a bundle."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

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
        Threads of the CPU provider for a batch; several threads may score at a time.
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
        (of_latent,) = (o.shape for o in self._session.get_outputs() if o.name == "latent")
        self._n_classes = len(bundle.contract.classes)
        self.latent_size = of_latent[1] if isinstance(of_latent[1], int) else 0
        self._shapes = bundle.contract.input_shapes
        self._padded = threading.local()
        # one session a GPU, and one thread at a time that uses it
        self._turn: AbstractContextManager[Any] = threading.Lock() if got_cuda else nullcontext()

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
        return self.run(inputs, ["scores"])["scores"]

    def run(
        self, inputs: Mapping[str, NDArray[np.float32]], names: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Have more of what the graph gives for a batch of events.

        Parameters
        ----------
        inputs : mapping of str to ndarray of float32
            As for :meth:`score`.
        names : sequence of str
            The outputs that are wanted: ``scores``, ``latent`` (n_events, latent_size), ``novelty``
            (n_events,).

        Returns
        -------
        dict of str to ndarray of float32
            The outputs by name, a row an event.
        """
        n_events = len(next(iter(inputs.values())))
        shapes = {"scores": (self._n_classes,), "latent": (self.latent_size,), "novelty": ()}
        outputs = {name: np.empty((n_events, *shapes[name]), np.float32) for name in names}
        for start in range(0, n_events, self.batch_size):
            n_rows = min(self.batch_size, n_events - start)
            part = {name: rows[start : start + n_rows] for name, rows in inputs.items()}
            if n_rows < self.batch_size:
                part = self._pad(part, n_rows)
            with self._turn:
                results = self._session.run(names, part)
            for output, result in zip(outputs.values(), results, strict=True):
                output[start : start + n_rows] = result[:n_rows]
        return outputs

    def _pad(
        self, part: Mapping[str, NDArray[np.float32]], n_rows: int
    ) -> dict[str, NDArray[np.float32]]:
        """Fill up a batch with events of zeros, in room that is the thread's own."""
        if not hasattr(self._padded, "inputs"):
            self._padded.inputs = {
                name: np.zeros((self.batch_size, *shape), np.float32)
                for name, shape in self._shapes.items()
            }
        padded: dict[str, NDArray[np.float32]] = self._padded.inputs
        for name, rows in padded.items():
            rows[:n_rows] = part[name]
            rows[n_rows:] = 0.0
        return padded
