"""The real command line on a run of every format: tags, streams, books, manifest.

The tags are known beforehand (tests/miniatures.py says how many pixels an event lights,
tests/tiny_models.py what the model makes of that); the output is read with h5py, pyarrow and
Spyral, not with attpc_filter.
"""

import hashlib
import importlib.metadata
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import compare, miniatures, tiny_models
from tests.conftest import (
    Cli,
    Ended,
    files_below,
    read_manifest,
    read_tag_table,
    shared,
)

LAYOUTS = list(miniatures.LAYOUTS)
CLASSES = tiny_models.CLASSES
STREAMS = (*CLASSES, "uncertain", "unreadable")
EVENTS = miniatures.events()
NUMBERS = [event.number for event in EVENTS]


def run_number(layout: str) -> int:
    return 100 + LAYOUTS.index(layout)


def file_name(layout: str) -> str:
    return f"run_{run_number(layout):04d}.h5"


def expected_hits(layout: str, event: miniatures.SimEvent) -> int:
    """Hits by construction: one a lit pixel; event 20's saturated trace is one more on its pad."""
    return event.n_lit + (layout in miniatures.RAW and event.number == 20)


def numbers_in(path: Path, layout: str) -> set[int]:
    """Numbers of the events in a file, by h5py alone."""
    with h5py.File(path) as file:
        return {n for n in NUMBERS if miniatures.event_paths(layout, n)[0] in file}


@dataclass(frozen=True)
class Output:
    """A job's output folder and how the job ended."""

    raw: Path
    out: Path
    ended: Ended


@pytest.fixture(scope="module")
def outputs(
    tmp_path_factory: pytest.TempPathFactory, cli: Cli, counter_model: Path
) -> dict[str, Output]:
    """One job a mode; each filters a run of every layout."""
    made = {}
    for mode in ("link", "copy", "none"):
        folder = tmp_path_factory.mktemp(f"job {mode}")
        raw = folder / "raw"
        for layout in LAYOUTS:
            miniatures.write_run(layout, raw / file_name(layout))
        ended = cli(
            "run", *(f"raw/{file_name(layout)}" for layout in LAYOUTS), "--out", "out",
            "--model", counter_model, "--streams", mode, cwd=folder,
        )  # fmt: skip
        made[mode] = Output(raw, folder / "out", ended)
    return made


MODES = pytest.mark.parametrize("mode", ["link", "copy"])
EVERY_MODE = pytest.mark.parametrize("mode", ["link", "copy", "none"])
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS)


@EVERY_MODE
def test_ends_clean(mode: str, outputs: dict[str, Output]) -> None:
    ended = outputs[mode].ended
    assert ended.status == 0
    assert ended.errors == []


@EVERY_MODE
def test_the_folder_holds_what_is_promised_and_nothing_else(
    mode: str, outputs: dict[str, Output]
) -> None:
    expected = {"manifest.json", "summary.png"}
    for layout in LAYOUTS:
        expected.add(f"tags/run_{run_number(layout):04d}.parquet")
        if mode != "none":
            expected |= {f"{name}/{file_name(layout)}" for name in STREAMS}
    assert files_below(outputs[mode].out) == expected


@EVERY_MODE
@EVERY_LAYOUT
def test_every_event_has_the_tag_and_scores_it_must_have(
    layout: str, mode: str, outputs: dict[str, Output]
) -> None:
    rows = read_tag_table(outputs[mode].out / "tags" / f"run_{run_number(layout):04d}.parquet")
    assert list(rows) == NUMBERS
    for event in EVENTS:
        row = rows[event.number]
        tag = miniatures.expected_tag(layout, event)
        assert row["tag"] == tag
        assert row["run"] == run_number(layout)
        assert row["n_hits"] == expected_hits(layout, event)
        scores = [row[f"score_{name}"] for name in CLASSES]
        if tag == "passthrough" or event.n_lit < 5:
            assert scores == [None, None, None], "not scored"
        else:
            np.testing.assert_allclose(scores, tiny_models.scores_of(event.n_lit), atol=1e-6)
        assert (row["reason"] == "") == (tag in CLASSES)


