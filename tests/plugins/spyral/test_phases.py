"""The filter in Spyral's pipeline: its real phases, from raw runs to estimates."""

import json
import logging
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("spyral", reason="needs attpc-spyral 1.1.2")
pytest.importorskip("attpc_filter_spyral", reason="needs plugins/spyral")

from attpc_filter_spyral import FilterPhase, TraceFilterPhase, phases
from spyral import PhaseResult, PointcloudPhase

from attpc_filter.cli import main
from attpc_filter.config import Config
from tests import miniatures, tiny_models
from tests.conftest import environment, files_below, read_tag_table, shared
from tests.plugins.spyral.chain import (
    Queue,
    Ran,
    run_phase,
    run_pipeline,
    spyral_phases,
)
from tests.spyral_tools import DETECTOR

# Spyral's and scikit-learn's own warnings; attpc-filter's are errors in all other tests
pytestmark = pytest.mark.filterwarnings("ignore")
KEEP = ("proton", "carbon")
N_EVENTS = 24


def readable_run(source: Path, path: Path, n_events: int, ic_triggers: int) -> Path:
    """The first events of a 2.0 run, so that Spyral itself opens them and sees the last.

    Some of the events that stay unwanted become ion-chamber triggers, the last event too.
    """
    rng = np.random.default_rng(46)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as raw, h5py.File(path, "w") as file:
        raw.copy("scalers", file)
        events = file.create_group("events")
        events.attrs.update(raw["events"].attrs)
        events.attrs["max_event"] = n_events  # one more than the last: Spyral's reader stops short
        for number in range(n_events):
            raw.copy(f"events/event_{number}", events)
            event = events[f"event_{number}"]
            for name in [name for name in event["get"] if name.startswith("si_")]:
                event["get"][name.replace("si_", "silicon_")] = event["get"][name]
            if number >= n_events - ic_triggers:
                event.pop("frib_physics", None)
                event["frib_physics/977"] = np.array([2], np.uint16)
                event["frib_physics/1903"] = miniatures.frib_traces(rng, True)
    return path


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two raw runs."""
    folder = tmp_path_factory.mktemp("traces")
    for number, n_events, triggers in ((101, N_EVENTS, 3), (102, 8, 1)):
        source = shared(f"train/raw/run_{number:04d}.h5")
        readable_run(source, folder / f"run_{number:04d}.h5", n_events, triggers)
    return folder


@pytest.fixture(scope="module")
def unfiltered(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Spyral without the filter."""
    workspace = tmp_path_factory.mktemp("spyral") / "unfiltered"
    return run_pipeline(spyral_phases(), workspace, traces, [101, 102])


@pytest.fixture(scope="module")
def tags(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[int, str]]:
    """Tags of the command line, by run and event."""
    out = tmp_path_factory.mktemp("tags") / "out"
    paths = [str(traces / f"run_{number:04d}.h5") for number in (101, 102)]
    assert main(["run", *paths, "--out", str(out), "--streams", "none", "--no-picture"]) == 0
    return {
        number: {
            event: row["tag"]
            for event, row in read_tag_table(out / "tags" / f"run_{number:04d}.parquet").items()
        }
        for number in (101, 102)
    }


def test_the_runs_have_what_the_tests_need(tags: dict[int, dict[int, str]]) -> None:
    counted = list(tags[101].values())
    assert 3 <= sum(tag in KEEP for tag in counted) <= N_EVENTS - 6
    assert counted.count("passthrough") == 3


