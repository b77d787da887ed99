"""What a latent is worth, against scikit-learn's own cross-validation and plain formulas."""

import numpy as np
import pytest
import torch
from attpc_export.judging.latent_worth import anomaly_auc, anomaly_scores, few_label_f1, fold_f1
from attpc_export.models.ar0 import Ar0, Ar0Settings
from attpc_export.models.latent import LatentSettings
from attpc_export.models.layers import ConvolutionSettings
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@pytest.fixture(scope="module")
def events() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    label = rng.choice(3, 240, p=[0.5, 0.3, 0.2])
    latent = rng.normal(size=(240, 4)) * [1, 5, 1, 1] + 1.2 * np.eye(3, 4)[label]
    return latent.astype(np.float32), label


def test_folds_are_scikit_learns(events: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    latent, label = events
    pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = cross_val_score(
        pipeline, latent.astype(np.float64), label, cv=folds, scoring="f1_macro"
    )
    found = fold_f1(latent, label)
    assert found.shape == (5, 3)
    np.testing.assert_allclose(found.mean(axis=1), expected, atol=0.02)


def test_more_labels_are_better(events: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    latent, label = events
    few, many = few_label_f1(latent, label, 10), few_label_f1(latent, label, 150)
    assert few.shape == (10,)
    assert few.mean() < many.mean()
    assert few.std() > many.std() / 2
    np.testing.assert_array_equal(few, few_label_f1(latent, label, 10))


def test_anomaly_scores_are_their_formulas() -> None:
    torch.manual_seed(0)
    settings = Ar0Settings(ConvolutionSettings((4, 8), (3, 3)), LatentSettings(6, "kl"))
    model = Ar0(settings, (1, 16, 16)).eval()
    images = np.random.default_rng(0).random((5, 1, 16, 16), np.float32)
    found = anomaly_scores(model, (images,), torch.device("cpu"))
    with torch.no_grad():
        hidden = model.encoder(torch.from_numpy(images)).flatten(1)
        latent = model.encode(torch.from_numpy(images))
        drawn = model.reconstruct(latent).numpy().astype(np.float64)
        assert model.latent.log_variance is not None
        sigma = model.latent.log_variance(hidden).exp().sqrt().numpy()
    np.testing.assert_allclose(found["latent_mean"], latent.numpy().mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["latent_square"], (latent.numpy() ** 2).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["log_sigma"], np.log(sigma).mean(1), rtol=1e-4, atol=1e-6)
    for number in range(5):
        target = images[number].ravel().astype(np.float64)
        expected = log_loss(
            np.tile([1, 0], target.size),
            np.repeat(drawn[number].ravel(), 2),
            sample_weight=np.stack([target, 1 - target], 1).ravel(),
        )
        assert found["reconstruction_error"][number] == pytest.approx(expected, rel=1e-5)
    unusual = np.array([False, True, False, True, False])
    scores = np.array([0.1, 0.9, 0.5, 0.4, 0.2], np.float32)
    assert anomaly_auc({"it": scores}, unusual) == {"it": pytest.approx(5 / 6)}
