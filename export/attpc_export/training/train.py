"""A training: from runs and labels to a run folder that holds all that a bundle is made of."""

import csv
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attpc_export
import attpc_filter
from attpc_export.config import Config, dump_config, load_config
from attpc_export.data.augment import Pools, augment, change, make_pools
from attpc_export.data.labelled import (
    UNLABELLED,
    DataFile,
    Events,
    fingerprint,
    hash_files,
    load_events,
    run_files,
    split_events,
    take_events,
)
from attpc_export.data.tracks import find_tracks
from attpc_export.heads.clusters import (
    ClusterHead,
    ClusterScores,
    fit_clusters,
    own_clusters,
    share_by_labels,
    share_by_names,
)
from attpc_export.heads.linear import (
    Head,
    ScoringModel,
    calibrate,
    fit_head,
    save_head,
    undecided_head,
    weigh_classes,
)
from attpc_export.metrics import judge, tag_scores
from attpc_export.models.backbone import kept_features
from attpc_export.models.base import LatentModel
from attpc_export.models.registry import NO_IMAGE, build_model
from attpc_export.training.fit import (
    BEST_NAME,
    CHECKPOINT_NAME,
    Inputs,
    Trainee,
    apply_in_batches,
    fit,
    targets_of,
)
from attpc_export.training.teacher import Teacher, load_teacher
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging, write_json
from attpc_filter.rebuild.clean import clean_hits
from attpc_filter.rebuild.point_set import PointSetSettings, gather_points
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.records import Hits

CONFIG_NAME = "config.yaml"
DATA_NAME = "data.json"
SPLIT_NAME = "split.csv"
HEAD_NAME = "head.json"
SCORES_NAME = "scores.json"
REFERENCE_NAME = "reference.npz"
VERSIONS_NAME = "versions.json"
#: Names of the model's inputs in the reference, in their order.
REFERENCE_INPUTS = ("images", "points")

#: Images of the reference that an exported bundle must reproduce.
_N_REFERENCE = 64
#: Events projected at a time where only a number is wanted.
_EVENTS_A_BATCH = 512
#: Epoch numbers of the draws for the head and for the validation, beyond those of any training.
_HEAD_DRAWS = 1_000_000
_VALIDATION_DRAW = 2_000_000


