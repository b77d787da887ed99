"""Plain ROOT trees through the command line: their columns, their streams, re-tagging."""

import re
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pytest
import uproot
import yaml

from attpc_filter.formats.registry import open_run
from tests.conftest import Cli, files_below, read_manifest, read_tag_table
from tests.formats.root.root_truth import DATA, Event, hits_of, traces_of

HIT_ROLES = ("x", "y", "z", "time", "charge", "integral", "pad", "event")
#: Of each kind of plain tree: file, options, truth by entry.
PLAIN = {
    "hits": (
        DATA / "columns.root",
        {"root_tree": "hits", "root_columns": {role: role for role in HIT_ROLES}},
        hits_of,
    ),
    "traces": (
        DATA / "columns.root",
        {"root_tree": "traces", "root_columns": {"pad": "pads", "adc": "adc", "event": "event"}},
        traces_of,
    ),
    "ntuple": (
        DATA / "ntuple.root",
        {"root_columns": {"event": "event", **{r: f"hit_{r}" for r in HIT_ROLES[:-1]}}},
        hits_of,
    ),
}
STREAMS = ("proton", "carbon", "noise", "uncertain")


def as_arguments(options: dict[str, object]) -> list[str]:
    """The options as they stand on the command line."""
    given = []
    for name, value in options.items():
        texts = [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else [str(value)]
        given += [f"--{name.replace('_', '-')}", *texts]
    return given


def check_streams(out: Path, name: str, truth: list[Event]) -> dict[str, list[int]]:
    """Every stream holds what the tag table says, as it truly is; event numbers by stream."""
    tags = read_tag_table(out / "tags" / f"{name}.parquet")
    found: dict[str, list[int]] = {}
    for label in STREAMS:
        events = sorted(event for event, row in tags.items() if row["tag"] == label)
        if not events:
            continue
        with open_run(out / label / f"{name}.root") as run:
            assert [number for number, _ in run.events] == events
            for record in run.records():
                assert truth[(record.event - 100) // 3].matches(record), record.reason
        found[label] = events
    return found


@pytest.mark.parametrize("mode", ["link", "copy"])
@pytest.mark.parametrize("kind", list(PLAIN))
def test_a_plain_tree_is_filtered_and_its_streams_are_runs_again(
    kind: str, mode: str, tmp_path: Path, call: Cli, counter_model: Path
) -> None:
    path, options, truth_of = PLAIN[kind]
    truth = [truth_of(entry) for entry in range(9)]
    out = tmp_path / "out"
    settings = ("--model", counter_model, "--streams", mode, "--no-picture")
    ended = call("run", path, "--out", out, *settings, *as_arguments(options))
    assert ended.status == 0, ended.err
    assert read_manifest(out)["config"]["root_columns"] == options["root_columns"]
    before = check_streams(out, path.stem, truth)

    # the same from a file
    file = tmp_path / "filter.yaml"
    file.write_text(yaml.safe_dump(options))
    ended = call("run", path, "--out", tmp_path / "yaml", "--config", file, *settings)
    assert ended.status == 0, ended.err
    name = f"{path.stem}.parquet"
    assert read_tag_table(tmp_path / "yaml" / "tags" / name) == read_tag_table(out / "tags" / name)

    # a stream is a run by itself, whatever the configuration says of the files that it came from
    label = next(iter(before))
    for number, more in enumerate(((), ("--config", file))):
        again = tmp_path / f"again{number}"
        ended = call("run", out / label / f"{path.stem}.root", "--out", again, *settings, *more)
        assert ended.status == 0, ended.err
        assert list(read_tag_table(again / "tags" / name)) == before[label]

    # fewer classes move its events
    ended = call("retag", out, "--classes", "proton", "carbon")
    assert ended.status == 0, ended.err
    after = check_streams(out, path.stem, truth)
    assert "noise" not in after
    assert after != before or "noise" not in before


@pytest.fixture
def plain_traces(tmp_path: Path, miniature: Callable[[str], Path]) -> tuple[Path, Path]:
    """A run as merger HDF5, less its triggers, and its events as columns of a plain tree."""
    pads, samples = [], []
    merged = tmp_path / "merged.h5"
    with open_run(miniature("merger_2.0")) as run, h5py.File(merged, "w") as file:
        file["meta/meta"] = np.zeros(4)
        for record in run.records():
            if record.passthrough or record.traces is None:
                continue
            file[f"get/evt{len(pads)}_data"] = record.traces
            file[f"get/evt{len(pads)}_header"] = np.zeros(2)
            pads.append(record.traces[:, 4])
            samples.append(record.traces[:, 5:].ravel())
    path = tmp_path / "run_0046.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("daq", {"pad": "var * int16", "adc": "var * int16"})
        tree.extend({"pad": ak.Array(pads), "adc": ak.Array(samples)})
    return merged, path


def test_traces_in_columns_give_the_hits_of_hdf5_and_copies_hold_them(
    plain_traces: tuple[Path, Path], tmp_path: Path, call: Cli, counter_model: Path
) -> None:
    merged, path = plain_traces
    out = tmp_path / "out"
    ended = call(
        *("run", merged, path, "--out", out, "--model", counter_model, "--no-picture"),
        *("--streams", "copy", "--keep-hits", "--root-columns", "pad=pad", "adc=adc"),
    )
    assert ended.status == 0, ended.err
    tables = [read_tag_table(out / "tags" / f"{n}.parquet") for n in ("merged", "run_0046")]
    for event, row in tables[0].items():
        assert {**tables[1][event], "run": row["run"]} == row
    with open_run(out / "hits" / "merged.h5") as run:
        stored = {record.event: record.points for record in run.records()}
    n_hits = 0
    for label in STREAMS:
        with uproot.open(out / label / "run_0046.root") as file:
            columns = file["events"].arrays()
        for row in columns:
            points = stored[int(row["event"])]
            assert points is not None
            for column, name in ((0, "x"), (1, "y"), (4, "charge"), (5, "integral"), (6, "pad")):
                held = np.asarray(row[f"hits_{name}"])
                np.testing.assert_array_equal(held, points[:, column].astype(held.dtype))
            n_hits += len(points)
    assert n_hits > 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--root-columns", "tiem=t"], "'tiem' is nothing .* the nearest known one is 'time'"),
        (["--root-columns", "x=x", "y=y"], "time .or z., charge not named"),
        (["--root-columns", "x"], "'x' is not ROLE=COLUMN"),
        (["--root-columns", "x="], "'x=' is not ROLE=COLUMN"),
        (["--root-branch", "B", "--root-columns", "adc=a", "pad=p"], "give one of them"),
    ],
)
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_columns_that_make_no_events_are_refused_at_once(
    command: str, options: list[str], said: str, tmp_path: Path, call: Cli
) -> None:
    out = ("--out", tmp_path / "out") if command == "run" else ()
    ended = call(command, DATA / "columns.root", *out, *options)
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("attpc-filter: ")
    assert re.search(said, line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("root_columns: {x: 1}\n", "root_columns: {'x': 1} is not a table of names"),
        ("root_columns: [x, y]\n", "is not a table of names"),
        ("root_columns: {x: hit_x, colour: red}\n", "'colour' is nothing"),
        ("root_tree: 3\n", "root_tree: 3 is not of type str"),
    ],
)
def test_columns_in_a_file_are_checked_too(text: str, said: str, tmp_path: Path, call: Cli) -> None:
    file = tmp_path / "filter.yaml"
    file.write_text(text)
    ended = call("run", DATA / "columns.root", "--out", tmp_path / "out", "--config", file)
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert said in line


