"""The folder of an experiment: its names, how it is made, and which step comes next."""

import csv
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from attpc_export.config import AugmentSettings, Config, FitSettings, HeadSettings, SplitSettings
from attpc_export.data.classes import find_noise
from attpc_export.experiment.commented import commented_yaml
from attpc_export.experiment.look import Look, look_at_runs
from attpc_export.models.joint import JointSettings
from attpc_export.models.points import PointsSettings
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.rebuild.clean import CleanSettings
from attpc_filter.rebuild.detector import ZCalibration
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.rebuild.hits import HitSettings
from attpc_filter.rebuild.point_set import PointSetSettings
from attpc_filter.score.bundle import EventClass

EXPERIMENT_NAME = "experiment.yaml"
TRAIN_NAME = "train.yaml"
UNLABELLED_NAME = "unlabelled.yaml"
LABELS_NAME = "labels"
FIRST_NAME = "first.onnx"
FILTERED_NAME = "filtered"
SAMPLE_NAME = "sample.csv"
TRAINING_NAME = "training"
TRAINED_NAME = "trained.onnx"

#: Bundle whose encoder an experiment starts from.
START = "accurate"
#: Labels that a first head needs, and from which on a training is worth its time.
ENOUGH_FOR_HEAD, ENOUGH_FOR_TRAINING = 30, 1000


def init_experiment(
    folder: Path,
    runs: Sequence[Path],
    detector: str,
    classes: tuple[EventClass, ...],
) -> Look:
    """Look at an experiment's runs and write the configurations of every step.

    Parameters
    ----------
    folder : Path
        Folder to make.
    runs : sequence of Path
        Run files, and folders of run files.
    detector : str
        Name of a detector that ships, or path of a detector file.
    classes : tuple of EventClass
        What events are to be told apart.

    Returns
    -------
    Look
        What the runs look like.

    Raises
    ------
    UsageError
        If the folder is an experiment already, or the runs hold no event with a hit.
    """
    if (folder / EXPERIMENT_NAME).exists():
        raise UsageError(
            f"{folder}: is an experiment already; attpc-export status {folder} says what comes next"
        )
    of_runs = load_detector(detector)
    calibration = of_runs.calibration
    look = look_at_runs(runs, of_runs, HitSettings())
    name = folder.resolve().name
    texts = {
        EXPERIMENT_NAME: _describe_experiment(runs, detector, classes, look),
        TRAIN_NAME: commented_yaml(
            make_training(name, classes, calibration, look),
            f"Trains on from the bundle {START}, with all labels.",
        ),
        UNLABELLED_NAME: commented_yaml(
            make_unlabelled(name, classes, calibration),
            "Trains an encoder on these runs without labels: where events are unlike any that a\n"
            f"bundle has seen. Otherwise the encoder of {START} is better and takes no time.",
        ),
    }
    (folder / LABELS_NAME).mkdir(parents=True, exist_ok=True)
    with Staging() as staging:
        for file, text in texts.items():
            staging.path(folder / file).write_text(text, encoding="utf-8")
        staging.commit()
    return look


def make_training(
    name: str, classes: tuple[EventClass, ...], calibration: ZCalibration, look: Look
) -> Config:
    """The configuration of a training that goes on from :data:`START`."""
    noise = find_noise(classes)
    return Config(
        name=name,
        description=f"Trained on from {START}",
        classes=classes,
        detector=calibration,
        points=PointSetSettings(n_points=192),
        model=JointSettings(),
        split=SplitSettings(group_column=""),
        # pile-up is made only where a class is meant for it
        augment=AugmentSettings(
            pile_up=0.2 if noise else 0.0,
            overlay=0.0,
            most_random_hits=max(10, round(look.hits_an_event[1] / 3)),
        ),
        fit=FitSettings(
            start=START, epochs=12, batch_size=64, learning_rate=5e-4, warm_up=0.1, patience=6
        ),
        head=HeadSettings(draws=2),
    )


