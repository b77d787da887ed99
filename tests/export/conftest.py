"""A tiny model trained on made-up events through the real command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch", reason="needs PyTorch, which only attpc-export uses")
pytest.importorskip("attpc_export", reason="needs attpc-export: pip install -e export")

from attpc_export.cli import main

from tests.conftest import made_once
from tests.export.generated import CLASSES, write_run

TINY: dict[str, Any] = {
    "name": "tiny",
    "classes": CLASSES,
    "seed": 3,
    "projection": {"size": 16, "views": ["xy", "zr"]},
    "model": {
        "kind": "autoencoder",
        "filters": [8, 16],
        "extra_convolutions": [0, 1],
        "kernels": [3, 3],
        "decoder_filters": [8, 8],
        "latent_size": 8,
    },
    "split": {"validation": 0.25, "group_column": "source_event"},
    "augment": {"overlay_kinds": ["random"], "pile_up": 0.05},
    "fit": {"epochs": 4, "batch_size": 32, "average_decay": 0.9, "learning_rate": 0.01},
    "head": {"draws": 1},
}


@dataclass(frozen=True)
class Training:
    """A finished tiny training and what it was made from."""

    config: Path
    data: Path
    labels: Path
    folder: Path

    def arguments(self, out: Path, *more: str) -> list[str]:
        """Arguments of ``attpc-export train`` for another run folder."""
        return train_arguments(self.config, self.data, self.labels, out, *more)


def train_arguments(config: Path, data: Path, labels: Path, out: Path, *more: str) -> list[str]:
    """Arguments of ``attpc-export train``."""
    paths = ["--data", str(data), "--labels", str(labels), "--out", str(out)]
    return ["train", str(config), *paths, "--device", "cpu", *more]


def write_config(path: Path, **changes: Any) -> Path:
    """The tiny configuration, with sections updated."""
    entries = {
        key: value | changes.pop(key, {}) if isinstance(value, dict) else changes.pop(key, value)
        for key, value in TINY.items()
    }
    path.write_text(yaml.safe_dump(entries | changes))
    return path


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A finished training; do not change its run folder, copy it."""
    folder = made_once(tmp_path_factory, "training", _train)
    data, labels = folder / "data" / "run_0007.h5", folder / "data" / "labels_7.csv"
    return Training(folder / "tiny.yaml", data, labels, folder / "run")


def _train(folder: Path) -> None:
    data, labels = write_run(folder / "data", 7, 180, seed=1)
    config = write_config(folder / "tiny.yaml")
    assert main(train_arguments(config, data, labels, folder / "run")) == 0


@pytest.fixture(scope="session")
def bundle(training: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported bundle of the training."""

    def export(folder: Path) -> None:
        assert main(["export", str(training.folder), "--out", str(folder / "tiny.onnx")]) == 0

    return made_once(tmp_path_factory, "bundle", export) / "tiny.onnx"
