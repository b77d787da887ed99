"""Re-tagging: new tags from stored scores alone, streams and books that follow.

The truth is a run of the same events with the new thresholds from the start, and rules that are
spelled out here, event by event, on scores that pyarrow reads.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attpc_filter.cli import main
from attpc_filter.retag import threshold_for_purity
from attpc_filter.tag import assign_tags
from tests import miniatures, tiny_models
from tests.compare import file_content
from tests.conftest import files_below, read_manifest, read_tag_table

LAYOUTS = list(miniatures.LAYOUTS)
CLASSES = ["proton", "carbon", "noise"]
STREAMS = [*CLASSES, "uncertain", "unreadable"]


@dataclass(frozen=True)
class Job:
    """A folder with raw runs of every layout, and the output of a job on them."""

    folder: Path
    mode: str
    model: Path

    def run(self, out: str, *options: object) -> Path:
        paths = sorted((self.folder / "raw").iterdir())
        status = main(
            [
                *("run", *map(str, paths), "--out", str(self.folder / out)),
                *("--model", str(self.model), "--streams", self.mode, "--no-picture"),
                *map(str, options),
            ]
        )
        assert status == 0
        return self.folder / out

    def fresh_copy(self) -> Path:
        """The first output anew, beside it, so that its links hold."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.folder / "first", out)
        return out


def retag(out: Path, *options: object) -> int:
    return main(["retag", str(out), *map(str, options)])


@pytest.fixture(scope="module", params=["link", "copy"])
def job(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, counter_model: Path
) -> Job:
    folder = tmp_path_factory.mktemp(f"retag_{request.param}")
    for index, layout in enumerate(LAYOUTS):
        miniatures.write_run(layout, folder / "raw" / f"run_{index:04d}.h5")
    made = Job(folder, request.param, counter_model)
    made.run("first")
    return made


def contents(out: Path) -> dict[str, Any]:
    """All that streams hold and tag tables say, but for the metadata of the tables."""
    held: dict[str, Any] = {}
    for name in sorted(files_below(out)):
        path = out / name
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                held[name] = file_content(file, lambda _: False)
        elif path.suffix == ".parquet":
            held[name] = pq.read_table(path).to_pylist()
    return held


@pytest.mark.parametrize(
    "options",
    [
        # event 13 scores 0.5 as proton and as noise: uncertain at first, proton then
        ["--thresholds", "proton=0.45"],
        ["--thresholds", "carbon=1", "noise=0.5"],
    ],
)
def test_the_same_as_running_with_the_new_thresholds(job: Job, options: list[str]) -> None:
    wanted = contents(job.run("wanted", *options))
    out = job.fresh_copy()
    away = job.folder / "elsewhere"
    (job.folder / "raw").rename(away)  # no raw data are needed
    try:
        assert retag(out, *options) == 0
    finally:
        away.rename(job.folder / "raw")
    assert contents(out) == wanted
    assert files_below(out) == files_below(job.folder / "wanted")


def test_back_and_forth_leaves_what_was(job: Job) -> None:
    out = job.fresh_copy()
    for options in (["--thresholds", "noise=1"], ["--classes", "carbon"], []):
        assert retag(out, *options) == 0
    assert contents(out) == contents(job.folder / "first")


def test_only_the_classes_asked_for(job: Job) -> None:
    out = job.fresh_copy()
    assert retag(out, "--classes", "carbon", "noise") == 0
    for index, layout in enumerate(LAYOUTS):
        before = read_tag_table(job.folder / "first" / "tags" / f"run_{index:04d}.parquet")
        after = read_tag_table(out / "tags" / f"run_{index:04d}.parquet")
        assert before.keys() == after.keys()
        for event, row in after.items():
            was = before[event]
            if was["tag"] == "proton":
                assert row["tag"] == "uncertain"
                assert row["reason"] == "proton is not among the classes asked for"
            else:
                assert row == was
        passed = {n for n, row in after.items() if row["tag"] == "passthrough"}
        with h5py.File(out / "proton" / f"run_{index:04d}.h5") as file:
            held = {
                e.number
                for e in miniatures.events()
                if miniatures.event_paths(layout, e.number)[0] in file
            }
        assert held == passed, "the stream of a class that is not given keeps the IC triggers"