@EVERY_LAYOUT
def test_the_table_says_which_model_made_it(
    layout: str, outputs: dict[str, Output], counter_model: Path
) -> None:
    path = outputs["link"].out / "tags" / f"run_{run_number(layout):04d}.parquet"
    metadata = pq.read_schema(path).metadata
    digest = hashlib.sha256(counter_model.read_bytes()).hexdigest()
    assert metadata[b"attpc_filter.model_sha256"].decode() == digest
    assert metadata[b"attpc_filter.contract_version"] == b"1"


@MODES
@EVERY_LAYOUT
def test_every_event_is_in_the_stream_of_its_tag_and_no_other(
    layout: str, mode: str, outputs: dict[str, Output]
) -> None:
    for name in STREAMS:
        expected = {e.number for e in EVENTS if miniatures.expected_tag(layout, e) == name}
        if name in CLASSES and layout in miniatures.WITH_FRIB:
            expected.add(12)  # the ion-chamber trigger goes into every class's stream
        assert numbers_in(outputs[mode].out / name / file_name(layout), layout) == expected


@MODES
@EVERY_LAYOUT
def test_the_books_balance(layout: str, mode: str, outputs: dict[str, Output]) -> None:
    out = outputs[mode].out
    (entry,) = (run for run in read_manifest(out)["runs"] if run["run"] == run_number(layout))
    rows = read_tag_table(out / entry["tag_table"])
    with h5py.File(outputs[mode].raw / file_name(layout)) as file:
        in_input = sum(miniatures.event_paths(layout, n)[0] in file for n in range(100))
    tags = [row["tag"] for row in rows.values()]
    assert in_input == len(rows) == entry["n_events"] == sum(entry["counts"].values())
    assert entry["counts"] == {name: tags.count(name) for name in entry["counts"]}
    assert set(tags) <= set(entry["counts"]) == {*STREAMS, "passthrough"}
    assert entry["books_balance"] is True
    for name, stream in entry["streams"].items():
        held = len(numbers_in(out / stream["path"], layout))
        extra = tags.count("passthrough") if name in CLASSES else 0
        assert stream["events"] == held == tags.count(name) + extra
    assert set(entry["streams"]) == set(STREAMS)


def test_the_manifest_tells_what_was_done(outputs: dict[str, Output], counter_model: Path) -> None:
    output = outputs["copy"]
    manifest = read_manifest(output.out)
    assert manifest["exit_status"] == 0
    assert manifest["model"]["name"] == "counter"
    digest = hashlib.sha256(counter_model.read_bytes()).hexdigest()
    assert manifest["model"]["sha256"] == digest
    assert manifest["config"]["streams"] == "copy"
    assert manifest["config"]["strict"] is False
    assert manifest["config"]["model"] == str(counter_model)
    assert manifest["thresholds"] == dict.fromkeys(CLASSES, tiny_models.THRESHOLD)
    for package in ("numpy", "h5py", "numba", "pyarrow"):
        assert manifest["versions"][package] == importlib.metadata.version(package)
    assert manifest["n_events"] == len(EVENTS) * len(LAYOUTS)
    totals: dict[str, int] = {}
    for layout in LAYOUTS:
        for event in EVENTS:
            tag = miniatures.expected_tag(layout, event)
            totals[tag] = totals.get(tag, 0) + 1
    assert {name: n for name, n in manifest["counts"].items() if n} == totals
    for layout, entry in zip(LAYOUTS, manifest["runs"], strict=True):
        path = output.raw / file_name(layout)
        assert Path(entry["input"]).name == path.name
        assert entry["format"] == miniatures.FORMAT_NAMES[layout]
        assert entry["error"] == ""
        assert entry["seconds"] > 0
        content = path.read_bytes()
        ends = content[: 1 << 20] + content[max(0, len(content) - (1 << 20)) :]
        assert len(content) <= 2 << 20  # of a larger file samples are taken in between
        assert entry["fingerprint"]["bytes"] == len(content)
        assert entry["fingerprint"]["sha256_of_samples"] == hashlib.sha256(ends).hexdigest()


@EVERY_LAYOUT
def test_link_and_copy_are_the_same_to_a_reader(layout: str, outputs: dict[str, Output]) -> None:
    for name in STREAMS:
        linked, copied = (
            _content(outputs[mode].out / name / file_name(layout)) for mode in ("link", "copy")
        )
        assert linked == copied


