"""The model bundle: the contract in the file, and what is in it is what is used."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.clean import CleanSettings
from attpc_filter.score.bundle import Contract, load_bundle, shipped_bundles
from tests import tiny_models

POINTS = {"n_points": 256, "radius_mm": 280.0, "z_low_mm": -50.0, "z_high_mm": 1050.0}


def test_the_contract_is_read_as_it_was_written(counter_model: Path) -> None:
    bundle = load_bundle(str(counter_model))
    expected = tiny_models.contract(points=None, clean=asdict(CleanSettings()))
    expected |= {"novelty_threshold": None, "traces": None}
    found = json.loads(bundle.contract.to_json())
    for entry in found["classes"]:
        assert entry.pop("role") == ""
    assert found == expected
    assert bundle.sha256 == hashlib.sha256(counter_model.read_bytes()).hexdigest()


def test_a_contract_goes_to_json_and_back(counter_model: Path) -> None:
    contract = load_bundle(str(counter_model)).contract
    assert Contract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize("part", sorted(tiny_models.contract()))
def test_a_contract_that_lacks_a_part(part: str, tmp_path: Path) -> None:
    contract = tiny_models.contract()
    del contract[part]
    path = tiny_models.write_model(tmp_path / "model.onnx", json.dumps(contract))
    if part in ("training", "versions"):
        load_bundle(str(path))
        return
    with pytest.raises(UsageError, match="contract"):
        load_bundle(str(path))


@pytest.mark.parametrize("reads", [("points",), ("projection", "points")])
def test_a_contract_that_describes_points(reads: tuple[str, ...], tmp_path: Path) -> None:
    described = tiny_models.contract(points=POINTS)
    if "projection" not in reads:
        del described["projection"]
    path = tiny_models.write_model(tmp_path / "model.onnx", json.dumps(described), reads=reads)
    contract = load_bundle(str(path)).contract
    assert set(contract.input_shapes) == set(reads)
    assert contract.input_shapes["points"] == (256, 5)
    assert Contract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    ("points", "word"),
    [(None, "reads"), (POINTS | {"n_points": 99}, "reads"), (POINTS | {"n_pints": 9}, "n_pints")],
)
def test_a_contract_that_describes_other_points_than_its_graph_reads(
    points: dict[str, float] | None, word: str, tmp_path: Path
) -> None:
    text = json.dumps(tiny_models.contract(points=points))
    path = tiny_models.write_model(tmp_path / "model.onnx", text, reads=("projection", "points"))
    with pytest.raises(UsageError, match=word):
        load_bundle(str(path))


def test_a_contract_with_a_novelty_that_its_graph_does_not_give(tmp_path: Path) -> None:
    text = json.dumps(tiny_models.contract(novelty_threshold=3.0))
    outputs = ("scores", "latent", "novelty")
    load_bundle(str(tiny_models.write_model(tmp_path / "model.onnx", text, outputs=outputs)))
    path = tiny_models.write_model(tmp_path / "model.onnx", text)
    with pytest.raises(UsageError, match="novelty"):
        load_bundle(str(path))


@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_what_ships_has_a_contract_that_its_graph_keeps(name: str) -> None:
    bundle = load_bundle(name)
    model = onnx.load_model_from_string(bundle.graph)
    held = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(held[tiny_models.METADATA_KEY])["name"] == bundle.contract.name
    shapes = {
        given.name: tuple(dim.dim_value for dim in given.type.tensor_type.shape.dim)[1:]
        for given in model.graph.input
    }
    assert shapes == bundle.contract.input_shapes
    assert "scores" in {output.name for output in model.graph.output}
    used = {opset.domain for opset in model.opset_import}
    assert used <= {"", "ai.onnx"}, "no operators of anyone's own"
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_default_ships() -> None:
    assert "default" in shipped_bundles()