@dataclass(frozen=True, slots=True)
class _Material:
    """What a training is made of: the events, the rows it may use, and what it projects them to."""

    config: Config
    events: Events
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    pools: Pools
    projection: ProjectionSettings | None
    is_track: NDArray[np.bool_] | None  # of all hits, where changes to tracks are learned
    features: NDArray[np.float32] | None  # of all events, by the model's frozen part
    teacher: Teacher | None

    def draw(self, epoch: int) -> tuple[Inputs, NDArray[np.int64]]:
        """Inputs and labels of an epoch; the same epoch always gives the same ones."""
        inputs, label, _ = self._draw(epoch)
        return inputs, label

    def lesson(self, epoch: int) -> tuple[Inputs, NDArray[np.float32]]:
        """Inputs of an epoch, and what its events are to be scored as."""
        if self.is_track is not None:
            return self.changed(self.train, epoch)
        inputs, label, hits = self._draw(epoch)
        targets = targets_of(label, len(self.config.classes))
        return inputs, targets if self.teacher is None else self.teacher.amend(targets, hits)

    def changed(self, rows: NDArray[np.int64], epoch: int) -> tuple[Inputs, NDArray[np.float32]]:
        """Events with changed tracks, and which change it was."""
        assert self.is_track is not None
        rng = np.random.default_rng((self.config.seed, epoch))
        settings = self.config.augment
        hits, made = change(self.events, rows, self.is_track, settings, self._view, rng)
        return self._inputs_of(hits), targets_of(made, self.config.n_answers)

    def _draw(self, epoch: int) -> tuple[Inputs, NDArray[np.int64], Hits]:
        if not self.config.augment.vary:
            hits = take_events(self.events.hits, self.train)
            return self.inputs(self.train), self.events.label[self.train], hits
        rng = np.random.default_rng((self.config.seed, epoch))
        hits, label = augment(
            self.events, self.train, self.pools, self.config.augment, self._view, rng
        )
        return self._inputs_of(hits), label, hits

    def inputs(self, rows: NDArray[np.int64]) -> Inputs:
        """What the model reads of events as they are, and what its frozen part gives for them."""
        inputs = self._inputs_of(take_events(self.events.hits, rows))
        return inputs if self.features is None else (*inputs, self.features[rows])

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images of events as they are."""
        assert self.projection is not None  # a frozen part reads images
        return project(take_events(self.events.hits, rows), self.projection)

    def _inputs_of(self, hits: Hits) -> Inputs:
        images = () if self.projection is None else (project(hits, self.projection),)
        points = self.config.points
        return images if points is None else (*images, gather_points(hits, points))

    @property
    def _view(self) -> ProjectionSettings | PointSetSettings:
        """Ranges of what the model reads."""
        view = self.projection or self.config.points
        assert view is not None  # a model reads one of them
        return view


def train(
    config: Config,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    device: str = "auto",
    resume: bool = False,
    cache: Path | None = None,
) -> None:
    """Train a model and its head.

    Parameters
    ----------
    config : Config
        The options.
    data : sequence of Path
        Run files, and folders of run files.
    labels : sequence of Path
        Tables of labels; events without a label train the reconstruction only. None are needed
        where nothing is learned from them.
    out : Path
        Run folder.
    device : {"auto", "cpu", "cuda"}
        ``cuda`` insists, ``auto`` takes CUDA where there is one.
    resume : bool
        Go on from the run folder's last checkpoint.
    cache : Path, optional
        Folder where the features of a frozen part are kept, for other trainings on the same events;
        the run folder if left out.

    Raises
    ------
    UsageError
        If the run folder holds another training, the labels do not suffice, or CUDA is missing.
    """
    torch_device = choose_device(device)
    files = hash_files([file for path in data for file in run_files(path)] + list(labels))
    _check_folder(out, config, fingerprint(files), resume)
    teacher = load_teacher(config) if config.fit.teacher else None
    material = replace(_gather(config, data, labels), teacher=teacher)
    torch.manual_seed(config.seed)
    shape = material.projection.shape if material.projection else NO_IMAGE
    model = build_model(config.model, shape)
    if config.fit.start:
        start_from(Path(config.fit.start), model)
    material = replace(material, features=_features(model, material, torch_device, cache or out))
    trainee = Trainee(model, config.n_answers, config.fit).to(torch_device)
    _write_origin(out, material, files)  # only now: a folder with it can be resumed

    inputs = material.inputs(material.validation)
    label = material.events.label[material.validation]
    if any(parameter.requires_grad for parameter in model.parameters()):
        validation = (inputs, targets_of(label, len(config.classes)))
        if material.is_track is not None:
            validation = material.changed(material.validation, _VALIDATION_DRAW)
        fit(trainee, material.lesson, validation, config.seed, torch_device, out)
    else:
        with Staging() as staging:
            torch.save(trainee.state_dict(), staging.path(out / BEST_NAME))
            staging.commit()
        trainee.eval()

    head: Head | ClusterHead
    if config.head.kind == "none":
        head = undecided_head(len(config.classes), model.latent_size)
    elif config.head.kind == "logistic":
        regression = _fit_head(material, trainee, torch_device)
        latent = encode(trainee, inputs, torch_device)[label >= 0]
        head = calibrate(regression, latent, label[label >= 0])
        head = weigh_classes(head, config.head.class_shares)
    else:
        head = _fit_clusters(material, trainee, torch_device)
    save_head(head, out / HEAD_NAME)
    scoring = ScoringModel(trainee.model.cpu(), head)
    judged = _judge_validation(material, score(scoring, inputs)) if (label >= 0).any() else {}
    write_json(out / SCORES_NAME, judged)
    reads = inputs if material.features is None else inputs[:1]
    names = [name for name in REFERENCE_INPUTS if name == "points" or material.projection]
    parts = {name: part[:_N_REFERENCE] for name, part in zip(names, reads, strict=False)}
    _write_reference(out / REFERENCE_NAME, scoring, parts)


def start_from(run_folder: Path, model: LatentModel) -> None:
    """Give a model the weights that another training found.

    Parameters
    ----------
    run_folder : Path
        That of the other training.
    model : LatentModel
        Of the same shape.

    Raises
    ------
    UsageError
        If the folder holds no finished epoch, or a model of another shape.
    """
    try:
        found = torch.load(run_folder / BEST_NAME, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"fit.start: {run_folder} holds no training: {BEST_NAME}: {error.strerror}"
        ) from error
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(
            f"fit.start: {run_folder} holds another model; the sections model must be the same"
        ) from error


def choose_device(device: str) -> torch.device:
    """Turn the option into a device.

    Raises
    ------
    UsageError
        If CUDA is demanded and missing.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no CUDA device; take --device cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def measure_scale(hits: Hits, projection: ProjectionSettings) -> float:
    """Largest log(1 + charge) of any pixel.

    Parameters
    ----------
    hits : Hits
        Hits of the training events.
    projection : ProjectionSettings
        With scale 1.

    Returns
    -------
    float
        The scale that brings these events' pixels into [0, 1].
    """
    largest = 0.0
    for start in range(0, hits.n_events, _EVENTS_A_BATCH):
        rows = np.arange(start, min(start + _EVENTS_A_BATCH, hits.n_events))
        largest = max(largest, float(project(take_events(hits, rows), projection).max()))
    if largest <= 0.0:
        raise UsageError("--data: no hit of any event lies in the projections")
    return largest


