"""Events unlike the training events, through the real command line: run, retag, friend tree."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests import miniatures, tiny_models
from tests.conftest import Cli, files_below, read_tag_table

LIMIT = 20.0  # lit pixels


def test_unlike_events_are_uncertain_and_stay_so(
    tmp_path: Path, miniature: Callable[[str], Path], call: Cli
) -> None:
    """The counting model's novelty is the number of lit pixels."""
    text = json.dumps(tiny_models.contract(novelty_threshold=LIMIT))
    outputs = ("scores", "latent", "novelty")
    model = tiny_models.write_model(tmp_path / "novel.onnx", text, outputs=outputs)
    out = tmp_path / "out"
    run = miniature("spyral_cloud")
    ended = call("run", run, "--model", model, "--out", out, "--device", "cpu", "--threads", "1")
    assert ended.status == 0, ended.err
    (table,) = (out / "tags").glob("*.parquet")
    rows = read_tag_table(table)
    unlike = set()
    for event in miniatures.events():
        row = rows[event.number]
        if row["score_proton"] is None:
            assert row["novelty"] is None
            continue
        assert row["novelty"] == event.n_lit
        is_unlike = row["reason"] == "unlike the training events"
        assert is_unlike == (event.n_lit > LIMIT)
        if is_unlike:
            assert row["tag"] == "uncertain"
            unlike.add(event.number)
    assert unlike
    assert len(unlike) < len(rows)

    # lower thresholds do not bring them back
    ended = call("retag", out, "--thresholds", "proton=0", "carbon=0", "noise=0")
    assert ended.status == 0, ended.err
    again = read_tag_table(table)
    assert {n for n, row in again.items() if row["reason"].startswith("unlike")} == unlike

    # to a friend tree and back: the table is the same
    assert call("tags", table, tmp_path / "friend.root").status == 0
    assert call("tags", tmp_path / "friend.root", tmp_path / "back.parquet").status == 0
    one, other = pq.read_table(table), pq.read_table(tmp_path / "back.parquet")
    assert one.schema.metadata == other.schema.metadata
    assert one.equals(other)
    assert np.isfinite(one["novelty"].drop_null().to_numpy()).all()
    assert files_below(out)
