"""Streams and friend trees in ROOT files: what was put in comes out again.

What ROOT itself makes of them is in ``tests/plugins/attpcroot``.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.root.moves import move_root_events
from attpc_filter.formats.run import Move, StreamMode
from attpc_filter.output.friend import (
    friend_from_table,
    read_friend,
    table_from_friend,
    tag_codes,
    write_friend,
)
from attpc_filter.output.tag_table import TagWriter
from attpc_filter.records import Hits, Record
from attpc_filter.root_options import RootOptions
from tests.formats.root.root_truth import DATA, hits_of, miniature_truth

NAMES = ["now_zlib", "columns", "ntuple"]
CHOSEN = [1, 3, 4, 8]


def write_stream(name: str, path: Path, mode: StreamMode, entries: list[int]) -> list[int]:
    """A stream of some entries of a miniature; gives their event numbers."""
    source, options, _ = miniature_truth(name)
    with open_run(source, options) as run:
        stream = run.create_stream(path, mode, "proton")
        for entry in entries:
            stream.add(Record(*run.events[entry]))
        stream.close()
        return [run.events[entry][0] for entry in entries]


@pytest.mark.parametrize("mode", ["link", "copy"])
@pytest.mark.parametrize("name", NAMES)
def test_a_stream_holds_the_events_that_were_added(
    name: str, mode: StreamMode, tmp_path: Path
) -> None:
    truth = miniature_truth(name)[2]
    numbers = write_stream(name, tmp_path / "stream.root", mode, CHOSEN)
    with uproot.open(tmp_path / "stream.root") as file:
        assert file["events/entry"].array(library="np").tolist() == CHOSEN
        assert file["events/event"].array(library="np").tolist() == numbers
    with open_run(tmp_path / "stream.root") as run:
        assert [number for number, _ in run.events] == numbers
        for entry, record in zip(CHOSEN, run.records(), strict=True):
            assert record.reason == ""
            assert truth[entry].matches(record)


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_a_stream_of_a_stream(mode: StreamMode, tmp_path: Path) -> None:
    truth = miniature_truth("now_zlib")[2]
    write_stream("now_zlib", tmp_path / "first.root", mode, CHOSEN)
    with open_run(tmp_path / "first.root") as run:
        stream = run.create_stream(tmp_path / "second.root", mode, "proton")
        stream.add(Record(*run.events[2]))
        stream.close()
    with open_run(tmp_path / "second.root") as run:
        assert [number for number, _ in run.events] == [4]
        assert truth[4].matches(next(run.records()))


def test_an_empty_stream_is_complete_but_no_run(tmp_path: Path) -> None:
    write_stream("now_zlib", tmp_path / "stream.root", "copy", [])
    with pytest.raises(InputError, match=r"stream\.root: ROOT tree without a single event"):
        open_run(tmp_path / "stream.root")


def test_rebuilt_hits_lie_beside_the_traces(tmp_path: Path) -> None:
    path = tmp_path / "stream.root"
    with open_run(DATA / "now_zlib.root") as run:
        stream = run.create_stream(path, "copy", "proton")
        for count in (0, 2, 3):
            column = np.arange(count, dtype=np.float32) + count
            hits = Hits(
                np.array([0, count]), column.astype(np.int32), *(column * k for k in range(6))
            )
            stream.add(Record(count, str(count)), hits)
        stream.close()
    with uproot.open(path) as file:
        assert file["events/hits_pad"].array().to_list() == [[], [2, 3], [3, 4, 5]]
        assert file["events/hits_y"].array().to_list() == [[], [2, 3], [3, 4, 5]]
        assert file["events/hits_integral"].array().to_list() == [[], [10, 15], [15, 20, 25]]
    with open_run(path) as run:
        for entry, record in zip((0, 2, 3), run.records(), strict=True):
            assert miniature_truth("now_zlib")[2][entry].matches(record)


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_events_move_from_stream_to_stream(mode: StreamMode, tmp_path: Path) -> None:
    options = RootOptions(branch="AtEventH")
    held = {"proton": [0, 2, 5, 6], "carbon": [1, 7, 8], "noise": []}
    paths = {}
    with open_run(DATA / "now_zlib.root", options) as run:
        for label, entries in held.items():
            paths[label] = tmp_path / f"{label}.root"
            stream = run.create_stream(paths[label], mode, label)
            for entry in entries:
                stream.add(Record(entry, str(entry)))
            stream.close()
    moves = [Move(5, "proton", "noise"), Move(7, "carbon", "proton"), Move(0, "proton", "noise")]
    move_root_events(paths, moves, lambda path: path.with_suffix(".new"))
    expected = {"proton": [2, 6, 7], "carbon": [1, 8], "noise": [0, 5]}
    for label, entries in expected.items():
        new = paths[label].with_suffix(".new")
        with open_run(new) as run:
            assert [number for number, _ in run.events] == entries
            for entry, record in zip(entries, run.records(), strict=True):
                assert hits_of(entry).matches(record)
    with pytest.raises(InputError, match=r"proton\.root: event 3 is not there"):
        move_root_events(paths, [Move(3, "proton", "noise")], lambda path: path)


# ------------------------------------------------------------------------------------ friend trees


TAGS = ["proton", "carbon", "uncertain", "unreadable", "proton", "passthrough"]


def write_table(path: Path) -> None:
    """A tag table with every kind of tag."""
    scored = np.array([tag in ("proton", "carbon", "uncertain") for tag in TAGS])
    scores = np.array([[i / 8, 1 - i / 8] for i in range(6)], np.float32)
    metadata = {"model": "m", "model_sha256": "ab", "classes": ["proton", "carbon"]}
    writer = TagWriter(path, ["proton", "carbon"], metadata)
    events = np.array([0, 1, 2, 5, 7, 9])
    reasons = ["", "", "no class", "it is damaged", "", "IC"]
    writer.add(46, events, TAGS, scores, scored, np.arange(6), reasons)
    writer.close()


def test_tags_to_a_friend_tree_and_back(tmp_path: Path) -> None:
    write_table(tmp_path / "tags.parquet")
    friend_from_table(tmp_path / "tags.parquet", tmp_path / "tags.root")
    with uproot.open(tmp_path / "tags.root") as file:
        assert file.classnames()["tags;1"] == "TTree"  # an RNTuple is no friend of a TTree
        columns = file["tags"].arrays(library="np")
    assert columns["tag"].tolist() == TAGS
    assert columns["tag_code"].tolist() == [0, 1, 2, 3, 0, 4]
    assert columns["event"].tolist() == [0, 1, 2, 5, 7, 9]
    assert np.isnan(columns["score_proton"]).tolist() == [False, False, False, True, False, True]
    table_from_friend(tmp_path / "tags.root", tmp_path / "back.parquet")
    before, after = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("tags", "back"))
    assert after.equals(before)
    assert after.schema.metadata == before.schema.metadata


def test_codes_of_tags() -> None:
    assert tag_codes(["a", "b"], ["b", "odd", "uncertain"]) == {
        "a": 0,
        "b": 1,
        "uncertain": 2,
        "unreadable": 3,
        "passthrough": 4,
        "odd": 5,
    }


def test_a_friend_has_a_row_for_every_entry(tmp_path: Path) -> None:
    write_table(tmp_path / "tags.parquet")
    table = pq.read_table(tmp_path / "tags.parquet")
    with pytest.raises(InputError, match=r"6 rows, the tree 7 entries"):
        write_friend(tmp_path / "tags.root", table, {}, n_entries=7)
    write_friend(tmp_path / "tags.root", table, {}, n_entries=6)
    assert read_friend(tmp_path / "tags.root")[0].num_rows == 6


def test_tags_are_no_events_and_events_no_tags(tmp_path: Path) -> None:
    write_table(tmp_path / "tags.parquet")
    friend_from_table(tmp_path / "tags.parquet", tmp_path / "tags.root")
    with pytest.raises(InputError, match=r"tags\.root: tags, not events"):
        open_run(tmp_path / "tags.root")
    with pytest.raises(InputError, match=r"now_zlib\.root: no friend tree of attpc-filter"):
        read_friend(DATA / "now_zlib.root")


def test_many_rows_are_written_in_batches(tmp_path: Path) -> None:
    n = 250_001
    table = pa.table(
        {
            "run": pa.array(np.full(n, 3, np.int64)),
            "event": pa.array(np.arange(n)),
            "tag": pa.array(np.where(np.arange(n) % 3, "noise", "proton")),
            "score_proton": pa.array(np.linspace(0, 1, n, dtype=np.float32)),
            "n_hits": pa.array(np.arange(n, dtype=np.int32)),
            "reason": pa.array([""] * n),
        }
    )
    write_friend(tmp_path / "tags.root", table, {"model": "m"}, n)
    back, metadata = read_friend(tmp_path / "tags.root")
    assert metadata == {"model": "m"}
    for name in table.column_names:
        assert back[name].combine_chunks().equals(table[name].combine_chunks())
