"""One table of many models: what is in it, and that it goes on where it stopped."""

import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from attpc_export.cli import main
from attpc_export.compare import cluster_accuracy
from attpc_export.data import load_events
from sklearn.metrics import f1_score

from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from tests.export.conftest import write_config
from tests.export.generated import write_run


def test_accuracy_is_that_of_the_best_pairing() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60)
    cluster = np.where(rng.random(60) < 0.7, (label + 1) % 3, rng.integers(0, 3, 60))
    expected = max(
        np.mean(np.array(names)[cluster] == label) for names in itertools.permutations(range(3))
    )
    assert cluster_accuracy(cluster, label) == pytest.approx(expected)
    assert cluster_accuracy(np.zeros(60, int), label) == np.bincount(label).max() / 60
    # a fourth cluster belongs to no class
    assert cluster_accuracy(np.where(np.arange(60) < 6, 3, label), label) == pytest.approx(0.9)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan of two presets on two levels, of which one lacks a class."""
    write_run(tmp_path / "data" / "train", 7, 90, seed=1)
    write_run(tmp_path / "data" / "test", 8, 60, seed=2)
    for part, run in (("train", 7), ("test", 8)):
        rows = (tmp_path / "data" / part / f"labels_{run}.csv").read_text().splitlines()
        two = [row for row in rows if ",noise," not in row]
        (tmp_path / "data" / f"{part}_two.csv").write_text("\n".join(two) + "\n")
    fit = {"epochs": 3, "label_weight": 0.0, "average_decay": 0.0}
    write_config(tmp_path / "plain.yaml", fit=fit)
    head = {"kind": "kmeans", "clusters": 4}
    write_config(tmp_path / "groups.yaml", fit=fit, head=head, augment={"vary": False})
    levels = [
        {
            "name": name,
            "train": ["train"],
            "test": ["test"],
            "train_labels": labels.format("train", 7),
            "test_labels": labels.format("test", 8),
            "clean": {"mode": mode, "radius_mm": 60.0},
        }
        for name, labels, mode in (
            ("full", "{0}/labels_{1}.csv", "neighbours"),
            ("two", "{0}_two.csv", "none"),
        )
    ]
    cells = [
        {"row": "Plain", "level": "full", "preset": "plain.yaml", "thesis": "0.7 ± 0.1"},
        {"row": "Plain", "level": "two", "preset": "plain.yaml"},
        {"row": "Groups", "level": "full", "preset": "groups.yaml", "seeds": [5]},
    ]
    path = tmp_path / "plan.yaml"
    entries = {"levels": levels, "cells": cells, "seeds": [1, 2], "epochs": 1, "size": 32}
    path.write_text(yaml.safe_dump(entries, allow_unicode=True))
    return path


def run(plan: Path, *more: str) -> int:
    folder = plan.parent
    paths = ["--data", str(folder / "data"), "--out", str(folder / "runs")]
    return main(["compare", str(plan), *paths, "--tables", str(folder), "--device", "cpu", *more])


def test_a_comparison_is_one_table_and_goes_on(plan: Path) -> None:
    folder = plan.parent
    assert run(plan, "--only", "Groups") == 0
    assert [path.name for path in (folder / "runs").iterdir()] == ["groups-full-5"]
    assert run(plan) == 0
    names = {path.name for path in (folder / "runs").iterdir()}
    plain = {f"plain-{level}-{seed}" for level in ("full", "two") for seed in (1, 2)}
    assert names == plain | {"groups-full-5"}
    with (folder / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["level"], r["seed"]) for r in rows] == [
        ("Plain", "full", "1"),
        ("Plain", "full", "2"),
        ("Plain", "two", "1"),
        ("Plain", "two", "2"),
        ("Groups", "full", "5"),
    ]
    assert all(row["epochs"] == "1" for row in rows)
    assert rows[2]["f1_noise"] == ""
    assert rows[0]["ari"] == ""
    assert -1 <= float(rows[4]["ari"]) <= 1
    config = yaml.safe_load((folder / "runs" / "plain-two-1" / "config.yaml").read_text())
    assert [c["name"] for c in config["classes"]] == ["proton", "carbon"]
    assert config["projection"]["size"] == 32

    table = (folder / "accuracy.md").read_text().splitlines()
    assert table[2] == "| | full | two |"
    mean = np.mean([float(row["macro_f1"]) for row in rows[:2]])
    spread = np.std([float(row["macro_f1"]) for row in rows[:2]], ddof=1)
    assert f"| Plain | {mean:.3f} ± {spread:.3f} (2) [0.7 ± 0.1] |" in table[4]
    assert table[5].endswith("(1) | - |")

    # what is there is not done again; what is missing is
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/test.json")}
    (folder / "runs" / "plain-two-1" / "test.json").unlink()
    shutil.rmtree(folder / "runs" / "plain-full-2")
    assert run(plan) == 0
    after = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/test.json")}
    changed = {path.parent.name for path in before if before[path] != after[path]}
    assert changed == {"plain-two-1", "plain-full-2"}

    # the bundle on the same events says the same
    path = folder / "plain.onnx"
    assert main(["export", str(folder / "runs" / "plain-full-1"), "--out", str(path)]) == 0
    bundle = load_bundle(str(path))
    contract = bundle.contract
    events = load_events(
        [folder / "data" / "test"],
        [folder / "data" / "test" / "labels_8.csv"],
        [c.name for c in contract.classes],
        contract.hits,
        contract.detector,
    )
    tag = Scorer(bundle, "cpu").score(contract.make_inputs(events.hits)).argmax(axis=1)
    found = json.loads((folder / "runs" / "plain-full-1" / "test.json").read_text())
    assert found["events"] == 60
    assert found["macro_f1"] == pytest.approx(
        f1_score(events.label, tag, average="macro"), abs=1e-5
    )


def test_a_wrong_plan_is_one_clear_line(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, entries, word in (
        (["--only", "Nobody"], {}, "no row 'Nobody'"),
        ([], {"cells": [{"row": "Plain", "level": "fill", "preset": "plain.yaml"}]}, "'fill'"),
        ([], {"seed": [1]}, "'seeds'"),
    ):
        changed = yaml.safe_load(plan.read_text()) | entries
        other = plan.with_name("other.yaml")
        other.write_text(yaml.safe_dump(changed))
        capsys.readouterr()
        assert run(other, *arguments) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert word in error, error


def test_the_plans_that_come_along_can_be_read() -> None:
    from attpc_export.compare import load_plan
    from attpc_export.config import load_config

    folder = Path(__file__).parents[2] / "benchmarks" / "accuracy"
    for path in (folder / "plan.yaml", folder / "small.yaml"):
        cells = load_plan(path).cells
        assert len({cell.row for cell in cells}) == 16
        for cell in cells:
            load_config(folder / cell.preset)


@pytest.mark.parametrize(
    "preset", sorted((Path(__file__).parents[2] / "export" / "configs" / "thesis").glob("*.yaml"))
)
def test_a_preset_fits_its_images(preset: Path, tmp_path: Path) -> None:
    from attpc_export.backbone import with_weights
    from attpc_export.config import load_config
    from attpc_export.registry import build_model

    config = load_config(preset)
    if with_weights(config.model, Path("any.npz")) is not config.model:
        pytest.skip("needs a backbone's weights")
    model = build_model(config.model, config.projection.with_scale(1.0).shape)
    assert model.latent_size > 0
