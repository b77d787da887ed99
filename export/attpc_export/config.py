"""Every option of a training, declared once: name, type, unit, default. YAML follows."""

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from attpc_export.data.classes import NOISE, find_noise
from attpc_export.data.tracks import Change
from attpc_export.models.autoencoder import AutoencoderSettings
from attpc_export.models.registry import MODELS
from attpc_filter.errors import UsageError
from attpc_filter.rebuild.clean import CleanSettings
from attpc_filter.rebuild.detector import ZCalibration
from attpc_filter.rebuild.hits import HitSettings
from attpc_filter.rebuild.point_set import PointSetSettings
from attpc_filter.rebuild.projection import ProjectionSettings
from attpc_filter.score.bundle import EventClass


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """What a projection shows; its scale is measured on the training data.

    Attributes
    ----------
    views : tuple of str
        One channel a view, each of :data:`attpc_filter.rebuild.projection.VIEWS`.
    size : int
        Side of a view [pixels].
    radius_mm : float
        x and y run from -radius to radius, r from 0 to radius [mm].
    z_low_mm, z_high_mm : float
        Range of z [mm].
    """

    views: tuple[str, ...] = ("xy", "zr", "zp")
    size: int = 64
    radius_mm: float = 280.0
    z_low_mm: float = -50.0
    z_high_mm: float = 1050.0

    def __post_init__(self) -> None:
        self.with_scale(1.0)  # refuses what no projection can be

    def with_scale(self, scale: float) -> ProjectionSettings:
        """Make the settings of projections whose pixels are log(1 + charge) / ``scale``."""
        return ProjectionSettings(scale=scale, **asdict(self))


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How the labelled events are split into training and validation.

    Attributes
    ----------
    validation : float
        Fraction of the events that are kept back for early stopping, calibration and the scores in
        the contract.
    group_column : str
        Column of the labels with the number of the physics event behind an event (negative: none).
        Events that share it are never split; left empty, every event stands for itself.
    left_out_kinds : tuple of str
        Events of these kinds (column ``kind`` of the labels) take no part at all: to see what a
        model makes of what it never saw.
    """

    validation: float = 0.15
    group_column: str = ""
    left_out_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ValueError(f"validation: {self.validation:g} is not between 0 and 1")


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How events are varied anew each epoch, besides a free rotation about the beam axis.

    Attributes
    ----------
    vary : bool
        False: every epoch sees the events as they are, and the other keys have no effect.
    pile_up : float
        Fraction of the events of particles that are overlaid with another one and become
        ``pile_up_class``.
    pile_up_class : str
        Class of two reactions in one event; events of this class are never part of synthetic
        pile-up. Empty: the class whose role is noise; if there is none, no synthetic pile-up.
    overlay : float
        Fraction of the other events that are overlaid with an event of ``overlay_kinds`` and keep
        their class.
    overlay_kinds : tuple of str
        Kinds (column ``kind`` of the labels) that may lie over any event and leave its class as it
        is.
    moved, cut : float
        Fractions of the events of particles whose track is moved off the beam axis, or cut to a
        small piece, and that become ``pile_up_class`` too.
    most_dropped : float
        Each event loses a fraction of its hits, drawn between 0 and this.
    most_random_hits : int
        Every other event gets up to so many hits anywhere in the chamber [hits].
    shift_z_mm : float
        Standard deviation of a shift along the beam, the same for all hits of an event [mm].
    gain_event, gain_hit : float
        Standard deviation of the logarithm of a factor on the charge, one an event and one a hit.
    """

    vary: bool = True
    pile_up: float = 0.2
    pile_up_class: str = ""
    overlay: float = 0.2
    overlay_kinds: tuple[str, ...] = ()
    moved: float = 0.0
    cut: float = 0.0
    most_dropped: float = 0.05
    most_random_hits: int = 40
    shift_z_mm: float = 5.0
    gain_event: float = 0.1
    gain_hit: float = 0.1

    def __post_init__(self) -> None:
        for name in ("pile_up", "overlay", "moved", "cut", "most_dropped"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name):g} is not in [0, 1)")
        if self.pile_up + self.moved + self.cut >= 1:
            raise ValueError("pile_up, moved and cut: their sum is not below 1")
        for name in ("most_random_hits", "shift_z_mm", "gain_event", "gain_hit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name):g} is negative")


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the weights are found.

    Attributes
    ----------
    learn : {"labels", "changes"}
        What the encoder is tuned by: labels; or, without any, to tell what was done to the largest
        pattern of an event: nothing, mirrored, moved off the beam axis, overlaid with another
        event's, cut to a piece.
    start : str
        Where the encoder starts: a bundle that ships, the path of a bundle, or the run folder of a
        training; empty: from random weights.
    epochs : int
        Most epochs; the learning rate falls to zero over them.
    patience : int
        Stop after so many epochs without a better validation loss [epochs].
    batch_size : int
        Events a step.
    learning_rate : float
        Highest learning rate, reached after ``warm_up`` of the steps.
    warm_up : float
        Fraction of the steps over which the learning rate rises.
    beta1, beta2 : float
        Shares of AdamW's running averages of the gradient and of its square kept each step.
    weight_decay : float
        Decay of AdamW.
    reconstruction_weight : float
        Factor on the model's own loss.
    label_weight : float
        Factor on the labels' cross-entropy. With 0 the model is trained without labels; the
        training head learns all the same, so that the curves show what the latent is worth.
    label_smoothing : float
        Share of a label that is spread over all classes.
    dropout : float
        Fraction of latent entries that the training head does not see.
    average_decay : float
        The weights that are kept are a running average; each step keeps this share of it.
    teacher : str
        Name of a bundle that ships, or path of an ONNX file, whose scores are learned besides the
        labels (distillation; Hinton et al., arXiv 1503.02531); empty: none.
    teacher_share : float
        The teacher's share in what an event with a label is to be scored as. Events without one
        are learned from the teacher alone.
    """

    learn: Literal["labels", "changes"] = "labels"
    start: str = ""
    epochs: int = 50
    patience: int = 15
    batch_size: int = 128
    learning_rate: float = 2e-3
    warm_up: float = 0.15
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.02
    reconstruction_weight: float = 0.1
    label_weight: float = 1.0
    label_smoothing: float = 0.02
    dropout: float = 0.2
    average_decay: float = 0.99
    teacher: str = ""
    teacher_share: float = 0.5

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.batch_size) < 1:
            raise ValueError("epochs, patience and batch_size must be at least 1")
        shares = ("warm_up", "label_smoothing", "dropout", "average_decay", "beta1", "beta2")
        for name in shares:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name):g} is not in [0, 1)")
        if not 0 < self.teacher_share <= 1:
            raise ValueError(f"teacher_share: {self.teacher_share:g} is not in (0, 1]")


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """What gives a bundle its scores: a logistic regression on the latent, or clusters of it.

    Attributes
    ----------
    kind : {"logistic", "kmeans", "mixture", "own", "none"}
        Logistic regression; k-means or a mixture of Gaussians; the clusters of DCEC and MIXAE;
        nothing yet: every class has the same score.
    draws : int
        The regression is fitted on the training events as they are and on so many varied copies.
    inverse_regularisation : float
        The regression's C in scikit-learn.
    class_shares : tuple of float
        Shares of the classes in the runs that will be filtered: the regression's scores are
        probabilities for such runs. Left empty, all classes are taken as equally frequent.
    clusters : int
        Clusters of ``kmeans`` and ``mixture``.
    components : int
        Principal components that the latent is reduced to before; 0: it is not.
    cluster_labels : int
        So many labelled events, drawn by the seed, say what a cluster is; 0: all.
    cluster_classes : tuple of str
        Class of each cluster, named by hand after a look at the clusters; left empty, labels say.
    """

    kind: Literal["logistic", "kmeans", "mixture", "own", "none"] = "logistic"
    draws: int = 2
    inverse_regularisation: float = 1.0
    class_shares: tuple[float, ...] = ()
    clusters: int = 3
    components: int = 0
    cluster_labels: int = 0
    cluster_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.draws < 0 or self.inverse_regularisation <= 0:
            raise ValueError("draws must not be negative, inverse_regularisation positive")
        if self.class_shares and (
            min(self.class_shares) <= 0 or abs(sum(self.class_shares) - 1.0) > 1e-6
        ):
            raise ValueError("class_shares must be positive and sum to 1")
        if self.clusters < 2 or self.components < 0 or self.cluster_labels < 0:
            raise ValueError(
                "clusters must be at least 2, components and cluster_labels not negative"
            )


@dataclass(frozen=True, slots=True)
class Config:
    """A training.

    Attributes
    ----------
    name, description : str
        Name of the bundle, and one line about it.
    seed : int
        Seed of the split, the weights and all variation.
    classes : tuple of EventClass
        The classes in the order of the scores; labels in the tables are their names. ``role:
        noise`` says which of them is not wanted; a class that is called noise need not say it.
    hits : HitSettings
        How traces become hits.
    detector : ZCalibration
        From time bucket to z.
    clean : CleanSettings
        Which hits are left out before anything else is done with an event.
    projection : ViewSettings
        The images that the model reads, unless it reads point sets alone.
    points : PointSetSettings or None
        The point sets that it reads, for a model that does.
    model : dataclass
        Settings of one of the models in :data:`attpc_export.models.registry.MODELS`.
    split, augment, fit, head
        See each one's class.
    """

    name: str = "default"
    description: str = ""
    seed: int = 1
    classes: tuple[EventClass, ...] = ()
    hits: HitSettings = field(default_factory=HitSettings)
    detector: ZCalibration = field(default_factory=ZCalibration)
    clean: CleanSettings = field(default_factory=CleanSettings)
    projection: ViewSettings = field(default_factory=ViewSettings)
    points: PointSetSettings | None = None
    model: Any = field(default_factory=AutoencoderSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    head: HeadSettings = field(default_factory=HeadSettings)

    def __post_init__(self) -> None:
        names = self.class_names
        if len(set(names)) < len(names) or len(names) == 1:
            raise ValueError("classes: at least two, each with a name of its own")
        if sum(event_class.role == NOISE for event_class in self.classes) > 1:
            raise ValueError("classes: more than one has the role noise")
        if self.augment.pile_up_class not in ("", *names):
            raise ValueError(
                f"augment.pile_up_class: {self.augment.pile_up_class!r} is none of the classes"
                f" {', '.join(names)}"
            )
        if len(self.head.class_shares) not in (0, len(names)):
            raise ValueError(
                f"head.class_shares: {len(self.head.class_shares)} shares, {len(names)} classes"
            )
        if unknown := set(self.head.cluster_classes) - set(names):
            raise ValueError(
                f"head.cluster_classes: {min(unknown)!r} is none of the classes {', '.join(names)}"
            )
        model = next(model for settings, model in MODELS.values() if type(self.model) is settings)
        if model.reads_points != (self.points is not None):
            reads = "a section points" if model.reads_points else "no section points"
            raise ValueError(f"model.kind: {model.__name__} needs {reads}")
        if self.fit.learn == "changes" and self.fit.teacher:
            raise ValueError("fit.teacher: teaches labels, fit.learn is changes")

    @property
    def reads_images(self) -> bool:
        """Whether the model reads projections."""
        return any(
            model.reads_images
            for settings, model in MODELS.values()
            if type(self.model) is settings
        )

    @property
    def n_answers(self) -> int:
        """How many answers the training head can give."""
        return len(self.classes) if self.fit.learn == "labels" else len(Change)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the scores."""
        return [event_class.name for event_class in self.classes]

    @property
    def pile_up_class(self) -> str:
        """Class of synthetic pile-up; empty if there is none."""
        return self.augment.pile_up_class or find_noise(self.classes)