def test_copies_give_back_the_room_of_what_leaves(job: Job) -> None:
    if job.mode == "link":
        pytest.skip("links take no room")
    out = job.fresh_copy()
    name = f"noise/run_{LAYOUTS.index('merger_1.0'):04d}.h5"
    before = (out / name).stat().st_size
    assert retag(out, "--thresholds", "noise=1") == 0
    left = next(event for event in miniatures.events() if event.number == 3)
    assert (out / name).stat().st_size < before - left.traces.nbytes


def test_the_manifest_follows_and_keeps_the_history(job: Job) -> None:
    out = job.fresh_copy()
    first = read_manifest(out)
    assert retag(out, "--thresholds", "proton=0.45") == 0
    assert retag(out, "--thresholds", "carbon=1") == 0
    manifest = read_manifest(out)
    model = {"proton": 0.6, "carbon": 0.6, "noise": 0.6}
    one, two = manifest["history"]
    assert one["thresholds"] == model | {"proton": 0.45}
    assert one["thresholds_before"] == model
    assert two["thresholds"] == manifest["thresholds"] == model | {"carbon": 1}
    assert two["thresholds_before"] == one["thresholds"]
    assert one["counts_before"] == first["counts"]
    assert one["counts"] == two["counts_before"]
    assert two["counts"] == manifest["counts"]
    assert "retag" in one["command"]
    assert one["when"] <= two["when"]
    total = dict.fromkeys(first["counts"], 0)
    for entry in manifest["runs"]:
        rows = read_tag_table(out / entry["tag_table"]).values()
        for tag in total:
            number = sum(row["tag"] == tag for row in rows)
            assert entry["counts"][tag] == number
            total[tag] += number
        assert entry["books_balance"]
        passed = entry["counts"]["passthrough"]
        for label, stream in entry["streams"].items():
            assert stream["events"] == entry["counts"][label] + passed * (label in CLASSES)
        table = pq.read_table(out / entry["tag_table"])
        stored = json.loads(table.schema.metadata[b"attpc_filter.thresholds"])
        assert stored == manifest["thresholds"]
    assert total == manifest["counts"]


