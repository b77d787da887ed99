"""`attpc-filter tags`: a tag table as a ROOT friend tree and back, read with uproot and pyarrow."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import Cli

uproot = pytest.importorskip("uproot")


def test_there_and_back(
    call: Cli, tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
) -> None:
    out = tmp_path / "out"
    run = miniature("merger_2.0")
    done = call("run", run, "--out", out, "--model", counter_model, "--no-picture")
    assert done.status == 0
    table = out / "tags" / f"{run.stem}.parquet"
    assert call("tags", table, tmp_path / "tags.root").status == 0
    rows = pq.read_table(table).to_pylist()
    with uproot.open(tmp_path / "tags.root") as file:
        tree = file["tags"]
        assert tree.num_entries == len(rows)
        assert tree["event"].array().tolist() == [row["event"] for row in rows]
        assert tree["tag"].array().tolist() == [row["tag"] for row in rows]
    assert call("tags", tmp_path / "tags.root", tmp_path / "back.parquet").status == 0
    assert pq.read_table(tmp_path / "back.parquet").to_pylist() == rows


def test_two_of_a_kind_are_refused(call: Cli, tmp_path: Path) -> None:
    ended = call("tags", tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert ended.status == 2
    assert ".root" in ended.the_error()
