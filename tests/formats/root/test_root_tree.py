"""Plain ROOT trees: the columns that the user names, from TTree and from RNTuple."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from attpc_filter.errors import InputError, UsageError
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.root.file import RootFile
from attpc_filter.root_options import RootOptions
from tests.formats.root.root_truth import DATA, hits_of, miniature_truth, rule, traces_of

HIT_NAMES = ("x", "y", "z", "time", "charge", "integral")


@pytest.mark.parametrize("adc", ["adc", "rows", "nested"])
def test_samples_flat_in_rows_and_nested(adc: str) -> None:
    options = RootOptions(tree="traces", columns={"pad": "pads", "adc": adc})
    with open_run(DATA / "columns.root", options) as run:
        assert run.format_name == "ROOT tree"
        for entry, record in enumerate(run.records()):
            assert record.reason == ""
            assert traces_of(entry).matches(record)


@pytest.mark.parametrize("adc", ["adc", "rows"])
def test_samples_of_an_rntuple(adc: str) -> None:
    options = RootOptions(columns={"pad": "pads", "adc": adc})
    with open_run(DATA / "ntuple.root", options) as run:
        for entry, record in enumerate(run.records()):
            assert record.reason == ""
            assert traces_of(entry).matches(record)


@pytest.mark.parametrize("prefix", ["", "v_"])
def test_hits_from_arrays_and_vectors(prefix: str) -> None:
    columns = {name: f"{prefix}{name}" for name in HIT_NAMES}
    columns |= {"pad": "pad", "event": "event"}
    with open_run(DATA / "columns.root", RootOptions(tree="hits", columns=columns)) as run:
        assert [number for number, _ in run.events] == [100 + 3 * e for e in range(9)]
        assert [name for _, name in run.events] == [str(e) for e in range(9)]
        for entry, record in enumerate(run.records()):
            assert hits_of(entry).matches(record)


def test_hits_of_an_rntuple() -> None:
    path, options, truth = miniature_truth("ntuple")
    with open_run(path, options) as run:
        assert [number for number, _ in run.events] == [100 + 3 * e for e in range(9)]
        for entry in (8, 0, 4, 5):
            assert truth[entry].matches(run.read(100 + 3 * entry, str(entry)))


def test_members_of_the_records_of_an_rntuple(tmp_path: Path) -> None:
    path = tmp_path / "records.root"
    hits = [[(1.0, 2.0, 3, 4.5)], [], [(1.5, -2.0, 30, 14.5), (2.5, 0.0, 31, 0.5)]]
    names = ("x", "y", "t", "q")
    with uproot.recreate(path) as file:
        records = [[dict(zip(names, hit, strict=True)) for hit in event] for event in hits]
        file["daq"] = ak.Array([{"hits": event} for event in records])
    named = {"x": "hits.x", "y": "hits.y", "time": "hits.t", "charge": "hits.q"}
    with open_run(path, RootOptions(columns=named)) as run:
        for event, record in zip(hits, run.records(), strict=True):
            assert record.points is not None
            held = record.points[:, [0, 1, 3, 4]]
            np.testing.assert_array_equal(held, np.reshape(event, (-1, 4)))
    with pytest.raises(InputError, match=r"no column 'hits\.z'; .* there are hits\.x, hits\.y"):
        open_run(path, RootOptions(columns=named | {"z": "hits.z"}))


def test_pads_in_place_of_positions_and_no_z() -> None:
    columns = {"pad": "pad", "time": "time", "charge": "charge"}
    with open_run(DATA / "columns.root", RootOptions(tree="hits", columns=columns)) as run:
        points = run.read(5, "5").points
    truth = hits_of(5).points
    assert points is not None
    assert truth is not None
    assert np.isnan(points[:, :3]).all()
    np.testing.assert_array_equal(points[:, [3, 4, 6]], truth[:, [3, 4, 6]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"pad": "pad", "time": "time", "charge": "Q"},
            "no column 'Q'; the nearest is '.*', there are event, n, x, v_x",
        ),
        (
            {"pad": "pad", "time": "time", "charge": "charge", "event": "x"},
            "column event: one integer an entry expected",
        ),
        (
            {"pad": "pad", "time": "time", "charge": "charge", "event": "n"},
            "column n does not ascend: 3 after 7 at entry 2; leave `event` out",
        ),
    ],
)
def test_columns_that_make_no_events(columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_run(DATA / "columns.root", RootOptions(tree="hits", columns=columns))


def test_numbers_of_events_beyond_63_bits(tmp_path: Path) -> None:
    path = tmp_path / "wide.root"
    hits = {name: np.ones(3) for name in ("x", "y", "time", "charge")}
    columns = {name: name for name in (*hits, "event")}
    for last, message in ((2**63 - 1, ""), (2**63, rf"column event: {2**63} is no event's number")):
        numbers = np.array([1, 2**53 + 1, last], np.uint64)
        with uproot.recreate(path) as file:
            file["hits"] = {**hits, "event": numbers}
        if message:
            with pytest.raises(InputError, match=message):
                open_run(path, RootOptions(columns=columns))
        else:
            with open_run(path, RootOptions(columns=columns)) as run:
                assert [event for event, _ in run.events] == numbers.tolist()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pad": "pad"}, "root_columns: time .or z., charge not named"),
        ({"x": "x", "time": "time", "charge": "charge"}, "x and y .or pad. not named"),
        ({"adc": "x"}, "root_columns: pad not named"),
        ({"adc": "adc", "pad": "pad", "x": "x"}, "root_columns: x is of hits, adc of traces"),
        ({"tmie": "time"}, "'tmie' is nothing .* the nearest known one is 'time'"),
    ],
)
def test_roles_that_make_no_events_are_refused_before_a_file_is_opened(
    columns: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        RootOptions(columns=columns)


def test_of_several_trees_one_must_be_named() -> None:
    with pytest.raises(InputError, match=r"2 trees \(traces, hits\); name the one"):
        open_run(DATA / "columns.root", RootOptions(columns={"pad": "pads", "adc": "adc"}))


def test_objects_are_no_columns() -> None:
    options = RootOptions(columns={"pad": "AtRawEvent.fPadList", "adc": "AtRawEvent.fPadList"})
    with pytest.raises(InputError, match=r"AtRawEvent\.fPadList .* cannot be read; columns of num"):
        open_run(DATA / "now_zlib.root", options)


def test_lengths_that_differ_are_an_unreadable_event() -> None:
    columns = {"pad": "pads", "adc": "pads"}
    with open_run(DATA / "columns.root", RootOptions(tree="traces", columns=columns)) as run:
        reason = run.read(0, "0").reason
    n_pads = len([pad for pad in rule.pads(0, 0) if not pad["null"]])
    assert reason == (
        f"columns.root, tree traces, entry 0: {n_pads} samples of {n_pads} pads, expected 512 a pad"
    )


def test_a_damaged_page_of_an_rntuple_costs_its_cluster(tmp_path: Path) -> None:
    path, options, truth = miniature_truth("ntuple")
    file = RootFile(path)
    ntuple = file.tree("hits")
    names = [field.field_name for field in ntuple.header.field_records]
    columns = [names[column.field_id] for column in ntuple.header.column_records]
    # the offsets of hit_x, in the second cluster
    page = ntuple.page_link_list[1][columns.index("hit_x")].pages[0]
    at = page.locator.offset
    file.close()
    content = bytearray(path.read_bytes())
    content[at + 1] ^= 4
    damaged = tmp_path / "ntuple.root"
    damaged.write_bytes(content)
    with open_run(damaged, options) as run:
        records = list(run.records())
    assert [bool(record.reason) for record in records] == [4 <= e < 8 for e in range(9)]
    assert records[4].reason == (
        "ntuple.root, tree hits, entry 4: cluster 1 (entries 4 to 7) is damaged: a page does not"
        " match its checksum"
    )
    assert all(truth[e].matches(r) for e, r in enumerate(records) if not r.reason)
