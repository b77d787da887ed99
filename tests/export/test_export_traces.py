"""Traces to tags in one graph: SciPy's peaks, the runtime's hits and projections, its tags."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from attpc_export.bundles.trace_graph import TraceGraph
from attpc_export.bundles.traces import make_up_records
from attpc_export.cli import main
from numpy.typing import NDArray
from scipy.signal import find_peaks

from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.detector import Detector, ZCalibration
from attpc_filter.rebuild.hits import HitSettings, rebuild_hits
from attpc_filter.rebuild.padplane import load_padplane
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.rebuild.traces import TraceBatch, gather_traces, pad_features
from attpc_filter.records import Record
from attpc_filter.score.bundle import load_bundle
from tests.conftest import Cli, files_below, read_tag_table, shared
from tests.export.generated import write_run

VIEWS = ProjectionSettings(views=("xy", "zr", "zp"), size=32)
BATCH = TraceBatch(n_events=8, n_traces=4096)


@pytest.fixture(scope="module")
def traces_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle with the making of its projections before it."""
    path = tmp_path_factory.mktemp("traces") / "traces.onnx"
    sizes = ["--events", str(BATCH.n_events), "--traces", str(BATCH.n_traces)]
    assert main(["traces", "default", "--out", str(path), *sizes]) == 0
    return path