def test_a_stream_that_is_gone_stops_all_and_changes_nothing(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    out = job.fresh_copy()
    last = out / "noise" / f"run_{len(LAYOUTS) - 1:04d}.h5"
    last.unlink()
    before = {name: (out / name).read_bytes() for name in files_below(out)}
    assert retag(out, "--thresholds", "noise=1") == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert str(last) in error
    assert {name: (out / name).read_bytes() for name in files_below(out)} == before


def test_an_event_that_its_stream_lacks_is_noticed(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    out = job.fresh_copy()
    path = out / "noise" / f"run_{LAYOUTS.index('merger_1.0'):04d}.h5"
    with h5py.File(path, "r+") as file:
        del file["events/event_3"]
    assert retag(out, "--thresholds", "noise=1") == 2
    assert "event 3 is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--thresholds", "alpha=0.5"], "no class 'alpha'"),
        (["--classes", "alpha"], "no class 'alpha'"),
        (["--thresholds", "proton=1.5"], "not between 0 and 1"),
        (["--thresholds", "proton=0.5", "--purity", "proton=0.9"], "not both"),
        (["--thresholds", "proton"], "not CLASS=SCORE"),
        (["--head", "nowhere.json"], "No such file"),
    ],
)
def test_requests_that_make_no_sense(
    job: Job, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retag(job.folder / "first", *options) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert error.count("\n") == 0


def test_a_folder_that_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retag(tmp_path) == 2
    assert "output folder of attpc-filter run" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text("[]")
    assert retag(tmp_path) == 2
    assert "not a manifest" in capsys.readouterr().err


def _purity_by_trying(scores: list[float], wish: float) -> float | None:
    """Every score as a threshold, by the definition."""
    good = []
    for threshold in scores:
        above = [score for score in scores if score >= threshold]
        if float(np.mean(np.array(above, np.float64))) >= wish:
            good.append(threshold)
    return min(good, default=None)


@given(
    st.lists(st.integers(0, 64).map(lambda n: n / 64), max_size=30),
    st.integers(0, 32).map(lambda n: n / 32),
)
def test_purity_is_the_lowest_threshold_that_reaches_it(scores: list[float], wish: float) -> None:
    stored = np.array([*scores, np.nan], np.float32)  # 64ths are exact
    assert threshold_for_purity(stored, wish) == _purity_by_trying(scores, wish)


def test_purity_on_stored_scores(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    out = job.fresh_copy()
    scores = [
        row["score_proton"]
        for path in sorted((out / "tags").iterdir())
        for row in pq.read_table(path).to_pylist()
        if row["score_proton"] is not None
    ]
    wanted = _purity_by_trying(scores, 0.9)
    assert retag(out, "--purity", "proton=0.9") == 0
    assert read_manifest(out)["thresholds"]["proton"] == wanted
    assert read_manifest(out)["history"][0]["purity"] == {"proton": 0.9}
    capsys.readouterr()
    assert retag(out, "--purity", "proton=1") == 2
    assert "no threshold reaches it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def with_latents(tmp_path_factory: pytest.TempPathFactory, counter_model: Path) -> Job:
    """Two runs, filtered with their latents: those of the counting model are the lit pixels."""
    made = Job(tmp_path_factory.mktemp("latents"), "link", counter_model)
    for number, layout in enumerate(("merger_2.0", "spyral_cloud")):
        miniatures.write_run(layout, made.folder / "raw" / f"run_{number:04d}.h5")
    made.run("first", "--keep-latents")
    return made


def write_head(path: Path, model: Path, **changes: Any) -> Path:
    """A head for the counting model's latents, spelled out; ``changes`` replace entries.

    Carbon beyond 25 lit pixels, noise below, never proton.
    """
    entries = {
        "head_version": 1,
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "classes": CLASSES,
        "weight": [[0.0], [0.5], [-0.5]],
        "bias": [-100, -12.5, 12.5],
    } | changes
    path.write_text(json.dumps(entries))
    return path


LIT = {event.number: event.n_lit for event in miniatures.events()}


def test_latents_are_those_of_the_model(with_latents: Job) -> None:
    out = with_latents.folder / "first"
    for path in sorted((out / "latents").iterdir()):
        latents = pq.read_table(path).to_pylist()
        tags = pq.read_table(out / "tags" / path.name).to_pylist()
        assert [row["event"] for row in latents] == [row["event"] for row in tags]
        for row, tag in zip(latents, tags, strict=True):
            scored = tag["score_proton"] is not None
            assert row["latent"] == ([LIT[row["event"]]] if scored else None)


def test_a_new_head_on_stored_latents(with_latents: Job) -> None:
    out = with_latents.fresh_copy()
    head = write_head(with_latents.folder / "head.json", with_latents.model)
    before = {path.name: read_tag_table(path) for path in sorted((out / "tags").iterdir())}
    assert retag(out, "--head", head) == 0
    for name, was in before.items():
        for event, row in read_tag_table(out / "tags" / name).items():
            if was[event]["score_proton"] is None:
                assert row == was[event]
                continue
            carbon = 1 / (1 + np.exp(-2 * (0.5 * LIT[event] - 12.5)))
            assert row["score_carbon"] == pytest.approx(carbon, abs=1e-6)
            assert row["score_noise"] == pytest.approx(1 - carbon, abs=1e-6)
            assert row["tag"] == ("carbon" if LIT[event] > 25 else "noise")
    assert len(read_manifest(out)["history"][0]["head_sha256"]) == 64


def test_a_head_with_fewer_classes_in_another_order(with_latents: Job) -> None:
    changes = {"classes": ["noise", "carbon"], "weight": [[-0.5], [0.5]], "bias": [12.5, -12.5]}
    head = write_head(with_latents.folder / "two.json", with_latents.model, **changes)
    out = with_latents.fresh_copy()
    assert retag(out, "--head", head) == 0
    for path in sorted((out / "tags").iterdir()):
        scored = [row for row in pq.read_table(path).to_pylist() if row["score_noise"] is not None]
        assert scored
        for row in scored:
            carbon = 1 / (1 + np.exp(-2 * (0.5 * LIT[row["event"]] - 12.5)))
            assert row["score_carbon"] == pytest.approx(carbon, abs=1e-6)
            assert row["score_noise"] == pytest.approx(1 - carbon, abs=1e-6)
            assert row["score_proton"] == 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": [[0.0, 1.0]] * 3}, "for latents of 2 numbers"),
        ({"model_sha256": "0" * 64}, "fitted on latents of model 000000000000"),
        ({"classes": ["proton", "carbon", "alpha"]}, "a new class needs a new model"),
        ({"bias": [0, 0]}, "not a head: weight of shape (3, 1), bias of shape (2,)"),
        ({"classes": ["proton", "carbon"]}, "not a head: weight of shape (3, 1) for 2 classes"),
        ({"weight": [[0.0], [float("nan")], [0.0]]}, "not a head: a weight or bias is not finite"),
        ({"head_version": 2}, "not a head: version 2"),
    ],
)
def test_a_head_that_does_not_fit(
    with_latents: Job, changes: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head = write_head(with_latents.folder / "bad.json", with_latents.model, **changes)
    assert retag(with_latents.folder / "first", "--head", head) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert error.count("\n") == 0


@pytest.mark.parametrize("text", ["{}", "no JSON", "[1]", '{"weight": [[0]], "bias": [0]}'])
def test_a_file_that_is_no_head(
    with_latents: Job, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head = with_latents.folder / "bad.json"
    head.write_text(text)
    assert retag(with_latents.folder / "first", "--head", head) == 2
    assert "not a head" in capsys.readouterr().err


def test_a_head_without_latents(
    job: Job, with_latents: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    head = write_head(with_latents.folder / "head.json", with_latents.model)
    assert retag(job.folder / "first", "--head", head) == 2
    assert "--keep-latents" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_streams_of_a_root_run(mode: str, tmp_path: Path) -> None:
    uproot = pytest.importorskip("uproot")
    raw = Path(__file__).parent / "data" / "attpcroot" / "single.root"
    run = tmp_path / "raw" / "run_0001.root"
    run.parent.mkdir()
    shutil.copyfile(raw, run)
    hits = tiny_models.contract()["hits"] | {"min_hits": 0}  # few traces: all of it is noise
    model = tiny_models.write_model(
        tmp_path / "m.onnx", json.dumps(tiny_models.contract(hits=hits))
    )
    out = tmp_path / "out"
    options = ["--model", str(model), "--streams", mode, "--no-picture"]
    assert main(["run", str(run), "--out", str(out), *options]) == 0

    def rows(stream: str) -> list[Any]:
        with uproot.open(out / stream / "run_0001.root") as file:
            (tree,) = (held for held in file.values() if hasattr(held, "arrays"))
            listed: list[Any] = tree.arrays().to_list()
        return listed

    noise, nothing = rows("noise"), rows("uncertain")
    assert (len(noise), len(nothing)) == (9, 0)
    assert retag(out, "--classes", "proton") == 0
    assert (rows("noise"), rows("uncertain")) == (nothing, noise)
    assert retag(out) == 0
    assert (rows("noise"), rows("uncertain")) == (noise, nothing)


def test_tags_only(tmp_path: Path, counter_model: Path) -> None:
    run = miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5")
    out = tmp_path / "out"
    options = ["--model", str(counter_model), "--streams", "none"]
    assert main(["run", str(run), "--out", str(out), *options]) == 0
    drawn = (out / "summary.png").read_bytes()
    assert retag(out, "--thresholds", "noise=1") == 0
    assert files_below(out) == {"manifest.json", "summary.png", "tags/run_0001.parquet"}
    assert (out / "summary.png").read_bytes() != drawn, "the picture shows the new tags"


# ---------------------------------------------------------------------- the rules, event by event


def _rules(
    scores: list[float],
    n_hits: int,
    passthrough: bool,
    reason: str,
    thresholds: list[float],
    wanted: list[str] | None,
) -> tuple[str, str]:
    """The rules as the documentation states them, for one event."""
    if reason:
        return "unreadable", reason
    if passthrough:
        return "passthrough", "ion-chamber downscale trigger"
    if n_hits < 5:
        return "uncertain", f"{n_hits} hits, the model needs 5"
    if not np.isfinite(scores).all():
        return "unreadable", "the model's score is not finite"
    reached = [i for i in range(3) if scores[i] >= thresholds[i]]
    if not reached:
        return "uncertain", "no class reaches its threshold"
    best = CLASSES[max(reached, key=lambda i: (scores[i], -i))]
    if wanted is not None and best not in wanted:
        return "uncertain", f"{best} is not among the classes asked for"
    return best, ""


_SCORE = st.one_of(st.sampled_from([0.0, 0.5, 1.0, np.nan, np.inf]), st.floats(0, 1, width=32))
_EVENT = st.tuples(
    st.lists(_SCORE, min_size=3, max_size=3),
    st.integers(0, 10),
    st.booleans(),
    st.sampled_from(["", "", "cannot be read"]),
)


@given(
    st.lists(_EVENT, max_size=8),
    st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
    st.none() | st.lists(st.sampled_from(CLASSES), unique=True),
)
def test_in_bulk_as_event_by_event(
    events: list[tuple[list[float], int, bool, str]],
    thresholds: list[float],
    wanted: list[str] | None,
) -> None:
    tags, reasons = assign_tags(
        np.array([scores for scores, *_ in events], np.float32).reshape(-1, 3),
        np.array([n_hits for _, n_hits, *_ in events], np.int64),
        np.array([passthrough for *_, passthrough, _ in events], np.bool_),
        [reason for *_, reason in events],
        CLASSES,
        thresholds,
        5,
        wanted,
    )
    expected = [
        _rules(scores, n_hits, passthrough, reason, thresholds, wanted)
        for scores, n_hits, passthrough, reason in events
    ]
    assert list(zip(tags, reasons, strict=True)) == expected


def test_large_tables_keep_their_rows_apart(tmp_path: Path) -> None:
    """Many row groups, null and NaN scores: what is not asked to change does not."""
    n = 100_000
    rng = np.random.default_rng(5)
    scores = rng.dirichlet([0.3, 0.3, 0.3], n).astype(np.float32)
    unread, strange = np.arange(n) % 1000 == 7, np.arange(n) % 1000 == 9
    scores[strange] = np.nan
    tag = np.array(CLASSES, object)[scores.argmax(axis=1)]
    tag[(np.nan_to_num(scores) < 0.5).all(axis=1)] = "uncertain"
    tag[unread | strange] = "unreadable"
    reason = np.where(tag == "uncertain", "no class reaches its threshold", "").astype(object)
    reason[unread] = [f"damaged at byte {i}" for i in range(unread.sum())]
    reason[strange] = "the model's score is not finite"
    table = pa.table(
        {
            "run": np.full(n, 1, np.int32),
            "event": np.arange(n) * 3,
            "tag": pa.array(tag, pa.string()),
            **{f"score_{c}": pa.array(scores[:, i], mask=unread) for i, c in enumerate(CLASSES)},
            "n_hits": np.full(n, 50, np.int32),
            "reason": pa.array(reason, pa.string()),
        }
    )
    thresholds = dict.fromkeys(CLASSES, 0.5)
    metadata = {"model_sha256": "0", "classes": json.dumps(CLASSES), "min_hits": "5"}
    metadata = {f"attpc_filter.{key}": value for key, value in metadata.items()}
    path = tmp_path / "tags" / "run_0001.parquet"
    path.parent.mkdir()
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=1000)
    counts = {t: int((tag == t).sum()) for t in [*CLASSES, "uncertain", "unreadable"]}
    entry = {
        "input": "run_0001.h5",
        "run": 1,
        "n_events": n,
        "counts": counts | {"passthrough": 0},
        "tag_table": "tags/run_0001.parquet",
        "error": "",
    }
    manifest = {
        "config": {"streams": "none"},
        "thresholds": thresholds,
        "counts": entry["counts"],
        "runs": [entry],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    assert retag(tmp_path) == 0
    _assert_same_columns(pq.read_table(path), table, table.column_names)
    assert retag(tmp_path, "--thresholds", "carbon=0.9") == 0
    new = pq.read_table(path)
    fell = (tag == "carbon") & (scores[:, 1] < np.float32(0.9))
    assert new.column("tag").to_pylist() == np.where(fell, "uncertain", tag).tolist()
    kept = ("run", "event", "n_hits", *(f"score_{c}" for c in CLASSES))
    _assert_same_columns(new, table, kept)


def _assert_same_columns(a: pa.Table, b: pa.Table, names: Sequence[str]) -> None:
    for name in names:
        assert a.column(name).null_count == b.column(name).null_count
        assert a.column(name).is_valid().equals(b.column(name).is_valid())
        np.testing.assert_array_equal(a.column(name).to_numpy(), b.column(name).to_numpy())