def _content(path: Path) -> dict[str, object]:
    with h5py.File(path) as file:
        content = compare.file_content(file, lambda _: False)
    content["/"]["attributes"].pop("attpc_filter_source")
    return content


@MODES
def test_input_and_output_moved_together_still_read(
    mode: str, outputs: dict[str, Output], tmp_path: Path
) -> None:
    there = tmp_path / "ärchive" / "2026"
    shutil.copytree(outputs[mode].raw.parent, there, symlinks=True)
    before = outputs[mode].raw.parent
    hidden = before.with_name(f"{before.name} gone")
    before.rename(hidden)  # so that no link can lead back to where it was made
    try:
        for layout in LAYOUTS:
            for event in EVENTS:
                tag = miniatures.expected_tag(layout, event)
                stream = there / "out" / ("proton" if tag == "passthrough" else tag)
                with h5py.File(stream / file_name(layout)) as file:
                    if layout in miniatures.RAW:
                        held = file[miniatures.traces_path(layout, event.number)][()]
                        np.testing.assert_array_equal(held, event.traces)
                    else:
                        part = file[miniatures.event_paths(layout, event.number)[0]]
                        held = part["HitArray"] if layout == "attpcroot_hits" else part
                        assert len(held) == len(event.points)
    finally:
        hidden.rename(before)


@MODES
@pytest.mark.parametrize("layout", miniatures.OPENED_BY_SPYRAL)
def test_spyral_processes_every_stream(
    layout: str, mode: str, outputs: dict[str, Output], tmp_path: Path, spyral: ModuleType
) -> None:
    """All its events, the last one too, and the ion-chamber count of the whole run in each."""
    seen: set[int] = set()
    for name in STREAMS:
        stream = outputs[mode].out / name / file_name(layout)
        result = spyral.run_pointcloud_phase(stream, run_number(layout), tmp_path / name)
        expected = {e.number for e in EVENTS if miniatures.expected_tag(layout, e) == name}
        assert set(result.clouds) == expected
        assert result.ic_count == (1 if name in CLASSES else 0)
        assert result.has_scalers == (not layout.startswith("harmonizer"))
        seen |= expected
        for event in EVENTS:
            if event.number in expected:
                pads = set(result.clouds[event.number][:, 5].astype(int))
                assert pads == set(event.points[:, 5].astype(int))
    assert seen == set(NUMBERS) - {12}