def make_images(
    records: list[Record], detector: Detector, hits: HitSettings
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images and hit counts of events by the graph, in PyTorch."""
    room = {name: np.zeros(shape, kind) for name, (shape, kind) in BATCH.inputs(512).items()}
    gather_traces(records, detector, pad_features(detector.plane), hits.drop_beam_pads, room)
    graph = TraceGraph(hits, VIEWS, BATCH.n_events)
    with torch.no_grad():
        images, n_hits = graph(*(torch.from_numpy(part) for part in room.values()))
    return images.numpy()[: len(records)], n_hits.numpy()[: len(records)]


def signals(seed: int) -> NDArray[np.int64]:
    """Pulses that overlap, some cut flat at their top, on noise, in whole numbers."""
    rng = np.random.default_rng(seed)
    bucket = np.arange(512)
    total = rng.normal(0.0, 4.0, (300, 512))
    for _ in range(10):
        height, at = rng.exponential(300.0, (300, 1)), rng.uniform(-10, 522, (300, 1))
        total += height * np.exp(-0.5 * ((bucket - at) / rng.uniform(1.0, 12.0, (300, 1))) ** 2)
    return np.minimum(total, rng.uniform(200, 2000, (300, 1))).astype(np.int64)


@pytest.mark.parametrize("settings", [{}, {"peak_separation": 8.3, "peak_max_width": 20.0}])
def test_peaks_are_those_of_scipy(settings: dict[str, float]) -> None:
    """SciPy leaves open which of two equally high peaks removes the other: such are left out."""
    hits = HitSettings(peak_threshold=30.0, **settings)
    rows = signals(1)
    with torch.no_grad():
        found = TraceGraph(hits, VIEWS, 1).find_peaks(torch.from_numpy(rows).float())
    row, bucket, _, is_peak = (part.numpy() for part in found)
    n_compared = 0
    for index, signal in enumerate(rows):
        tops, _ = find_peaks(signal, height=31)
        if len(set(signal[tops])) < len(tops):
            continue
        expected, _ = find_peaks(
            signal,
            height=31,
            distance=hits.peak_separation,
            prominence=hits.peak_prominence,
            width=(1.0, hits.peak_max_width),
            rel_height=0.95,
        )
        assert sorted(bucket[(row == index) & is_peak].tolist()) == expected.tolist()
        n_compared += len(expected)
    assert n_compared > 200


@pytest.mark.parametrize("mode", ["multi", "peak"])
def test_hits_and_images_are_the_runtimes(mode: str) -> None:
    """With gains and time offsets, another calibration, and traces of pads that are not used."""
    rng = np.random.default_rng(3)
    plane = load_padplane()
    n_pads = len(plane.x)
    plane = replace(
        plane,
        gain=rng.uniform(0.5, 2.0, n_pads).astype(np.float32),
        time_offset=rng.uniform(-5, 5, n_pads).astype(np.float32),
        beam=rng.random(n_pads) < 0.1,
    )
    hits = HitSettings(mode=mode)  # type: ignore[arg-type]
    detector = Detector("made up", plane, calibration=ZCalibration(60.0, 400.0, 900.0))
    records = make_up_records(BATCH, n_pads)
    assert records[0].traces is not None
    records[0].traces[:5, 4] = [-1, n_pads, 20_000, *np.flatnonzero(plane.beam)[:2]]
    expected = rebuild_hits(records, detector, hits)
    images, n_hits = make_images(records, detector, hits)
    assert expected.counts.sum() > 1000
    assert np.abs(n_hits - expected.counts).sum() <= 2
    same = n_hits == expected.counts
    assert same.sum() >= 6
    np.testing.assert_allclose(images[same], project(expected, VIEWS)[same], atol=2e-4)


@pytest.mark.parametrize("mode", ["multi", "peak"])
def test_simulated_events_give_the_runtimes_hits_and_images(mode: str) -> None:
    hits = HitSettings(mode=mode)  # type: ignore[arg-type]
    detector = Detector("AT-TPC", load_padplane())
    with open_run(shared("train/raw/run_0102.h5")) as run:
        records = [record for record in run.records() if record.traces is not None]
    records = [record for record in records if not record.passthrough][: BATCH.n_events]
    expected = rebuild_hits(records, detector, hits)
    images, n_hits = make_images(records, detector, hits)
    assert n_hits.tolist() == expected.counts.tolist()
    np.testing.assert_allclose(images, project(expected, VIEWS), atol=1e-6)


def test_the_bundle_says_that_it_reads_traces(traces_bundle: Path) -> None:
    """Compared with the runtime before it was written; uses what ONNX Runtime has on a GPU."""
    before, after = load_bundle("default"), load_bundle(str(traces_bundle))
    assert after.contract.traces == BATCH
    assert after.contract == replace(before.contract, traces=BATCH)
    graph = onnx.load(traces_bundle).graph
    assert {node.name for node in graph.input} == set(BATCH.inputs(512))
    assert {"scores", "latent", "novelty", "n_hits"} <= {node.name for node in graph.output}
    assert not {"Loop", "If", "Scan"} & {node.op_type for node in graph.node}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["accurate"], "point sets"),
        (["default", "--events", "0"], "--events"),
        (["no_such.onnx"], "no_such.onnx"),
    ],
)
def test_bundles_that_cannot_read_traces(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert main(["traces", *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_no_other_command_takes_it(
    traces_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["traces", str(traces_bundle), "--out", str(tmp_path / "twice.onnx")]) == 2
    assert "reads traces already" in capsys.readouterr().err
    data = str(Path(__file__).parents[2] / "sample")
    out = str(tmp_path / "half.onnx")
    assert main(["half", str(traces_bundle), "--data", data, "--out", out]) == 2
    assert "reads raw traces" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


SAMPLE = Path(__file__).parents[2] / "sample" / "run_0101.h5"


def test_a_raw_run_gets_the_same_tags(traces_bundle: Path, call: Cli, tmp_path: Path) -> None:
    """More events a part than the graph reads at a time; streams as ever. One hit is a tie."""
    common = ["run", SAMPLE, "--device", "cpu", "--threads", 2, "--keep-latents"]
    assert call(*common, "--out", tmp_path / "hits").status == 0
    assert call(*common, "--out", tmp_path / "traces", "--model", traces_bundle).status == 0
    one, other = (
        read_tag_table(tmp_path / name / "tags" / "run_0101.parquet") for name in ("hits", "traces")
    )
    assert len(one) > BATCH.n_events
    for event, row in one.items():
        assert other[event]["tag"] == row["tag"]
        for name in ("score_proton", "score_noise", "novelty"):
            assert other[event][name] == pytest.approx(row[name], abs=2e-3)
    assert sum(abs(other[event]["n_hits"] - row["n_hits"]) for event, row in one.items()) <= 1
    assert files_below(tmp_path / "traces") == files_below(tmp_path / "hits")


def test_an_event_too_large_for_the_graph_is_unreadable(
    traces_bundle: Path, call: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "run_0101.h5"
    shutil.copy(SAMPLE, run)
    with h5py.File(run, "r+") as file:
        name, group = next(iter(file["events"].items()))
        number, traces = int(name.removeprefix("event_")), group["get/pads"][:]
        del group["get/pads"]
        group["get/pads"] = np.resize(traces, (BATCH.n_traces + 1, traces.shape[1]))
    ended = call("run", run, "--device", "cpu", "--out", tmp_path / "out", "--model", traces_bundle)
    assert ended.status == 0
    rows = read_tag_table(tmp_path / "out" / "tags" / "run_0101.parquet")
    assert rows[number]["tag"] == "unreadable"
    assert rows[number]["reason"] == "4097 traces, the model reads at most 4096"
    assert sum(row["tag"] == "unreadable" for row in rows.values()) == 1


def test_what_has_no_traces_is_refused(traces_bundle: Path, call: Cli, tmp_path: Path) -> None:
    cloud, _ = write_run(tmp_path / "clouds", 5, 12, seed=1)
    common = ["--device", "cpu", "--model", traces_bundle, "--out", tmp_path / "out"]
    ended = call("run", cloud, *common)
    assert ended.status != 0
    assert "holds hits, and the model reads raw traces" in ended.err
    ended = call("run", SAMPLE, *common, "--keep-hits", "--restart")
    assert ended.status == 2
    assert "keep_hits" in ended.the_error()
    ended = call("bench", SAMPLE, "--model", traces_bundle)
    assert ended.status == 2
    assert "reads raw traces" in ended.the_error()
