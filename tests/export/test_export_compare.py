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
from attpc_export.data.labelled import load_events
from attpc_export.judging.compare import cluster_accuracy
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
    """A plan of two presets on two levels, of which one lacks a class; one is trained on both."""
    write_run(tmp_path / "data" / "train", 7, 90, seed=1)
    write_run(tmp_path / "data" / "test", 8, 60, seed=2)
    for part, run in (("train", 7), ("test", 8)):
        rows = (tmp_path / "data" / part / f"labels_{run}.csv").read_text().splitlines()
        two = [row for row in rows if ",noise," not in row]
        (tmp_path / "data" / f"{part}_two.csv").write_text("\n".join(two) + "\n")
    fit = {"epochs": 3, "label_weight": 0.0, "average_decay": 0.0}
    write_config(tmp_path / "plain.yaml", fit=fit)
    model = {"kind": "ar0", "convolutions": {"filters": [2, 4, 4, 8], "kernels": [7, 5, 5, 3]}}
    head = {"kind": "kmeans", "clusters": 4}
    groups = write_config(tmp_path / "groups.yaml", fit=fit, head=head, augment={"vary": False})
    entries = yaml.safe_load(groups.read_text())
    entries["projection"]["size"] = 64
    groups.write_text(yaml.safe_dump(entries | {"model": model | {"latent": {"size": 4}}}))
    levels = [
        {
            "name": name,
            "train": ["train"],
            "test": ["test"],
            "train_labels": [labels.format("train", 7)],
            "test_labels": [labels.format("test", 8)],
            "clean": {"mode": mode, "radius_mm": 60.0},
        }
        for name, labels, mode in (
            ("two", "{0}_two.csv", "none"),
            ("full", "{0}/labels_{1}.csv", "neighbours"),
        )
    ]
    both = {"name": "both", "train": ["train"], "train_labels": ["train/labels_7.csv"]}
    plain = {"row": "Plain", "preset": "plain.yaml", "epochs": 1, "size": 32}
    groups = {"row": "Groups", "preset": "groups.yaml", "epochs": 2, "size": 8, "seeds": [5]}
    shared = {"row": "Shared", "preset": "plain.yaml", "trained_on": "both", "seeds": [1]}
    cells = [
        plain | {"level": "full", "thesis": "0.7 ± 0.1"},
        plain | {"level": "two"},
        groups | {"level": "full"},
        shared | {"level": "full"},
        shared | {"level": "two"},
    ]
    path = tmp_path / "plan.yaml"
    entries = {"levels": [*levels, both], "cells": cells, "seeds": [1, 2]}
    path.write_text(yaml.safe_dump(entries, allow_unicode=True))
    return path


