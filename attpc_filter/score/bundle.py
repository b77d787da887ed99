"""The model bundle: one ONNX file that carries its own contract in its metadata.

The contract says what the graph reads (projections, point sets or both, how hits are made), what
it gives (classes with PDG codes, default thresholds) and where it comes from (training data,
versions).
The graph has the inputs that the contract describes: ``projection``, float32 (n, channels, size,
size), and ``points``, float32 (n, n_points, 5); or, if it makes hits and projections itself, those
of :class:`attpc_filter.rebuild.traces.TraceBatch`, and an output ``n_hits``, int64 (n,). Its
outputs are ``scores``, float32 (n, n_classes),
each row summing to 1, ``latent``, float32 (n, d), and, where the contract has a threshold for it,
``novelty``, float32 (n,): how unlike the training events an event is.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.clean import CleanSettings, clean_hits
from attpc_filter.rebuild.detector import ZCalibration
from attpc_filter.rebuild.hits import HitSettings
from attpc_filter.rebuild.point_set import PointSetSettings, gather_points
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.rebuild.traces import TraceBatch
from attpc_filter.records import Hits

#: Version of the contract's layout; a bundle with another one is refused.
CONTRACT_VERSION = 1
#: Key of the contract in the ONNX file's metadata, a JSON text.
METADATA_KEY = "attpc_filter.contract"

#: Folders that an output has beside those of the classes.
_RESERVED_NAMES = ("uncertain", "unreadable", "passthrough", "tags", "hits", "latents")
_MODELS = Path(__file__).parents[1] / "models"


@dataclass(frozen=True, slots=True)
class EventClass:
    """A class of events that the model tells from the others.

    Attributes
    ----------
    name : str
        Name of the class, of its score and of its stream.
    pdg : int
        PDG code of the particle (proton 2212, carbon-12 1000060120); 0 for none.
    threshold : float
        Default threshold: an event can be of this class if its score reaches it.
    role : {"", "noise"}
        ``noise``: what nobody is interested in, whatever the class is called.
    """

    name: str
    pdg: int = 0
    threshold: float = 0.5
    role: Literal["", "noise"] = ""


@dataclass(frozen=True, slots=True)
class Contract:
    """What a model reads, what it gives, and where it comes from.

    Attributes
    ----------
    name, description : str
        Name of the bundle, and one line about it.
    classes : tuple of EventClass
        In the order of the score columns.
    hits : HitSettings
        How traces become hits.
    detector : ZCalibration
        The z calibration of the training data; a run's own replaces it.
    projection : ProjectionSettings or None
        What the graph's input ``projection`` holds; None: it has no such input.
    training : dict
        Fingerprint of the training data, split, seed, what the model scored.
    versions : dict
        Packages that made the bundle.
    version : int
        :data:`CONTRACT_VERSION`.
    points : PointSetSettings or None
        What the graph's input ``points`` holds; None: it has no such input.
    clean : CleanSettings
        Which hits are left out before the inputs are made.
    novelty_threshold : float or None
        Events with a higher novelty are uncertain; None: the graph gives no novelty.
    traces : TraceBatch or None
        The graph reads raw traces, so many at a time, and makes hits and projection itself; None:
        it reads what is made of hits.
    """

    name: str
    description: str
    classes: tuple[EventClass, ...]
    hits: HitSettings
    detector: ZCalibration
    projection: ProjectionSettings | None
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    version: int = CONTRACT_VERSION
    points: PointSetSettings | None = None
    clean: CleanSettings = field(default_factory=CleanSettings)
    novelty_threshold: float | None = None
    traces: TraceBatch | None = None

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event's part of each of the model's inputs."""
        settings = {"projection": self.projection, "points": self.points}
        return {name: part.shape for name, part in settings.items() if part is not None}

    @property
    def radius_mm(self) -> float:
        """Distance from the beam axis up to which the graph sees hits [mm]."""
        return max(part.radius_mm for part in (self.projection, self.points) if part is not None)

    def make_inputs(
        self,
        hits: Hits,
        events: NDArray[np.int64] | None = None,
        room: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Make what the graph reads from the hits of a batch of events, or of some of them.

        Parameters
        ----------
        hits : Hits
            The batch.
        events : ndarray of int64, optional
            Indices in the batch of the events that are wanted; all if left out.
        room : mapping of str to ndarray of float32, optional
            Where to put what is made, in the first rows; new memory if left out or too small.

        Returns
        -------
        dict of str to ndarray of float32
            A row an event, by the name of the graph's input.

        Raises
        ------
        UsageError
            If the graph reads traces.
        """
        if self.traces is not None:
            raise UsageError(
                f"model {self.name}: reads raw traces; take the bundle that it was made of, or give"
                " it to attpc-filter run with a raw run"
            )
        inputs = {}
        room = room or {}
        hits = clean_hits(hits, self.clean)
        if self.projection is not None:
            inputs["projection"] = project(hits, self.projection, events, room.get("projection"))
        if self.points is not None:
            inputs["points"] = gather_points(hits, self.points, events, room.get("points"))
        return inputs

    def to_json(self) -> str:
        """The contract as the JSON text that goes into the ONNX file's metadata."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Contract":
        """Read a contract back.

        Raises
        ------
        ValueError
            If it is of another version, has unknown or missing entries, or makes no sense.
        """
        entries = json.loads(text)
        if not isinstance(entries, dict) or entries.get("version") != CONTRACT_VERSION:
            found = entries.get("version") if isinstance(entries, dict) else None
            raise ValueError(
                f"contract version {found}, this attpc-filter reads {CONTRACT_VERSION}"
            )
        kinds = {
            "projection": ProjectionSettings,
            "points": PointSetSettings,
            "traces": TraceBatch,
        }
        reads = {
            name: None if entries.get(name) is None else _build(kind, entries[name])
            for name, kind in kinds.items()
        }
        if reads["projection"] is None and reads["points"] is None:
            raise ValueError("it says neither what a projection nor what a point set holds")
        contract: Contract = _build(
            cls,
            entries
            | reads
            | {
                "hits": _build(HitSettings, entries["hits"]),
                "detector": _build(ZCalibration, entries["detector"]),
                "clean": _build(CleanSettings, entries.get("clean", {})),
                "classes": tuple(_build(EventClass, entry) for entry in entries["classes"]),
            },
        )
        names = [event_class.name for event_class in contract.classes]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                f"a contract needs at least two classes, each with its own name: {names}"
            )
        for name in names:
            if not re.fullmatch(r"\w[\w.+-]*", name) or name in _RESERVED_NAMES:
                raise ValueError(f"{name!r} cannot be the name of a class: it names a folder")
        if contract.hits.mode not in get_args(HitSettings.__annotations__["mode"]):
            raise ValueError(f"unknown hits mode {contract.hits.mode!r}")
        return contract