def load_config(path: Path) -> Config:
    """Read a configuration from YAML.

    Raises
    ------
    UsageError
        If the file cannot be read, a key is unknown (naming the nearest known one), or a value has
        the wrong type or makes no sense.
    """
    config: Config = read_settings(Config, path)
    return config


def read_settings(kind: type[Any], path: Path) -> Any:
    """Read a dataclass of settings from YAML (see :func:`load_config`)."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return _build(kind, {} if entries is None else entries, "")
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def dump_config(config: Config) -> str:
    """Give the YAML of a configuration; :func:`load_config` reads it back."""
    (kind,) = (name for name, (settings, _) in MODELS.items() if type(config.model) is settings)
    entries = asdict(config)
    entries["model"] = {"kind": kind} | entries["model"]
    return yaml.safe_dump(_plain(entries), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _build(kind: type[Any], entries: Any, where: str) -> Any:
    """Make a dataclass from what stands at ``where`` in the YAML; ValueError if it does not fit."""
    if not isinstance(entries, Mapping):
        raise ValueError(f"{where or 'the file'}: expected 'key: value' lines")
    known = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    values = {}
    for key, entry in entries.items():
        _require_known(str(key), [f.name for f in fields(kind)], prefix)
        is_model = kind is Config and key == "model"
        values[key] = (
            _build_model(entry) if is_model else _checked(known[key], entry, f"{prefix}{key}")
        )
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{prefix.removesuffix('.')}: {error}" if where else str(error)) from error


def _build_model(entries: Any) -> Any:
    entries = dict(entries) if isinstance(entries, Mapping) else {}
    kind = str(entries.pop("kind", None))
    _require_known(kind, list(MODELS), "model.kind: ")
    return _build(MODELS[kind][0], entries, "model")


def _require_known(key: str, known: list[str], prefix: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.0)[0]
        raise ValueError(f"unknown key '{prefix}{key}'; the nearest known one is '{prefix}{near}'")


def _checked(kind: Any, value: Any, where: str) -> Any:
    """Check the type of a value, and turn lists into tuples and sections into dataclasses."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _build(kind, value, where)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _checked(parts[0], value, where)
    if origin is tuple:
        if isinstance(value, list):
            return tuple(_checked(parts[0], entry, where) for entry in value)
    elif parts:  # a Literal
        if value in parts:
            return value
        raise ValueError(f"{where}: {value!r} is none of {', '.join(map(str, parts))}")
    elif kind is float and type(value) in (int, str):  # YAML 1.1 takes 1e-3 for a text
        with contextlib.suppress(ValueError):
            return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{where}: {value!r} is not of type {_name_of(kind)}")


def _name_of(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"list of {_name_of(get_args(kind)[0])}"
    return kind.__name__ if isinstance(kind, type) else str(kind)
