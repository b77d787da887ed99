"""Two taggings compared; the truth is counted row by row on what pyarrow reads."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from attpc_filter.cli import main
from attpc_filter.compare import compare
from tests import miniatures, tiny_models
from tests.conftest import read_tag_table

TAGS = [*tiny_models.CLASSES, "uncertain", "unreadable", "passthrough"]


@pytest.fixture(scope="module")
def taggings(tmp_path_factory: pytest.TempPathFactory, counter_model: Path) -> tuple[Path, Path]:
    """Two runs tagged with two thresholds; B lacks an event of one and has a run more."""
    folder = tmp_path_factory.mktemp("compare")
    runs = [miniatures.write_run("merger_2.0", folder / "a" / f"run_{n:04d}.h5") for n in (1, 2)]
    others = [
        miniatures.write_run("merger_2.0", folder / "b" / "run_0001.h5"),
        miniatures.write_run("merger_2.0", folder / "b" / "run_0002.h5", miniatures.events()[:-1]),
        miniatures.write_run("merger_2.0", folder / "b" / "run_0003.h5"),
    ]
    options = ["--model", str(counter_model), "--streams", "none", "--no-picture"]
    for paths, out, more in (
        (runs, "A", []),
        (others, "B", ["--thresholds", "proton=0.45", "noise=1"]),
    ):
        assert main(["run", *map(str, paths), "--out", str(folder / out), *options, *more]) == 0
    return folder / "A", folder / "B"


def _pairs(a: Path, b: Path) -> list[tuple[int, int, str, str]]:
    """Run, event and both tags of every event that both have."""
    pairs = []
    for number in (1, 2):
        name = f"run_{number:04d}.parquet"
        rows_a, rows_b = read_tag_table(a / "tags" / name), read_tag_table(b / "tags" / name)
        for event in sorted(rows_a.keys() & rows_b.keys()):
            pairs.append((number, event, rows_a[event]["tag"], rows_b[event]["tag"]))
    return pairs


def test_matrix_and_lists(taggings: tuple[Path, Path], tmp_path: Path) -> None:
    compared = compare(*taggings)
    pairs = _pairs(*taggings)
    counted = Counter((tag_a, tag_b) for _, _, tag_a, tag_b in pairs)
    assert compared.tags_a == compared.tags_b == TAGS
    for i, tag_a in enumerate(TAGS):
        for j, tag_b in enumerate(TAGS):
            assert compared.matrix[i, j] == counted[tag_a, tag_b]
    assert (compared.only_a, compared.only_b) == (1, 0)
    flips = [pair for pair in pairs if pair[2] != pair[3]]
    assert compared.n_flipped == len(flips) == 4  # in each run: 3 noise and 13 uncertain before
    listed, picture = tmp_path / "flips.csv", tmp_path / "scores.png"
    a, b = map(str, taggings)
    assert main(["compare", a, b, "--csv", str(listed), "--png", str(picture)]) == 0
    rows = list(csv.DictReader(listed.read_text().splitlines()))
    assert [
        (int(row["run"]), int(row["event"]), row["tag_a"], row["tag_b"]) for row in rows
    ] == flips
    table = read_tag_table(taggings[0] / "tags" / "run_0001.parquet")
    for name in tiny_models.CLASSES:
        expected = table[int(rows[0]["event"])][f"score_{name}"]
        assert float(rows[0][f"score_{name}_a"]) == pytest.approx(expected, rel=1e-5)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_it_prints(taggings: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, taggings)]) == 0
    out = capsys.readouterr().out
    assert "flipped    4 of 13 events (30.77%)" in out
    assert "1 only in A" in out


def test_a_tagging_with_itself(taggings: tuple[Path, Path]) -> None:
    compared = compare(taggings[0], taggings[0])
    assert compared.n_flipped == 0
    assert compared.matrix.sum() == np.trace(compared.matrix) == 14
    np.testing.assert_array_equal(compared.scores_a, compared.scores_b)


def test_two_tables(taggings: tuple[Path, Path], tmp_path: Path) -> None:
    """Two tables are paired whatever they are called, rows in any order, classes as they are."""
    a = taggings[0] / "tags" / "run_0001.parquet"
    table = pq.read_table(a)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    renamed = shuffled.rename_columns(
        ["score_alpha" if name == "score_proton" else name for name in shuffled.column_names]
    )
    classes = b'["alpha", "carbon", "noise"]'
    metadata = dict(table.schema.metadata) | {b"attpc_filter.classes": classes}
    tags = ["alpha" if tag == "proton" else tag for tag in renamed.column("tag").to_pylist()]
    renamed = renamed.set_column(2, "tag", [tags]).replace_schema_metadata(metadata)
    b = tmp_path / "other.parquet"
    pq.write_table(renamed, b)
    compared = compare(a, b)
    flipped = compared.event[compared.flipped].tolist()
    assert flipped == [row["event"] for row in table.to_pylist() if row["tag"] == "proton"]


@pytest.mark.parametrize("which", ["none", "no table", "nothing in common"])
def test_nothing_to_compare(
    which: str,
    taggings: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    if which == "no table":
        other.write_text("text")
    elif which == "nothing in common":
        (other / "tags").mkdir(parents=True)
        table = taggings[0] / "tags" / "run_0001.parquet"
        (other / "tags" / "run_0009.parquet").write_bytes(table.read_bytes())
    assert main(["compare", str(taggings[0]), str(other)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert str(other) in error
