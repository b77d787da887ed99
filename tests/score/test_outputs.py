"""An output that a contract declares becomes columns of the tag table; nothing else is needed."""

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import load_bundle
from tests import miniatures, tiny_models
from tests.conftest import command, environment, read_tag_table

OUTPUTS = {
    "energy": {"unit": "MeV", "description": "a regression"},
    "interval": {"columns": ["energy_low", "energy_high"], "unit": "MeV"},
}
DETECTOR = {"calibration": tiny_models.contract()["detector"]}


def _model(path: Path, graph_gives: tuple[str, ...], **outputs: Any) -> Path:
    text = json.dumps(tiny_models.contract(version=2, detector=DETECTOR, outputs=outputs))
    return tiny_models.write_model(path, text, outputs=("scores", "latent", *graph_gives))


@pytest.mark.parametrize("executor", ["in-process", "processes"])
def test_a_regression_with_its_interval_reaches_the_tag_table(
    executor: str, tmp_path: Path
) -> None:
    model = _model(tmp_path / "model.onnx", ("energy", "interval"), **OUTPUTS)
    few = [miniatures.simulate(n, [10, 60, 0, 30][n % 4]) for n in range(8)]
    events = [dataclasses.replace(few[n % 8], number=n) for n in range(150)]
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5", events)
    out = tmp_path / "out"
    options = ["--no-picture", "--executor", executor]
    subprocess.run(
        command("run", path, "--out", out, "--model", model, *options),
        env=environment(),
        check=True,
        capture_output=True,
    )
    rows = read_tag_table(out / "tags" / "run_0001.parquet")
    assert len(rows) == 150
    for event in events:
        row = rows[event.number]
        found = [row[name] for name in ("energy", "energy_low", "energy_high")]
        if event.n_lit < 5:  # too few hits to be scored
            assert found == [None] * 3
        else:
            assert found == [event.n_lit, event.n_lit - 1, event.n_lit + 1]


@pytest.mark.parametrize(
    ("gives", "outputs"),
    [
        ((), {"energy": {}}),
        (("interval",), {"interval": {}}),
        (("energy",), {"energy": {"columns": ["a", "b"]}}),
        (("interval",), {"interval": {"columns": ["a", "b", "c"]}}),
    ],
)
def test_a_graph_that_does_not_give_what_its_contract_declares(
    gives: tuple[str, ...], outputs: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="its contract needs"):
        load_bundle(str(_model(tmp_path / "model.onnx", gives, **outputs)))
