"""Projections and point sets to scores: the ONNX Runtime session that runs a bundle."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import Bundle, output_shapes
from attpc_filter.score.outputs import outputs_of

_CUDA = "CUDAExecutionProvider"

#: What a graph reads, by the name of its input.
Inputs = Mapping[str, NDArray[Any]]


def gpu_number(device: str) -> int | None:
    """Number of the GPU that a device names, 0 where it names none; None for the CPU.

    Raises
    ------
    UsageError
        If it is none of ``auto``, ``cpu``, ``cuda``, ``cuda:N``.
    """
    if device == "cpu":
        return None
    if not (found := re.fullmatch(r"auto|cuda(?::(\d+))?", device)):
        raise UsageError(f"device: {device!r} is none of auto, cpu, cuda, cuda:N")
    return int(found[1] or 0)


class Scorer:
    """Runs a bundle's graph on batches of one fixed shape.

    One fixed shape, because CUDA searches its convolutions anew for every other one. It has buffers
    for a batch, bound to the graph's inputs once: on the CPU the graph reads it where it lies; on a
    GPU it is copied there while the GPU is busy with another process's batch. For one thread.

    Parameters
    ----------
    bundle : Bundle
        The model.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        ``cuda`` insists (on GPU ``N``, or the first), ``auto`` takes CUDA where there is one.
    threads : int
        Threads of the CPU provider.
    batch_size : int
        Events a call of the graph; one that reads traces has its own number.

    Attributes
    ----------
    device : str
        What the session got: ``cpu``, ``cuda`` or ``cuda:N``.
    buffers : dict of str to ndarray
        By the name of the graph's input, ``batch_size`` events. What is made here
        (:meth:`Contract.make_inputs`) need not be copied to be scored; the next :meth:`run`
        overwrites it.

    Raises
    ------
    UsageError
        If CUDA is demanded and the session did not get it.
    """

    def __init__(
        self, bundle: Bundle, device: str = "auto", threads: int = 1, batch_size: int = 64
    ) -> None:
        gpu = gpu_number(device)
        wants_cuda = gpu is not None and _CUDA in onnxruntime.get_available_providers()
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
            settings = {
                "device_id": str(gpu),
                # takes what it needs and no more, so that several processes can share a GPU
                "arena_extend_strategy": "kSameAsRequested",
                # TF32 keeps 10 bits of a number: too few for ADC samples, and scores would differ
                "use_tf32": "0",
            }
            providers.insert(0, (_CUDA, settings))
        self._session = onnxruntime.InferenceSession(bundle.graph, options, providers=providers)
        # where CUDA cannot be used, ONNX Runtime takes the CPU and raises no exception
        got_cuda = _CUDA in self._session.get_providers()
        if device not in ("auto", "cpu") and not got_cuda:
            raise UsageError(
                f"--device {device}: ONNX Runtime got no CUDA session; install attpc-filter[gpu]"
                " without onnxruntime beside it and check the driver with nvidia-smi, or take"
                " --device cpu"
            )
        self.device = ("cuda" if device == "auto" else device) if got_cuda else "cpu"
        traces = bundle.contract.traces
        self.batch_size = batch_size if traces is None else traces.n_events
        self._dtypes = {row.name: row.dtype for row in outputs_of(bundle.contract)}
        self._shapes = output_shapes(self._session)
        inputs: Mapping[str, tuple[tuple[int, ...], Any]] = bundle.contract.batch_inputs or {
            name: ((batch_size, *shape), np.float32)
            for name, shape in bundle.contract.input_shapes.items()
        }
        if not got_cuda:
            gpu = None
        self.buffers = {
            name: _make_buffer(shape, kind, gpu) for name, (shape, kind) in inputs.items()
        }
        self._binding = self._session.io_binding()
        self._on_gpu: dict[str, Any] = {}
        for name, buffer in self.buffers.items():
            if gpu is None:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            else:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(buffer, "cuda", gpu)
                self._on_gpu[name] = value
            self._binding.bind_ortvalue_input(name, value)
        self._outputs = [output.name for output in self._session.get_outputs()]
        for name in self._outputs:
            self._binding.bind_output(name)

    def score(self, inputs: Inputs) -> NDArray[np.float32]:
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

    def run(self, inputs: Inputs, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Have more of what the graph gives for a batch of events.

        Parameters
        ----------
        inputs : mapping of str to ndarray of float32
            As for :meth:`score`.
        names : sequence of str
            The outputs that are wanted, of those that the contract declares.

        Returns
        -------
        dict of str to ndarray of float32
            The outputs by name, a row an event.
        """
        n_events = len(next(iter(inputs.values())))
        outputs = {
            name: np.empty(
                (n_events, *(size or 0 for size in self._shapes[name])),
                self._dtypes.get(name, np.float32),
            )
            for name in names
        }
        for start in range(0, n_events, self.batch_size):
            n_rows = min(self.batch_size, n_events - start)
            for name, buffer in self.buffers.items():
                rows = inputs[name][start : start + n_rows]
                if rows.ctypes.data != buffer.ctypes.data:
                    buffer[:n_rows] = rows
                buffer[n_rows:] = 0.0
            found = self.run_buffers()
            for name, output in outputs.items():
                output[start : start + n_rows] = found[name][:n_rows]
        return outputs

    def run_buffers(self) -> dict[str, NDArray[Any]]:
        """Run the graph on what the buffers hold.

        Returns
        -------
        dict of str to ndarray
            All outputs of the graph by name, ``batch_size`` rows.
        """
        for name, value in self._on_gpu.items():
            value.update_inplace(self.buffers[name])
        self._session.run_with_iobinding(self._binding)
        return dict(zip(self._outputs, self._binding.copy_outputs_to_cpu(), strict=True))


def _make_buffer(shape: tuple[int, ...], kind: Any, gpu: int | None) -> NDArray[Any]:
    """A buffer for an input; page-locked where ONNX Runtime can: copies to a GPU are faster."""
    if gpu is not None and hasattr(onnxruntime, "get_ep_devices"):
        wanted = onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE
        for device in onnxruntime.get_ep_devices():
            memory = device.memory_info(wanted) if device.ep_name == _CUDA else None
            if memory is not None and memory.device_id == gpu:
                # it lists memory that it has no allocator for; its errors are plain exceptions
                with suppress(Exception):
                    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                        shape, kind, memory_info=memory
                    )
                    buffer: NDArray[Any] = value.numpy()  # a view
                    buffer[:] = 0
                    return buffer
    return np.zeros(shape, kind)
