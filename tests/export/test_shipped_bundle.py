"""The bundle that ships: small, complete, and as good as is demanded on events it never saw."""

from pathlib import Path

import pytest
from attpc_export.config import load_config
from attpc_export.evaluate import evaluate

from attpc_filter.score.bundle import Bundle, load_bundle
from tests.conftest import shared

PRESET = Path(__file__).parents[2] / "export" / "configs" / "default.yaml"


@pytest.fixture(scope="module")
def default() -> Bundle:
    return load_bundle("default")


def test_it_is_small(default: Bundle) -> None:
    assert len(default.graph) < 3_000_000


def test_it_was_made_by_the_preset(default: Bundle) -> None:
    config, contract = load_config(PRESET), default.contract
    assert contract.name == config.name
    assert contract.classes == config.classes
    assert contract.hits == config.hits
    assert contract.detector == config.detector
    assert contract.projection == config.projection.with_scale(contract.projection.scale)
    assert contract.training["seed"] == config.seed


def test_it_was_trained_on_the_train_part_only(default: Bundle) -> None:
    names = {file["name"] for file in default.contract.training["files"]}
    assert names
    assert not any(f"run_02{number}" in name for name in names for number in "01")
    assert not any(f"run_002{number}" in name for name in names for number in "12")


@pytest.mark.parametrize(
    ("run", "labels", "floor"),
    [
        ("test/full/run_0201.h5", "test/labels_full.csv", 0.82),
        ("test/full/run_0211.h5", "test/labels_full.csv", 0.82),
        ("test/clean/run_0021.h5", "test/labels_clean.csv", 0.98),
    ],
)
def test_it_is_good_enough(default: Bundle, run: str, labels: str, floor: float) -> None:
    (result,) = evaluate([str(default.path)], [shared(run)], [shared(labels)], "cpu")
    assert result.judgement.macro_f1 >= floor
