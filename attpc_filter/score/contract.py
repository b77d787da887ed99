"""The contract that a model file carries: what its graph reads, what it gives, where it is from.

Version 2 (this one) says more of the detector than its z calibration, and may declare further
outputs. Version 1 is still read: its entry ``detector`` is the z calibration alone.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.clean import CleanSettings, clean_hits
from attpc_filter.rebuild.detector import DEFAULT_SAMPLES, Detector, ZCalibration, check_samples
from attpc_filter.rebuild.detector_file import DEFAULT_NAME, load_detector, shipped_detectors
from attpc_filter.rebuild.hits import HitSettings
from attpc_filter.rebuild.point_set import PointSetSettings
from attpc_filter.rebuild.projection import ProjectionSettings
from attpc_filter.rebuild.traces import TraceBatch
from attpc_filter.records import Hits
from attpc_filter.score.checked import build, parse_json
from attpc_filter.score.inputs import INPUTS, InputSettings
from attpc_filter.score.outputs import reserved_names

#: Version of the contract's layout; 1 is read too.
CONTRACT_VERSION = 2

#: Folders that an output has beside those of the classes.
_RESERVED_NAMES = ("uncertain", "unreadable", "passthrough", "tags", "hits", "latents")
#: Columns that every tag table has.
_TABLE_COLUMNS = ("run", "event", "tag", "n_hits", "reason", "novelty")


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
        ``noise``: events to be thrown away, whatever the class is called.
    """

    name: str
    pdg: int = 0
    threshold: float = 0.5
    role: Literal["", "noise"] = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.+-]{0,99}", self.name) or self.name in _RESERVED_NAMES:
            raise ValueError(f"{self.name!r} cannot be the name of a class: it names a folder")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"class {self.name}: threshold {self.threshold} is not in 0 to 1")


