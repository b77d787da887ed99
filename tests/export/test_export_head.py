"""A new head on stored latents, through both command lines; labels and scikit-learn are the truth.

Fitted on the latents of one run and applied to another's, both unknown to the model that ships.
"""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs PyTorch, which only attpc-export uses")
pytest.importorskip("attpc_export", reason="needs attpc-export: pip install -e export")

from attpc_export.cli import main as export_main
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attpc_filter.cli import main
from attpc_filter.score.bundle import load_bundle
from tests import miniatures
from tests.conftest import read_manifest, read_tag_table, shared

CLASSES = ["proton", "carbon", "noise"]
FIT, JUDGE = 211, 201


def filter_run(run: Path, out: Path, *options: str) -> Path:
    """Filter a run, its latents kept."""
    more = ["--keep-latents", "--streams", "none", "--no-picture", "--device", "cpu"]
    assert main(["run", str(run), "--out", str(out), *more, *options]) == 0
    return out


@pytest.fixture(scope="module")
def labels() -> Path:
    return shared("test/labels_full.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of both runs, and of a run of another model."""
    place = tmp_path_factory.mktemp("head")
    for number in (FIT, JUDGE):
        filter_run(shared(f"test/full/run_{number:04d}.h5"), place / f"run_{number}")
    return place


@pytest.fixture(scope="module")
def of_another_model(tmp_path_factory: pytest.TempPathFactory, counter_model: Path) -> Path:
    place = tmp_path_factory.mktemp("another")
    run = miniatures.write_run("spyral_cloud", place / "run_0046.h5")
    return filter_run(run, place / "out", "--model", str(counter_model))


def truth(labels: Path, run: int) -> dict[int, str]:
    with labels.open(newline="") as file:
        return {
            int(row["event"]): row["label"]
            for row in csv.DictReader(file)
            if int(row["run"]) == run
        }


def some_labels(
    labels: Path, path: Path, keep: Callable[[dict[str, str]], bool], most: int = 10_000
) -> Path:
    """A table with some of the labels of the run that heads are fitted on."""
    with labels.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["run"]) == FIT and keep(row)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["run", "event", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[:most])
    return path


def fit(out: Path, labels: Path, *folders: Path, more: tuple[str, ...] = ()) -> int:
    return export_main(
        ["fit-retag-head", *map(str, folders), "--labels", str(labels), "--out", str(out), *more]
    )


def retagged(folder: Path, head: Path, where: Path) -> Path:
    """A copy of an output with the tags of a new head."""
    shutil.copytree(folder, where)
    assert main(["retag", str(where), "--head", str(head)]) == 0
    return where


def macro_f1(out: Path, labels: Path) -> float:
    """scikit-learn's, of the tags of a folder; an event of no class is a miss."""
    wanted = truth(labels, JUDGE)
    tags = read_tag_table(out / "tags" / f"run_{JUDGE:04d}.parquet")
    assert tags.keys() == wanted.keys()
    pairs = [(wanted[event], row["tag"]) for event, row in tags.items()]
    return float(f1_score(*zip(*pairs, strict=True), labels=CLASSES, average="macro"))


