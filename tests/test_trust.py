"""The trust report: a random sample of the tags, and what its labels say of all events."""

import csv
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest

from attpc_filter.score.bundle import METADATA_KEY
from attpc_filter.trust import draw_sample, estimate_worth, judge_sample, load_tags
from tests.conftest import Cli

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample" / "run_0101.h5"
DEFAULT = ROOT / "attpc_filter" / "models" / "default.onnx"
OPTIONS = ["--streams", "none", "--no-picture", "--device", "cpu"]


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from attpc_filter.cli import main

    out = tmp_path_factory.mktemp("trust") / "out"
    assert main(["run", str(SAMPLE), "--out", str(out), *OPTIONS]) == 0
    return out


def tags_of(out: Path) -> dict[tuple[int, int], str]:
    rows = [row for path in (out / "tags").iterdir() for row in pq.read_table(path).to_pylist()]
    return {(row["run"], row["event"]): row["tag"] for row in rows}


def fill(sample: Path, label_of: dict[tuple[int, int], str]) -> None:
    with sample.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = label_of[int(row["run"]), int(row["event"])]
    with sample.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """200 simulated samplings, purity and efficiency of three classes each."""
    path = ROOT / "benchmarks" / "accuracy" / "trust_coverage.py"
    spec = importlib.util.spec_from_file_location("trust_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counts = module.count_covered(200, 50, seed=1)
    held, total = (sum(column) for column in zip(*counts.values(), strict=True))
    assert 0.93 <= held / total <= 0.97


def test_all_labelled_gives_the_shares_themselves() -> None:
    """By hand: 8 of 10 tagged so are of the class, and 2 of 20 tagged otherwise."""
    purity, efficiency = estimate_worth(
        np.array([8, 2]), np.array([10, 20]), np.array([10, 20]), 0, np.random.default_rng(0)
    )
    assert (purity.value, purity.low, purity.high) == pytest.approx((0.8, 0.8, 0.8))
    assert (efficiency.value, efficiency.low, efficiency.high) == pytest.approx((0.8, 0.8, 0.8))


def test_tags_count_by_their_events_not_by_their_labels() -> None:
    """5 of 50 labelled events of a tag with 10,000 events: 1,000 events of the class are missed."""
    _, efficiency = estimate_worth(
        np.array([50, 5]), np.array([50, 50]), np.array([1000, 10_000]), 0, np.random.default_rng(0)
    )
    assert efficiency.value == pytest.approx(0.5)
    assert efficiency.low < 0.40
    assert efficiency.high > 0.60


def test_a_sample_has_the_same_number_of_each_tag(filtered: Path) -> None:
    tagged = load_tags(filtered)
    rows = draw_sample(tagged, 4, seed=3)
    counts = dict(zip(*np.unique(tagged.tag[rows], return_counts=True), strict=True))
    assert set(counts) == set(np.unique(tagged.tag))
    assert all(n == min(4, (tagged.tag == name).sum()) for name, n in counts.items())
    first = rows[: len(counts)]
    assert len(set(tagged.tag[first])) == len(counts)  # the tags take turns
    assert not np.array_equal(rows, draw_sample(tagged, 4, seed=4))


def test_from_a_folder_to_purities(filtered: Path, tmp_path: Path, call: Cli) -> None:
    sample = tmp_path / "sample.csv"
    ended = call("trust", filtered, "--draw", sample, "--events", 4)
    assert ended.status == 0
    assert "tag" not in sample.read_text().splitlines()[0]
    truth = {k: "noise" if tag == "uncertain" else tag for k, tag in tags_of(filtered).items()}
    with sample.open(newline="") as file:
        drawn = [(int(row["run"]), int(row["event"])) for row in csv.DictReader(file)]
    wrong = next(key for key in drawn if truth[key] == "carbon")
    fill(sample, truth | {wrong: "proton"})
    table = tmp_path / "trust.csv"
    assert call("trust", filtered, "--labels", sample, "--csv", table).status == 0
    with table.open(newline="") as file:
        rows = {row["tag"]: row for row in csv.DictReader(file)}
    assert float(rows["proton"]["purity"]) == 1.0
    assert float(rows["proton"]["purity_high"]) == 1.0
    assert 0.0 < float(rows["proton"]["purity_low"]) < 1.0
    assert float(rows["carbon"]["purity"]) < 1.0
    assert float(rows["proton"]["efficiency"]) < 1.0
    assert call("trust", filtered, "--draw", sample).status == 2  # labels are never lost


def test_labels_that_do_not_do(filtered: Path, tmp_path: Path, call: Cli) -> None:
    sample = tmp_path / "sample.csv"
    assert call("trust", filtered).status == 2
    assert call("trust", filtered, "--draw", sample).status == 0
    assert "no event has a label" in call("trust", filtered, "--labels", sample).the_error()
    chosen = tmp_path / "chosen.csv"
    chosen.write_text("run,event,label\n101,1,proton\n")
    assert "chosen otherwise" in call("trust", filtered, "--labels", chosen).the_error()
    chosen.write_text("run,event,label,order\n9,1,proton,1\n")
    assert "run 9 event 1" in call("trust", filtered, "--labels", chosen).the_error()


def test_labels_that_trained_the_model_are_refused(tmp_path: Path, call: Cli) -> None:
    """A copy of the model whose contract says that the run's events fitted its head."""
    model = onnx.load(DEFAULT)
    (entry,) = (prop for prop in model.metadata_props if prop.key == METADATA_KEY)
    contract = json.loads(entry.value)
    out, sample, path = tmp_path / "out", tmp_path / "sample.csv", tmp_path / "model.onnx"
    contract["training"] = {"head": {"labelled": {"101": list(range(2000))}}}
    entry.value = json.dumps(contract)
    onnx.save(model, path)
    assert call("run", SAMPLE, "--out", out, "--model", path, *OPTIONS).status == 0
    assert call("trust", out, "--draw", sample, "--events", 3).status == 0
    fill(sample, tags_of(out))
    assert "trained the model" in call("trust", out, "--labels", sample).the_error()
    path.write_bytes(DEFAULT.read_bytes())
    assert "not the model that tagged" in call("trust", out, "--labels", sample).the_error()


def test_a_run_that_trained_the_encoder_with_labels_is_refused(tmp_path: Path, call: Cli) -> None:
    model = onnx.load(DEFAULT)
    (entry,) = (prop for prop in model.metadata_props if prop.key == METADATA_KEY)
    contract = json.loads(entry.value)
    out, sample, path = tmp_path / "out", tmp_path / "sample.csv", tmp_path / "model.onnx"
    digest = hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
    contract["training"] = {
        "events_by_class": {"proton": 3, "noise": 2},
        "files": [{"name": f"train/{SAMPLE.name}", "sha256": digest}],
    }
    entry.value = json.dumps(contract)
    onnx.save(model, path)
    assert call("run", SAMPLE, "--out", out, "--model", path, *OPTIONS).status == 0
    assert call("trust", out, "--draw", sample, "--events", 3).status == 0
    fill(sample, tags_of(out))
    assert "run 101 trained the model" in call("trust", out, "--labels", sample).the_error()


def test_each_run_is_judged_too(tmp_path: Path, call: Cli) -> None:
    other = tmp_path / "run_0102.h5"
    shutil.copy(SAMPLE, other)
    out, sample = tmp_path / "out", tmp_path / "sample.csv"
    assert call("run", SAMPLE, other, "--out", out, *OPTIONS).status == 0
    assert call("trust", out, "--draw", sample).status == 0
    fill(sample, tags_of(out))
    runs = [row.runs for row in judge_sample(out, [sample])]
    assert list(dict.fromkeys(runs)) == ["all", "101", "102"]