def encode(trainee: Trainee, inputs: Inputs, device: torch.device) -> NDArray[np.float32]:
    """Latents of events, shape (n_events, latent_size)."""
    parts = apply_in_batches(lambda *batch: trainee.model.encode(*batch).cpu(), inputs, device)
    return torch.cat(parts).numpy()


def score(scoring: ScoringModel, inputs: Inputs) -> NDArray[np.float32]:
    """Scores of events by PyTorch on the CPU, shape (n_events, n_classes)."""
    parts = apply_in_batches(lambda *batch: scoring(*batch)[0], inputs, torch.device("cpu"))
    return torch.cat(parts).numpy()


def package_versions() -> dict[str, str]:
    """Look up the versions of what makes a bundle."""
    found = {
        "attpc_export": attpc_export.__version__,
        "attpc_filter": attpc_filter.__version__,
        "python": platform.python_version(),
    }
    names = {"sklearn": "scikit-learn"}
    for package in ("torch", "sklearn", "onnx", "onnxscript", "onnxruntime", "numpy"):
        found[package] = importlib.metadata.version(names.get(package, package))
    return found


def _check_folder(out: Path, config: Config, data: str, resume: bool) -> None:
    """Refuse a folder with another training, or to resume where there is none like this."""
    if not resume:
        if (out / CONFIG_NAME).exists():
            raise UsageError(
                f"{out}: holds a training already; go on with --resume, or choose another folder"
            )
        return
    if not (out / CHECKPOINT_NAME).exists():
        raise UsageError(f"{out}: --resume finds no checkpoint ({CHECKPOINT_NAME}) there")
    if load_config(out / CONFIG_NAME) != config:
        raise UsageError(
            f"{out}: was started with another configuration; --resume needs the same one"
            f" ({out / CONFIG_NAME})"
        )
    if json.loads((out / DATA_NAME).read_text(encoding="utf-8"))["fingerprint"] != data:
        raise UsageError(f"{out}: was started with other data; --resume needs the same files")


def _gather(config: Config, data: Sequence[Path], labels: Sequence[Path]) -> _Material:
    events = load_events(
        data, labels, config.class_names, config.hits, config.detector, config.split.group_column
    )
    taken = ~np.isin(events.kind, np.array(config.split.left_out_kinds, np.str_))
    events = events.take(np.flatnonzero(taken & (events.hits.counts >= config.hits.min_hits)))
    events = replace(events, hits=clean_hits(events.hits, config.clean))
    kept_back = split_events(events.group, config.split.validation, config.seed)
    rows, kept_rows = np.flatnonzero(~kept_back), np.flatnonzero(kept_back)
    needs_labels = config.fit.learn == "labels" or config.head.kind == "logistic"
    parts = ((rows, "training"), (kept_rows, "validation")) if needs_labels else ()
    for part, name in parts:
        for index, event_class in enumerate(config.classes):
            if not (events.label[part] == index).any():
                raise UsageError(
                    f"--labels: no {event_class.name} among the {len(part)} events for {name};"
                    " label more events of the runs given by --data"
                )
    projection = None
    if config.reads_images:
        # of all events, so that their images do not depend on the split
        scale = measure_scale(events.hits, config.projection.with_scale(1.0))
        projection = config.projection.with_scale(scale)
    pools = make_pools(events, rows, config.augment, config.class_names)
    is_track = find_tracks(events.hits) if config.fit.learn == "changes" else None
    return _Material(config, events, rows, kept_rows, pools, projection, is_track, None, None)


def _features(
    model: LatentModel, material: _Material, device: torch.device, cache: Path
) -> NDArray[np.float32] | None:
    """What the frozen part of a model gives for all events; kept in a file."""
    part = model.frozen_part()
    if part is None:
        return None
    if material.config.augment.vary:
        raise UsageError(
            "augment.vary: the features of a frozen backbone are computed once, so events cannot be"
            " varied anew each epoch; set it to false"
        )
    images = material.images(np.arange(len(material.events)))
    return kept_features(part, images, device, cache)