def titles_of(table: list[str], title: str) -> str:
    """The first line of a table that has a column of that title."""
    return next(line for line in table if f"| {title} |" in line)


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
    assert names == plain | {"groups-full-5", "plain-both-1"}
    with (folder / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["level"], r["seed"]) for r in rows] == [
        ("Plain", "full", "1"),
        ("Plain", "full", "2"),
        ("Plain", "two", "1"),
        ("Plain", "two", "2"),
        ("Groups", "full", "5"),
        ("Shared", "full", "1"),
        ("Shared", "two", "1"),
    ]
    assert [row["epochs"] for row in rows] == ["1", "1", "1", "1", "2", "3", "3"]
    assert all(float(row["cpu_seconds"]) > 0 for row in rows)
    assert rows[2]["f1_noise"] == ""
    assert rows[0]["ari"] == ""
    assert -1 <= float(rows[4]["ari"]) <= 1
    config = yaml.safe_load((folder / "runs" / "plain-two-1" / "config.yaml").read_text())
    assert [c["name"] for c in config["classes"]] == ["proton", "carbon"]
    assert config["projection"]["size"] == 32
    # one training, judged on two levels
    assert rows[5]["cpu_seconds"] == rows[6]["cpu_seconds"]
    assert (rows[5]["events"], rows[6]["events"]) == ("60", "40")
    # four halvings are too many for 8 pixels
    config = yaml.safe_load((folder / "runs" / "groups-full-5" / "config.yaml").read_text())
    assert config["model"]["convolutions"]["filters"] == [4, 8]
    assert config["model"]["convolutions"]["kernels"] == [5, 3]

    table = (folder / "accuracy.md").read_text().splitlines()
    assert table[2] == "|  | two | full |"
    mean = np.mean([float(row["macro_f1"]) for row in rows[:2]])
    spread = np.std([float(row["macro_f1"]) for row in rows[:2]], ddof=1)
    assert table[4].startswith("| Plain | ")
    assert table[4].endswith(f"| {mean:.3f} ± {spread:.3f} (2) [0.7 ± 0.1] |")
    assert table[5].startswith("| Groups | - | ")
    titles, values = (
        [text.strip() for text in line.split("|")[2:-1]]
        for line in (table[table.index(titles_of(table, "proton")) + n] for n in (0, 2))
    )
    mean = np.mean([float(row["f1_proton"]) for row in rows[:2]])
    assert values[titles.index("proton")] == f"{mean:.3f}"
    titles, values = (
        [text.strip() for text in line.split("|")[2:-1]]
        for line in (table[table.index(titles_of(table, "latent mean")) + n] for n in (0, 3))
    )
    auc = float(rows[4]["noise_auc_latent_mean"])
    assert values[titles.index("latent mean")] == f"{auc:.3f}"

    # what is there is not done again; what is missing is
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/test-*.json")}
    (folder / "runs" / "plain-two-1" / "test-two.json").unlink()
    shutil.rmtree(folder / "runs" / "plain-full-2")
    assert run(plan) == 0
    after = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/test-*.json")}
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
        contract.detector.calibration,
    )
    tag = Scorer(bundle, "cpu").score(contract.make_inputs(events.hits)).argmax(axis=1)
    found = json.loads((folder / "runs" / "plain-full-1" / "test-full.json").read_text())
    assert found["events"] == 60
    assert found["macro_f1"] == pytest.approx(
        f1_score(events.label, tag, average="macro"), abs=1e-5
    )


def test_a_wrong_plan_is_one_clear_line(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, entries, word in (
        (["--only", "Nobody"], {}, "no row 'Nobody'"),
        ([], {"cells": [{"row": "Plain", "level": "fill", "preset": "plain.yaml"}]}, "'fill'"),
        ([], {"cells": [{"row": "Plain", "level": "both", "preset": "plain.yaml"}]}, "no test"),
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
    from attpc_export.config import load_config
    from attpc_export.judging.compare import load_plan

    folder = Path(__file__).parents[2] / "benchmarks" / "accuracy"
    for path, rows in ((folder / "plan.yaml", 18), (folder / "mixae.yaml", 2)):
        plan = load_plan(path)
        assert len({cell.row for cell in plan.cells}) == rows
        for cell in plan.cells:
            load_config(folder / cell.preset)
    plan = load_plan(folder / "plan.yaml")
    levels = {"clean", "filtered", "full"}
    for row in {cell.row for cell in plan.cells}:
        found = {cell.level for cell in plan.cells if cell.row == row}
        assert found == levels, row


@pytest.mark.parametrize(
    "preset", sorted((Path(__file__).parents[2] / "export" / "configs" / "thesis").glob("*.yaml"))
)
def test_a_preset_fits_its_images(preset: Path, tmp_path: Path) -> None:
    from attpc_export.config import load_config
    from attpc_export.models.backbone import with_weights
    from attpc_export.models.registry import build_model

    config = load_config(preset)
    if with_weights(config.model, Path("any.npz")) is not config.model:
        pytest.skip("needs a backbone's weights")
    model = build_model(config.model, config.projection.with_scale(1.0).shape)
    assert model.latent_size > 0