def assert_kept(kept: Ran, unfiltered: Ran, wanted: dict[int, dict[int, str]]) -> None:
    """Clouds, clusters and estimates of the wanted events as without the filter, and no others."""
    n_estimates = 0
    for run, by_event in wanted.items():
        numbers = {event for event, tag in by_event.items() if tag in KEEP}
        clusters = unfiltered.clusters(run)
        assert kept.clusters(run) == {n: clusters[n] for n in clusters.keys() & numbers}
        rows = [row for row in unfiltered.estimates(run) if row["event"] in numbers]
        assert kept.estimates(run) == rows
        n_estimates += len(rows)
        assert kept.ion_chamber(run) == unfiltered.ion_chamber(run)
        assert kept.scalers(run) == unfiltered.scalers(run)
    assert n_estimates > 0
    assert unfiltered.ion_chamber(101).split()[-1] == "3"


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_before_the_point_clouds(
    mode: Any, traces: Path, unfiltered: Ran, tags: dict[int, dict[int, str]], tmp_path: Path
) -> None:
    first = TraceFilterPhase(KEEP, DETECTOR, Config(streams=mode))
    ran = run_pipeline([first, *spyral_phases()], tmp_path / "workspace", traces, [101, 102])
    assert_kept(ran, unfiltered, tags)
    for run, by_event in tags.items():
        table = read_tag_table(first.tag_table(run, ran.workspace))
        assert {event: row["tag"] for event, row in table.items()} == by_event
        clouds = unfiltered.clouds(run)
        wanted = {event for event, tag in by_event.items() if tag in KEEP}
        assert ran.clouds(run) == {event: clouds[event] for event in wanted}


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_after_the_point_clouds(mode: Any, traces: Path, unfiltered: Ran, tmp_path: Path) -> None:
    pointcloud, *later = spyral_phases()
    mine = FilterPhase(KEEP, Config(streams=mode))
    workspace = tmp_path / "workspace"
    ran = run_pipeline([pointcloud, mine, *later], workspace, traces, [101, 102])
    wanted = {}
    for run in (101, 102):
        rows = read_tag_table(mine.tag_table(run, workspace))
        assert rows.keys() == unfiltered.clouds(run).keys(), "a row for every cloud"
        wanted[run] = {event: row["tag"] for event, row in rows.items()}
        clouds = unfiltered.clouds(run)
        numbers = {event for event, tag in wanted[run].items() if tag in KEEP}
        assert ran.clouds(run, "Filter") == {event: clouds[event] for event in numbers}
        name = f"run_{run:04d}.h5"
        with (
            h5py.File(workspace / "Filter" / name) as file,
            h5py.File(workspace / "Pointcloud" / name) as before,
        ):
            assert dict(file["cloud"].attrs) == dict(before["cloud"].attrs)
    assert_kept(ran, unfiltered, wanted)


def test_all_clouds_with_their_tags(unfiltered: Ran, tmp_path: Path) -> None:
    phase = FilterPhase(None)
    path = unfiltered.workspace / "Pointcloud" / "run_0102.h5"
    result, _ = run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 102)
    kept = Ran(tmp_path / "workspace", [])
    assert kept.clouds(102, "Filter") == unfiltered.clouds(102)
    assert result.artifacts["pointcloud"] == tmp_path / "workspace" / "Filter" / "run_0102.h5"
    assert read_tag_table(phase.tag_table(102, tmp_path / "workspace")).keys() == set(
        unfiltered.clouds(102)
    )


def test_labels_stay_with_their_clouds(tmp_path: Path, counter_model: Path) -> None:
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0046.h5")
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    result, _ = run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 46)
    with h5py.File(result.artifacts["pointcloud"]) as file, h5py.File(path) as before:
        protons = [e.number for e in miniatures.events() if e.tag_without_frib == "proton"]
        names = {f"{what}_{n}" for n in protons for what in ("cloud", "labels")}
        assert set(file["cloud"]) == names
        for name in names:
            np.testing.assert_array_equal(file["cloud"][name][()], before["cloud"][name][()])


def seen_by_spyral(spyral: Any, path: Path) -> set[int]:
    """Events that its reader finds; of the versioned layouts it leaves out event max_event."""
    reader = spyral.create_reader(path, 46)
    return {n for n in reader.event_range() if reader.read_raw_get_event(n) is not None}


@pytest.mark.parametrize("layout", miniatures.OPENED_BY_SPYRAL)
def test_layouts_and_the_last_event(
    layout: str, tmp_path: Path, counter_model: Path, spyral: Any
) -> None:
    """Spyral finds what it finds without the filter, of the wanted events and the triggers."""
    path = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5")
    phase = TraceFilterPhase(["proton"], DETECTOR, Config(model=str(counter_model)))
    result, _ = run_phase(phase, {"trace": path}, tmp_path / "workspace", 46)
    wanted = {e.number for e in miniatures.events() if e.tag in ("proton", "passthrough")}
    last = miniatures.events()[-1].number
    assert last in wanted
    without = seen_by_spyral(spyral, path)
    assert (last in without) == (layout == "merger_legacy")
    assert seen_by_spyral(spyral, result.artifacts["trace"]) == without & wanted


