"""A training that starts from the weights in a bundle's graph."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from attpc_export.cli import main
from attpc_export.config import load_config
from attpc_export.models.registry import build_model
from attpc_export.training.material import gather
from attpc_export.training.run_folder import load_run
from attpc_export.training.start import find_start

from attpc_filter.score.bundle import load_bundle
from tests.conftest import shared
from tests.export.conftest import Training, train_arguments, write_config


def test_without_learning_the_encoder_stays_that_of_the_bundle(
    training: Training, bundle: Path, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path / "c.yaml", fit={"epochs": 1, "learning_rate": 1e-9, "average_decay": 0.0}
    )
    out = tmp_path / "run"
    arguments = train_arguments(config, training.data, training.labels, out)
    assert main([*arguments, "--start", str(bundle)]) == 0
    recorded = json.loads((out / "data.json").read_text())
    assert recorded["start_sha256"] == load_bundle(str(bundle)).sha256
    before, _ = load_run(training.folder)
    after, _ = load_run(out)
    with np.load(training.folder / "reference.npz") as reference:
        images = torch.from_numpy(reference["images"])
    with torch.no_grad():
        expected, found = before(images)[1], after(images)[1]
    # one epoch moves the normalisations' running averages a little; other weights would give 0
    together = np.corrcoef(found.numpy().ravel(), expected.numpy().ravel())[0, 1]
    assert together > 0.95


def test_other_models_and_inputs_are_refused(
    training: Training, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (changes, word) in enumerate(
        [
            ({"projection": {"views": ["xy", "zp"]}}, "projection"),
            ({"model": {"kernels": [5, 3]}}, "section model"),
            ({"hits": {"min_hits": 9}}, "hits"),
        ]
    ):
        config = write_config(tmp_path / f"{number}.yaml", **changes)
        out = tmp_path / f"run{number}"
        arguments = train_arguments(config, training.data, training.labels, out)
        assert main([*arguments, "--start", str(bundle)]) == 2
        error = capsys.readouterr().err
        assert "--start" in error
        assert word in error
        assert not out.exists()


@pytest.mark.parametrize("name", ["default", "accurate"])
def test_the_bundles_that_ship_can_be_trained_on(name: str) -> None:
    """``load_weights`` refuses weights that do not give the graph's latents."""
    folder = Path(__file__).parents[2] / "export" / "configs"
    config = load_config(folder / f"{name}.yaml")
    data, labels = shared("test/full/run_0201.h5"), shared("test/labels_full.csv")
    start = find_start(name)
    material = start.fit_material(gather(config, [data], [labels]))
    assert material.projection is not None
    model = build_model(config.model, material.projection.shape)
    start.load_weights(model, material)
    # in training, where normalisations use each batch's moments, latents are still alike
    some = tuple(map(torch.from_numpy, material.inputs(material.train[:256])))
    with torch.no_grad():
        asleep = model.eval().encode(*some)
        awake = model.train().encode(*some)
    together = np.corrcoef(asleep.numpy().ravel(), awake.numpy().ravel())[0, 1]
    assert together > 0.9
