"""The folder of an experiment, from raw runs to a bundle, by the commands that it proposes.

The runs are made up, the person who labels is simulated: the truth is known.
"""

import csv
import shlex
from pathlib import Path

import pytest
import yaml
from attpc_export.cli import main
from attpc_export.config import Config, load_config
from attpc_export.data.classes import parse_classes
from attpc_export.experiment.commented import commented_yaml, read_attributes
from attpc_export.experiment.folder import list_steps

import attpc_filter
from attpc_filter.cli import main as filter_main
from attpc_filter.score.bundle import load_bundle
from tests.conftest import shared
from tests.export.generated import write_run

DETECTORS = Path(attpc_filter.__file__).parent / "detectors"
NAMES = {"proton": "alpha", "carbon": "proton", "noise": "junk"}
CLASSES = ["alpha=1000020040", "proton=2212", "junk=noise"]


def run_next(folder: Path) -> str:
    """Run the command of the next step, as a person would, and return its title."""
    step = next(step for step in list_steps(folder) if not step.done)
    program, *words = shlex.split(step.command)
    expanded: list[str] = []
    for word in words:
        if "*" in word:
            expanded += sorted(str(p) for p in Path(word).parent.glob(Path(word).name))
        else:
            expanded.append(word)
    command = {"attpc-export": main, "attpc-filter": filter_main}[program]
    assert command(expanded) == 0, step.command
    return step.title


def label(table: Path, truth: dict[int, str]) -> None:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = truth[int(row["event"])]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_from_runs_to_a_bundle_by_the_commands_that_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, labels = write_run(tmp_path / "data", 12, 150, seed=2)
    with labels.open(newline="") as file:
        truth = {int(row["event"]): NAMES[row["label"]] for row in csv.DictReader(file)}
    folder = tmp_path / "mine"
    assert main(["init", str(folder), "--runs", str(data), "--classes", *CLASSES]) == 0
    text = capsys.readouterr().out
    assert "1 runs, 150 events" in text
    assert "WARNING" not in text
    config = load_config(folder / "train.yaml")
    assert config.class_names == ["alpha", "proton", "junk"]
    assert config.pile_up_class == "junk"
    load_config(folder / "unlabelled.yaml")
    assert main(["init", str(folder), "--runs", str(data), "--classes", *CLASSES]) == 2

    assert run_next(folder).startswith("label events: 0 labels")
    (asked,) = (folder / "labels").glob("*.csv")
    assert main(["status", str(folder)]) == 0
    assert "fill in the column label" in capsys.readouterr().out
    label(asked, truth)
    assert "head on the encoder" in run_next(folder)
    assert run_next(folder).startswith("filter")
    run_next(folder)  # draws the sample
    label(folder / "sample.csv", truth)
    capsys.readouterr()
    assert main(["status", str(folder)]) == 0
    assert "next: more labels" in capsys.readouterr().out
    contract = load_bundle(str(folder / "first.onnx")).contract
    assert [c.name for c in contract.classes] == ["alpha", "proton", "junk"]
    cross_validated = contract.training["head"]["f1"]
    assert min(cross_validated.values()) > 0.8


def test_a_wrong_z_calibration_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shared("train/raw/run_0102.h5")
    detector = tmp_path / "detector.yaml"
    for number, (window, is_wrong) in enumerate([(278, False), (130, True)]):
        text = (DETECTORS / "at-tpc.yaml").read_text().replace("278.0", f"{window}.0")
        detector.write_text(text.replace("at-tpc.csv", str(DETECTORS / "at-tpc.csv"), 1))
        arguments = ["--runs", str(run), "--detector", str(detector), "--classes", "a", "b"]
        assert main(["init", str(tmp_path / str(number)), *arguments]) == 0
        assert ("time buckets are wrong" in capsys.readouterr().out) == is_wrong


def test_a_commented_configuration_is_the_configuration(tmp_path: Path) -> None:
    config = Config(classes=parse_classes(CLASSES))
    path = tmp_path / "c.yaml"
    path.write_text(commented_yaml(config, "Two\nlines."))
    assert load_config(path) == config
    text = path.read_text()
    assert text.startswith("# Two\n# lines.\n")
    n_keys = sum(len(v) for v in yaml.safe_load(text).values() if isinstance(v, dict))
    assert text.count("  # ") > n_keys / 2


def test_comments_end_where_the_next_section_begins() -> None:
    text = """First line.

    Attributes
    ----------
    one, two : float
        What they are
        [mm].

    Raises
    ------
    ValueError
        Never.
    """
    assert read_attributes(text) == {"one": "What they are [mm].", "two": "What they are [mm]."}


def test_what_is_no_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "attpc-export init" in capsys.readouterr().err
