"""Learning from a bundle's scores besides the labels."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attpc_export.cli import main
from attpc_export.config import FitSettings, load_config
from attpc_export.data.labelled import load_events
from attpc_export.judging.evaluate import evaluate
from attpc_export.models.registry import build_model
from attpc_export.training.fit import TrainingModel, targets_of
from attpc_export.training.teacher import load_teacher

from attpc_filter.score.bundle import load_bundle
from tests.export.conftest import Training, train_arguments, write_config
from tests.export.generated import write_run


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_labels_is_torchs_cross_entropy(training: Training, smoothing: float) -> None:
    config = load_config(training.config)
    settings = FitSettings(label_smoothing=smoothing, dropout=0.0, reconstruction_weight=0.0)
    training_model = TrainingModel(build_model(config.model, (2, 16, 16)), 3, settings)
    images = torch.rand(6, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    label = np.array([0, 2, -1, 1, 1, -1])
    loss, logits = training_model.loss((images,), torch.from_numpy(targets_of(label, 3)))
    wanted = F.cross_entropy(
        logits, torch.from_numpy(label), ignore_index=-1, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, wanted)


def test_a_student_without_labels_of_its_own_tags_as_its_teacher(
    training: Training, bundle: Path, tmp_path: Path
) -> None:
    data, labels = write_run(tmp_path / "data", 9, 160, seed=2)
    _keep_labels(labels, each=8)
    scores = {}
    for name, teacher in (("student", str(bundle)), ("alone", "")):
        config = write_config(
            tmp_path / f"{name}.yaml",
            fit={"teacher": teacher, "teacher_share": 1.0, "label_weight": 1.0},
        )
        folder = tmp_path / name
        assert main(train_arguments(config, data, labels, folder)) == 0
        made = tmp_path / f"{name}.onnx"
        assert main(["export", str(folder), "--out", str(made)]) == 0
        (result,) = evaluate([str(made)], [training.data], [training.labels], "cpu")
        scores[name] = result.judgement.macro_f1
    assert scores["student"] > scores["alone"]
    recorded = json.loads((tmp_path / "student" / "data.json").read_text())
    assert recorded["teacher_sha256"] == load_bundle(str(bundle)).sha256


def test_labels_keep_their_share_and_the_rest_is_the_teachers(
    training: Training, bundle: Path
) -> None:
    config = load_config(training.config)
    fit = FitSettings(teacher=str(bundle), teacher_share=0.25)
    teacher = load_teacher(type(config)(fit=fit, classes=config.classes))
    events = load_events(
        [training.data], [training.labels], config.class_names, config.hits, config.detector
    )
    label = np.where(np.arange(len(events)) % 2, events.label, -1)
    amended = teacher.amend(targets_of(label, 3), events.hits)
    scores = teacher.scorer.score(teacher.contract.make_inputs(events.hits))
    enough = events.hits.counts >= teacher.contract.hits.min_hits
    np.testing.assert_allclose(amended[enough & (label < 0)], scores[enough & (label < 0)])
    sure = enough & (label >= 0)
    wanted = 0.75 * np.eye(3)[label[sure]] + 0.25 * scores[sure]
    np.testing.assert_allclose(amended[sure], wanted, atol=1e-6)


def test_a_teacher_of_other_classes_is_refused(
    training: Training, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = [{"name": "noise"}, {"name": "proton"}, {"name": "carbon"}]
    config = write_config(tmp_path / "other.yaml", classes=classes, fit={"teacher": str(bundle)})
    arguments = train_arguments(config, training.data, training.labels, tmp_path / "run")
    assert main(arguments) == 2
    assert "noise, proton, carbon" in capsys.readouterr().err
    assert not (tmp_path / "run" / "best.pt").exists()


def _keep_labels(path: Path, each: int) -> None:
    """Keep the label of one event in so many."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[::each])
