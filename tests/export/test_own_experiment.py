"""An experiment that is not 46Ar: other classes, another z, labels of other names."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from attpc_export.cli import main
from attpc_export.config import load_config
from attpc_export.data.classes import find_noise, parse_classes
from attpc_export.data.labelled import load_events
from attpc_export.data.seen import find_seen

import attpc_filter
from attpc_filter import load_detector
from attpc_filter.rebuild.detector import ZCalibration
from attpc_filter.rebuild.hits import HitSettings
from attpc_filter.score.bundle import load_bundle
from tests.export.conftest import Training, write_config
from tests.export.generated import write_run

DETECTORS = Path(attpc_filter.__file__).parent / "detectors"
#: What the generated classes are called in this experiment.
NAMES = {"proton": "alpha", "carbon": "proton", "noise": "junk"}
CLASSES = ["alpha=1000020040", "proton=2212", "junk=noise"]


def rename(labels: Path, path: Path, keep: int = 1000) -> Path:
    """The labels with this experiment's names and without the column source_event."""
    with labels.open(newline="") as file:
        rows = [r for r in csv.DictReader(file)][:keep]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "event", "label"])
        writer.writerows([r["run"], r["event"], NAMES[r["label"]]] for r in rows)
    return path


@pytest.fixture
def few(training: Training, tmp_path: Path) -> Path:
    return rename(training.labels, tmp_path / "few.csv", 60)


def test_classes_of_the_command_line() -> None:
    classes = parse_classes(CLASSES)
    assert [(c.name, c.pdg) for c in classes] == [
        ("alpha", 1000020040),
        ("proton", 2212),
        ("junk", 0),
    ]
    assert find_noise(classes) == "junk"
    assert find_noise(parse_classes(["one", "two"])) == ""
    assert find_noise(parse_classes(["one", "noise"])) == "noise"


@pytest.mark.parametrize("texts", [["one"], ["one", "one"], ["one=two", "three"], ["=5", "three"]])
def test_classes_that_make_no_sense(texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit-bundle-head", "default", "--data", "x", "--labels", "y", "--out", "z.onnx"]
    assert main([*arguments, "--classes", *texts]) == 2
    assert "--classes" in capsys.readouterr().err


def test_a_training_names_its_classes_on_the_command_line(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also: the preset asks for source_event, which these labels do not have."""
    labels = rename(training.labels, tmp_path / "labels.csv")
    config = write_config(tmp_path / "c.yaml", classes=[], fit={"epochs": 1})
    arguments = ["train", str(config), "--data", str(training.data), "--labels", str(labels)]
    arguments += ["--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "--classes" in capsys.readouterr().err
    detector = tmp_path / "detector.yaml"
    detector.write_text(
        (DETECTORS / "at-tpc.yaml")
        .read_text()
        .replace("pads: at-tpc.csv", f"pads: {DETECTORS / 'at-tpc.csv'}")
        .replace("278.0", "400.0")
    )
    more = ["--classes", *CLASSES, "--detector", str(detector)]
    assert main([*arguments, *more]) == 0
    assert "no column source_event" in capsys.readouterr().err
    made = load_config(tmp_path / "run" / "config.yaml")
    assert made.pile_up_class == "junk"
    assert made.detector == ZCalibration(38.0, 400.0, 1000.0)


def test_a_head_with_other_classes_than_the_bundles(
    training: Training,
    bundle: Path,
    few: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "own.onnx"
    arguments = ["fit-bundle-head", str(bundle), "--data", str(training.data), "--out", str(out)]
    assert main([*arguments, "--labels", str(few)]) == 2
    assert "--map alpha=CLASS" in capsys.readouterr().err
    assert main([*arguments, "--labels", str(few), "--classes", *CLASSES]) == 0
    contract = load_bundle(str(out)).contract
    assert [c.name for c in contract.classes] == ["alpha", "proton", "junk"]
    assert contract.classes[2].role == "noise"
    assert sum(map(len, contract.training["head"]["labelled"].values())) == 60

    # the encoder of this bundle has seen all labels, and the command says so
    capsys.readouterr()
    evaluate = ["evaluate", str(out), "--data", str(training.data), "--device", "cpu", "--labels"]
    assert main([*evaluate, str(few)]) == 0
    assert "trained on labels of 1 of these 1 runs" in capsys.readouterr().out

    # had only the head seen labels, it would matter which events are judged
    alone = replace(contract, training={"head": contract.training["head"]})
    fitted, others = {(7, event) for event in range(60)}, {(7, event) for event in range(60, 180)}
    assert find_seen(alone, [training.data], fitted).events == 60
    assert find_seen(alone, [training.data], {(7, 59), *others}).events == 1
    seen = find_seen(alone, [training.data], others)
    assert not seen.with_labels
    assert "without labels" in seen.describe(1)
    other, _ = write_run(tmp_path / "other", 8, 6, seed=4)
    assert find_seen(alone, [other], others).describe(1) == ""


def test_labels_of_other_names_are_judged_as_far_as_they_go(
    training: Training, bundle: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = ["evaluate", str(bundle), "--data", str(training.data), "--labels", str(few)]
    assert main([*evaluate, "--device", "cpu"]) == 0
    found = capsys.readouterr()
    assert "20 labelled events" in found.out  # proton is a class of both
    assert "20 alpha, 20 junk" in found.err
    named = ["--map", "alpha=proton", "proton=carbon", "junk=noise"]
    assert main([*evaluate, "--device", "cpu", *named]) == 0
    found = capsys.readouterr()
    assert "60 labelled events" in found.out
    assert "macro f1 0.9" in found.out or "macro f1 1.0" in found.out
    assert main([*evaluate, "--map", "alpha=boron"]) == 2
    assert "boron" in capsys.readouterr().err


def test_the_detector_decides_where_hits_lie(tmp_path: Path) -> None:
    from attpc_export.judging.run_bundle import ReadOptions

    contract = load_bundle("default").contract
    other = load_detector("square-1024")
    made = ReadOptions(detector=other).apply(contract).detector
    assert made.sha256 == other.sha256
    assert made.calibration == other.calibration
    assert ReadOptions().apply(contract) == contract


def test_tracks_are_counted_by_a_preset() -> None:
    config = load_config(Path(__file__).parents[2] / "export" / "configs" / "count_tracks.yaml")
    assert config.class_names == [
        "tracks_1",
        "tracks_2",
        "tracks_3",
        "tracks_4",
        "tracks_5_or_more",
    ]
    assert config.pile_up_class == ""  # two events overlaid have more tracks than one
    assert config.augment.overlay == 0


def test_a_table_maps_labels(tmp_path: Path) -> None:
    data, labels = write_run(tmp_path / "data", 3, 9, seed=1)
    events = load_events(
        [data],
        [labels],
        ["p", "c"],
        HitSettings(),
        ZCalibration(),
        label_map={"proton": "p", "carbon": "c", "noise": ""},
    )
    assert np.bincount(events.label + 1).tolist() == [3, 3, 3]


def test_every_preset_names_its_classes() -> None:
    folder = Path(__file__).parents[2] / "export" / "configs"
    for path in sorted(folder.rglob("*.yaml")):
        assert len(yaml.safe_load(path.read_text())["classes"]) >= 2, path