def _write_origin(out: Path, material: _Material, files: list[DataFile]) -> None:
    """Write what the training is made from: configuration, data, split, versions."""
    label = material.events.label
    classes = enumerate(material.config.class_names)
    write_json(
        out / DATA_NAME,
        {
            "fingerprint": fingerprint(files),
            "files": [asdict(file) for file in files],
            "scale": material.projection.scale if material.projection else None,
            "teacher_sha256": material.teacher.sha256 if material.teacher else None,
            "events": len(label),
            "events_training": len(material.train),
            "events_validation": len(material.validation),
            "events_unlabelled": int((label < 0).sum()),
            "events_by_class": {name: int((label == index).sum()) for index, name in classes},
        },
    )
    write_json(out / VERSIONS_NAME, package_versions())
    _write_split(out / SPLIT_NAME, material)
    with Staging() as staging:
        text = dump_config(material.config)
        staging.path(out / CONFIG_NAME).write_text(text, encoding="utf-8")
        staging.commit()


def _write_split(path: Path, material: _Material) -> None:
    part = np.full(len(material.events), "training", dtype="<U10")
    part[material.validation] = "validation"
    with Staging() as staging:
        with staging.path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["run", "event", "part"])
            writer.writerows(zip(material.events.run, material.events.event, part, strict=True))
        staging.commit()


def _fit_head(material: _Material, trainee: Trainee, device: torch.device) -> Head:
    """Fit on the training events as they are and on varied copies, as the encoder saw them."""
    latents = [encode(trainee, material.inputs(material.train), device)]
    labels = [material.events.label[material.train]]
    draws = material.config.head.draws if material.config.augment.vary else 0
    for number in range(draws):
        inputs, label = material.draw(_HEAD_DRAWS + number)
        latents.append(encode(trainee, inputs, device))
        labels.append(label)
    label = np.concatenate(labels)
    return fit_head(
        np.concatenate(latents)[label >= 0],
        label[label >= 0],
        material.config.head.inverse_regularisation,
    )


def _fit_clusters(material: _Material, trainee: Trainee, device: torch.device) -> ClusterHead:
    """Cluster the training events as they are, without labels; then find what the clusters are."""
    settings, seed = material.config.head, material.config.seed
    latent = encode(trainee, material.inputs(material.train), device)
    if settings.kind == "own":
        head = own_clusters()
    else:
        assert settings.kind in ("kmeans", "mixture")
        head = fit_clusters(settings.kind, latent, settings.clusters, settings.components, seed)
    assign = ClusterScores(head, trainee.model).to(device)
    found = apply_in_batches(lambda batch: assign.clusters(batch).cpu(), (latent,), device)
    log_share = torch.cat(found).numpy()
    n_clusters = log_share.shape[1]
    classes = material.config.class_names
    if settings.cluster_classes:
        if len(settings.cluster_classes) != n_clusters:
            raise UsageError(
                f"head.cluster_classes: names {len(settings.cluster_classes)} clusters, there are"
                f" {n_clusters}"
            )
        return replace(head, share=share_by_names(settings.cluster_classes, classes))
    label = material.events.label[material.train].copy()
    if settings.cluster_labels:
        labelled = np.random.default_rng(seed).permutation(np.flatnonzero(label >= 0))
        label[labelled[settings.cluster_labels :]] = UNLABELLED
    share = share_by_labels(log_share.argmax(axis=1), label, n_clusters, len(classes))
    return replace(head, share=share)


def _judge_validation(material: _Material, scores: NDArray[np.float32]) -> dict[str, Any]:
    events = material.events.take(material.validation)
    config = material.config
    # all had enough hits before they were cleaned
    counts = np.full(len(events), config.hits.min_hits)
    tags = tag_scores(scores, counts, config.classes, config.hits)
    return {
        name: {"events": found.n_events, "macro_f1": found.macro_f1, "f1": found.f1}
        for name, found in judge(events, tags, config.class_names).items()
    }


def _write_reference(
    path: Path, scoring: ScoringModel, arrays: dict[str, NDArray[np.float32]]
) -> None:
    """Keep inputs with what PyTorch makes of them: an export must give the same."""
    with torch.no_grad():
        scores, latent = scoring(*map(torch.from_numpy, arrays.values()))
    with Staging() as staging:
        with staging.path(path).open("wb") as file:
            np.savez_compressed(file, **arrays, scores=scores.numpy(), latent=latent.numpy())
        staging.commit()