def test_all_labels_of_a_run_tag_as_well_as_the_models_own_head(
    folder: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = tmp_path / "head.json"
    group = ("--group-column", "source_event")
    assert fit(head, labels, folder / f"run_{FIT}", more=group) == 0
    said = capsys.readouterr().out
    own = folder / f"run_{JUDGE}"
    new = retagged(own, head, tmp_path / "new")
    assert macro_f1(own, labels) > 0.9
    assert macro_f1(new, labels) > macro_f1(own, labels) - 0.03
    entries = json.loads(head.read_text())
    assert entries["model_sha256"] == load_bundle("default").sha256
    assert entries["made"]["events"] == len(truth(labels, FIT))
    assert f"{len(truth(labels, FIT))} of" in said
    # events that it was not fitted on say the same as its cross-validation
    expected = np.mean(list(entries["made"]["f1"].values()))
    assert macro_f1(new, labels) == pytest.approx(expected, abs=0.05)
    assert f"macro {expected:.4f}" in said
    assert read_manifest(new)["history"][-1]["head_sha256"]


def test_it_is_scikit_learns_regression(folder: Path, labels: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.json"
    assert fit(head, labels, folder / f"run_{FIT}", more=("--inverse-regularisation", "0.1")) == 0
    new = retagged(folder / f"run_{JUDGE}", head, tmp_path / "new")

    def latents(run: int) -> np.ndarray:
        table = pq.read_table(folder / f"run_{run}" / "latents" / f"run_{run:04d}.parquet")
        return np.array(table.column("latent").to_pylist())

    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    ).fit(latents(FIT), list(truth(labels, FIT).values()))
    logits = model.decision_function(latents(JUDGE))
    temperature = json.loads(head.read_text())["made"]["temperature"]
    wanted = np.exp(logits / temperature)
    wanted /= wanted.sum(axis=1, keepdims=True)
    table = pq.read_table(new / "tags" / f"run_{JUDGE:04d}.parquet")
    for name, column in zip(model.classes_, wanted.T, strict=True):
        np.testing.assert_allclose(table.column(f"score_{name}").to_numpy(), column, atol=2e-3)


def test_a_hundred_labels_are_enough(folder: Path, labels: Path, tmp_path: Path) -> None:
    few = some_labels(labels, tmp_path / "few.csv", lambda _: True, 100)
    assert fit(tmp_path / "head.json", few, folder / f"run_{FIT}") == 0
    new = retagged(folder / f"run_{JUDGE}", tmp_path / "head.json", tmp_path / "new")
    assert macro_f1(new, labels) > 0.85


def test_a_class_without_labels_is_never_given(folder: Path, labels: Path, tmp_path: Path) -> None:
    two = some_labels(labels, tmp_path / "two.csv", lambda row: row["label"] != "carbon")
    assert fit(tmp_path / "head.json", two, folder / f"run_{FIT}") == 0
    assert json.loads((tmp_path / "head.json").read_text())["classes"] == ["proton", "noise"]
    new = retagged(folder / f"run_{JUDGE}", tmp_path / "head.json", tmp_path / "new")
    rows = read_tag_table(new / "tags" / f"run_{JUDGE:04d}.parquet")
    wanted = truth(labels, JUDGE)
    assert {row["score_carbon"] for row in rows.values()} == {0.0}
    right = [row["tag"] == wanted[n] for n, row in rows.items() if wanted[n] != "carbon"]
    assert np.mean(right) > 0.9


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    return error


def test_latents_of_another_model(
    folder: Path,
    of_another_model: Path,
    labels: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    head = tmp_path / "head.json"
    assert fit(head, labels, folder / f"run_{FIT}") == 0
    before = read_tag_table(of_another_model / "tags" / "run_0046.parquet")
    capsys.readouterr()
    assert main(["retag", str(of_another_model), "--head", str(head)]) == 2
    error = one_line(capsys)
    shipped = load_bundle("default").sha256[:12]
    other = read_manifest(of_another_model)["model"]["sha256"][:12]
    assert f"fitted on latents of model {shipped}" in error
    assert f"those of model {other}" in error
    assert read_tag_table(of_another_model / "tags" / "run_0046.parquet") == before
    assert fit(tmp_path / "mixed.json", labels, folder / f"run_{FIT}", of_another_model) == 2
    assert "latents of one model" in one_line(capsys)
    assert not (tmp_path / "mixed.json").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("run,event,label\n211,0,alpha\n", "none of the classes proton, carbon, noise"),
        ("run,event,label\n", "two classes or more"),
        ("run,event,label\n1,0,proton\n1,1,noise\n", "0 of the 500 scored events"),
        ("run,event,label\n211,0,proton\n211,1,noise\n211,2,noise\n", "label more"),
        ("run,event\n211,0\n", "no column label"),
    ],
)
def test_labels_that_do_not_do(
    folder: Path, table: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_text(table)
    assert fit(tmp_path / "head.json", tmp_path / "labels.csv", folder / f"run_{FIT}") == 2
    assert words in one_line(capsys)
    assert not (tmp_path / "head.json").exists()


def test_folders_that_do_not_do(
    folder: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = tmp_path / "head.json"
    assert fit(head, labels, tmp_path) == 2
    assert "output folder of attpc-filter run" in one_line(capsys)
    assert fit(head, labels, folder / f"run_{FIT}", folder / f"run_{FIT}") == 2
    assert "give each run once" in one_line(capsys)
    run = miniatures.write_run("spyral_cloud", tmp_path / "run_0046.h5")
    options = ["--out", str(tmp_path / "bare"), "--streams", "none", "--no-picture"]
    assert main(["run", str(run), *options]) == 0
    capsys.readouterr()
    assert fit(head, labels, tmp_path / "bare") == 2
    assert "--keep-latents" in one_line(capsys)
