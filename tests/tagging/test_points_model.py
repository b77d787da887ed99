"""The real command line with a model that reads hits, alone or beside images."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import miniatures, tiny_models
from tests.conftest import Cli, read_tag_table

POINTS = {"n_points": 256, "radius_mm": 280.0, "z_low_mm": -50.0, "z_high_mm": 1050.0}


@pytest.mark.parametrize("layout", ["merger_2.0", "spyral_cloud"])
@pytest.mark.parametrize("reads", [("points",), ("projection", "points")])
def test_a_model_gets_the_hits_of_each_event(
    layout: str,
    reads: tuple[str, ...],
    tmp_path: Path,
    miniature: Callable[[str], Path],
    call: Cli,
) -> None:
    """A hit of a miniature is a lit pixel, so that a model of both kinds counts each twice."""
    text = tiny_models.contract(points=POINTS)
    if "projection" not in reads:
        text["projection"] = None
    model = tiny_models.write_model(tmp_path / "points.onnx", json.dumps(text), reads=reads)
    arguments = ["--model", model, "--threads", "2", "--device", "cpu"]
    ended = call("run", miniature(layout), "--out", tmp_path / "out", *arguments)
    assert ended.status == 0, ended.err
    (table,) = (tmp_path / "out" / "tags").glob("*.parquet")
    rows = read_tag_table(table)
    scored = 0
    for event in miniatures.events():
        row = rows[event.number]
        found = [row[f"score_{name}"] for name in tiny_models.CLASSES]
        if found[0] is None or row["n_hits"] != event.n_lit:
            continue
        expected = tiny_models.scores_of(len(reads) * event.n_lit)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        scored += 1
    assert scored >= 4