def test_a_column_that_is_not_there_fails_its_run_only(
    tmp_path: Path, call: Cli, counter_model: Path
) -> None:
    _, options, _ = PLAIN["ntuple"]
    out = tmp_path / "out"
    ended = call(
        *("run", DATA / "columns.root", DATA / "ntuple.root", "--out", out),
        *("--model", counter_model, "--no-picture", *as_arguments(options)),
    )
    assert ended.status == 2
    assert "columns.root: 2 trees (traces, hits); name the one with the columns" in ended.err
    assert "tags/ntuple.parquet" in files_below(out)
    ended = call("inspect", DATA / "columns.root", *as_arguments(options | {"root_tree": "hits"}))
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert "tree hits: no column 'hit_x'; the nearest is" in line


def test_inspect_says_what_a_plain_tree_holds_and_draws_an_event(tmp_path: Path, call: Cli) -> None:
    path, options, _ = PLAIN["hits"]
    ended = call("inspect", path)
    assert ended.status == 2
    assert "tree traces, 9 entries: event (int64_t)" in ended.out
    assert "tree hits, 9 entries: event (int64_t)" in ended.out
    (line,) = ended.err.splitlines()
    assert line.endswith("if its columns are numbers, say which is what with root_columns")
    ended = call("inspect", path, *as_arguments(options))
    assert ended.status == 0, ended.err
    assert "x: x, y: y" in ended.out
    assert "9, numbers 100 to 124" in ended.out
    picture = tmp_path / "event.png"
    ended = call("inspect", path, *as_arguments(options), "--event", 106, "--png", picture)
    assert ended.status == 0, ended.err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_inspect_says_where_attpcroots_events_are(call: Cli) -> None:
    ended = call("inspect", DATA / "now_zlib.root", "--root-branch", "AtEventH")
    assert ended.status == 0, ended.err
    assert "tree cbmsim, 9 entries: AtRawEvent (AtRawEvent), AtEventH (AtEvent)" in ended.out
    assert "AtEventH of AtEvent, split" in ended.out
    ended = call("inspect", DATA / "other.root")
    assert ended.status == 2
    assert "tree cbmsim, 4 entries: Tracks (TLorentzVector)" in ended.out
