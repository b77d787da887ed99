"""From a bundle that learned without labels to one that filters: few labels, named clusters."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from attpc_export.cli import main
from attpc_export.heads.kernel import KernelScores, fit_kernel
from attpc_export.heads.spectral import find_clusters
from attpc_export.labels.name_clusters import NAMES_NAME, choose_shown, score_clusters
from attpc_export.labels.suggest import choose_events, choose_sure
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler

from attpc_filter.cli import main as filter_main
from attpc_filter.output.tag_table import read_tags
from tests.export.generated import CLASSES, LABELS, write_run

N_EVENTS = 240
TINY: dict[str, Any] = {
    "name": "tiny",
    "classes": CLASSES,
    "points": {"n_points": 64},
    "model": {
        "kind": "points",
        "points": {"width": 16, "message": 4, "layers": 1, "harmonics": 4, "latent_size": 8},
    },
    "fit": {"learn": "changes", "epochs": 1, "batch_size": 32},
    "head": {"kind": "none"},
}


@dataclass(frozen=True)
class Start:
    """A bundle without a head of its own, a run, and its labels."""

    bundle: Path
    run_folder: Path
    data: Path
    labels: Path

    @property
    def truth(self) -> dict[int, str]:
        with self.labels.open() as file:
            return {int(row["event"]): row["label"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    folder = tmp_path_factory.mktemp("few")
    data, labels = write_run(folder / "data", 7, N_EVENTS, seed=1)
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    arguments = ["--data", str(data), "--out", str(folder / "run"), "--device", "cpu"]
    assert main(["train", str(config), *arguments]) == 0
    assert main(["export", str(folder / "run"), "--out", str(folder / "b.onnx")]) == 0
    return Start(folder / "b.onnx", folder / "run", data, labels)


@pytest.fixture(scope="module")
def few(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 30 labels."""
    path = tmp_path_factory.mktemp("labels") / "few.csv"
    lines = start.labels.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:31]))
    return path


def tags_of(bundle: Path, data: Path, out: Path) -> dict[int, str]:
    assert filter_main(["run", str(data), "--model", str(bundle), "--out", str(out)]) == 0
    table, _ = read_tags(next(out.glob("**/*.parquet")))
    return dict(
        zip(table.column("event").to_pylist(), table.column("tag").to_pylist(), strict=True)
    )


def width_of(picture: Path) -> int:
    with Image.open(picture) as image:
        return image.size[0]


def share_right(tags: dict[int, str], truth: dict[int, str]) -> float:
    return float(np.mean([tags[event] == label for event, label in truth.items()]))


