"""Scores to tags, against the rules written out one by one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attpc_filter.tag import assign_tags

CLASSES = ["proton", "carbon", "noise"]

scores_of_event = st.lists(
    st.one_of(
        st.floats(0, 1, width=32), st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan, math.inf])
    ),
    min_size=3,
    max_size=3,
)


def tag_by_rules(
    scores: list[float], n_hits: int, trigger: bool, reason: str, thresholds: list[float]
) -> str:
    """The tag of one event, as the documentation says it."""
    if reason:
        return "unreadable"
    if trigger:
        return "passthrough"
    if n_hits < 5:
        return "uncertain"
    if not all(map(math.isfinite, scores)):
        return "unreadable"
    reached = [
        (score, -index)
        for index, (score, threshold) in enumerate(zip(scores, thresholds, strict=True))
        if score >= np.float32(threshold)
    ]
    return CLASSES[-max(reached)[1]] if reached else "uncertain"


@given(
    events=st.lists(
        st.tuples(
            scores_of_event,
            st.integers(0, 10),
            st.booleans(),
            st.sampled_from(["", "", "", "damaged"]),
        ),
        max_size=12,
    ),
    thresholds=st.lists(
        st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=3,
        max_size=3,
    ),
)
def test_the_rules(
    events: list[tuple[list[float], int, bool, str]], thresholds: list[float]
) -> None:
    scores = np.array([event[0] for event in events], np.float32).reshape(-1, 3)
    reasons = [event[3] for event in events]
    tags, why = assign_tags(
        scores,
        np.array([event[1] for event in events], np.int64),
        np.array([event[2] for event in events], np.bool_),
        reasons,
        CLASSES,
        thresholds,
        min_hits=5,
    )
    assert tags == [tag_by_rules(*event, thresholds) for event in events]
    for tag, reason, given_reason in zip(tags, why, reasons, strict=True):
        assert (reason == "") == (tag in CLASSES)
        if given_reason:
            assert reason == given_reason
    assert [len(tags), len(why)] == [len(events)] * 2


def test_an_event_unlike_the_training_events_is_uncertain() -> None:
    """Whatever its scores; but what could not be read or scored at all stays what it is."""
    nan = math.nan
    events = [  # proton score, hits, trigger, reason, novelty, tag
        (0.9, 9, False, "", 1.0, "proton"),
        (0.9, 9, False, "", 2.0, "proton"),
        (0.9, 9, False, "", 2.1, "uncertain"),
        (0.9, 9, False, "", math.inf, "uncertain"),
        (0.4, 9, False, "", 9.0, "uncertain"),
        (nan, 9, False, "", nan, "unreadable"),
        (nan, 2, False, "", nan, "uncertain"),
        (nan, 9, True, "", nan, "passthrough"),
        (nan, 9, False, "damaged", nan, "unreadable"),
    ]
    score, n_hits, trigger, reason, novelty, tags = zip(*events, strict=True)
    scores = np.array([[s, 0.05, 0.05] for s in score], np.float32)
    arguments = (scores, np.array(n_hits), np.array(trigger), list(reason), CLASSES, [0.5] * 3, 5)
    found, why = assign_tags(
        *arguments, novelty=np.array(novelty, np.float32), novelty_threshold=2.0
    )
    assert found == list(tags)
    unlike = [number for number, text in enumerate(why) if text == "unlike the training events"]
    assert unlike == [2, 3, 4]
    assert assign_tags(*arguments)[0][2:4] == ["proton", "proton"]


@pytest.mark.parametrize(
    ("scores", "thresholds", "tag"),
    [
        ([0.6, 0.4, 0.0], [0.5, 0.5, 0.5], "proton"),
        ([0.6, 0.4, 0.0], [0.7, 0.3, 0.5], "carbon"),
        ([0.6, 0.4, 0.0], [0.7, 0.5, 0.5], "uncertain"),
        ([0.5, 0.25, 0.25], [0.5, 0.5, 0.5], "proton"),
        ([0.7, 0.2, 0.1], [0.7, 0.5, 0.5], "proton"),  # 0.7 as float32 is less than 0.7
        ([0.0, 0.0, 1.0], [0.0, 0.0, 0.0], "noise"),
        ([0.9, math.nan, 0.1], [0.5, 0.5, 0.5], "unreadable"),
        ([math.inf, 0.0, 0.0], [0.5, 0.5, 0.5], "unreadable"),
    ],
)
def test_cases(scores: list[float], thresholds: list[float], tag: str) -> None:
    (found,), (why,) = assign_tags(
        np.array([scores], np.float32),
        np.array([9]),
        np.array([False]),
        [""],
        CLASSES,
        thresholds,
        5,
    )
    assert found == tag
    if tag == "unreadable":
        assert "not finite" in why


def test_a_class_that_is_not_asked_for() -> None:
    """The reason names the class that the event would have had."""
    scores = np.array([[0.9, 0, 0], [0, 0.9, 0], [0, 0, 0.9], [0.1, 0.2, 0.1]], np.float32)
    arguments = (scores, np.full(4, 9), np.zeros(4, np.bool_), [""] * 4, CLASSES, [0.5] * 3, 5)
    tags, why = assign_tags(*arguments, wanted=["carbon"])
    assert tags == ["uncertain", "carbon", "uncertain", "uncertain"]
    assert why == [
        "proton is not among the classes asked for",
        "",
        "noise is not among the classes asked for",
        "no class reaches its threshold",
    ]


def test_as_many_hits_as_the_model_needs() -> None:
    tags, why = assign_tags(
        np.array([[0.9, 0.0, 0.0]] * 3, np.float32),
        np.array([4, 5, 6]),
        np.zeros(3, np.bool_),
        [""] * 3,
        CLASSES,
        [0.5] * 3,
        5,
    )
    assert tags == ["uncertain", "proton", "proton"]
    assert why == ["4 hits, the model needs 5", "", ""]
