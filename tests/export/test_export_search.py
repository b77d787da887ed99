"""The search proposes settings that can be trained, and goes on where it stopped."""

import csv
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml
from attpc_export.cli import main
from attpc_export.config import load_config
from attpc_export.models.registry import build_model
from attpc_export.training.search import _space_of, search

from tests.export.conftest import Training, write_config

PRESETS = Path(__file__).parents[2] / "export" / "configs" / "thesis"


def write_ar0(path: Path) -> Path:
    config = write_config(path, fit={"epochs": 1, "label_weight": 0.0}, augment={"vary": False})
    entries = yaml.safe_load(config.read_text()) | {"model": {"kind": "ar0"}}
    path.write_text(yaml.safe_dump(entries))
    return path


def test_a_search_goes_on_from_its_folder(training: Training, tmp_path: Path) -> None:
    config, out = write_ar0(tmp_path / "ar0.yaml"), tmp_path / "search"
    arguments = ["search", str(config), "--data", str(training.data), "--device", "cpu"]
    arguments += ["--labels", str(training.labels), "--out", str(out), "--trials"]
    assert main([*arguments, "1"]) == 0
    first = (out / "trial-0000" / "best.pt").stat().st_mtime_ns
    assert main([*arguments, "2", "--sampler", "random"]) == 0
    assert (out / "trial-0000" / "best.pt").stat().st_mtime_ns == first
    with (out / "search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["trial"] for row in rows} == {"0", "1"}
    assert float(rows[0]["macro_f1"]) >= float(rows[1]["macro_f1"])
    assert rows[0]["learning_rate"] != rows[1]["learning_rate"]
    for row in rows:
        trained = load_config(out / f"trial-{int(row['trial']):04d}" / "config.yaml")
        assert trained.fit.learning_rate == pytest.approx(float(row["learning_rate"]))
        assert trained.model.latent.size == int(row["latent_size"])
        assert len(trained.model.convolutions.filters) == int(row["n_layers"])


@pytest.mark.parametrize("preset", ["ar0-full", "duelling-hough", "draw-full"])
def test_what_is_proposed_can_be_built(preset: str) -> None:
    config = load_config(PRESETS / f"{preset}.yaml")
    config = replace(config, projection=replace(config.projection, size=32))
    propose = _space_of(config)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(12):
        trial = study.ask()
        proposed = propose(config, trial)
        build_model(proposed.model, (1, 32, 32))
        assert type(proposed.model) is type(config.model)
        seen.add(str(proposed.model))
        study.tell(trial, 0.0)
    assert len(seen) > 8


def test_a_search_that_cannot_be_is_one_clear_line(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(training.data), "--out", str(tmp_path / "out"), "--trials", "1"]
    arguments += ["--labels", str(training.labels)]
    capsys.readouterr()
    assert main(["search", str(training.config), *arguments]) == 2
    assert "the search knows ar0" in capsys.readouterr().err
    wrong = load_config(write_ar0(tmp_path / "ar0.yaml"))
    with pytest.raises(Exception, match="no such file"):
        search(wrong, [tmp_path / "none"], [training.labels], tmp_path / "out", 1, device="cpu")