def make_unlabelled(
    name: str, classes: tuple[EventClass, ...], calibration: ZCalibration
) -> Config:
    """The configuration of an encoder that learns without labels."""
    return Config(
        name=f"{name}-unlabelled",
        description="Encoder of the hits that learned without labels",
        classes=classes,
        detector=calibration,
        clean=CleanSettings(mode="neighbours", neighbours=3, radius_mm=18.0),
        points=PointSetSettings(n_points=128),
        model=PointsSettings(),
        split=SplitSettings(validation=0.1),
        augment=AugmentSettings(most_dropped=0.15, most_random_hits=20, shift_z_mm=10.0),
        fit=FitSettings(
            learn="changes",
            epochs=12,
            patience=12,
            batch_size=64,
            warm_up=0.1,
            label_smoothing=0.0,
            dropout=0.0,
        ),
        head=HeadSettings(kind="none"),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the way to a bundle.

    Attributes
    ----------
    title : str
        What it is.
    done : bool
        Whether it was done.
    command : str
        How to do it.
    """

    title: str
    done: bool
    command: str


def list_steps(folder: Path) -> list[Step]:
    """Say which steps there are, and which were done.

    Raises
    ------
    UsageError
        If the folder is no experiment.
    """
    entries = _load_experiment(folder)
    runs = shlex.join(entries["runs"])
    classes = shlex.join(entries["classes"])
    where = shlex.quote(str(folder))
    tables = sorted((folder / LABELS_NAME).glob("*.csv"))
    n_labels = sum(count_labels(path) for path in tables)
    unlabelled = [path for path in tables if not count_labels(path)]
    labels = f"{where}/{LABELS_NAME}/*.csv"
    detector = f"--detector {shlex.quote(entries['detector'][0])}"
    asked = f"{where}/{LABELS_NAME}/ask_{len(tables) + 1}.csv"
    known = f" --labels {labels}" if n_labels else ""
    ask = (
        f"attpc-export suggest {START} --data {runs} {detector} --classes {classes}{known}"
        f" --events 50 --out {asked}"
    )
    if unlabelled:
        ask = f"fill in the column label of {unlabelled[0]}; the picture beside it shows the events"
    sample = folder / SAMPLE_NAME
    judge = (
        f"attpc-filter trust {where}/{FILTERED_NAME} --labels {shlex.quote(str(sample))}"
        if sample.exists()
        else f"attpc-filter trust {where}/{FILTERED_NAME} --draw {shlex.quote(str(sample))}"
    )
    is_filtered = (folder / FILTERED_NAME / "manifest.json").exists()
    trained = folder / TRAINED_NAME
    return [
        Step(
            f"label events: {n_labels} labels, {ENOUGH_FOR_HEAD} make a first bundle",
            n_labels >= ENOUGH_FOR_HEAD,
            ask,
        ),
        Step(
            f"a first bundle: a head on the encoder of {START}",
            (folder / FIRST_NAME).exists(),
            f"attpc-export fit-bundle-head {START} --data {runs} {detector} --classes {classes}"
            f" --labels {labels} --out {where}/{FIRST_NAME}",
        ),
        Step(
            "filter the runs with it",
            is_filtered,
            f"attpc-filter run {_as_run_arguments(entries['runs'])} {detector}"
            f" --model {where}/{FIRST_NAME} --out {where}/{FILTERED_NAME}",
        ),
        Step(
            "what its tags are worth: label a random sample of them",
            is_filtered and sample.exists() and count_labels(sample) > 0,
            judge,
        ),
        Step(
            f"more labels: {n_labels}, from {ENOUGH_FOR_TRAINING} on a training gains",
            n_labels >= ENOUGH_FOR_TRAINING,
            ask,
        ),
        Step(
            f"train on from {START}",
            (folder / TRAINING_NAME / "scores.json").exists(),
            f"attpc-export train {where}/{TRAIN_NAME} --data {runs} {detector} --labels {labels}"
            f" --out {where}/{TRAINING_NAME}",
        ),
        Step(
            "the trained bundle",
            trained.exists(),
            f"attpc-export export {where}/{TRAINING_NAME} --out {shlex.quote(str(trained))}",
        ),
    ]


def describe_steps(steps: Sequence[Step]) -> str:
    """The steps with a mark for those that were done, and how to do the next one."""
    lines = [f"[{'x' if step.done else ' '}] {step.title}" for step in steps]
    following = next((step for step in steps if not step.done), None)
    if following is None:
        lines.append("all steps are done")
    else:
        lines += [f"next: {following.title.split(':')[0]}", f"  {following.command}"]
    return "\n".join(lines)


def count_labels(path: Path) -> int:
    """Rows of a table that have a label."""
    with path.open(newline="", encoding="utf-8") as file:
        return sum(bool((row.get("label") or "").strip()) for row in csv.DictReader(file))


def _load_experiment(folder: Path) -> dict[str, list[str]]:
    path = folder / EXPERIMENT_NAME
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = {name: [str(text) for text in entries[name]] for name in ("runs", "classes")}
        return found | {"detector": [str(entries["detector"])]}
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; attpc-export init makes an experiment's folder"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not an experiment: {error}") from error


def _as_run_arguments(runs: Sequence[str]) -> str:
    """Runs as attpc-filter run takes them: files, not folders."""
    return " ".join(
        f"{shlex.quote(run)}/*" if Path(run).is_dir() else shlex.quote(run) for run in runs
    )


def _describe_experiment(
    runs: Sequence[Path],
    detector: str,
    classes: tuple[EventClass, ...],
    look: Look,
) -> str:
    noise = find_noise(classes)
    texts = [
        f"{c.name}=noise" if c.name == noise else f"{c.name}={c.pdg}" if c.pdg else c.name
        for c in classes
    ]
    lines = ["# An experiment; attpc-export status says which step comes next.", "#"]
    lines += [f"# {line}" for line in look.describe()]
    entries = {
        "runs": [str(path.resolve()) for path in runs],
        "detector": str(path.resolve()) if (path := Path(detector)).exists() else detector,
        "classes": texts,
        "seen": look.to_dict(),
    }
    return "\n".join(lines) + "\n\n" + yaml.safe_dump(entries, sort_keys=False)