@pytest.mark.parametrize("layout", miniatures.VERSIONED)
def test_a_range_that_was_never_filled_in(
    layout: str, tmp_path: Path, counter_model: Path, spyral: Any
) -> None:
    """A merger that was killed leaves max_event 0: the filtered run has all its events."""
    path = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5", crashed=True)
    phase = TraceFilterPhase(["proton"], DETECTOR, Config(model=str(counter_model)))
    result, _ = run_phase(phase, {"trace": path}, tmp_path / "workspace", 46)
    wanted = {e.number for e in miniatures.events() if e.tag in ("proton", "passthrough")}
    assert seen_by_spyral(spyral, result.artifacts["trace"]) == wanted


# ----------------------------------------------------------------------- in Spyral's machinery


@pytest.mark.parametrize("n_events", [7, 250])
def test_progress_messages(n_events: int, tmp_path: Path, counter_model: Path) -> None:
    chosen = [miniatures.simulate(n, 10 if n % 2 else 30) for n in range(n_events)]
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0046.h5", chosen)
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    _, messages = run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 46)
    assert len(messages) == min(n_events, 100)
    assert {(m.phase, m.increment, m.total, m.run) for m in messages} == {
        ("Filter", 1, min(n_events, 100), 46)
    }


def test_phases_travel_to_other_processes_without_a_session(
    tmp_path: Path, counter_model: Path
) -> None:
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0046.h5")
    phase = FilterPhase(["proton"], Config(model=str(counter_model), thresholds={"proton": 0.7}))
    run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 46)
    there = pickle.loads(pickle.dumps(phase))
    assert (there.keep, there.config, there.name) == (phase.keep, phase.config, phase.name)
    assert len(pickle.dumps(phase)) < 10_000


def test_one_session_a_process_and_one_thread(tmp_path: Path, counter_model: Path) -> None:
    before = len(phases._loaded)
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    for run in (46, 47):
        path = miniatures.write_run("spyral_cloud", tmp_path / f"run_{run:04d}.h5")
        run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", run)
    assert len(phases._loaded) == before + 1
    assert phase.config.threads == 1


def test_the_workspace_keeps_the_model(tmp_path: Path, counter_model: Path) -> None:
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0046.h5")
    run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 46)
    asset = tmp_path / "workspace" / "Filter_assets" / "model.onnx"
    assert asset.read_bytes() == counter_model.read_bytes()
    written = asset.stat().st_mtime_ns
    assert phase.create_assets(tmp_path / "workspace")
    assert asset.stat().st_mtime_ns == written, "the same model is not written again"


def test_many_jobs_start_in_one_workspace(tmp_path: Path, counter_model: Path) -> None:
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            workspace = tmp_path / f"workspace {turn}"
            (workspace / "Filter_assets").mkdir(parents=True)
            assert all(pool.map(phase.create_assets, [workspace] * 8))
            assert files_below(workspace) == {"Filter_assets/model.onnx"}


def test_a_phase_that_is_switched_off_leaves_what_it_left_before(
    traces: Path, unfiltered: Ran, tags: dict[int, dict[int, str]], tmp_path: Path
) -> None:
    chain = [TraceFilterPhase(KEEP, DETECTOR), *spyral_phases()]
    workspace = tmp_path / "workspace"
    run_pipeline(chain, workspace, traces, [102], [True, False, False, False])
    ran = run_pipeline(chain, workspace, traces, [102], [False, True, True, True])
    assert {m.phase for m in ran.messages} == {"Pointcloud", "Cluster", "Estimation", "Complete"}
    assert_kept(ran, unfiltered, {102: tags[102]})


