"""A training: from runs and labels to a run folder that holds all that a bundle is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from attpc_export.config import Config
from attpc_export.data.labelled import (
    UNLABELLED,
    fingerprint,
    hash_files,
    run_files,
)
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
from attpc_export.metrics import index_tags, judge, tag_scores
from attpc_export.models.backbone import kept_features
from attpc_export.models.base import LatentModel
from attpc_export.models.registry import NO_IMAGE, build_model
from attpc_export.training.fit import (
    BEST_NAME,
    Inputs,
    TrainingModel,
    apply_in_batches,
    fit,
    targets_of,
)
from attpc_export.training.material import Material, gather
from attpc_export.training.run_folder import (
    HEAD_NAME,
    REFERENCE_INPUTS,
    REFERENCE_NAME,
    SCORES_NAME,
    check_folder,
    write_origin,
    write_reference,
)
from attpc_export.training.start import find_start
from attpc_export.training.teacher import load_teacher
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging, write_json
from attpc_filter.rebuild.detector import Detector

#: Images of the reference that an exported bundle must reproduce.
_N_REFERENCE = 64
#: Epoch numbers of the draws for the head and for the validation, beyond those of any training.
_HEAD_DRAWS = 1_000_000
_VALIDATION_DRAW = 2_000_000


def train(
    config: Config,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    device: str = "auto",
    resume: bool = False,
    cache: Path | None = None,
    label_map: Mapping[str, str] | None = None,
    detector: Detector | None = None,
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
    label_map : mapping of str to str, optional
        Class of labels that have another name.
    detector : Detector, optional
        The runs' detector; left out, the AT-TPC with the configuration's z calibration.

    Raises
    ------
    UsageError
        If the run folder holds another training, the labels do not suffice, or CUDA is missing.
    """
    if not config.classes:
        raise UsageError(
            "classes: none are named; add a section classes to the configuration, or give"
            " --classes alpha=1000020040 proton=2212 noise"
        )
    torch_device = choose_device(device)
    files = hash_files([file for path in data for file in run_files(path)] + list(labels))
    check_folder(out, config, fingerprint(files), resume)
    teacher = load_teacher(config) if config.fit.teacher else None
    start = find_start(config.fit.start)
    material = replace(gather(config, data, labels, label_map, detector), teacher=teacher)
    material = start.fit_material(material)
    torch.manual_seed(config.seed)
    shape = material.projection.shape if material.projection else NO_IMAGE
    model = build_model(config.model, shape)
    start.load_weights(model, material)
    material = replace(material, features=_features(model, material, torch_device, cache or out))
    training_model = TrainingModel(model, config.n_answers, config.fit).to(torch_device)
    write_origin(
        out, material, files, start.sha256, detector
    )  # only now: a folder with it can be resumed

    tqdm.write(_describe_material(material))
    inputs = material.inputs(material.validation)
    label = material.events.label[material.validation]
    if any(parameter.requires_grad for parameter in model.parameters()):
        validation = (inputs, targets_of(label, len(config.classes)))
        if material.is_track is not None:
            validation = material.changed(material.validation, _VALIDATION_DRAW)
        fit(training_model, material.lesson, validation, config.seed, torch_device, out)
    else:
        with Staging() as staging:
            torch.save(training_model.state_dict(), staging.path(out / BEST_NAME))
            staging.commit()
        training_model.eval()

    head: Head | ClusterHead
    if config.head.kind == "none":
        head = undecided_head(len(config.classes), model.latent_size)
    elif config.head.kind == "logistic":
        regression = _fit_head(material, training_model, torch_device)
        latent = encode(training_model, inputs, torch_device)[label >= 0]
        head = calibrate(regression, latent, label[label >= 0])
        head = weigh_classes(head, config.head.class_shares)
    else:
        head = _fit_clusters(material, training_model, torch_device)
    save_head(head, out / HEAD_NAME)
    scoring = ScoringModel(training_model.model.cpu(), head)
    judged = _judge_validation(material, score(scoring, inputs)) if (label >= 0).any() else {}
    write_json(out / SCORES_NAME, judged)
    reads = inputs if material.features is None else inputs[:1]
    names = [name for name in REFERENCE_INPUTS if name == "points" or material.projection]
    parts = {name: part[:_N_REFERENCE] for name, part in zip(names, reads, strict=False)}
    write_reference(out / REFERENCE_NAME, scoring, parts)


def _describe_material(material: Material) -> str:
    """What was read, on one line."""
    label = material.events.label
    names = material.config.class_names
    each = ", ".join(f"{int((label == index).sum())} {name}" for index, name in enumerate(names))
    return (
        f"read: {len(label)} events with enough hits of {len(np.unique(material.events.run))} runs;"
        f" labelled: {each}; without a label: {int((label < 0).sum())};"
        f" {len(material.train)} for training, {len(material.validation)} for validation"
    )


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


def encode(
    training_model: TrainingModel, inputs: Inputs, device: torch.device
) -> NDArray[np.float32]:
    """Latents of events, shape (n_events, latent_size)."""
    parts = apply_in_batches(
        lambda *batch: training_model.model.encode(*batch).cpu(), inputs, device
    )
    return torch.cat(parts).numpy()


def score(scoring: ScoringModel, inputs: Inputs) -> NDArray[np.float32]:
    """Scores of events by PyTorch on the CPU, shape (n_events, n_classes)."""
    parts = apply_in_batches(lambda *batch: scoring(*batch)[0], inputs, torch.device("cpu"))
    return torch.cat(parts).numpy()


def _features(
    model: LatentModel, material: Material, device: torch.device, cache: Path
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


def _fit_head(material: Material, training_model: TrainingModel, device: torch.device) -> Head:
    """Fit on the training events as they are and on varied copies, as the encoder saw them."""
    latents = [encode(training_model, material.inputs(material.train), device)]
    labels = [material.events.label[material.train]]
    draws = material.config.head.draws if material.config.augment.vary else 0
    for number in range(draws):
        inputs, label = material.draw(_HEAD_DRAWS + number)
        latents.append(encode(training_model, inputs, device))
        labels.append(label)
    label = np.concatenate(labels)
    return fit_head(
        np.concatenate(latents)[label >= 0],
        label[label >= 0],
        material.config.head.inverse_regularisation,
    )


def _fit_clusters(
    material: Material, training_model: TrainingModel, device: torch.device
) -> ClusterHead:
    """Cluster the training events as they are, without labels; then find what the clusters are."""
    settings, seed = material.config.head, material.config.seed
    latent = encode(training_model, material.inputs(material.train), device)
    if settings.kind == "own":
        head = own_clusters()
    else:
        assert settings.kind in ("kmeans", "mixture")
        head = fit_clusters(settings.kind, latent, settings.clusters, settings.components, seed)
    assign = ClusterScores(head, training_model.model).to(device)
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


def _judge_validation(material: Material, scores: NDArray[np.float32]) -> dict[str, Any]:
    events = material.events.take(material.validation)
    config = material.config
    # all had enough hits before they were cleaned
    counts = np.full(len(events), config.hits.min_hits)
    tags = index_tags(tag_scores(scores, counts, config.classes, config.hits), config.class_names)
    return {
        name: {"events": found.n_events, "macro_f1": found.macro_f1, "f1": found.f1}
        for name, found in judge(events, tags, config.class_names).items()
    }
