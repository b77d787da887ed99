"""Heads that cluster: what scikit-learn assigns, what a cluster is called, and every bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attpc_export.bundles.export import export_graph
from attpc_export.bundles.write import write_bundle
from attpc_export.cli import main
from attpc_export.data.labelled import load_events
from attpc_export.heads.clusters import (
    ClusterHead,
    ClusterScores,
    fit_clusters,
    own_clusters,
    share_by_labels,
    share_by_names,
)
from attpc_export.heads.linear import Head, ScoringModel, fit_head, load_head, save_head
from attpc_export.metrics import tag_scores
from attpc_export.models.base import LatentModel
from attpc_export.models.registry import build_model
from attpc_export.training.run_folder import load_run
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from attpc_filter.cli import main as filter_main
from attpc_filter.output.tag_table import read_tags, scores_of
from attpc_filter.rebuild.clean import clean_hits
from attpc_filter.rebuild.detector import ZCalibration
from attpc_filter.rebuild.hits import HitSettings
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.score.bundle import Contract, EventClass, load_bundle
from attpc_filter.score.contract import ModelDetector
from attpc_filter.score.scorer import Scorer
from tests.conftest import SHARED, shared
from tests.export.conftest import Training, train_arguments, write_config
from tests.export.test_export_models import blobs, make_tiny

CLASSES = (EventClass("proton", 2212, 0.4), EventClass("carbon", 0, 0.4), EventClass("noise"))


class Identity(LatentModel):
    """The latent is the image."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.latent_size = size

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def loss(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def latent() -> NDArray[np.float32]:
    """Three groups of different size and shape in 12 dimensions, far from the origin."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12))
    parts = [rng.normal(c, s, (n, 12)) for c, s, n in ((0, 1, 200), (4, 0.5, 80), (-5, 2, 120))]
    return (np.concatenate(parts) @ mix / 3 + 30.0).astype(np.float32)


def assigned(head: ClusterHead, latent: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        found = ClusterScores(head, Identity(latent.shape[1])).clusters(torch.from_numpy(latent))
    return found.exp().numpy().astype(np.float64)


@pytest.mark.parametrize("components", [0, 4])
def test_k_means_takes_the_nearest_centre(latent: NDArray[np.float32], components: int) -> None:
    head = fit_clusters("kmeans", latent, 3, components, seed=1)
    found = assigned(head, latent)
    place = latent.astype(np.float64)
    if components:
        place = PCA(components, random_state=1).fit_transform(place)
    expected = KMeans(3, n_init=10, random_state=1).fit(place)
    assert adjusted_rand_score(expected.labels_, found.argmax(axis=1)) == 1.0
    # half of the events are sure
    assert 0.98 < np.median(found.max(axis=1)) < 1.0
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("components", [0, 4])
def test_the_mixture_gives_scikit_learns_probabilities(
    latent: NDArray[np.float32], components: int
) -> None:
    place = latent.astype(np.float64)
    if components:
        place = PCA(components, random_state=1).fit_transform(place)
    expected = GaussianMixture(3, n_init=3, random_state=1, reg_covar=1e-4).fit(
        place - place.mean(axis=0)
    )
    found = assigned(fit_clusters("mixture", latent, 3, components, seed=1), latent)
    probabilities = expected.predict_proba(place - place.mean(axis=0))
    order = [int(np.argmax(probabilities.T @ (found.argmax(axis=1) == k))) for k in range(3)]
    np.testing.assert_allclose(found, probabilities[:, order], atol=2e-3)


def test_clusters_are_what_most_of_their_labelled_events_are() -> None:
    cluster = np.array([0, 0, 0, 1, 1, 1, 1, 2, 0])
    label = np.array([1, 1, 0, 0, 0, -1, -1, -1, -1])
    share = share_by_labels(cluster, label, 3, 2)
    counts = np.array([[1, 2], [2, 0], [0, 0]]) + 0.5
    expected = counts / [3, 2]
    np.testing.assert_allclose(share, expected / expected.sum(axis=1, keepdims=True))
    assert share[0].argmax() == 1
    assert share[1].argmax() == 0
    named = share_by_names(("noise", "proton", "noise"), ["proton", "carbon", "noise"])
    assert named.argmax(axis=1).tolist() == [2, 0, 2]
    assert named.sum() == 3


@pytest.mark.parametrize(("kind", "components"), [("kmeans", 4), ("kmeans", 0), ("mixture", 3)])
def test_a_head_is_read_as_it_was_written(
    latent: NDArray[np.float32], tmp_path: Path, kind: Any, components: int
) -> None:
    head = fit_clusters(kind, latent, 3, components, seed=1)
    save_head(head, tmp_path / "head.json")
    found = load_head(tmp_path / "head.json")
    assert isinstance(found, ClusterHead)
    np.testing.assert_allclose(assigned(found, latent), assigned(head, latent), atol=1e-6)


KINDS_AND_HEADS = [
    ("autoencoder", "logistic"),
    ("ar0", "kmeans"),
    ("vae", "mixture"),
    ("ar1", "logistic"),
    ("backbone", "kmeans"),
    ("dcec", "own"),
    ("draw", "logistic"),
    ("draw, attention", "mixture"),
    ("duelling", "kmeans"),
    ("mixae", "own"),
]


@pytest.mark.parametrize(("kind", "head"), KINDS_AND_HEADS)
def test_a_bundle_gives_what_pytorch_gives_and_the_same_tags(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, kind: str, head: Any
) -> None:
    check_bundle(tmp_path_factory, tmp_path, kind, head, 60)


@pytest.mark.campaign
@pytest.mark.parametrize(("kind", "head"), KINDS_AND_HEADS)
def test_a_bundle_gives_the_same_tags_for_all_events_of_a_run(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, kind: str, head: Any
) -> None:
    check_bundle(tmp_path_factory, tmp_path, kind, head, None)


def check_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    kind: str,
    head: Any,
    most: int | None,
) -> None:
    """Compare for made-up events, and for so many of a simulated run."""
    torch.manual_seed(0)
    tiny: Callable[[str], Any] = make_tiny(tmp_path_factory)
    images = torch.from_numpy(blobs(70))
    label = np.arange(70) % 3
    if kind in ("ar1", "backbone"):
        images = torch.nn.functional.interpolate(images, size=32)
    images = images + 0.02 * torch.rand_like(images)
    if SHARED.exists():  # the events of a run besides
        images = torch.cat([images, torch.from_numpy(shared_images(images.shape[-1])[:most])])
        label = np.arange(len(images)) % 3
    images[0], images[1] = 0.0, 1.0
    shape: tuple[int, int, int] = tuple(images.shape[1:])  # type: ignore[assignment]
    model = build_model(tiny(kind), shape).eval()
    with torch.no_grad():
        latent = model.encode(images).numpy()
    fitted: Head | ClusterHead
    if head == "logistic":
        fitted = fit_head(latent, label, 1.0)
    else:
        own = head == "own"
        clusters = own_clusters() if own else fit_clusters(head, latent, 4, 2, seed=1)
        found = ClusterScores(clusters, model).clusters(torch.from_numpy(latent))
        share = share_by_labels(found.argmax(1).numpy(), label, found.shape[1], 3)
        fitted = ClusterHead(**{**_entries(clusters), "share": share})
    scoring = ScoringModel(model, fitted)
    contract = Contract(
        name="tiny",
        description="",
        classes=CLASSES,
        hits=HitSettings(),
        detector=ModelDetector(),
        projection=ProjectionSettings(size=shape[1]),
    )
    path = tmp_path / "tiny.onnx"
    write_bundle(export_graph(scoring, contract), contract, path, lambda _: None)
    with torch.no_grad():
        expected = scoring(images)[0].numpy()
    for batch_size in (1, 64):
        scorer = Scorer(load_bundle(str(path)), "cpu", batch_size=batch_size)
        ran = scorer.run({"projection": images.numpy()}, ["scores", "latent"])
        scores, latents = ran["scores"], ran["latent"]
        assert np.abs(scores - expected).max() <= 1e-4
        assert np.abs(latents - latent).max() <= 1e-4 * max(1.0, np.abs(latent).max())
        counts = np.full(len(images), 100)
        tags = [tag_scores(part, counts, CLASSES, HitSettings()) for part in (scores, expected)]
        np.testing.assert_array_equal(*tags)
    assert np.allclose(scores.sum(axis=1), 1.0, atol=1e-5)


def shared_images(size: int) -> NDArray[np.float32]:
    """x-y projections of a shared run."""
    events = load_events(
        [shared("train/full/run_0101.h5")],
        [shared("train/labels_full.csv")],
        [event_class.name for event_class in CLASSES],
        HitSettings(),
        ZCalibration(),
    )
    return project(events.hits, ProjectionSettings(size=size, scale=10.0))


def _entries(head: ClusterHead) -> dict[str, Any]:
    return {name: getattr(head, name) for name in ClusterHead.__dataclass_fields__}


DCEC = {
    "kind": "dcec",
    "convolutions": {"filters": [8, 8], "kernels": [3, 3], "normalise": False},
    "latent_size": 5,
    "pretraining_epochs": 2,
    "target_epochs": 1,
}


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        ({"kind": "kmeans", "clusters": 5, "components": 3, "cluster_labels": 40}, {}),
        ({"kind": "own", "cluster_classes": ["proton", "noise", "carbon"]}, {"model": DCEC}),
    ],
)
def test_a_clustering_is_trained_and_exported(
    training: Training, tmp_path: Path, head: dict[str, Any], changes: dict[str, Any]
) -> None:
    fit = {"epochs": 4, "label_weight": 0.0, "reconstruction_weight": 1.0, "average_decay": 0.0}
    clean = {"mode": "neighbours", "radius_mm": 60.0}
    config = write_config(
        tmp_path / "c.yaml", head=head, fit=fit, augment={"vary": False}, clean=clean
    )
    if changes:  # the model's own keys replace those of the tiny one
        import yaml

        entries = yaml.safe_load(config.read_text()) | changes
        config.write_text(yaml.safe_dump(entries))
    out = tmp_path / "run"
    assert main(train_arguments(config, training.data, training.labels, out)) == 0
    assert main(["export", str(out), "--out", str(tmp_path / "c.onnx")]) == 0
    bundle = load_bundle(str(tmp_path / "c.onnx"))
    assert bundle.contract.clean.mode == "neighbours"
    scoring, _ = load_run(out)
    assert isinstance(scoring.head, ClusterScores)
    if "cluster_classes" in head:
        assert scoring.head.share.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    else:
        assert scoring.head.share.shape == (5, 3)

    # filtering tags every event as PyTorch does
    arguments = ["run", training.data, "--model", tmp_path / "c.onnx", "--out", tmp_path / "out"]
    assert filter_main([*map(str, arguments), "--streams", "none", "--device", "cpu"]) == 0
    (path,) = (tmp_path / "out").rglob("*.parquet")
    table, _ = read_tags(path)
    contract = bundle.contract
    names = [c.name for c in contract.classes]
    events = load_events(
        [training.data], [training.labels], names, contract.hits, contract.detector.calibration
    )
    hits = clean_hits(events.hits, contract.clean)
    assert len(hits.x) < len(events.hits.x)
    assert contract.projection is not None
    with torch.no_grad():
        expected = scoring(torch.from_numpy(project(hits, contract.projection)))[0].numpy()
    assert np.abs(scores_of(table, names) - expected).max() <= 1e-4
    wanted = tag_scores(expected, events.hits.counts, contract.classes, contract.hits)
    assert table["tag"].to_pylist() == wanted


def test_a_wrong_head_is_one_clear_line(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (head, word) in enumerate(
        [
            ({"kind": "own"}, "no clusters of its own"),
            ({"kind": "kmeans", "cluster_classes": ["proton"]}, "names 1 clusters, there are 3"),
            ({"kind": "kmeans", "cluster_classes": ["muon"]}, "'muon' is none of the classes"),
            ({"kind": "median"}, "'median' is none of"),
            ({"kind": "kmeans", "clusters": 1}, "at least 2"),
        ]
    ):
        config = write_config(tmp_path / f"{number}.yaml", head=head, fit={"epochs": 1})
        out = tmp_path / f"run{number}"
        arguments = train_arguments(config, training.data, training.labels, out)
        capsys.readouterr()
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert word in error, error
