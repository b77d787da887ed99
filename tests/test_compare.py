"""Two taggings compared; the truth is counted row by row on what pyarrow reads."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


def changed_table(
    path: Path, target: Path, scores: dict[str, float] | None = None, **metadata: bytes
) -> Path:
    """A copy of a tag table with scores multiplied and entries of its metadata replaced."""
    table = pq.read_table(path)
    for name, factor in (scores or {}).items():
        index = table.schema.get_field_index(f"score_{name}")
        column = pc.multiply(table.column(index), pa.scalar(factor, pa.float32()))
        table = table.set_column(index, table.schema.field(index), column)
    held = {f"attpc_filter.{key}".encode(): value for key, value in metadata.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | held), target)
    return target


def test_whose_scores_are_whose(taggings: tuple[Path, Path], tmp_path: Path) -> None:
    """B has half the scores of A; tags are B's own, so that some events flip."""
    a, b = (out / "tags" / "run_0001.parquet" for out in taggings)
    b = changed_table(b, tmp_path / "b.parquet", {"proton": 0.5, "noise": 0.25})
    compared = compare(a, b)
    truth_a, truth_b = read_tag_table(a), read_tag_table(b)
    for scores, truth in ((compared.scores_a, truth_a), (compared.scores_b, truth_b)):
        for event, row in zip(compared.event.tolist(), scores.tolist(), strict=True):
            held = [truth[event][f"score_{name}"] for name in tiny_models.CLASSES]
            np.testing.assert_array_equal(row, [np.nan if s is None else s for s in held])
    listed = tmp_path / "flips.csv"
    assert main(["compare", str(a), str(b), "--csv", str(listed)]) == 0
    rows = list(csv.DictReader(listed.read_text().splitlines()))
    assert len(rows) == 2
    for row in rows:
        event = int(row["event"])
        assert row["tag_a"] == truth_a[event]["tag"]
        assert row["tag_b"] == truth_b[event]["tag"]
        for name in tiny_models.CLASSES:
            for side, truth in (("a", truth_a), ("b", truth_b)):
                held = truth[event][f"score_{name}"]
                assert float(row[f"score_{name}_{side}"]) == pytest.approx(held, rel=1e-5)


@pytest.mark.parametrize("classes", [b'["a", "b", "c"]', b'["zeta", "carbon", "noise"]'])
def test_runs_of_a_folder_that_were_tagged_with_other_classes(
    classes: bytes,
    taggings: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Their scores do not belong in one table, whichever name comes first in the alphabet."""
    for name in ("run_0001.parquet", "run_0002.parquet"):
        source = taggings[0] / "tags" / name
        changed_table(source, tmp_path / "A" / "tags" / source.name)
    target = tmp_path / "A" / "tags" / "run_0002.parquet"
    table = pq.read_table(target)
    metadata = table.schema.metadata | {b"attpc_filter.classes": classes}
    renamed = dict(zip(tiny_models.CLASSES, json.loads(classes), strict=True))
    columns = {f"score_{old}": f"score_{new}" for old, new in renamed.items()}
    table = table.rename_columns([columns.get(name, name) for name in table.column_names])
    tags = [renamed.get(tag, tag) for tag in table.column("tag").to_pylist()]
    table = table.set_column(table.schema.get_field_index("tag"), "tag", [tags])
    pq.write_table(table.replace_schema_metadata(metadata), target)
    assert main(["compare", str(taggings[0]), str(tmp_path / "A")]) == 2
    error = capsys.readouterr().err
    assert f"{taggings[0] / 'tags' / 'run_0002.parquet'}: tagged with other classes than" in error
    assert str(taggings[0] / "tags" / "run_0001.parquet") in error


def test_a_list_that_cannot_be_written(
    taggings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "flips.csv"
    folder.mkdir()
    assert main(["compare", *map(str, taggings), "--csv", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "flips.csv" in error
    assert "cannot be written: Is a directory" in error
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_without_tag_tables(
    taggings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(taggings[0]), str(tmp_path)]) == 2
    assert f"{tmp_path}: no tag tables" in capsys.readouterr().err


def test_a_table_with_a_tag_that_is_no_class(
    taggings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = taggings[0] / "tags" / "run_0001.parquet"
    table = pq.read_table(a)
    tags = ["alpha" if tag == "proton" else tag for tag in table.column("tag").to_pylist()]
    table = table.set_column(table.schema.get_field_index("tag"), "tag", [tags])
    b = tmp_path / "b.parquet"
    pq.write_table(table, b)
    assert main(["compare", str(a), str(b)]) == 2
    assert f"{b}: damaged: tag 'alpha' is none of proton, carbon" in capsys.readouterr().err
