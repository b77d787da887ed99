"""A training: from runs and labels to a run folder that holds all that a bundle is made of."""

import csv
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attpc_export
import attpc_filter
from attpc_export.augment import Pools, augment, make_pools
from attpc_export.config import Config, dump_config, load_config
from attpc_export.data import (
    DataFile,
    Events,
    fingerprint,
    hash_files,
    load_events,
    run_files,
    split_events,
    take_events,
)
from attpc_export.fit import CHECKPOINT_NAME, Trainee, apply_in_batches, fit
from attpc_export.head import Head, ScoringModel, calibrate, fit_head, save_head
from attpc_export.metrics import judge, tag_scores
from attpc_export.registry import build_model
from attpc_filter.errors import UsageError
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.records import Hits
from attpc_filter.score.scorer import Device
from attpc_filter.staging import Staging, write_json

CONFIG_NAME = "config.yaml"
DATA_NAME = "data.json"
SPLIT_NAME = "split.csv"
HEAD_NAME = "head.json"
SCORES_NAME = "scores.json"
REFERENCE_NAME = "reference.npz"
VERSIONS_NAME = "versions.json"

#: Images of the reference that an exported bundle must reproduce.
_N_REFERENCE = 64
#: Events projected at a time where only a number is wanted.
_EVENTS_A_BATCH = 512
#: Epoch numbers of the draws for the head, beyond those of any training.
_HEAD_DRAWS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Material:
    """What a training is made of: the events, the rows it may use, and what it projects them to."""

    config: Config
    events: Events
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    pools: Pools
    projection: ProjectionSettings

    def draw(self, epoch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Images and labels of an epoch; the same epoch always gives the same ones."""
        rng = np.random.default_rng((self.config.seed, epoch))
        hits, label = augment(
            self.events, self.train, self.pools, self.config.augment, self.projection, rng
        )
        return project(hits, self.projection), label

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images of events as they are."""
        return project(take_events(self.events.hits, rows), self.projection)


def train(
    config: Config,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    device: Device = "auto",
    resume: bool = False,
) -> None:
    """Train a model and its head.

    Parameters
    ----------
    config : Config
        The options.
    data : sequence of Path
        Run files, and folders of run files.
    labels : sequence of Path
        Tables of labels; events without a label train the reconstruction only.
    out : Path
        Run folder.
    device : {"auto", "cpu", "cuda"}
        ``cuda`` insists, ``auto`` takes CUDA where there is one.
    resume : bool
        Go on from the run folder's last checkpoint.

    Raises
    ------
    UsageError
        If the run folder holds another training, the labels do not suffice, or CUDA is missing.
    """
    torch_device = choose_device(device)
    files = hash_files([file for path in data for file in run_files(path)] + list(labels))
    _check_folder(out, config, fingerprint(files), resume)
    material = _gather(config, data, labels)
    torch.manual_seed(config.seed)
    model = build_model(config.model, material.projection.shape)
    trainee = Trainee(model, len(config.classes), config.fit).to(torch_device)
    _write_origin(out, material, files)  # only now: a folder with it can be resumed

    images = material.images(material.validation)
    label = material.events.label[material.validation]
    fit(trainee, material.draw, (images, label), config.seed, torch_device, out)

    head = _fit_head(material, trainee, torch_device)
    latent = encode(trainee, images[label >= 0], torch_device)
    head = calibrate(head, latent, label[label >= 0])
    save_head(head, out / HEAD_NAME)
    scoring = ScoringModel(trainee.model.cpu(), head)
    write_json(out / SCORES_NAME, _judge_validation(material, score(scoring, images)))
    _write_reference(out / REFERENCE_NAME, scoring, images[:_N_REFERENCE])


def choose_device(device: Device) -> torch.device:
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


def encode(
    trainee: Trainee, images: NDArray[np.float32], device: torch.device
) -> NDArray[np.float32]:
    """Latents of images, shape (n_events, latent_size)."""
    parts = apply_in_batches(lambda batch: trainee.model.encode(batch).cpu(), images, device)
    return torch.cat(parts).numpy()


def score(scoring: ScoringModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of images by PyTorch on the CPU, shape (n_events, n_classes)."""
    parts = apply_in_batches(lambda batch: scoring(batch)[0], images, torch.device("cpu"))
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
    events = events.take(np.flatnonzero(events.hits.counts >= config.hits.min_hits))
    kept_back = split_events(events.group, config.split.validation, config.seed)
    rows, kept_rows = np.flatnonzero(~kept_back), np.flatnonzero(kept_back)
    for part, name in ((rows, "training"), (kept_rows, "validation")):
        for index, event_class in enumerate(config.classes):
            if not (events.label[part] == index).any():
                raise UsageError(
                    f"--labels: no {event_class.name} among the {len(part)} events for {name};"
                    " label more events of the runs given by --data"
                )
    scale = measure_scale(take_events(events.hits, rows), config.projection.with_scale(1.0))
    pools = make_pools(events, rows, config.augment, config.class_names)
    projection = config.projection.with_scale(scale)
    return _Material(config, events, rows, kept_rows, pools, projection)


def _write_origin(out: Path, material: _Material, files: list[DataFile]) -> None:
    """Write what the training is made from: configuration, data, split, versions."""
    label = material.events.label
    classes = enumerate(material.config.class_names)
    write_json(
        out / DATA_NAME,
        {
            "fingerprint": fingerprint(files),
            "files": [asdict(file) for file in files],
            "scale": material.projection.scale,
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
    latents = [encode(trainee, material.images(material.train), device)]
    labels = [material.events.label[material.train]]
    for number in range(material.config.head.draws):
        images, label = material.draw(_HEAD_DRAWS + number)
        latents.append(encode(trainee, images, device))
        labels.append(label)
    label = np.concatenate(labels)
    return fit_head(
        np.concatenate(latents)[label >= 0],
        label[label >= 0],
        material.config.head.inverse_regularisation,
    )


def _judge_validation(material: _Material, scores: NDArray[np.float32]) -> dict[str, Any]:
    events = material.events.take(material.validation)
    config = material.config
    tags = tag_scores(scores, events.hits.counts, config.classes, config.hits)
    return {
        name: {"events": found.n_events, "macro_f1": found.macro_f1, "f1": found.f1}
        for name, found in judge(events, tags, config.class_names).items()
    }


def _write_reference(path: Path, scoring: ScoringModel, images: NDArray[np.float32]) -> None:
    """Keep images with what PyTorch makes of them: an export must give the same."""
    with torch.no_grad():
        scores, latent = scoring(torch.from_numpy(images))
    with Staging() as staging:
        with staging.path(path).open("wb") as file:
            np.savez_compressed(file, images=images, scores=scores.numpy(), latent=latent.numpy())
        staging.commit()
