"""The scorer: one fixed batch shape inside, any number of events outside."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from tests import tiny_models


def images_with(counts: list[int]) -> dict[str, NDArray[np.float32]]:
    """An image an event, with so many lit pixels."""
    images = np.zeros((len(counts), 1, 64, 64), np.float32)
    for image, count in zip(images, counts, strict=True):
        image.reshape(-1)[:count] = 0.5
    return {"projection": images}


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 80), max_size=40),
    batch_size=st.sampled_from([1, 3, 8, 64]),
)
def test_scores_do_not_depend_on_the_batch(
    counts: list[int], batch_size: int, counter_model: Path
) -> None:
    scorer = Scorer(load_bundle(str(counter_model)), "cpu", batch_size=batch_size)
    scores = scorer.score(images_with(counts))
    assert scores.shape == (len(counts), 3)
    assert scores.dtype == np.float32
    for count, row in zip(counts, scores, strict=True):
        np.testing.assert_allclose(row, tiny_models.scores_of(count), atol=1e-6)


def test_images_and_points_are_fed_together(tmp_path: Path) -> None:
    """Both are cut into batches alike, and nothing of one batch is left in the next."""
    points = {"n_points": 256, "radius_mm": 280.0, "z_low_mm": -50.0, "z_high_mm": 1050.0}
    text = json.dumps(tiny_models.contract(points=points))
    model = tiny_models.write_model(tmp_path / "both.onnx", text, reads=("projection", "points"))
    scorer = Scorer(load_bundle(str(model)), "cpu", batch_size=3)
    lit, filled = [10, 40, 0, 20, 5], [0, 20, 33, 9, 6]
    inputs = images_with(lit) | {"points": np.zeros((5, 256, 5), np.float32)}
    for rows, n in zip(inputs["points"], filled, strict=True):
        rows[:n] = 1.0
    for _ in range(2):
        scores, latents = scorer.run(inputs, ["scores", "latent"]).values()
        assert latents[:, 0].tolist() == [10, 60, 33, 29, 11]
        for total, row in zip(latents[:, 0], scores, strict=True):
            np.testing.assert_allclose(row, tiny_models.scores_of(int(total)), atol=1e-6)


def test_what_the_graph_makes_of_one_event_is_not_seen_by_the_next(tmp_path: Path) -> None:
    """NaN for one event of a batch leaves the others' scores as they are."""
    model = tiny_models.write_model(tmp_path / "nan.onnx", nan_above=40)
    scorer = Scorer(load_bundle(str(model)), "cpu", batch_size=4)
    scores = scorer.score(images_with([10, 60, 30, 41, 30, 10, 60]))
    finite = np.isfinite(scores).all(axis=1)
    assert finite.tolist() == [True, False, True, False, True, True, False]
    np.testing.assert_allclose(scores[4], tiny_models.scores_of(30), atol=1e-6)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this machine's ONNX Runtime has CUDA",
)
def test_without_cuda(counter_model: Path) -> None:
    bundle = load_bundle(str(counter_model))
    for device in ("cuda", "cuda:1"):
        with pytest.raises(UsageError, match="--device cpu"):
            Scorer(bundle, device)
    assert Scorer(bundle, "auto").device == "cpu"


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs a GPU and onnxruntime-gpu",
)
def test_with_cuda(counter_model: Path) -> None:
    bundle = load_bundle(str(counter_model))
    counts = [0, 10, 20, 30, 60, 80]
    scorer = Scorer(bundle, "cuda")
    assert scorer.device == "cuda"
    on_cpu = Scorer(bundle, "cpu").score(images_with(counts))
    np.testing.assert_allclose(scorer.score(images_with(counts)), on_cpu, atol=1e-4)


def test_inputs_made_in_its_room_are_those_scored(counter_model: Path) -> None:
    """Batch after batch in the same room, now fewer events and now more."""
    scorer = Scorer(load_bundle(str(counter_model)), "cpu", batch_size=8)
    rng = np.random.default_rng(1)
    for n_events in [8, 3, 8, 1]:
        counts = rng.integers(0, 80, n_events).tolist()
        room = scorer.buffers["projection"][:n_events]
        room[:] = images_with(counts)["projection"]
        assert scorer.run({"projection": room}, ["latent"])["latent"][:, 0].tolist() == counts


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CUDA", ""])
def test_a_device_that_is_none(device: str, counter_model: Path) -> None:
    with pytest.raises(UsageError, match="none of auto, cpu, cuda, cuda:N"):
        Scorer(load_bundle(str(counter_model)), device)
