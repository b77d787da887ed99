"""Exporting: a bundle gives what PyTorch gives, or it is not written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from attpc_export.bundles.export import largest_difference
from attpc_export.cli import main
from attpc_export.training.run_folder import load_run

from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from tests.export.conftest import Training


def test_the_bundle_tells_nothing_of_the_machine_that_made_it(bundle: Path) -> None:
    content = bundle.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content


def test_the_bundle_carries_its_contract(training: Training, bundle: Path) -> None:
    contract = load_bundle(str(bundle)).contract
    assert contract.name == "tiny"
    assert [(c.name, c.pdg) for c in contract.classes] == [
        ("proton", 2212),
        ("carbon", 1000060120),
        ("noise", 0),
    ]
    assert contract.projection.shape == (2, 16, 16)
    assert contract.training["seed"] == 3
    assert len(contract.training["fingerprint"]) == 64
    assert set(contract.training["validation"]["run_0007"]["f1"]) == {"proton", "carbon", "noise"}
    assert {"attpc_filter", "torch", "sklearn", "onnx", "numpy"} <= set(contract.versions)


def test_the_scale_is_the_largest_pixel_of_the_training_events(
    training: Training, bundle: Path
) -> None:
    with np.load(training.folder / "reference.npz") as reference:
        images = reference["images"]
    assert 0.8 < images.max() < 1.2
    assert load_bundle(str(bundle)).contract.projection.scale > np.log(1000.0)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@pytest.mark.parametrize("fill", [None, 0.0, 1.0])
def test_the_scorer_gives_what_pytorch_gives(
    training: Training, bundle: Path, batch_size: int, fill: float | None
) -> None:
    scoring, contract = load_run(training.folder)
    with np.load(training.folder / "reference.npz") as reference:
        images = np.resize(reference["images"], (batch_size, *contract.projection.shape))
    if fill is not None:
        images[:] = fill
    with torch.no_grad():
        expected = scoring(torch.from_numpy(images))[0].numpy()
    found = Scorer(load_bundle(str(bundle)), "cpu", batch_size=batch_size).score(
        {"projection": images}
    )
    assert np.abs(found - expected).max() <= 1e-4
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-6)


def test_a_difference_is_seen(training: Training, bundle: Path) -> None:
    scoring, _ = load_run(training.folder)
    with np.load(training.folder / "reference.npz") as reference:
        images = reference["images"]
    assert largest_difference(bundle, scoring, (images,)) <= 1e-4
    with torch.no_grad():
        scoring.head.bias[0] += 0.01
    assert largest_difference(bundle, scoring, (images,)) > 1e-4


def test_changed_weights_are_not_exported(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(training.folder, folder)
    weights = torch.load(folder / "best.pt", weights_only=True)
    name = next(name for name in weights if name.startswith("model.encoder"))
    weights[name] += 0.05
    torch.save(weights, folder / "best.pt")
    _assert_not_exported(folder, "differs by", capsys)


def test_weights_that_give_no_number_are_not_exported(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(training.folder, folder)
    weights = torch.load(folder / "best.pt", weights_only=True)
    name = next(name for name in weights if name.startswith("model.encoder"))
    weights[name][:] = torch.nan
    torch.save(weights, folder / "best.pt")
    _assert_not_exported(folder, "differs by nan", capsys)


@pytest.mark.parametrize("missing", ["best.pt", "head.json", "reference.npz", "scores.json"])
def test_an_unfinished_training_is_not_exported(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(training.folder, folder)
    (folder / missing).unlink()
    _assert_not_exported(folder, missing, capsys)


def test_evaluate_counts_events_without_a_class_as_misses(
    training: Training, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = tmp_path / "numbers.csv"
    arguments = ["evaluate", str(bundle), "--data", str(training.data.parent)]
    arguments += ["--labels", str(training.labels), "--out", str(numbers), "--device", "cpu"]
    assert main(arguments) == 0
    assert "macro f1" in capsys.readouterr().out
    rows = [line.split(",") for line in numbers.read_text().splitlines()]
    assert rows[0] == ["bundle", "sha256", "data_set", "quantity", "class", "value"]
    confusion = [int(row[5]) for row in rows if row[3].startswith("confusion")]
    assert len(confusion) == 3 * 4
    assert sum(confusion) == 180


def _assert_not_exported(folder: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "bundles" / "bundle.onnx"
    capsys.readouterr()
    assert main(["export", str(folder), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert word in error, error
    assert not out.parent.exists() or not list(out.parent.iterdir())
