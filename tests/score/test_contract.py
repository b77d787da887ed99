"""Contracts: version 2, and nonsense of every kind is refused with one line."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.contract import Contract, ModelDetector
from attpc_filter.score.outputs import further_columns
from tests import tiny_models

DETECTOR = {
    "name": "AT-TPC",
    "sha256": "0" * 64,
    "n_samples": 512,
    "calibration": {
        "micromegas_time_bucket": 38.0,
        "window_time_bucket": 278.0,
        "detector_length": 1000.0,
    },
}
POINTS = {"n_points": 256, "radius_mm": 280.0, "z_low_mm": -50.0, "z_high_mm": 1050.0}
CLEAN = {"mode": "hough", "neighbours": 2, "radius_mm": 25.0, "lines": 4}
OUTPUTS = {"energy": {"unit": "MeV"}, "interval": {"columns": ["energy_low", "energy_high"]}}


def whole() -> dict[str, Any]:
    """A contract of version 2 with every part."""
    return tiny_models.contract(
        version=2,
        detector=DETECTOR,
        points=POINTS,
        clean=CLEAN,
        outputs=OUTPUTS,
        novelty_threshold=3.0,
        traces={"n_events": 8, "n_traces": 4096},
    )


def test_version_2_goes_to_json_and_back() -> None:
    contract = Contract.from_json(json.dumps(whole()))
    assert contract.detector.name == "AT-TPC"
    assert contract.detector.calibration.window_time_bucket == 278.0
    assert further_columns(contract) == ("novelty", "energy", "energy_low", "energy_high")
    assert Contract.from_json(contract.to_json()) == contract
    assert json.loads(contract.to_json())["detector"] == DETECTOR


def test_version_1_says_the_calibration_of_its_detector_only() -> None:
    contract = Contract.from_json(json.dumps(tiny_models.contract()))
    assert contract.version == 1
    assert contract.detector == ModelDetector()
    assert json.loads(contract.to_json())["detector"] == DETECTOR["calibration"]


def test_a_contract_names_its_detector() -> None:
    detector = replace(load_detector(), n_samples=256)
    described = ModelDetector.of(detector)
    assert (described.name, described.n_samples) == ("AT-TPC", 256)
    assert described.sha256 == detector.sha256


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to all numbers and texts of a contract, but free text."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in _paths(v, (*path, k))]
    if isinstance(value, list):
        return [p for k, v in enumerate(value) for p in _paths(v, (*path, k))]
    return [path] if path[0] not in ("training", "versions") else []


def _with(path: tuple[Any, ...], value: Any) -> str:
    entries = json.loads(json.dumps(whole()))
    place = entries
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(entries)


@pytest.mark.parametrize("path", _paths(whole()), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", [math.nan, math.inf, [], {}, True, [[[]]]])
def test_a_value_of_another_kind_is_refused(path: tuple[Any, ...], value: Any) -> None:
    if path == ("hits", "drop_beam_pads") and value is True:
        return
    with pytest.raises(ValueError) as caught:  # noqa: PT011  one of many messages
        Contract.from_json(_with(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("classes", 0, "threshold"), -0.1),
        (("classes", 0, "threshold"), 1.5),
        (("classes", 0, "name"), "../proton"),
        (("classes", 0, "name"), "p" * 300),
        (("classes", 0, "name"), "carbon"),
        (("hits", "max_peaks"), 0),
        (("hits", "max_peaks"), 10**9),
        (("hits", "baseline_window_scale"), 0.0),
        (("hits", "baseline_window_scale"), 1e9),
        (("hits", "peak_separation"), -1.0),
        (("hits", "peak_max_width"), 0.0),
        (("hits", "peak_threshold"), -1.0),
        (("hits", "min_hits"), -1),
        (("detector", "n_samples"), 0),
        (("detector", "n_samples"), 5000),
        (("detector", "calibration", "window_time_bucket"), 38.0),
        (("projection", "size"), 0),
        (("projection", "size"), 10**9),
        (("projection", "radius_mm"), -280.0),
        (("projection", "scale"), 0.0),
        (("projection", "views"), []),
        (("projection", "views"), ["xx"]),
        (("projection", "z_low_mm"), 2000.0),
        (("points", "n_points"), 0),
        (("points", "n_points"), 10**12),
        (("points", "radius_mm"), 0.0),
        (("clean", "neighbours"), 0),
        (("clean", "radius_mm"), -1.0),
        (("traces", "n_events"), 0),
        (("traces", "n_traces"), 10**12),
        (("outputs", "scores"), {}),
        (("outputs", "energy"), {"columns": ["tag"]}),
        (("outputs", "energy"), {"columns": ["score_proton"]}),
        (("outputs", "energy"), {"columns": ["energy_low"]}),
        (("outputs", "energy"), {"columns": ["a", "a"]}),
        (("outputs", "a b"), {}),
        (("version",), 3),
        (("version",), "2"),
        (("new",), 1),
    ],
)
def test_a_value_without_sense_is_refused(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  one of many messages
        Contract.from_json(_with(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", '{"version": 2}', "", "{"])
def test_a_text_that_is_no_contract(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  one of many messages
        Contract.from_json(text)
    if text:
        path = tiny_models.write_model(tmp_path / "model.onnx", text)
        with pytest.raises(UsageError, match="its contract cannot be used"):
            load_bundle(str(path))
