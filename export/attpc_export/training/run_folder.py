"""The run folder: what a training leaves behind, and the model that is loaded from it."""

import csv
import importlib.metadata
import json
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attpc_export
import attpc_filter
from attpc_export.config import Config, dump_config, load_config
from attpc_export.data.labelled import DataFile, fingerprint
from attpc_export.heads.linear import ScoringModel, load_head
from attpc_export.models.registry import NO_IMAGE, build_model
from attpc_export.training.fit import BEST_NAME, CHECKPOINT_NAME, TrainingModel
from attpc_export.training.material import Material
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging, write_json
from attpc_filter.rebuild.detector import Detector
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.score.bundle import Contract
from attpc_filter.score.contract import ModelDetector

CONFIG_NAME = "config.yaml"
DATA_NAME = "data.json"
SPLIT_NAME = "split.csv"
HEAD_NAME = "head.json"
SCORES_NAME = "scores.json"
REFERENCE_NAME = "reference.npz"
VERSIONS_NAME = "versions.json"
#: Names of the model's inputs in the reference, in their order.
REFERENCE_INPUTS = ("images", "points")


def check_folder(out: Path, config: Config, data: str, resume: bool) -> None:
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


def load_run(run_folder: Path) -> tuple[ScoringModel, Contract]:
    """Load the model of a finished training, with the contract of its bundle."""
    config = load_config(run_folder / CONFIG_NAME)
    data = _read_json(run_folder / DATA_NAME)
    contract = _make_contract(run_folder, config, data)
    shape = config.projection.with_scale(1.0).shape if config.reads_images else NO_IMAGE
    model = build_model(config.model, shape)
    training_model = TrainingModel(model, config.n_answers, config.fit)
    weights = torch.load(run_folder / BEST_NAME, map_location="cpu", weights_only=True)
    training_model.load_state_dict(weights)
    return ScoringModel(training_model.model, load_head(run_folder / HEAD_NAME)), contract


def write_origin(
    out: Path,
    material: Material,
    files: list[DataFile],
    start_sha256: str | None,
    detector: Detector | None,
) -> None:
    """Write what the training is made from: configuration, data, split, versions."""
    label = material.events.label
    of_runs = detector or replace(load_detector(), calibration=material.config.detector)
    classes = enumerate(material.config.class_names)
    write_json(
        out / DATA_NAME,
        {
            "fingerprint": fingerprint(files),
            "files": [asdict(file) for file in files],
            "scale": material.projection.scale if material.projection else None,
            "teacher_sha256": material.teacher.sha256 if material.teacher else None,
            "start_sha256": start_sha256,
            "detector": {"name": of_runs.name, "sha256": of_runs.sha256},
            "n_samples": of_runs.n_samples,
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


def _write_split(path: Path, material: Material) -> None:
    part = np.full(len(material.events), "training", dtype="<U10")
    part[material.validation] = "validation"
    with Staging() as staging:
        with staging.path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["run", "event", "part"])
            writer.writerows(zip(material.events.run, material.events.event, part, strict=True))
        staging.commit()


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


def write_reference(
    path: Path, scoring: ScoringModel, arrays: dict[str, NDArray[np.float32]]
) -> None:
    """Keep inputs with what PyTorch makes of them: an export must give the same."""
    with torch.no_grad():
        scores, latent = scoring(*map(torch.from_numpy, arrays.values()))
    with Staging() as staging:
        with staging.path(path).open("wb") as file:
            np.savez_compressed(file, **arrays, scores=scores.numpy(), latent=latent.numpy())
        staging.commit()


def _make_contract(run_folder: Path, config: Config, data: dict[str, Any]) -> Contract:
    scale, detector, n_samples = data.pop("scale"), data.pop("detector"), data.pop("n_samples")
    return Contract(
        name=config.name,
        description=config.description,
        classes=config.classes,
        hits=config.hits,
        detector=ModelDetector(**detector, n_samples=n_samples, calibration=config.detector),
        clean=config.clean,
        projection=config.projection.with_scale(scale) if config.reads_images else None,
        training={
            **data,
            "seed": config.seed,
            "split": asdict(config.split),
            "validation": _read_json(run_folder / SCORES_NAME),
        },
        versions=_read_json(run_folder / VERSIONS_NAME),
        points=config.points,
    )


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
