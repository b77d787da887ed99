"""The page about a bundle: its numbers are scikit-learn's and Wilson's."""

import csv
from pathlib import Path

import numpy as np
import pytest
from attpc_export.cli import main
from attpc_export.judging.report import purity_curve, threshold_for
from sklearn.metrics import precision_recall_curve

from tests.export.conftest import Training


def test_purity_and_efficiency_are_precision_and_recall() -> None:
    rng = np.random.default_rng(0)
    is_class = rng.random(300) < 0.3
    score = np.clip(rng.normal(0.3 + 0.3 * is_class, 0.2), 0, 1).astype(np.float32)
    precision, recall, thresholds = precision_recall_curve(is_class, score)
    found = purity_curve(score, is_class, thresholds.astype(np.float64))
    np.testing.assert_allclose([row["purity"] for row in found], precision[:-1])
    np.testing.assert_allclose([row["efficiency"] for row in found], recall[:-1])
    # Wilson's interval, one standard deviation
    row, z = found[len(found) // 2], 1.0
    n, p = row["events"], row["purity"]
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert row["purity_low"] == pytest.approx(centre - half, abs=1e-4)
    assert row["purity_high"] == pytest.approx(centre + half, abs=1e-4)
    assert purity_curve(score, is_class, np.array([2.0])) == []
    # of all thresholds that are pure enough, the one that keeps most
    for purity in (0.5, 0.8):
        best = threshold_for(score, is_class, purity)
        assert best is not None
        assert best["efficiency"] == pytest.approx(recall[:-1][precision[:-1] >= purity].max())
        assert best["purity"] >= purity
    assert threshold_for(score, np.zeros(300, np.bool_), 0.5) is None
    equal = threshold_for(np.ones(300, np.float32), is_class, is_class.mean())
    assert equal is not None
    assert equal["events"] == 300
    assert threshold_for(np.ones(300, np.float32), is_class, is_class.mean() + 0.01) is None


def test_a_report_is_a_page_with_its_tables(
    training: Training, bundle: Path, tmp_path: Path
) -> None:
    arguments = ["report", str(bundle), "--data", str(training.data), "--out", str(tmp_path)]
    arguments += ["--run-folder", str(training.folder)]
    assert main([*arguments, "--labels", str(training.labels), "--device", "cpu"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<h2>") == 2
    assert page.count("data:image/png;base64,") == 5
    assert "180 labelled events" in page
    tables = {}
    for name in ("folds", "few_labels", "purity", "thresholds", "anomaly"):
        with (tmp_path / f"{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    assert [row["class"] for row in tables["folds"]] == ["proton", "carbon", "noise", "all"]
    assert [int(row["labels"]) for row in tables["few_labels"]] == [10, 20, 50]
    proton = [row for row in tables["purity"] if row["class"] == "proton"]
    assert float(proton[0]["efficiency"]) == 1.0
    assert float(proton[0]["purity"]) == pytest.approx(1 / 3, abs=1e-4)
    kept = [row for row in tables["thresholds"] if row["class"] == "proton"]
    assert [float(row["wanted_purity"]) for row in kept] == [0.9, 0.95, 0.98, 0.99]
    assert all(float(row["purity"]) >= float(row["wanted_purity"]) for row in kept)
    scores = ["latent_mean", "latent_square"]
    assert [(row["bundle"], row["score"]) for row in tables["anomaly"]] == [
        *[("tiny", name) for name in scores],
        *[(training.folder.name, name) for name in [*scores, "reconstruction_error"]],
    ]
    # the bundle and PyTorch give the same latents
    auc = [float(row["auc"]) for row in tables["anomaly"]]
    assert auc[:2] == pytest.approx(auc[2:4], abs=2e-3)
    # made-up events that a tiny model can learn
    assert float(tables["folds"][3]["f1"]) > 0.7
