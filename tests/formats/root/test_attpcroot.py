"""ATTPCROOT's files without ROOT: every pad, sample and hit as ROOT wrote it.

The truth is in arrays beside the shared files, and for the miniatures (which ROOT wrote, see
``tests/data/attpcroot/make.py``) in a rule.
"""

import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.root.attpcroot import TraceRun
from attpc_filter.formats.root.file import RootFile
from attpc_filter.formats.root.layout import KNOWN_CLASSES, Classes, described_classes
from attpc_filter.records import N_TRACE_COLUMNS
from attpc_filter.root_options import RootOptions
from tests.conftest import Cli, read_tag_table
from tests.formats.root.root_fuzz import damage
from tests.formats.root.root_truth import (
    DATA,
    NO_INTEGRAL,
    SEVERAL,
    SHARED,
    Truth,
    hits_of,
    miniature_truth,
    rule,
    shared_truth,
    traces_of,
)

TRACES = [
    "now_zlib",
    "now_lzma",
    "now_lz4",
    "now_zstd",
    "now_plain",
    "several",
    "several_unsplit",
    "several_whole",
    "unsplit_pointer",
    "single",
    "single_unsplit",
    "keys",
    "pad2",
    "pad2_unsplit",
    "by_value",
    "by_value_unsplit",
    "by_value_whole",
    "later",
]
HITS = [name for name in TRACES if name not in ("keys", "later")]


def need_shared(name: str) -> Path:
    """A shared file; skips the test where it is absent."""
    path = SHARED / f"{name}.root"
    if not path.exists():
        pytest.skip(
            f"needs the files that ATTPCROOT's classes wrote, beside the repository: {path}"
        )
    return path


def check(path: Path, options: RootOptions | None, truth: Truth) -> None:
    """Every entry of a file is what it truly is."""
    with open_run(path, options) as run:
        assert [number for number, _ in run.events] == list(range(len(truth)))
        for record, event in zip(run.records(), truth, strict=True):
            assert record.reason == ""
            assert event.matches(record), f"entry {record.name}"


# ------------------------------------------------------------------------------------ shared files


@pytest.mark.parametrize("name", ["raw_fair99", "raw_split0", "hits_fair99", "hits_split0"])
def test_every_number_of_the_shared_files(name: str) -> None:
    need_shared(name)
    check(*shared_truth(name))


@pytest.mark.parametrize("name", ["raw_fair99", "raw_split0"])
def test_all_that_a_pad_says(name: str) -> None:
    path = need_shared(name)
    table = np.load(path.with_suffix(".npz"))
    with open_run(path) as run:
        assert isinstance(run, TraceRun)
        pads = [run.read_pads(entry) for entry, _ in run.events]
        ids = [run.event_ids(entry) for entry, _ in run.events]
    assert [len(p.num) for p in pads] == table["npads"].tolist()
    np.testing.assert_array_equal(np.concatenate([p.num for p in pads]), table["num"])
    np.testing.assert_array_equal(np.concatenate([p.size_id for p in pads]), table["size"])
    np.testing.assert_array_equal(np.concatenate([p.xy for p in pads]), table["xy"])
    np.testing.assert_array_equal(np.concatenate([p.raw for p in pads]), table["raw"])
    adc = np.concatenate([p.adc for p in pads])
    np.testing.assert_array_equal(adc.astype(np.float32), table["adc"])
    assert ids == [[number] for number in table["event"]]


def test_a_single_event_that_a_user_wrote_years_ago() -> None:
    path = need_shared("respAvg")
    table = np.load(path.with_name("respAvg_pyroot.npz"))
    with open_run(path) as run:
        assert isinstance(run, TraceRun)
        assert len(run.events) == 1
        pads = run.read_pads(0)
        record = run.read(0, "0")
    assert len(pads.num) == 10_880
    np.testing.assert_array_equal(pads.num, table["num"])
    np.testing.assert_array_equal(pads.size_id, table["size"])
    np.testing.assert_array_equal(pads.xy, table["xy"])
    np.testing.assert_array_equal(pads.raw, table["raw"])
    np.testing.assert_array_equal(pads.adc, table["adc"])
    np.testing.assert_array_equal(pads.flags, table["flags"])
    assert record.traces is not None
    np.testing.assert_array_equal(record.traces[:, 4], table["num"])


# -------------------------------------------------------------------------------------- miniatures


@pytest.mark.parametrize("name", TRACES)
def test_traces_of_every_kind_of_file(name: str) -> None:
    check(*miniature_truth(name))


@pytest.mark.parametrize("name", HITS)
def test_hits_of_every_kind_of_file(name: str) -> None:
    path, _, truth = miniature_truth(name)
    branch = "AtEventH." if name.startswith("single") else "AtEventH"
    hits = [hits_of(e, name in SEVERAL, name not in NO_INTEGRAL) for e in range(len(truth))]
    check(path, RootOptions(branch=branch), hits)


