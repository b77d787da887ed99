"""Training: the run folder, resuming, refusals."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from attpc_export.cli import main
from attpc_export.config import dump_config, load_config
from attpc_export.data.labelled import load_events

from tests.export.conftest import Training, train_arguments, write_config
from tests.export.generated import write_run

PRESET = Path(__file__).parents[2] / "export" / "configs" / "default.yaml"


def test_the_run_folder_holds_all_that_is_needed_to_repeat(training: Training) -> None:
    names = {path.name for path in training.folder.iterdir()}
    assert names == {
        "best.pt",
        "config.yaml",
        "curves.csv",
        "curves.png",
        "data.json",
        "head.json",
        "last.pt",
        "reference.npz",
        "scores.json",
        "split.csv",
        "versions.json",
    }
    assert load_config(training.folder / "config.yaml") == load_config(training.config)
    data = json.loads((training.folder / "data.json").read_text())
    assert [Path(file["name"]).name for file in data["files"]] == ["run_0007.h5", "labels_7.csv"]
    assert data["events"] == data["events_training"] + data["events_validation"] == 180


def test_events_of_one_physics_event_are_not_split(training: Training) -> None:
    parts: dict[int, set[str]] = {}
    group_of = {}
    with training.labels.open() as file:
        for row in csv.DictReader(file):
            group_of[int(row["event"])] = int(row["source_event"])
    with (training.folder / "split.csv").open() as file:
        for row in csv.DictReader(file):
            if group_of[int(row["event"])] >= 0:
                parts.setdefault(group_of[int(row["event"])], set()).add(row["part"])
    assert all(len(part) == 1 for part in parts.values())
    assert {name for part in parts.values() for name in part} == {"training", "validation"}


def test_a_resumed_training_ends_where_an_undisturbed_one_does(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attpc_export.training import fit

    stopped = tmp_path / "run"
    save = fit._Loop.save

    def interrupted(loop: fit._Loop, folder: Path, validation_loss: float) -> None:
        save(loop, folder, validation_loss)
        if len(loop.curves) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit._Loop, "save", interrupted)
        assert main(training.arguments(stopped)) == 130
    assert len((stopped / "curves.csv").read_text().splitlines()) == 1 + 2
    assert main(training.arguments(stopped, "--resume")) == 0

    whole, resumed = (
        torch.load(folder / "last.pt", weights_only=True) for folder in (training.folder, stopped)
    )
    assert len(resumed["curves"]) == len(whole["curves"]) == 4
    for name, value in whole["training_model"].items():
        torch.testing.assert_close(resumed["training_model"][name], value, rtol=1e-4, atol=1e-5)


def test_early_stopping(training: Training, tmp_path: Path) -> None:
    # at this learning rate nothing gets better after the first epochs
    fit = {"epochs": 40, "patience": 2, "learning_rate": 1e-9, "average_decay": 0.0}
    config = write_config(tmp_path / "stop.yaml", fit=fit)
    out = tmp_path / "run"
    assert main(train_arguments(config, training.data, training.labels, out)) == 0
    with (out / "curves.csv").open() as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    assert len(losses) < 40
    assert len(losses) - (1 + int(np.argmin(losses))) == 2


def test_unlabelled_events_train_the_reconstruction_only(
    training: Training, tmp_path: Path
) -> None:
    data, labels = write_run(tmp_path / "data", 8, 90, seed=2)
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join(lines[:61]) + "\n")
    out = tmp_path / "run"
    config = write_config(tmp_path / "short.yaml", fit={"epochs": 1})
    assert main(train_arguments(config, data, labels, out)) == 0
    found = json.loads((out / "data.json").read_text())
    assert (found["events"], found["events_unlabelled"]) == (90, 30)


def test_the_preset_is_read_and_written_back(tmp_path: Path) -> None:
    config = load_config(PRESET)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fitt": {}}, ["unknown key 'fitt'", "'fit'"]),
        ({"fit": {"epoch": 3}}, ["unknown key 'fit.epoch'", "'fit.epochs'"]),
        ({"fit": {"epochs": "many"}}, ["fit.epochs", "'many'", "int"]),
        ({"fit": {"epochs": 0}}, ["fit: epochs", "at least 1"]),
        ({"model": {"kind": "autoencode"}}, ["model.kind: autoencode", "autoencoder"]),
        ({"model": {"filters": [8]}}, ["model: filters", "a stage"]),
        ({"projection": {"size": 10}}, ["projection.size", "multiple of 4"]),
        ({"projection": {"views": ["xq"]}}, ["projection", "'xq'"]),
        ({"augment": {"pile_up_class": "piled"}}, ["augment.pile_up_class", "'piled'"]),
        ({"hits": {"mode": "most"}}, ["hits.mode", "multi, peak"]),
        ({"classes": [{"name": "proton"}]}, ["classes", "at least two"]),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(
    training: Training,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: list[str],
) -> None:
    config = write_config(tmp_path / "wrong.yaml", **changes)
    arguments = train_arguments(config, training.data, training.labels, tmp_path / "run")
    _assert_refused(arguments, words, capsys)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_is_not_overwritten(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    _assert_refused(training.arguments(training.folder), ["holds a training", "--resume"], capsys)


def test_resume_needs_the_same_configuration_and_data(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(training.folder, copy)
    other_config = write_config(tmp_path / "other.yaml", seed=4)
    arguments = train_arguments(other_config, training.data, training.labels, copy, "--resume")
    _assert_refused(arguments, ["another configuration"], capsys)
    data, labels = write_run(tmp_path / "data", 7, 90, seed=5)
    arguments = train_arguments(training.config, data, labels, copy, "--resume")
    _assert_refused(arguments, ["other data"], capsys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run,event,label,source_event\n7,0,muon,1\n", ["line 2", "'muon'", "proton, carbon"]),
        ("run,event,source_event\n7,0,1\n", ["no column label"]),
        ("run,event,label,source_event\n7,0,proton,1\n7,0,noise,1\n", ["line 3", "run 7 event 0"]),
        ("run,event,label,source_event\n7,0,proton,1\n", ["for training", "label more"]),
    ],
)
def test_wrong_labels_are_one_clear_line(
    training: Training,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    words: list[str],
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    arguments = train_arguments(training.config, training.data, labels, tmp_path / "run")
    _assert_refused(arguments, words, capsys)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_one_clear_line(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = tmp_path / "none"
    for data, labels in ((training.data, none), (none, training.labels)):
        arguments = train_arguments(training.config, data, labels, tmp_path / "run")
        _assert_refused(arguments, [str(none), "o such file"], capsys)


def test_labels_are_joined_by_run_and_event_number(training: Training) -> None:
    config = load_config(training.config)
    events = load_events(
        [training.data.parent],
        [training.labels],
        config.class_names,
        config.hits,
        config.detector,
        "source_event",
    )
    assert events.event.tolist() == list(range(180))
    assert (events.label == np.arange(180) % 3).all()
    shared = events.group[events.group >= 0]
    assert (np.unique(shared, return_counts=True)[1] <= 2).all()
    alone = events.group[events.group < 0]
    assert len(alone) == len(set(alone.tolist())) == len(range(0, 180, 7))


def _assert_refused(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error, error
