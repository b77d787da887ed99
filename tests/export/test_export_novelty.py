"""Novelty: what the graph gives against NumPy, and what it means."""

from pathlib import Path

import numpy as np
import pytest
from attpc_export.bundles.novelty import fit_novelty, in_units_of
from attpc_export.cli import main
from attpc_export.metrics import calibration_error, purity_at
from scipy.spatial.distance import mahalanobis

from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from tests.export.conftest import Training
from tests.export.generated import write_run


@pytest.fixture(scope="module")
def novel_bundle(
    training: Training, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("novelty") / "novel.onnx"
    assert main(arguments(bundle, training, path, "--share", "0.05")) == 0
    return path


def arguments(bundle: Path, training: Training, out: Path, *more: str) -> list[str]:
    paths = ["--data", str(training.data), "--labels", str(training.labels), "--out", str(out)]
    return ["novelty", str(bundle), *paths, *more]


def test_it_is_the_mahalanobis_distance_from_the_class_that_an_event_is_scored_as() -> None:
    rng = np.random.default_rng(0)
    mixing, centres = rng.normal(size=(2, 3, 3)), np.array([[5.0, 0, 0], [-40.0, 20, 3]])
    label = np.repeat([0, 1], 20_000)
    latent = np.einsum("nd,nde->ne", rng.normal(size=(40_000, 3)), mixing[label]) + centres[label]
    latent = latent.astype(np.float32)
    novelty = fit_novelty(latent, label, 2)
    strange = np.array([[30.0, -20.0, 10.0]] * 2, np.float32)
    scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    expected = [
        mahalanobis(strange[0], centres[k], np.linalg.inv(mixing[k].T @ mixing[k])) for k in (0, 1)
    ]
    np.testing.assert_allclose(novelty.of(strange, scores), expected, rtol=0.03)

    known = np.eye(2, dtype=np.float32)[label]
    scaled = in_units_of(novelty, latent, known, 0.02)
    for index in (0, 1):
        rows = label == index
        above = scaled.of(latent[rows], known[rows]) > 1.0
        assert above.mean() == pytest.approx(0.02, abs=1e-3)
    ratio = scaled.of(strange, scores) / novelty.of(strange, scores)
    # the square of three normal numbers' length exceeds 9.84 in 2% of all cases
    np.testing.assert_allclose(ratio, 1 / np.sqrt(9.84), rtol=0.03)


def test_scores_and_latents_are_as_before(bundle: Path, novel_bundle: Path) -> None:
    before, after = load_bundle(str(bundle)), load_bundle(str(novel_bundle))
    images = np.random.default_rng(1).random((9, 2, 16, 16)).astype(np.float32)
    inputs = {"projection": images}
    names = ["scores", "latent"]
    one, other = Scorer(before, "cpu").run(inputs, names), Scorer(after, "cpu").run(inputs, names)
    for name in names:
        np.testing.assert_allclose(one[name], other[name], atol=1e-6)
    assert before.contract.novelty_threshold is None
    assert after.contract.novelty_threshold is not None
    assert after.contract.classes == before.contract.classes


def test_few_events_like_those_of_the_training_are_novel_and_strange_ones_are(
    novel_bundle: Path, training: Training
) -> None:
    from attpc_export.data.labelled import load_events

    bundle = load_bundle(str(novel_bundle))
    contract = bundle.contract
    names = [event_class.name for event_class in contract.classes]
    paths = (
        [training.data],
        [training.labels],
        names,
        contract.hits,
        contract.detector.calibration,
    )
    hits = load_events(*paths).hits
    scorer = Scorer(bundle, "cpu")
    usual = scorer.run(contract.make_inputs(hits), ["novelty"])["novelty"]
    assert usual.shape == (180,)
    assert (usual > contract.novelty_threshold).mean() < 0.1
    full = {"projection": np.ones((2, 2, 16, 16), np.float32)}
    assert (scorer.run(full, ["novelty"])["novelty"] > contract.novelty_threshold).all()


def test_a_bundle_that_has_one_gets_it_anew(
    training: Training, novel_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "twice.onnx"
    assert main(arguments(novel_bundle, training, out, "--share", "0.05")) == 0
    before, after = load_bundle(str(novel_bundle)), load_bundle(str(out))
    inputs = {"projection": np.random.default_rng(1).random((9, 2, 16, 16)).astype(np.float32)}
    for name in ("scores", "latent", "novelty"):
        one, other = (Scorer(b, "cpu").run(inputs, [name])[name] for b in (before, after))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_head_of_few_labels_gets_a_novelty_without_more_labels(
    training: Training, bundle: Path, tmp_path: Path
) -> None:
    few, headed, out = tmp_path / "few.csv", tmp_path / "headed.onnx", tmp_path / "novel.onnx"
    few.write_text("".join(training.labels.read_text().splitlines(keepends=True)[:31]))
    paths = ["--data", str(training.data)]
    fit = ["fit-bundle-head", str(bundle), *paths, "--labels", str(few), "--out", str(headed)]
    assert main(fit) == 0
    assert main(["novelty", str(headed), *paths, "--out", str(out), "--share", "0.05"]) == 0
    made = load_bundle(str(out))
    full = {"projection": np.ones((2, 2, 16, 16), np.float32)}
    novelty = Scorer(made, "cpu").run(full, ["novelty"])["novelty"]
    assert made.contract.novelty_threshold is not None
    assert (novelty > made.contract.novelty_threshold).all()


def test_refusals(
    training: Training,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "other.onnx"
    data, labels = write_run(tmp_path / "data", 9, 30, seed=5)
    other = Training(training.config, data, labels, training.folder)
    assert main(arguments(bundle, other, out)) == 2
    assert "was trained on" in capsys.readouterr().err
    assert not out.exists()


def test_calibration_error_is_the_distance_of_score_and_truth() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, 200_000)
    scores = np.column_stack([sure, 1 - sure]).astype(np.float32)
    honest = np.where(rng.random(len(sure)) < sure, 0, 1)
    assert calibration_error(scores, honest) < 0.01
    shifted = np.where(rng.random(len(sure)) < sure - 0.2, 0, 1)
    assert calibration_error(scores, shifted) == pytest.approx(0.2, abs=0.01)


def test_purity_at_an_efficiency() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
    is_class = np.array([True, False, True, True, False])
    purity, threshold = purity_at(scores, is_class, 0.95)
    assert (purity, threshold) == (pytest.approx(3 / 4), pytest.approx(0.6))
    assert purity_at(scores, is_class, 0.3) == (1.0, pytest.approx(0.9))
