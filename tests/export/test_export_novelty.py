"""Novelty: what the graph gives against NumPy, and what it means."""

from pathlib import Path

import numpy as np
import pytest
from attpc_export.cli import main
from attpc_export.metrics import calibration_error, purity_at
from attpc_export.novelty import fit_novelty
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


def test_of_one_cluster_it_is_the_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    latent = (rng.normal(size=(20_000, 3)) @ mixing + 5.0).astype(np.float32)
    label = np.zeros(len(latent), np.int64)
    few = latent[:19]  # too few for more than one centre
    novelty = fit_novelty(np.concatenate([latent, few + 100.0]), np.append(label, [1] * 19), 0)
    far = np.array([[30.0, -20.0, 10.0], [105.0, 104.0, 103.0]], np.float32)
    inverse = np.linalg.inv(mixing.T @ mixing)
    # of the class with many centres: no farther than from its mean, and of the same size
    expected = mahalanobis(far[0], latent.mean(axis=0), inverse)
    assert novelty.of(far)[0] == pytest.approx(expected, rel=0.25)
    nearest = (few + 100.0).mean(axis=0)
    covariance = np.linalg.inv(novelty.whitening @ novelty.whitening.T)
    assert novelty.of(far)[1] == pytest.approx(
        mahalanobis(far[1], nearest, np.linalg.inv(covariance)), rel=1e-3
    )
    assert np.median(novelty.of(latent)) < 2.0


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
    from attpc_export.data import load_events

    bundle = load_bundle(str(novel_bundle))
    contract = bundle.contract
    names = [event_class.name for event_class in contract.classes]
    paths = ([training.data], [training.labels], names, contract.hits, contract.detector)
    hits = load_events(*paths).hits
    scorer = Scorer(bundle, "cpu")
    usual = scorer.run(contract.make_inputs(hits), ["novelty"])["novelty"]
    assert usual.shape == (180,)
    assert (usual > contract.novelty_threshold).mean() < 0.1
    full = {"projection": np.ones((2, 2, 16, 16), np.float32)}
    assert (scorer.run(full, ["novelty"])["novelty"] > contract.novelty_threshold).all()


def test_refusals(
    training: Training,
    bundle: Path,
    novel_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "twice.onnx"
    assert main(arguments(novel_bundle, training, out)) == 2
    assert "has a novelty" in capsys.readouterr().err
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
