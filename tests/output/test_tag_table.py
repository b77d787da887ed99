"""The tag table, read back with pyarrow alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attpc_filter.errors import InputError, OutputError
from attpc_filter.output.tag_table import TagWriter, read_tags

METADATA: dict[str, Any] = {
    "contract_version": "1",
    "model_sha256": "ab" * 32,
    "classes": ["proton", "noise"],
    "thresholds": {"proton": 0.5, "noise": 0.25},
}


def _add(writer: TagWriter, first: int, n: int, run: int = 3) -> None:
    events = np.arange(first, first + n)
    scores = np.stack([events / 1e6, 1 - events / 1e6], axis=1).astype(np.float32)
    tags = ["proton" if event % 2 else "unreadable" for event in events]
    scored = events % 2 == 1
    reasons = ["" if s else f"event {e} is damaged" for e, s in zip(events, scored, strict=True)]
    writer.add(run, events, tags, scores, scored, events * 2, reasons)


def test_rows_are_those_added(tmp_path: Path) -> None:
    path = tmp_path / "tags.parquet"
    writer = TagWriter(path, ["proton", "noise"], METADATA)
    _add(writer, 10, 4)
    _add(writer, 99, 1)
    writer.close()
    table = pq.read_table(path)
    assert table.schema.field("run").type == pa.int64()
    assert table.schema.field("event").type == pa.int64()
    assert table.schema.field("score_proton").type == pa.float32()
    assert table.column_names == [
        "run", "event", "tag", "score_proton", "score_noise", "n_hits", "reason"
    ]  # fmt: skip
    rows = table.to_pylist()
    assert [row["event"] for row in rows] == [10, 11, 12, 13, 99]
    assert rows[0] == {
        "run": 3,
        "event": 10,
        "tag": "unreadable",
        "score_proton": None,
        "score_noise": None,
        "n_hits": 20,
        "reason": "event 10 is damaged",
    }
    assert rows[1]["score_proton"] == pytest.approx(11e-6)
    assert rows[1]["reason"] == ""


def test_metadata_travel_with_the_table(tmp_path: Path) -> None:
    path = tmp_path / "tags.parquet"
    writer = TagWriter(path, ["proton", "noise"], METADATA)
    writer.close()
    held = pq.read_metadata(path).metadata
    assert held[b"attpc_filter.model_sha256"] == b"ab" * 32
    assert held[b"attpc_filter.contract_version"] == b"1"
    assert held[b"attpc_filter.classes"] == b'["proton", "noise"]'
    _, metadata = read_tags(path)
    assert metadata["model_sha256"] == "ab" * 32


def test_many_rows_stay_in_order(tmp_path: Path) -> None:
    path = tmp_path / "tags.parquet"
    writer = TagWriter(path, ["proton", "noise"], METADATA)
    for first in range(0, 50_000, 64):
        _add(writer, first, 64)
    writer.close()
    events = pq.read_table(path).column("event").to_numpy()
    np.testing.assert_array_equal(events, np.arange(len(events)))
    assert len(events) == writer.n_rows == 50_048


def test_what_is_no_tag_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tags.parquet"
    with pytest.raises(InputError, match="not a tag table"):
        read_tags(path)
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(InputError, match="not a tag table"):
        read_tags(path)
    pq.write_table(pa.table({"event": [1]}), path)
    with pytest.raises(InputError, match="but not a tag table of attpc-filter"):
        read_tags(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        TagWriter(tmp_path / "absent" / "tags.parquet", ["a", "b"], METADATA)


class LosesRows(TagWriter):
    """Forgets what it should write when it is closed."""

    def close(self) -> None:
        self._pending.clear()
        super().close()


def test_a_table_that_lost_rows(tmp_path: Path) -> None:
    writer = LosesRows(tmp_path / "tags.parquet", ["proton", "noise"], METADATA)
    _add(writer, 0, 3)
    with pytest.raises(OutputError, match=r"tags\.parquet: holds 0 rows, 3 were written"):
        writer.close()


def test_a_table_with_a_row_too_many(tmp_path: Path) -> None:
    writer = TagWriter(tmp_path / "tags.parquet", ["proton", "noise"], METADATA)
    _add(writer, 0, 3)
    writer.n_rows -= 1
    with pytest.raises(OutputError, match="holds 3 rows, 2 were written"):
        writer.close()


def test_a_date_as_run_number(tmp_path: Path) -> None:
    path = tmp_path / "tags.parquet"
    writer = TagWriter(path, ["proton", "noise"], METADATA)
    _add(writer, 2**62, 2, run=20241123093000)
    writer.close()
    rows = pq.read_table(path).to_pylist()
    assert [(row["run"], row["event"]) for row in rows] == [
        (20241123093000, 2**62),
        (20241123093000, 2**62 + 1),
    ]


def test_version_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tags.parquet"
    metadata = {"attpc_filter.model_sha256": "ab", "attpc_filter.table_version": "1"}
    schema = pa.schema(
        [
            ("run", pa.int32()),
            ("event", pa.int64()),
            ("tag", pa.string()),
            ("n_hits", pa.int32()),
            ("reason", pa.string()),
        ],
        metadata,
    )
    row = {"run": 2147483647, "event": 5, "tag": "proton", "n_hits": 7, "reason": ""}
    pq.write_table(pa.Table.from_pylist([row], schema), path)
    table, _ = read_tags(path)
    assert table.schema.field("run").type == pa.int64()
    assert table.to_pylist() == [row]


def test_a_table_whose_column_names_are_damaged_is_refused(tmp_path: Path) -> None:
    """They stand in Parquet's footer, which has no checksum."""
    path = tmp_path / "tags.parquet"
    writer = TagWriter(path, ["proton", "noise"], METADATA)
    _add(writer, 0, 64)
    writer.close()
    table = pq.read_table(path)
    names = ["ta " if name == "tag" else name for name in table.column_names]
    renamed = table.rename_columns(names).replace_schema_metadata(table.schema.metadata)
    pq.write_table(renamed, path)
    with pytest.raises(InputError, match="without tag: damaged"):
        read_tags(path)


def test_a_flipped_bit_in_the_pages_is_noticed(tmp_path: Path) -> None:
    """All bits of every twentieth byte that is not in the footer."""
    path = tmp_path / "tags.parquet"
    writer = TagWriter(path, ["proton", "noise"], METADATA)
    _add(writer, 0, 64)
    writer.close()
    whole = path.read_bytes()
    expected = read_tags(path)[0]
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    changed = 0
    for place in range(4, len(whole) - footer, 20):
        for bit in range(8):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            try:
                changed += read_tags(path)[0] != expected
            except InputError:
                continue
    assert changed == 0