@pytest.mark.parametrize("n_processes", [2])
def test_the_example_with_several_processes(
    n_processes: int, traces: Path, tags: dict[int, dict[int, str]], tmp_path: Path
) -> None:
    """The example script as it ships: spawned processes, logs, display."""
    script = Path(__file__).parents[3] / "plugins" / "spyral" / "examples" / "pipeline.py"
    workspace = tmp_path / "workspace"
    done = subprocess.run(
        [sys.executable, script, workspace, traces, "101", "102", str(n_processes)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Pipeline successfully validated" in done.stdout
    logs = sorted((workspace / "log").glob("log_proc[0-9].txt"))
    assert len(logs) == n_processes
    text = "".join(path.read_text() for path in logs)
    assert "ERROR" not in text
    for run in (101, 102):
        for name in ("TraceFilter", "Pointcloud", "Cluster", "Estimation"):
            assert f"Phase {name} complete for run {run}" in text
        by_event = tags[run]
        wanted = {event for event, tag in by_event.items() if tag in KEEP}
        assert set(Ran(workspace, []).clouds(run)) == wanted
        n_protons = list(by_event.values()).count("proton")
        assert f"{n_protons} proton" in text


# ----------------------------------------------------------------------- what is broken


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What goes into Spyral's log."""
    with caplog.at_level(logging.INFO, logger="spyral"):
        yield caplog


def messages(log: pytest.LogCaptureFixture, run: int, level: str) -> list[str]:
    """Lines about a run that reach Spyral's log files."""
    return [
        record.getMessage()
        for record in log.records
        if record.name.startswith("spyral.attpc_filter")
        and record.levelname == level
        and f"run {run}" in record.getMessage()
    ]


def small_chain(first: Any) -> list[Any]:
    """A chain whose later phases end in no time on miniatures."""
    return [first, *spyral_phases()] if first.artifact == "trace" else [first, *spyral_phases()[1:]]


BROKEN_TRACES = {
    "text": "a text file, which is no event format",
    "truncated": "truncated",
    "of no format": "no known event format",
    "pytpc": "Spyral has no reader",
    "zero bytes": "an empty file",
}


def write_broken(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("no run")
    elif kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "truncated":
        miniatures.write_run("merger_1.0", path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "pytpc":
        miniatures.write_run("pytpc_get", path)
    else:
        with h5py.File(path, "w") as file:
            file["strange"] = [1, 2]


@pytest.mark.parametrize("kind", BROKEN_TRACES)
def test_broken_traces_do_not_end_the_other_runs(
    kind: str, tmp_path: Path, counter_model: Path, log: pytest.LogCaptureFixture
) -> None:
    raw = tmp_path / "raw"
    for run in (1, 3):
        miniatures.write_run("merger_1.0", raw / f"run_{run:04d}.h5")
    write_broken(kind, raw / "run_0002.h5")
    first = TraceFilterPhase(["proton"], DETECTOR, Config(model=str(counter_model)))
    ran = run_pipeline(small_chain(first), tmp_path / "workspace", raw, [1, 2, 3])
    assert ran.clouds(1).keys() == ran.clouds(3).keys() == {4}
    assert ran.estimates(1) == ran.estimates(3)
    assert ran.clouds(2) == {}
    (error,) = messages(log, 2, "ERROR")
    assert BROKEN_TRACES[kind] in error
    assert "Later phases get none of its events" in error
    assert not first.tag_table(2, ran.workspace).exists()
    assert messages(log, 1, "ERROR") == messages(log, 3, "ERROR") == []


def test_an_empty_run_keeps_its_scalers(
    tmp_path: Path, counter_model: Path, log: pytest.LogCaptureFixture
) -> None:
    raw = tmp_path / "raw"
    for run in (1, 2, 3):
        miniatures.write_run("merger_1.0", raw / f"run_{run:04d}.h5")
    with h5py.File(raw / "run_0002.h5", "r+") as file:
        for name in list(file["events"]):
            del file["events"][name]
    first = TraceFilterPhase(["proton"], DETECTOR, Config(model=str(counter_model)))
    with_filter = run_pipeline(small_chain(first), tmp_path / "with", raw, [1, 2, 3])
    without = run_pipeline(spyral_phases(), tmp_path / "without", raw, [2])
    assert with_filter.clouds(2) == {}
    assert with_filter.scalers(2) == without.scalers(2)
    assert with_filter.ion_chamber(2) == without.ion_chamber(2)
    assert with_filter.clouds(3).keys() == {4}
    (warning,) = messages(log, 2, "WARNING")
    assert "without a single event" in warning


def test_a_workspace_without_clouds(
    tmp_path: Path, counter_model: Path, log: pytest.LogCaptureFixture
) -> None:
    """PointcloudPhase switched off, and one run's clouds never made."""
    raw, workspace = tmp_path / "raw", tmp_path / "workspace"
    for run in (1, 2, 3):
        miniatures.write_run("merger_1.0", raw / f"run_{run:04d}.h5")
        if run != 2:
            path = workspace / "Pointcloud" / f"run_{run:04d}.h5"
            miniatures.write_run("spyral_cloud", path)
    pointcloud, *later = spyral_phases()
    chain = [pointcloud, FilterPhase(["proton"], Config(model=str(counter_model))), *later]
    ran = run_pipeline(chain, workspace, raw, [1, 2, 3], [False, True, True, True])
    assert ran.clouds(1, "Filter").keys() == ran.clouds(3, "Filter").keys() == {4, 20}
    assert ran.clouds(2, "Filter") == {}
    assert ran.estimates(2) == []
    (error,) = messages(log, 2, "ERROR")
    assert "no such file" in error


def test_a_predecessor_that_failed(
    tmp_path: Path, counter_model: Path, log: pytest.LogCaptureFixture
) -> None:
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    result = phase.run(PhaseResult.invalid_result(7), tmp_path, Queue(), None)
    assert result.artifacts["pointcloud"] == tmp_path / "Filter" / "run_0007.h5"
    (error,) = messages(log, 7, "ERROR")
    assert "left no pointcloud" in error


def test_an_unsorted_cloud(
    tmp_path: Path, counter_model: Path, log: pytest.LogCaptureFixture
) -> None:
    """It is tagged and kept as it is; ClusterPhase leaves it out; the log says both."""
    raw, workspace = tmp_path / "raw", tmp_path / "workspace"
    path = workspace / "Pointcloud" / "run_0001.h5"
    chosen = [miniatures.simulate(n, 60) for n in (4, 5)]
    miniatures.write_run("spyral_cloud", path, chosen)
    miniatures.write_run("merger_1.0", raw / "run_0001.h5")
    with h5py.File(path, "r+") as file:
        cloud = file["cloud/cloud_4"]
        cloud[...] = cloud[()][::-1]
        backwards = cloud[()]
    pointcloud, *later = spyral_phases()
    chain = [pointcloud, FilterPhase(["carbon"], Config(model=str(counter_model))), *later]
    ran = run_pipeline(chain, workspace, raw, [1], [False, True, True, True])
    (warning,) = messages(log, 1, "WARNING")
    assert "event 4: its cloud is not sorted in z" in warning
    with h5py.File(workspace / "Filter" / "run_0001.h5") as file:
        np.testing.assert_array_equal(file["cloud/cloud_4"][()], backwards)
    assert ran.clusters(1).keys() == {5}


def broken_model(kind: str, folder: Path) -> Config:
    """A configuration whose model cannot be used."""
    path = folder / "model.onnx"
    if kind == "another projection":  # the graph reads other images than its contract says
        return Config(model=str(tiny_models.write_model(path, size=32)))
    if kind == "no contract":
        return Config(model=str(tiny_models.write_model(path, None)))
    if kind == "unknown view":
        projection = tiny_models.contract()["projection"] | {"views": ["uv"]}
        text = json.dumps(tiny_models.contract(projection=projection))
        return Config(model=str(tiny_models.write_model(path, text)))
    if kind == "not there":
        return Config(model=str(path))
    return Config(model=str(tiny_models.write_model(path)), thresholds={"alpha": 0.5})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("another projection", "the graph reads"),
        ("no contract", "carries no contract"),
        ("unknown view", "unknown view"),
        ("not there", "No such file"),
        ("unknown threshold", "no class 'alpha'"),
    ],
)
def test_a_model_that_cannot_be_used(
    kind: str, words: str, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    """Spyral goes on, no event slips through unfiltered, and each run has its line in the log."""
    raw = tmp_path / "raw"
    for run in (1, 2):
        miniatures.write_run("merger_1.0", raw / f"run_{run:04d}.h5")
    first = TraceFilterPhase(["proton"], DETECTOR, broken_model(kind, tmp_path))
    ran = run_pipeline(small_chain(first), tmp_path / "workspace", raw, [1, 2])
    for run in (1, 2):
        assert ran.clouds(run) == {}
        (error,) = messages(log, run, "ERROR")
        assert words in error
    assert ran.messages[-1].phase == "Complete"


def test_a_model_that_was_trained_on_other_hits_than_clouds_hold(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    contract = tiny_models.contract(hits=tiny_models.contract()["hits"] | {"mode": "peak"})
    model = tiny_models.write_model(tmp_path / "model.onnx", json.dumps(contract))
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0001.h5")
    phase = FilterPhase(["proton"], Config(model=str(model)))
    run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 1)
    assert "trained on hits made in mode peak" in log.text
    assert len(Ran(tmp_path / "workspace", []).clouds(1, "Filter")) > 0


def test_a_model_that_reads_traces_is_none_for_clouds(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    export = pytest.importorskip("attpc_export.cli", reason="needs export/")
    model = tmp_path / "traces.onnx"
    assert export.main(["traces", "default", "--out", str(model)]) == 0
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0001.h5")
    phase = FilterPhase(["proton"], Config(model=str(model), device="cpu"))
    run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 1)
    (error,) = messages(log, 1, "ERROR")
    assert "reads raw traces, these are point clouds" in error
    assert Ran(tmp_path / "workspace", []).clouds(1, "Filter") == {}


def test_a_tag_that_the_model_does_not_give(
    tmp_path: Path, counter_model: Path, log: pytest.LogCaptureFixture
) -> None:
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0001.h5")
    phase = FilterPhase(["protons"], Config(model=str(counter_model)))
    run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 1)
    (error,) = messages(log, 1, "ERROR")
    assert "no 'protons'" in error
    assert "proton, carbon, noise, uncertain, unreadable" in error


@pytest.mark.parametrize("failure", ["damaged", "unexpected", "no predecessor"])
def test_a_second_run_that_fails_leaves_what_the_first_made(
    failure: str,
    tmp_path: Path,
    counter_model: Path,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0001.h5")
    sound = path.read_bytes()
    workspace = tmp_path / "workspace"
    phase = FilterPhase(["proton"], Config(model=str(counter_model), streams="copy"))

    def run() -> dict[str, bytes]:
        run_phase(phase, {"pointcloud": path}, workspace, 1)
        return {name: (workspace / name).read_bytes() for name in files_below(workspace)}

    made = run()
    assert {"Filter/run_0001.h5", "Filter/run_0001_tags.parquet"} < made.keys()
    if failure == "damaged":
        path.write_bytes(sound[:5000])
    elif failure == "no predecessor":
        path.unlink()
    else:
        monkeypatch.setattr(phase, "_look_at", lambda _: 1 / 0)
    assert run() == made
    error = messages(log, 1, "ERROR")[-1]
    assert f"{workspace / 'Filter' / 'run_0001.h5'} of an earlier job stays" in error
    monkeypatch.undo()
    (workspace / "Filter" / "run_0001.h5").unlink()
    path.write_bytes(sound[:5000])
    run()  # nothing to keep: without events, and marked
    with h5py.File(workspace / "Filter" / "run_0001.h5") as file:
        assert set(file["cloud"]) == set()
        assert "attpc_filter_failed" in file.attrs
    run()  # that one is not taken for a good one
    assert "Later phases get none of its events" in messages(log, 1, "ERROR")[-1]


def test_an_unexpected_error_leaves_no_half_written_file(
    tmp_path: Path,
    counter_model: Path,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0001.h5")
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    monkeypatch.setattr(phase, "_look_at", lambda _: 1 / 0)
    run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 1)
    assert files_below(tmp_path / "workspace") == {
        "Filter/run_0001.h5", "Filter_assets/model.onnx"
    }  # fmt: skip
    assert any("ZeroDivisionError" in error for error in messages(log, 1, "ERROR"))


def test_unreadable_clouds_are_told(
    tmp_path: Path, counter_model: Path, log: pytest.LogCaptureFixture
) -> None:
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0001.h5")
    with h5py.File(path, "r+") as file:
        del file["cloud/cloud_4"]
        file["cloud/cloud_4"] = np.zeros((3, 2))
    phase = FilterPhase(["proton"], Config(model=str(counter_model)))
    run_phase(phase, {"pointcloud": path}, tmp_path / "workspace", 1)
    (warning,) = messages(log, 1, "WARNING")
    assert "event 4" in warning
    assert "(3, 2)" in warning
    assert pq.read_table(phase.tag_table(1, tmp_path / "workspace")).num_rows == 7


def test_spyral_itself_would_lose_the_later_runs(
    tmp_path: Path, traces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Why a run that fails leaves an empty artifact: Spyral's own way of failing ends its list."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "run_0001.h5").write_text("no run")
    shutil.copyfile(traces / "run_0102.h5", raw / "run_0002.h5")
    assert isinstance(spyral_phases()[0], PointcloudPhase)
    run_pipeline(spyral_phases(), tmp_path / "workspace", raw, [1, 2])
    assert not (tmp_path / "workspace" / "Estimation" / "run_0002.parquet").exists()
