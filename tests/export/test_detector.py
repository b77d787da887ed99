"""Detectors other than the training's: turned, moved, mirrored; with other pads and samples."""

import csv
import re
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from attpc_export.cli import main

from attpc_filter.rebuild.detector import BeamFrame
from attpc_filter.score.bundle import load_bundle
from tests.conftest import Cli, read_manifest, shared
from tests.detector_files import write_attpc
from tests.export.conftest import train_arguments, write_config
from tests.rebuild.test_beam_frame import moved

TURNED = {"tilt_deg": 6.2, "azimuth_deg": 30.0}
MOVED = {"x_mm": 10.0, "y_mm": 0.0}
CASES = [
    pytest.param(BeamFrame(**TURNED), {"beam": TURNED}, id="turned by 6.2 degrees"),
    pytest.param(BeamFrame(**MOVED), {"beam": MOVED}, id="moved by 10 mm"),
    pytest.param(BeamFrame(is_mirrored=True), {"field": {"reversed": True}}, id="mirrored"),
    pytest.param(
        BeamFrame(**TURNED, **MOVED, is_mirrored=True, z_is_reversed=True),
        {
            "beam": TURNED | MOVED | {"enters_at_micromegas": True},
            "field": {"reversed": True},
        },
        id="all of it",
    ),
]


def macro_f1(capsys: pytest.CaptureFixture[str], data: Path, *more: object) -> float:
    labels = shared("test/labels_full.csv")
    arguments = ["evaluate", "default", "--data", data, "--labels", labels, "--device", "cpu"]
    assert main([str(argument) for argument in [*arguments, *more]]) == 0
    found = re.search(r"macro f1\s+(\d\.\d+)", capsys.readouterr().out)
    assert found is not None
    return float(found.group(1))


def copy_moved(path: Path, frame: BeamFrame) -> Path:
    """An unseen run as a detector sees it whose beam runs as the frame says."""
    with h5py.File(shared("test/full/run_0201.h5")) as source, h5py.File(path, "w") as target:
        group = target.create_group("cloud")
        for name, value in source["cloud"].attrs.items():
            group.attrs[name] = value
        for name in source["cloud"]:
            if name.startswith("cloud_"):
                cloud = source["cloud"][name][()].astype(np.float64)
                cloud[:, :3] = moved(cloud[:, :3], frame)
                group[name] = cloud
    return path


@pytest.mark.parametrize(("frame", "entries"), CASES)
def test_the_detector_file_brings_hits_into_the_models_frame(
    frame: BeamFrame,
    entries: dict[str, dict[str, object]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = macro_f1(capsys, shared("test/full/run_0201.h5"))
    run = copy_moved(tmp_path / "run_0201.h5", frame)
    detector = write_attpc(tmp_path / "d", **entries)
    assert original > 0.95
    assert macro_f1(capsys, run, "--detector", detector) == pytest.approx(original, abs=0.01)
    if frame.tilt_deg:
        assert macro_f1(capsys, run) < original - 0.05, "or it would not matter"


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A detector of 1,024 pads and 256 samples, and runs of it: pads and samples left out."""
    folder = tmp_path_factory.mktemp("coarse")
    pads = np.random.default_rng(1).permutation(10240)[:1024]
    number = np.full(10240, -1)
    number[pads] = np.arange(1024)
    z = {"micromegas_time_bucket": 19, "window_time_bucket": 139, "length_mm": 1000}
    detector = write_attpc(folder, pads=pads.tolist(), name="coarse", n_samples=256, z=z)
    run = folder / "run_0101.h5"
    with h5py.File(shared("train/raw/run_0101.h5")) as source, h5py.File(run, "w") as target:
        for event in range(130):
            traces = source[f"events/event_{event}/get/pads"][()]
            kept = traces[number[traces[:, 4]] >= 0]
            kept[:, 4] = number[kept[:, 4]]
            target[f"get/{event}"] = np.hstack([kept[:, :5], kept[:, 5::2]])
    labels = folder / "labels.csv"
    with open(shared("train/labels_full.csv"), newline="") as file, open(labels, "w") as out:
        rows = list(csv.reader(file))
        csv.writer(out).writerows(row for row in rows if row[0] in ("run", "101"))
    return {"detector": detector, "run": run, "labels": labels}


def test_a_small_detector_is_trained_exported_filtered_and_inspected(
    coarse: dict[str, Path], call: Cli, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "c.yaml", fit={"epochs": 2}, hits={"peak_max_width": 25.0})
    arguments = train_arguments(config, coarse["run"], coarse["labels"], tmp_path / "run")
    assert main([*arguments, "--detector", str(coarse["detector"])]) == 0
    bundle = tmp_path / "coarse.onnx"
    assert main(["export", str(tmp_path / "run"), "--out", str(bundle)]) == 0
    of_model = load_bundle(str(bundle)).contract.detector
    assert (of_model.name, of_model.n_samples) == ("coarse", 256)
    filtering = ["run", coarse["run"], "--out", tmp_path / "out", "--model", bundle]
    refused = call(*filtering)
    assert refused.status == 2
    assert "detector coarse, whose file does not ship; give it with --detector" in refused.err
    ended = call(*filtering, "--detector", coarse["detector"], "--no-picture")
    assert ended.status == 0, ended.err
    manifest = read_manifest(tmp_path / "out")
    assert manifest["detector"]["name"] == "coarse"
    assert manifest["detector"]["sha256"] == of_model.sha256
    table = pq.read_table(tmp_path / "out" / "tags" / "run_0101.parquet").to_pydict()
    assert len(table["event"]) == 130
    assert np.median(table["n_hits"]) > 10
    looking = ["inspect", coarse["run"], "--event", 1, "--model", bundle]
    seen = call(*looking, "--detector", coarse["detector"], "--png", tmp_path / "event.png")
    assert seen.status == 0, seen.err
    assert (tmp_path / "event.png").exists()


def test_a_model_for_other_pads_and_samples_is_adapted(
    coarse: dict[str, Path], call: Cli, tmp_path: Path
) -> None:
    """Hits are in mm: the model that ships tags them, and the manifest names both detectors."""
    ended = call(
        *("run", coarse["run"], "--out", tmp_path / "out", "--detector", coarse["detector"]),
        *("--no-picture", "--streams", "none"),
    )
    assert ended.status == 0, ended.err
    detector = read_manifest(tmp_path / "out")["detector"]
    assert (detector["name"], detector["n_samples"]) == ("coarse", 256)
    assert detector["of_model"]["n_samples"] == 512
    wrong = call("run", coarse["run"], "--out", tmp_path / "no")
    assert wrong.status == 2
    assert "traces of 256 samples, the detector AT-TPC has 512" in wrong.err