@pytest.mark.parametrize("name", ["several", "several_unsplit", "several_whole", "by_value"])
def test_none_to_three_events_an_entry_and_their_ids(name: str) -> None:
    with open_run(DATA / f"{name}.root") as run:
        assert isinstance(run, TraceRun)
        ids = [run.event_ids(entry) for entry, _ in run.events]
    assert [len(entry) for entry in ids] == [1, 0, 2, 1, 3, 1, 0, 2, 1]
    assert ids[4] == [1040, 1041, 1042]


def test_null_pads_are_left_out_and_unmapped_ones_kept() -> None:
    with open_run(DATA / "now_zlib.root") as run:
        record = run.read(0, "0")
    assert [pad["null"] for pad in rule.pads(0, 0)].count(True) == 1
    assert record.traces is not None
    assert len(record.traces) == len(rule.pads(0, 0)) - 1
    assert -1 in record.traces[:, 4]


def test_entries_in_any_order() -> None:
    path, options, truth = miniature_truth("now_zlib")
    with open_run(path, options) as run:
        for entry in (7, 0, 3, 3, 8, 1):
            assert truth[entry].matches(run.read(entry, str(entry)))


def test_what_is_in_the_file() -> None:
    with open_run(DATA / "now_zlib.root") as run:
        assert isinstance(run, TraceRun)
        assert run.format_name == "ATTPCROOT traces"
        assert run.details == [
            ("tree", "cbmsim, 9 entries"),
            ("branch", "AtRawEvent of AtRawEvent, split"),
        ]


# ------------------------------------------------------------------------------- class descriptions


@pytest.mark.parametrize("name", ["now_zlib", "pad2"])
def test_known_classes_are_those_that_files_describe(name: str) -> None:
    file = RootFile(DATA / f"{name}.root")
    described = described_classes(file.directory.file.streamers)
    file.close()
    common = [
        (kind, version)
        for kind, versions in KNOWN_CLASSES.items()
        for version in versions
        if version in described.get(kind, {})
    ]
    assert {"now_zlib": ("AtPad", 3), "pad2": ("AtPad", 2)}[name] in common
    for kind, version in common:
        ours, theirs = KNOWN_CLASSES[kind][version], described[kind][version]
        assert ours.elements == theirs.elements
        assert ours.checksum in (theirs.checksum, 0)


def test_common_classes_are_read_without_streamer_information(tmp_path: Path) -> None:
    content = bytearray((DATA / "now_zlib.root").read_bytes())
    file = RootFile(DATA / "now_zlib.root")
    seek = file.directory.file.fSeekInfo
    file.close()
    content[seek + 120 : seek + 140] = bytes(20)
    path = tmp_path / "undescribed.root"
    path.write_bytes(content)
    check(path, RootOptions(branch="AtEventH"), [hits_of(entry) for entry in range(9)])
    truth = miniature_truth("now_zlib")[2]
    with open_run(path) as run:
        records = list(run.records())
    for entry, record in enumerate(records):
        if entry % 3:
            assert truth[entry].matches(record)
        else:  # holds a pad of a derived class, which is not common
            assert record.reason.endswith("AtPadTwin version 1 is unknown; described: none")


def test_versions_that_nobody_described() -> None:
    with pytest.raises(Exception, match=r"^AtPad version 7 is unknown; described: 2, 3$"):
        Classes({}).get("AtPad", 7)


# ---------------------------------------------------------------------------------- what goes wrong


def test_a_class_version_without_what_is_needed_names_itself() -> None:
    with open_run(DATA / "later.root", RootOptions(branch="AtEventH")) as run:
        reasons = [record.reason for record in run.records()]
    assert reasons[0] == ""  # an entry without hits
    for entry, reason in enumerate(reasons[1:], 1):
        assert reason.startswith(
            f"later.root, tree cbmsim, entry {entry}, AtEvent version 6: AtHit version 9 has no"
            " fPosition"
        )


def test_samples_beyond_16_bits_are_no_traces() -> None:
    with open_run(DATA / "beyond.root") as run:
        records = list(run.records())
    assert [bool(record.reason) for record in records] == [False, True, False]
    assert records[1].reason == (
        "beyond.root, tree cbmsim, entry 1, AtRawEvent version 7: AtPad version 3, raw: a sample"
        " beyond 16 bits"
    )
    with open_run(DATA / "beyond.root") as run:
        assert isinstance(run, TraceRun)
        assert run.read_pads(1).raw[0, 7] == 40_000