def _build(kind: type[Any], entries: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(kind)}
    if unknown := set(entries) - known:
        raise ValueError(f"unknown entries for {kind.__name__}: {', '.join(sorted(unknown))}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model file with its contract, as loaded.

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
    """

    path: Path
    graph: bytes
    sha256: str
    contract: Contract


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
        raise UsageError(f"model {path}: not a model that ONNX Runtime opens: {error}") from error
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise UsageError(
            f"model {path}: carries no contract ({METADATA_KEY} in its metadata), so nothing says"
            " how its input must be made; export it with attpc-export"
        )
    try:
        contract = Contract.from_json(text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"model {path}: its contract cannot be used: {error}") from error
    _check_graph(session, contract, path)
    return Bundle(path, graph, hashlib.sha256(graph).hexdigest(), contract)


def _check_graph(session: onnxruntime.InferenceSession, contract: Contract, path: Path) -> None:
    if contract.traces is None:
        inputs = {node.name: node.shape[1:] for node in session.get_inputs()}
        wanted = {name: list(shape) for name, shape in contract.input_shapes.items()}
    else:
        inputs = {node.name: node.shape for node in session.get_inputs()}
        wanted = {name: list(shape) for name, (shape, _) in contract.traces.inputs.items()}
    if inputs != wanted:
        raise UsageError(f"model {path}: the graph reads {inputs}, its contract says {wanted}")
    outputs = {node.name: node.shape[1:] for node in session.get_outputs()}
    if outputs.get("scores") != [len(contract.classes)] or "latent" not in outputs:
        raise UsageError(
            f"model {path}: the graph gives {outputs}, its contract needs 'latent' and 'scores' of"
            f" {len(contract.classes)} classes"
        )
    if contract.novelty_threshold is not None and outputs.get("novelty") != []:
        raise UsageError(
            f"model {path}: the graph gives {outputs}, its contract needs 'novelty', a number an"
            " event"
        )
    if contract.traces is not None and outputs.get("n_hits") != []:
        raise UsageError(
            f"model {path}: the graph gives {outputs}, its contract needs 'n_hits', a number an"
            " event"
        )
