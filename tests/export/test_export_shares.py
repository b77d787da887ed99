"""Scores for runs in which the classes are not equally frequent."""

from pathlib import Path

import numpy as np
import pytest
from attpc_export.cli import main
from attpc_export.heads.linear import fit_head, weigh_classes
from attpc_export.metrics import calibration_error
from numpy.typing import NDArray
from scipy.special import softmax

from tests.export.conftest import Training, train_arguments, write_config


def draw(counts: list[int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Normal numbers about a centre a class: what a logistic regression describes exactly."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(3), counts)
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    return (centres[label] + rng.normal(size=(len(label), 2))).astype(np.float32), label


def test_scores_are_honest_where_the_classes_have_their_shares() -> None:
    head = fit_head(*draw([20_000] * 3, 0), 1.0)
    shares = (0.08, 0.12, 0.8)
    latent, label = draw([8_000, 12_000, 80_000], 1)

    def scores(shares: tuple[float, ...]) -> NDArray[np.float32]:
        logits = weigh_classes(head, shares).logits(latent)
        return softmax(logits, axis=1).astype(np.float32)

    assert calibration_error(scores(shares), label) < 0.01
    np.testing.assert_allclose(scores(shares).mean(axis=0), shares, atol=0.01)
    assert scores(()).mean(axis=0)[2] < 0.7  # as if there were fewer of the third class


@pytest.mark.parametrize(
    ("shares", "words"),
    [([0.5, 0.5], "2 shares, 3 classes"), ([0.5, 0.4, 0.4], "sum to 1"), ([1.0, 0, 0], "positive")],
)
def test_shares_that_make_no_sense(
    shares: list[float],
    words: str,
    training: Training,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path / "wrong.yaml", head={"class_shares": shares})
    assert main(train_arguments(config, training.data, training.labels, tmp_path / "run")) == 2
    assert words in capsys.readouterr().err
