"""Models that read hits: what the encoder sees, and the way from training to tags."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from attpc_export.cli import main
from attpc_export.config import dump_config, load_config
from attpc_export.models.point_encoder import PointEncoder, PointEncoderSettings
from attpc_export.training.run_folder import load_run
from torch import Tensor

from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from tests.export.conftest import TINY, Training, train_arguments

JOINT: dict[str, Any] = {
    "points": {"n_points": 64},
    "model": {
        "kind": "joint",
        "images": {key: value for key, value in TINY["model"].items() if key != "kind"},
        "points": {"width": 16, "message": 4, "harmonics": 4, "latent_size": 8},
    },
}


def write_joint_config(path: Path, **changes: Any) -> Path:
    """The tiny configuration of a model that reads images and hits."""
    path.write_text(yaml.safe_dump(TINY | JOINT | {"fit": TINY["fit"] | {"epochs": 3}} | changes))
    return path


@pytest.fixture(scope="module")
def joint(training: Training, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A finished training of a tiny joint model."""
    folder = tmp_path_factory.mktemp("joint")
    config = write_joint_config(folder / "joint.yaml")
    arguments = train_arguments(config, training.data, training.labels, folder / "run")
    assert main(arguments) == 0
    return Training(config, training.data, training.labels, folder / "run")


@pytest.fixture(scope="module")
def joint_bundle(joint: Training) -> Path:
    path = joint.folder.parent / "joint.onnx"
    assert main(["export", str(joint.folder), "--out", str(path)]) == 0
    return path


def random_points(n_events: int, n_points: int = 64) -> Tensor:
    """Points along a helix each, on top of noise; the second half of the rows is empty."""
    rng = np.random.default_rng(0)
    points = np.zeros((n_events, n_points, 5), np.float32)
    for event in points[:, : n_points // 2]:
        along = np.sort(rng.random(n_points // 2))
        azimuth = rng.uniform(-np.pi, np.pi) + 2.0 * along
        event[:, 0], event[:, 1] = 200 * along * np.cos(azimuth), 200 * along * np.sin(azimuth)
        event[:, 2] = rng.uniform(100, 700) + 200 * along
        event[:, :3] += rng.normal(0, 2.0, (n_points // 2, 3))
        event[:, 3], event[:, 4] = rng.uniform(4, 8, n_points // 2), 1.0
    return torch.from_numpy(points)


@pytest.fixture
def encoder() -> PointEncoder:
    torch.manual_seed(0)
    return PointEncoder(PointEncoderSettings()).eval()


@torch.no_grad()
def test_the_encoder_sees_what_the_field_fixes_and_nothing_else(encoder: PointEncoder) -> None:
    """Turned about the beam axis or in another order an event is the same; mirrored it is not."""
    points = random_points(8)
    latent = encoder(points)
    cosine, sine = np.cos(1.0), np.sin(1.0)
    turned = points.clone()
    turned[..., 0] = cosine * points[..., 0] - sine * points[..., 1]
    turned[..., 1] = sine * points[..., 0] + cosine * points[..., 1]
    mirrored = points * torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0])
    order = torch.randperm(points.shape[1])
    assert (encoder(turned) - latent).abs().max() < 1e-4
    assert (encoder(points[:, order]) - latent).abs().max() < 1e-4
    assert (encoder(mirrored) - latent).abs().max() > 1e-2


@torch.no_grad()
def test_empty_rows_and_other_events_change_nothing(encoder: PointEncoder) -> None:
    points = random_points(8)
    latent = encoder(points)
    longer = torch.cat([points, torch.zeros(8, 40, 5)], dim=1)
    assert (encoder(longer) - latent).abs().max() < 1e-4
    assert (encoder(points[3:4]) - latent[3:4]).abs().max() < 1e-4
    assert encoder(torch.zeros(2, 64, 5)).isfinite().all()


def test_a_bundle_that_reads_both_gives_what_pytorch_gives(
    joint: Training, joint_bundle: Path
) -> None:
    scoring, contract = load_run(joint.folder)
    assert contract.input_shapes == {"projection": (2, 16, 16), "points": (64, 5)}
    with np.load(joint.folder / "reference.npz") as reference:
        images, points = reference["images"], reference["points"]
    assert points[..., 4].any()
    with torch.no_grad():
        expected = scoring(torch.from_numpy(images), torch.from_numpy(points))[0].numpy()
    scorer = Scorer(load_bundle(str(joint_bundle)), "cpu", batch_size=7)
    found = scorer.score({"projection": images, "points": points})
    assert np.abs(found - expected).max() <= 1e-4
    # its part of the latent follows each input, and that input only
    latent, without_points, without_images = (
        scorer.run({"projection": i, "points": p}, ["latent"])["latent"]
        for i, p in ((images, points), (images, points * 0), (images * 0, points))
    )
    assert (without_images[:, 8:] == latent[:, 8:]).all()
    assert (without_points[:, :8] == latent[:, :8]).all()
    assert (np.abs(without_images - latent)[:, :8].max(axis=0) > 1e-3).all()
    assert (np.abs(without_points - latent)[:, 8:].max(axis=0) > 1e-3).all()


def test_it_learns(joint: Training, joint_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["--labels", str(joint.labels)]
    assert main(["evaluate", str(joint_bundle), "--data", str(joint.data), *labels]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "macro f1" in line)
    assert float(line.split()[2]) > 0.8


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"points": None}, "a section points"), ({"model": TINY["model"]}, "no section points")],
)
def test_model_and_points_must_agree(
    changes: dict[str, Any],
    words: str,
    training: Training,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_joint_config(tmp_path / "wrong.yaml", **changes)
    assert main(train_arguments(config, training.data, training.labels, tmp_path / "run")) == 2
    assert words in capsys.readouterr().err


def test_the_configuration_is_read_and_written_back(joint: Training, tmp_path: Path) -> None:
    config = load_config(joint.config)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config
    preset = Path(__file__).parents[2] / "export" / "configs" / "accurate.yaml"
    assert load_config(preset).points is not None
