"""Agreement against published examples and scikit-learn."""

import math

import numpy as np
import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")

from attpc_filter_web.agreement import (
    between_labellers,
    cohen_kappa,
    disagreements,
    krippendorff_alpha,
    within_labellers,
)
from attpc_filter_web.store import Answer

# K. Krippendorff, Computing Krippendorff's alpha-reliability (2011), sections B and C
TWO_OBSERVERS = ("aabbdcccedda", "babbbcccedddd"[:12])
FOUR_OBSERVERS = ("123321412...", "1233224125.3", ".333234225 1.".replace(" ", ""), "12332441251.")


def units(observers: tuple[str, ...]) -> list[list[str]]:
    return [[x for x in column if x != "."] for column in zip(*observers, strict=True)]


def answer(labeller: str, event: int, label: str, round_: str = "first") -> Answer:
    return Answer(1, event, "f", labeller, label, "", round_, "random", False, 1.0, "t", "")  # type: ignore[arg-type]


def test_alpha_is_that_of_the_published_examples() -> None:
    assert krippendorff_alpha(units(TWO_OBSERVERS)) == pytest.approx(0.692, abs=5e-4)
    assert krippendorff_alpha(units(FOUR_OBSERVERS)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_nothing_to_compare_is_no_number() -> None:
    assert math.isnan(krippendorff_alpha([["a"], ["b"]]))
    assert math.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]))


def test_kappa_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference here")
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b = rng.integers(0, 3, (2, 40)).astype(str).tolist()
        assert cohen_kappa(a, b) == pytest.approx(metrics.cohen_kappa_score(a, b))


def test_unsure_is_no_label() -> None:
    answers = [answer("a", 1, "p"), answer("b", 1, "unsure"), answer("a", 2, "p")]
    answers += [answer("b", 2, "n"), answer("a", 3, "n"), answer("b", 3, "n")]
    alpha, (pair,) = between_labellers(answers)
    assert (pair.n_events, pair.share) == (2, 0.5)
    assert pair.confused == [("p", "n", 1)]
    assert alpha == pytest.approx(krippendorff_alpha([["p", "n"], ["n", "n"]]))


def test_labellers_with_errors_agree_as_the_errors_imply() -> None:
    # each names a wrong class of three with probability 0.05: they agree in 0.95^2 + 0.05^2 / 2
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 20_000)
    said = [
        np.where(rng.random(len(truth)) < 0.05, (truth + rng.integers(1, 3, len(truth))) % 3, truth)
        for _ in range(2)
    ]
    answers = [
        answer(name, event, str(label))
        for name, labels in zip("ab", said, strict=True)
        for event, label in enumerate(labels)
    ]
    alpha, (pair,) = between_labellers(answers)
    same = 0.95**2 + 0.05**2 / 2
    assert pair.share == pytest.approx(same, abs=0.005)
    assert alpha == pytest.approx((same - 1 / 3) / (2 / 3), abs=0.008)


def test_repeated_answers_are_compared_with_the_first_ones_only() -> None:
    answers = [answer("a", 1, "p"), answer("a", 2, "p"), answer("a", 1, "n", "repeat")]
    (pair,) = within_labellers(answers)
    assert (pair.a, pair.b, pair.n_events, pair.share) == ("a", "a", 1, 0.0)
    assert between_labellers(answers)[1] == []


def test_a_settled_event_is_no_disagreement_any_more() -> None:
    answers = [answer("a", 1, "p"), answer("b", 1, "n"), answer("a", 2, "p"), answer("b", 2, "n")]
    assert [key for key, _ in disagreements(answers)] == [(1, 1), (1, 2)]
    answers.append(answer("c", 1, "p", "settle"))
    assert disagreements(answers) == [((1, 2), {"a": "p", "b": "n"})]