@pytest.mark.parametrize("kind", ["kernel", "logistic"])
def test_a_few_labels_make_a_bundle_that_filters(
    kind: str, start: Start, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "few.onnx"
    arguments = ["--data", str(start.data), "--labels", str(few), "--kind", kind]
    assert main(["fit-bundle-head", str(start.bundle), *arguments, "--out", str(out)]) == 0
    assert "10 proton, 10 carbon, 10 noise" in capsys.readouterr().out
    assert share_right(tags_of(out, start.data, tmp_path / "out"), start.truth) > 0.8
    for node in onnx.load(out).graph.node:
        assert not node.metadata_props  # no path of the machine that made it


def test_a_class_without_labels_is_named(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("run,event,label\n7,0,proton\n7,3,proton\n7,2,noise\n7,5,noise\n")
    arguments = ["--data", str(start.data), "--labels", str(labels)]
    assert (
        main(["fit-bundle-head", str(start.bundle), *arguments, "--out", str(tmp_path / "x.onnx")])
        == 2
    )
    assert "0 carbon among the events" in capsys.readouterr().err


def test_named_clusters_make_a_bundle_that_filters(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "clusters", tmp_path / "named.onnx"
    arguments = [str(start.bundle), "--data", str(start.data)]
    assert main(["find-clusters", *arguments, "--out", str(folder), "--clusters", "6"]) == 0
    assert width_of(folder / "clusters.png") > 1000
    with (folder / "clusters.csv").open() as file:
        cluster = {int(row["event"]): int(row["cluster"]) for row in csv.DictReader(file)}
    assert len(cluster) == N_EVENTS

    naming = ["name-clusters", str(start.bundle), str(folder), "--data", str(start.data)]
    assert main([*naming, "--out", str(out)]) == 2
    assert "cluster 1 is '?'" in capsys.readouterr().err
    entries = yaml.safe_load((folder / NAMES_NAME).read_text())
    names = {}
    for number in entries["clusters"]:
        members = [start.truth[event] for event in cluster if cluster[event] == number]
        names[number] = max(LABELS, key=members.count)
    (folder / NAMES_NAME).write_text(yaml.safe_dump(entries | {"clusters": names}))
    assert main([*naming, "--out", str(out)]) == 0
    tags = tags_of(out, start.data, tmp_path / "out")
    expected = {event: names[number] for event, number in cluster.items()}
    decided = [event for event in tags if tags[event] in LABELS]
    assert len(decided) > 0.9 * N_EVENTS
    assert all(tags[event] == expected[event] for event in decided)

    assert main(["find-clusters", *arguments, "--out", str(folder)]) == 2  # names are never lost
    assert "holds clusters already" in capsys.readouterr().err


def test_suggestions_are_a_table_of_labels_to_fill_in(
    start: Start, few: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ask.csv"
    arguments = ["--data", str(start.data), "--labels", str(few), "--events", "12"]
    assert main(["suggest", str(start.bundle), *arguments, "--out", str(out)]) == 0
    assert width_of(out.with_suffix(".png")) > 1000
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["event"] for row in rows}) == 12
    assert min(int(row["event"]) for row in rows) >= 30  # the others have labels
    for row in rows:
        row["label"] = start.truth[int(row["event"])]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    arguments = ["--data", str(start.data), "--labels", str(few), str(out)]
    assert (
        main(["fit-bundle-head", str(start.bundle), *arguments, "--out", str(tmp_path / "b.onnx")])
        == 0
    )


def test_pseudo_labels_are_a_table_to_train_with(start: Start, few: Path, tmp_path: Path) -> None:
    teacher, out = tmp_path / "teacher.onnx", tmp_path / "pseudo.csv"
    arguments = ["--data", str(start.data), "--labels", str(few)]
    assert main(["fit-bundle-head", str(start.bundle), *arguments, "--out", str(teacher)]) == 0
    assert main(["pseudo-labels", str(teacher), *arguments, "--out", str(out)]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == pytest.approx(0.8 * (N_EVENTS - 30), abs=3)
    assert min(int(row["event"]) for row in rows) >= 30
    right = np.mean([row["label"] == start.truth[int(row["event"])] for row in rows])
    assert right > 0.8
    config = TINY | {"fit": {"epochs": 1}, "head": {"draws": 0}, "split": {"validation": 0.2}}
    config |= {"augment": {"moved": 0.1, "cut": 0.1}}
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump(config))
    more = ["--start", str(start.run_folder), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["train", str(path), *arguments, str(out), *more]) == 0


@pytest.fixture(scope="module")
def latent() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three classes in two of four dimensions, each of another scale."""
    rng = np.random.default_rng(0)
    label = np.arange(300) % 3
    centre = np.array([[0, 0, 0, 0], [4, 0, 0, 0], [0, 4, 0, 0]])[label]
    place = (centre + rng.normal(size=(300, 4))) * [1.0, 10.0, 0.1, 1.0] + [3.0, 0.0, 0.0, 5.0]
    return place.astype(np.float32), label


def test_the_kernel_machine_is_kernel_logistic_regression(
    latent: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    place, label = latent
    head = fit_kernel(place[:100], label[:100], 20.0, place)
    with torch.no_grad():
        scores = KernelScores(head)(torch.from_numpy(place)).numpy()
    # scikit-learn, another way: the square root of the kernel's matrix as features
    standard = StandardScaler().fit(place).transform(place)
    similar = rbf_kernel(standard, standard[:100], gamma=0.3 / 4)
    values, vectors = np.linalg.eigh(similar[:100])
    root = vectors / np.sqrt(np.maximum(values, 1e-12)) @ vectors.T
    regression = LogisticRegression(C=20.0, class_weight="balanced", max_iter=2000)
    regression.fit(similar[:100] @ root, label[:100])
    expected = regression.predict_proba(similar @ root)
    assert np.abs(scores - expected).max() < 0.02
    assert (scores.argmax(1) == label)[100:].mean() > 0.9


def test_clusters_of_any_shape_are_found_and_are_stable() -> None:
    place, truth = make_moons(600, noise=0.05, random_state=0)
    found = find_clusters(place.astype(np.float32), 2, seed=0)
    score = score_clusters(found.head, place.astype(np.float32))
    assert adjusted_rand_score(truth, score.argmax(1)) > 0.95  # k-means: about 0.25
    assert found.stability[2] > 0.95
    shown = choose_shown(score, 0)
    assert [len(np.unique(rows)) for rows in shown] == [20, 20]
    for number, rows in enumerate(shown):
        assert (score.argmax(1)[rows] == number).all()


def test_the_number_of_clusters_is_found() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, 800)
    place = rng.normal(size=(800, 6)) * 0.3 + rng.normal(size=(5, 6))[truth] * 3.0
    assert find_clusters(place.astype(np.float32), 0, seed=0).n_clusters == 5


def test_suggested_events_are_uncertain_and_apart(
    latent: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    place, _ = latent
    certainty = np.linspace(0.4, 1.0, 300, dtype=np.float32)
    scores = np.stack([certainty, (1 - certainty) / 2, (1 - certainty) / 2], 1)
    is_labelled = np.arange(300) < 5
    chosen = [s.row for s in choose_events(place, scores, is_labelled, 8)]
    assert len(set(chosen)) == 8
    assert min(chosen) >= 5
    assert max(chosen) < 85  # of the 80 with the smallest margins
    standard = (place - place.mean(0)) / place.std(0)

    def closest(rows: Any) -> float:
        apart = np.linalg.norm(standard[rows][:, None] - standard[rows], axis=2)
        return float(apart[np.triu_indices(len(rows), 1)].min())

    assert closest(chosen) > 2 * closest(list(range(5, 13)))


def test_the_surest_of_each_class_get_its_label() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]], np.float32)
    label = np.array([-1, -1, 1, -1, -1])
    assert choose_sure(scores, label, 0.5).tolist() == [0, -1, -1, 1, -1]
    assert choose_sure(scores, label, 1.0).tolist() == [0, 0, -1, 1, 1]
