"""The model bundle: one ONNX file that carries its own contract in its metadata.

The contract (:class:`attpc_filter.score.contract.Contract`) says what the graph reads (projections,
point sets or both, how hits are made), what it gives (classes with PDG codes, default thresholds,
further outputs) and where it comes from (training data, versions).
The graph has the inputs that the contract describes: ``projection``, float32 (n, channels, size,
size), and ``points``, float32 (n, n_points, 5); or, if it makes hits and projections itself, those
of :class:`attpc_filter.rebuild.traces.TraceBatch`, and an output ``n_hits``, int64 (n,). Its
outputs are ``scores``, float32 (n, n_classes), each row summing to 1, ``latent``, float32 (n, d),
and, where the contract has a threshold for it, ``novelty``, float32 (n,): how unlike the training
events an event is. Those that the contract's ``outputs`` name are float32 (n,) or (n, columns).
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime

from attpc_filter.errors import UsageError
from attpc_filter.score.contract import CONTRACT_VERSION, Contract, EventClass
from attpc_filter.score.outputs import Shape, check_outputs
from attpc_filter.texts import one_line

__all__ = [
    "CONTRACT_VERSION",
    "METADATA_KEY",
    "Bundle",
    "Contract",
    "EventClass",
    "load_bundle",
    "shipped_bundles",
]

#: Key of the contract in the ONNX file's metadata, a JSON text.
METADATA_KEY = "attpc_filter.contract"
_MODELS = Path(__file__).parents[1] / "models"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model file with its contract, as loaded. It can be pickled and sent.

    Attributes
    ----------
    path : Path
        Where the file lies.
    graph : bytes
        The ONNX file.
    sha256 : str
        Its SHA-256.
    contract : Contract
        What its metadata say.
    output_shapes : dict of str to tuple
        Shape of one event's part of each output of the graph; None: the graph does not declare it.
    """

    path: Path
    graph: bytes = field(repr=False)
    sha256: str
    contract: Contract
    output_shapes: dict[str, Shape] = field(default_factory=dict)

    @property
    def latent_size(self) -> int:
        """Numbers of a latent; 0 if the graph does not declare it."""
        shape = self.output_shapes.get("latent", ())
        return shape[0] or 0 if len(shape) == 1 else 0


def shipped_bundles() -> dict[str, Path]:
    """Names and paths of the bundles that come with the package."""
    return {path.stem: path for path in sorted(_MODELS.glob("*.onnx"))}


def load_bundle(model: str) -> Bundle:
    """Load a bundle by its name or its path, and check it against its contract.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.

    Raises
    ------
    UsageError
        If there is no such model, it is not ONNX, it carries no contract or one that cannot be
        read, or its graph is not what the contract says.
    """
    shipped = shipped_bundles()
    path = shipped.get(model, Path(model))
    try:
        graph = path.read_bytes()
    except OSError as error:
        names = ", ".join(shipped) or "none"
        raise UsageError(
            f"model {model}: {error.strerror}; give the path of an ONNX file or one of: {names}"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, without a common base
        raise UsageError(
            f"model {path}: not a model that ONNX Runtime opens: {one_line(error)}"
        ) from error
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError as error:
        raise UsageError(f"model {path}: damaged: its metadata are no text") from error
    if text is None:
        raise UsageError(
            f"model {path}: carries no contract ({METADATA_KEY} in its metadata), so nothing says"
            " how its input must be made; export it with attpc-export"
        )
    try:
        contract = Contract.from_json(text)
    except ValueError as error:
        raise UsageError(f"model {path}: its contract cannot be used: {error}") from error
    shapes = output_shapes(session)
    try:
        _check_inputs(session, contract)
        check_outputs(contract, shapes)
    except ValueError as error:
        raise UsageError(f"model {path}: {error}") from error
    return Bundle(path, graph, hashlib.sha256(graph).hexdigest(), contract, shapes)


def output_shapes(session: onnxruntime.InferenceSession) -> dict[str, Shape]:
    """Shape of one event's part of each output of a graph; None where it is not declared."""
    return {
        node.name: tuple(size if isinstance(size, int) else None for size in node.shape[1:])
        for node in session.get_outputs()
    }


def _check_inputs(session: onnxruntime.InferenceSession, contract: Contract) -> None:
    if contract.traces is None:
        inputs = {node.name: node.shape[1:] for node in session.get_inputs()}
        wanted = {name: list(shape) for name, shape in contract.input_shapes.items()}
    else:
        inputs = {node.name: node.shape for node in session.get_inputs()}
        wanted = {name: list(shape) for name, (shape, _) in contract.batch_inputs.items()}
    if inputs != wanted:
        raise ValueError(f"the graph reads {inputs}, its contract says {wanted}")