def test_the_picture_is_a_picture(outputs: dict[str, Output]) -> None:
    for output in outputs.values():
        assert (output.out / "summary.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_table_on_stdout_counts_each_run(outputs: dict[str, Output]) -> None:
    lines = [line.split() for line in outputs["link"].ended.out.splitlines()]
    header = next(line for line in lines if line[:2] == ["run", "events"])
    for layout in LAYOUTS:
        row = next(line for line in lines if line[:1] == [str(run_number(layout))])
        shown = dict(zip(header, row, strict=True))
        for name in (*STREAMS, "passthrough"):
            expected = sum(miniatures.expected_tag(layout, e) == name for e in EVENTS)
            assert int(shown[name]) == expected


def test_inputs_are_untouched(outputs: dict[str, Output], tmp_path: Path) -> None:
    for output in outputs.values():
        assert files_below(output.raw) == {file_name(layout) for layout in LAYOUTS}
        for layout in LAYOUTS:
            fresh = miniatures.write_run(layout, tmp_path / "run.h5")
            with h5py.File(fresh) as expected, h5py.File(output.raw / file_name(layout)) as held:
                one, other = (compare.file_content(f, lambda _: False) for f in (expected, held))
                assert one == other


def test_filtering_a_stream_again_gives_the_same_tags(
    outputs: dict[str, Output], cli: Cli, counter_model: Path, tmp_path: Path
) -> None:
    runs = [outputs["link"].out / "proton" / file_name(layout) for layout in LAYOUTS]
    ended = cli("run", *runs, "--out", tmp_path / "out", "--model", counter_model, "--no-picture")
    assert ended.status == 0
    for layout in LAYOUTS:
        rows = read_tag_table(tmp_path / "out" / "tags" / f"run_{run_number(layout):04d}.parquet")
        expected = {
            e.number: miniatures.expected_tag(layout, e)
            for e in EVENTS
            if miniatures.expected_tag(layout, e) in ("proton", "passthrough")
        }
        assert {number: row["tag"] for number, row in rows.items()} == expected


def test_two_jobs_give_identical_tables(
    outputs: dict[str, Output], cli: Cli, counter_model: Path, tmp_path: Path
) -> None:
    """Whatever the number of threads, and whichever way streams are written."""
    runs = [outputs["link"].raw / file_name(layout) for layout in LAYOUTS]
    ended = cli(
        "run", *runs, "--out", tmp_path / "out", "--model", counter_model, "--no-picture",
        "--threads", 5, "--streams", "none",
    )  # fmt: skip
    assert ended.status == 0
    for layout in LAYOUTS:
        name = f"tags/run_{run_number(layout):04d}.parquet"
        tables = [
            pq.read_table(folder / name) for folder in (outputs["copy"].out, tmp_path / "out")
        ]
        assert tables[0].equals(tables[1])


def test_many_batches_in_their_order(call: Cli, counter_model: Path, tmp_path: Path) -> None:
    """More events than go through together, and one with more traces than a buffer holds."""
    kinds = [miniatures.simulate(number, n_lit) for number, n_lit in enumerate((10, 30, 60, 20))]
    huge = miniatures.simulate(4, 30)
    rows = np.tile(huge.traces, (1100, 1))
    rows[30:, 5:] = 300  # 33,000 traces, 30 of them with a pulse
    kinds.append(miniatures.with_traces(huge, rows))
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5", kinds)
    tags = ["noise", "proton", "carbon", "uncertain", "proton"]
    chance = np.random.default_rng(3)
    expected = dict(enumerate(tags))
    with h5py.File(path, "a") as file:
        for number in chance.choice(np.arange(5, 3000), 500, replace=False):
            kind = int(chance.choice(5, p=[0.25, 0.25, 0.25, 0.245, 0.005]))
            file[f"events/event_{number}"] = file[f"events/event_{kind}"]
            expected[int(number)] = tags[kind]
    out = tmp_path / "out"
    ended = call("run", path, "--out", out, "--model", counter_model, "--no-picture")
    assert ended.status == 0
    rows_by_event = read_tag_table(out / "tags" / "run_0001.parquet")
    assert list(rows_by_event) == sorted(expected)
    assert {n: row["tag"] for n, row in rows_by_event.items()} == expected
    for tag in set(tags):
        with h5py.File(out / tag / "run_0001.h5") as file:
            held = {int(name.removeprefix("event_")) for name in file["events"]}
        assert held == {number for number, given in expected.items() if given == tag}


@MODES
def test_a_simulated_run_with_the_model_that_ships(
    mode: str, call: Cli, tmp_path: Path, spyral: ModuleType
) -> None:
    """Full size: the streams hold every event of the run once, and Spyral reads them there."""
    source = shared("train/raw/run_0102.h5")
    out = tmp_path / "out"
    ended = call("run", source, "--out", out, "--streams", mode, "--no-picture")
    assert ended.status == 0
    with h5py.File(source) as file:
        numbers = {int(name.removeprefix("event_")) for name in file["events"]}
    rows = read_tag_table(out / "tags" / "run_0102.parquet")
    assert set(rows) == numbers
    seen: list[int] = []
    for name in STREAMS:
        stream = out / name / "run_0102.h5"
        with h5py.File(stream) as file:
            held = {int(event.removeprefix("event_")) for event in file["events"]}
        assert held == {number for number, row in rows.items() if row["tag"] == name}
        seen += held
        few = sorted(held)[-3:]
        reader = spyral.create_reader(stream, 102)
        assert set(held) <= set(reader.event_range())
        with h5py.File(source) as file:
            for number in few:
                raw = reader.read_raw_get_event(number)
                np.testing.assert_array_equal(raw, file[f"events/event_{number}/get/pads"][()])
        reader.file.close()
    assert sorted(seen) == sorted(numbers)