@dataclass(frozen=True, slots=True)
class ModelDetector:
    """The detector that a model was trained for.

    Attributes
    ----------
    name : str
        Its name; empty if the contract does not say it.
    sha256 : str
        :attr:`attpc_filter.rebuild.detector.Detector.sha256`; empty if the contract has none.
    n_samples : int
        Samples of a trace.
    calibration : ZCalibration
        The z calibration of the training data; a run's own replaces it.
    """

    name: str = ""
    sha256: str = ""
    n_samples: int = DEFAULT_SAMPLES
    calibration: ZCalibration = field(default_factory=ZCalibration)

    def __post_init__(self) -> None:
        check_samples(self.n_samples)

    @classmethod
    def of(cls, detector: Detector) -> "ModelDetector":
        """What a contract says about a detector."""
        return cls(detector.name, detector.sha256, detector.n_samples, detector.calibration)

    def load(self) -> Detector:
        """Load the detector, with the calibration of the training data.

        Raises
        ------
        UsageError
            If it is none that ships.
        """
        name = self.name or DEFAULT_NAME
        if name not in shipped_detectors():
            raise UsageError(
                f"the model was made for detector {name}, whose file does not ship; give it with"
                " --detector"
            )
        return replace(load_detector(name), calibration=self.calibration)


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """An output of the graph besides the usual ones, of one or several numbers an event.

    Attributes
    ----------
    columns : tuple of str
        Its columns in the tag table, one a number; left out: one, of the output's name.
    unit : str
        Unit of the numbers.
    description : str
        One line about them.
    """

    columns: tuple[str, ...] = ()
    unit: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"a column twice: {', '.join(self.columns)}")
        for name in self.columns:
            _check_column(name)


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
    detector : ModelDetector
        The detector of the training data.
    projection : ProjectionSettings or None
        What the graph's input ``projection`` holds; None: it has no such input.
    training : dict
        Fingerprint of the training data, split, seed, what the model scored.
    versions : dict
        Packages that made the bundle.
    version : int
        :data:`CONTRACT_VERSION`, or 1.
    points : PointSetSettings or None
        What the graph's input ``points`` holds; None: it has no such input.
    clean : CleanSettings
        Which hits are left out before the inputs are made.
    novelty_threshold : float or None
        Events with a higher novelty are uncertain; None: the graph gives no novelty.
    traces : TraceBatch or None
        The graph reads raw traces, so many at a time, and makes hits and projection itself; None:
        it reads what is made of hits.
    outputs : dict of str to OutputSettings
        Further outputs of the graph by their names.
    """

    name: str
    description: str
    classes: tuple[EventClass, ...]
    hits: HitSettings
    detector: ModelDetector
    projection: ProjectionSettings | None = None
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    version: int = CONTRACT_VERSION
    points: PointSetSettings | None = None
    clean: CleanSettings = field(default_factory=CleanSettings)
    novelty_threshold: float | None = None
    traces: TraceBatch | None = None
    outputs: dict[str, OutputSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [event_class.name for event_class in self.classes]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                f"a contract needs at least two classes, each with its own name: {names}"
            )
        if not self._reads:
            raise ValueError("it says neither what a projection nor what a point set holds")
        if self.novelty_threshold is not None and not math.isfinite(self.novelty_threshold):
            raise ValueError(f"novelty_threshold: {self.novelty_threshold} is not finite")
        for name in self.outputs:
            _check_column(name)
            if name in reserved_names():
                raise ValueError(f"outputs: {name!r} has a meaning of its own")
        columns = [c for name, one in self.outputs.items() for c in one.columns or (name,)]
        if len(set(columns)) < len(columns):
            raise ValueError(f"outputs: a column twice among {', '.join(columns)}")

    @property
    def _reads(self) -> dict[str, InputSettings]:
        """Settings of the inputs that are made of hits, by their names."""
        settings = {row.name: getattr(self, row.name) for row in INPUTS}
        return {name: part for name, part in settings.items() if part is not None}

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the score columns."""
        return [event_class.name for event_class in self.classes]

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event's part of each of the inputs that are made of hits."""
        return {name: part.shape for name, part in self._reads.items()}

    @property
    def batch_inputs(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of a whole batch for a graph that reads traces; empty for others."""
        return {} if self.traces is None else self.traces.inputs(self.detector.n_samples)

    @property
    def radius_mm(self) -> float:
        """Distance from the beam axis up to which the graph sees hits [mm]."""
        return max(part.radius_mm for part in self._reads.values())

    def make_inputs(
        self,
        hits: Hits,
        events: NDArray[np.int64] | None = None,
        buffers: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Make what the graph reads from the hits of a batch of events, or of some of them.

        Parameters
        ----------
        hits : Hits
            The batch.
        events : ndarray of int64, optional
            Indices in the batch of the events that are wanted; all if left out.
        buffers : mapping of str to ndarray of float32, optional
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
        buffers = buffers or {}
        hits = clean_hits(hits, self.clean)
        return {
            row.name: row.make(hits, self._reads[row.name], events, buffers.get(row.name))
            for row in INPUTS
            if row.name in self._reads
        }

    def to_json(self) -> str:
        """The contract as the JSON text that goes into the ONNX file's metadata."""
        entries = asdict(self)
        if self.version == 1:
            entries["detector"] = entries["detector"]["calibration"]
            del entries["outputs"]
        return json.dumps(entries, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Contract":
        """Read a contract back.

        Raises
        ------
        ValueError
            If it is of another version, has unknown or missing entries, or makes no sense.
        """
        entries = parse_json(text)
        version = entries.get("version")
        if version not in (1, CONTRACT_VERSION) or isinstance(version, bool):
            raise ValueError(
                f"contract version {version}, this attpc-filter reads 1 and {CONTRACT_VERSION}"
            )
        if version == 1:
            entries["detector"] = {"calibration": entries.get("detector")}
            if "outputs" in entries:
                raise ValueError("unknown entries for Contract: outputs (version 2 has them)")
        contract: Contract = build(cls, entries)
        return contract


def _check_column(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z]\w{0,99}", name) or name in _TABLE_COLUMNS:
        raise ValueError(f"outputs: {name!r} cannot be the name of a column")
    if name.startswith("score_"):
        raise ValueError(f"outputs: {name!r} would be taken for a score")