def test_a_damaged_basket_costs_its_entries_only(tmp_path: Path) -> None:
    path, _, truth = miniature_truth("now_zlib")
    content = bytearray(path.read_bytes())
    file = RootFile(path)
    branch = file.tree("cbmsim")["AtRawEvent/AtRawEvent.fPadList"]
    seek, size = int(branch.member("fBasketSeek")[4]), int(branch.member("fBasketBytes")[4])
    file.close()
    content[seek + size // 2] ^= 1
    damaged = tmp_path / "run_0007.root"
    damaged.write_bytes(content)
    with open_run(damaged) as run:
        records = list(run.records())
    assert [bool(record.reason) for record in records] == [entry == 4 for entry in range(9)]
    assert records[4].reason.startswith(
        "run_0007.root, tree cbmsim, entry 4, AtRawEvent version 7: basket 4 of branch"
        " AtRawEvent.fPadList (entry 4) is damaged: "
    )
    assert all(truth[e].matches(r) for e, r in enumerate(records) if not r.reason)


def test_what_a_damaged_file_says_of_classes_is_not_believed_of_the_next(tmp_path: Path) -> None:
    # with one bit flipped, in zstd without checksum, a branch claims a version that nobody knows;
    # uproot, left to itself, would read all branches of later files by that version
    content = (DATA / "now_zstd.root").read_bytes()
    path = tmp_path / "run_0007.root"
    path.write_bytes(damage(content, random.Random(14819846930052064268))[1])
    with pytest.raises(InputError, match=r"run_0007\.root: tree cbmsim: its descript"):
        open_run(path)
    check(*miniature_truth("now_zstd"))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.999])
def test_a_truncated_file(share: float, tmp_path: Path) -> None:
    content = (DATA / "now_zlib.root").read_bytes()
    path = tmp_path / "cut.root"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"^{path}: truncated: [\d,]+ of [\d,]+ bytes are there"):
        open_run(path)


def test_a_file_that_was_never_closed() -> None:
    with pytest.raises(InputError, match=r"unclosed\.root: not closed properly: .* ROOT"):
        open_run(DATA / "unclosed.root")


def test_a_file_with_more_behind_its_end(tmp_path: Path) -> None:
    path = tmp_path / "more.root"
    path.write_bytes((DATA / "now_zlib.root").read_bytes() + b"more")
    with pytest.raises(InputError, match=r"not closed properly"):
        open_run(path)


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("other", "tree cbmsim with Tracks"),
        ("columns", "tree traces with event, n, pads, .*; tree hits with event, n, x"),
        ("ntuple", "tree hits with event, hit_x, hit_y"),
    ],
)
def test_trees_of_something_else(name: str, held: str) -> None:
    with pytest.raises(
        InputError, match=rf"{name}\.root: no AtRawEvent and no AtEvent in it, but {held}"
    ):
        open_run(DATA / f"{name}.root")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RootOptions(tree="cbmsin"), "no tree 'cbmsin'; there are cbmsim"),
        (
            RootOptions(branch="AtRaw"),
            "no branch 'AtRaw' of AtRawEvent or AtEvent; there are AtRawEvent of AtRawEvent in",
        ),
    ],
)
def test_names_that_are_not_there(options: RootOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_run(DATA / "now_zlib.root", options)


def test_of_several_branches_one_must_be_named() -> None:
    path = DATA / "two_branches.root"
    with pytest.raises(InputError, match=r"AtRawEvent of cbmsim, AtRawEventFiltered of cbmsim"):
        open_run(path)
    check(path, RootOptions(branch="AtRawEventFiltered"), [traces_of(0), traces_of(1)])


def test_a_file_without_anything_and_one_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "short.root").write_bytes(b"root\0")
    with pytest.raises(InputError, match=r"short\.root: truncated"):
        open_run(tmp_path / "short.root")
    with pytest.raises(InputError, match=r"absent\.root: no such file"):
        open_run(tmp_path / "absent.root")


# ---------------------------------------------------------------------------- the same as from HDF5


@pytest.mark.parametrize("name", ["raw_fair99", "raw_split0"])
def test_the_same_events_from_hdf5_have_the_same_tags_and_scores(
    name: str, tmp_path: Path, cli: Cli
) -> None:
    path = need_shared(name)
    table = np.load(path.with_suffix(".npz"))
    edges = np.concatenate([[0], np.cumsum(table["npads"])])
    merged = tmp_path / "merged.h5"
    with h5py.File(merged, "w") as file:
        file["meta/meta"] = np.array([0.0, 0.0, len(table["npads"]) - 1.0, 0.0])
        for event, number in enumerate(table["event"]):
            rows = slice(edges[event], edges[event + 1])
            traces = np.zeros((rows.stop - rows.start, N_TRACE_COLUMNS), np.int16)
            traces[:, 4], traces[:, 5:] = table["num"][rows], table["raw"][rows]
            file[f"get/evt{number}_data"] = traces
            file[f"get/evt{number}_header"] = np.array([number, 0])
    out = tmp_path / "out"
    ended = cli("run", path, merged, "--out", out, "--streams", "none")
    assert ended.status == 0, ended.err
    from_root = read_tag_table(out / "tags" / f"{name}.parquet")
    from_hdf5 = read_tag_table(out / "tags" / "merged.parquet")
    assert len(from_root) == len(table["event"])
    for event, row in from_hdf5.items():
        assert {**from_root[event], "run": row["run"]} == row
