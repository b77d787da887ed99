"""The hit store: scored again without the raw data, with the tags that the raw data give.

What a store holds is read with h5py alone and compared with the pad table, with the z formula and
with the miniatures' truth; what comes of scoring it, with what comes of scoring the raw run.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from attpc_filter.cli import main
from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from tests import miniatures, tiny_models
from tests.conftest import files_below, read_manifest, read_tag_table, shared
from tests.detector_files import write_attpc

LAYOUTS = list(miniatures.LAYOUTS)
LENGTH, MICROMEGAS, WINDOW = miniatures.LENGTH_MM, miniatures.MICROMEGAS_TB, miniatures.WINDOW_TB


def run(*arguments: object) -> int:
    return main(["run", *map(str, arguments), "--no-picture"])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, counter_model: Path) -> Path:
    """A folder with raw runs of every layout, and ``out`` with their hit stores."""
    folder = tmp_path_factory.mktemp("stores")
    raw = [
        miniatures.write_run(layout, folder / "raw" / f"run_{index:04d}.h5")
        for index, layout in enumerate(LAYOUTS)
    ]
    options = ["--out", folder / "out", "--model", counter_model, "--streams", "none"]
    assert run(*raw, *options, "--keep-hits") == 0
    return folder


def store_of(stores: Path, layout: str) -> Path:
    return stores / "out" / "hits" / f"run_{LAYOUTS.index(layout):04d}.h5"


def same_tables(a: Path, b: Path) -> bool:
    """Whether all columns of two tag tables are equal, to the last bit of the scores."""
    columns: list[Any] = [pq.read_table(path).to_pylist() for path in (a, b)]
    return bool(columns[0] == columns[1])


def test_the_same_tags_without_the_raw_data(
    stores: Path, tmp_path: Path, counter_model: Path
) -> None:
    away = stores / "elsewhere"
    (stores / "raw").rename(away)
    try:
        paths = sorted((stores / "out" / "hits").iterdir())
        assert run(*paths, "--out", tmp_path / "again", "--model", counter_model) == 0
    finally:
        away.rename(stores / "raw")
    for path in paths:
        name = f"tags/{path.stem}.parquet"
        assert same_tables(stores / "out" / name, tmp_path / "again" / name)
    tables = {f"tags/{path.stem}.parquet" for path in paths}
    assert files_below(tmp_path / "again") == {"manifest.json", *tables}, "no streams"
    for entry in read_manifest(tmp_path / "again")["runs"]:
        assert entry["format"] == "attpc-filter hit store"
        assert entry["books_balance"]


def test_another_model_and_another_detector(stores: Path, tmp_path: Path) -> None:
    """A model with another projection, and other z references: as from the raw data."""
    contract = tiny_models.contract(
        projection=tiny_models.contract()["projection"] | {"size": 32, "views": ["zr"]}
    )
    model = tiny_models.write_model(tmp_path / "m.onnx", json.dumps(contract), size=32)
    options = ["--model", model, "--window-time-bucket", 300, "--streams", "none"]
    raw = sorted((stores / "raw").iterdir())
    kept = sorted((stores / "out" / "hits").iterdir())
    assert run(*raw, "--out", tmp_path / "raw", *options) == 0
    assert run(*kept, "--out", tmp_path / "kept", *options) == 0
    for path in raw:
        name = f"tags/{path.stem}.parquet"
        assert same_tables(tmp_path / "raw" / name, tmp_path / "kept" / name)


@pytest.mark.parametrize("layout", ["merger_2.0", "merger_legacy", "spyral_cloud", "pytpc_clean"])
def test_what_it_holds(layout: str, stores: Path) -> None:
    plane = miniatures.pad_table()
    with h5py.File(store_of(stores, layout)) as file:
        assert file.attrs["attpc_filter_hits"] == 1
        assert file.attrs["run"] == LAYOUTS.index(layout)
        assert file.attrs["source_format"] == miniatures.FORMAT_NAMES[layout]
        assert Path(file.attrs["source"]).name == store_of(stores, layout).name
        events = {name: column[()] for name, column in file["events"].items()}
        hits = {name: column[()] for name, column in file["hits"].items()}
    assert events["number"].tolist() == [event.number for event in miniatures.events()]
    assert len(events["first_hit"]) == len(events["number"]) + 1
    for index, event in enumerate(miniatures.events()):
        name = miniatures.event_paths(layout, event.number)[0].split("/")[-1]
        assert events["name"][index].decode() == name
        is_trigger = miniatures.expected_tag(layout, event) == "passthrough"
        assert bool(events["passthrough"][index]) == is_trigger
        if event.n_lit:
            origin = {"spyral_cloud": 2, "pytpc_clean": 3}.get(layout, 1)
            assert events["origin"][index] == origin
        rows = slice(*events["first_hit"][index : index + 2])
        mine = {name: column[rows] for name, column in hits.items()}
        pads = mine["pad"]
        np.testing.assert_allclose(mine["x"], plane["x"][pads], atol=1e-3)
        np.testing.assert_allclose(mine["y"], plane["y"][pads], atol=1e-3)
        z = (WINDOW - mine["time_bucket"]) / (WINDOW - MICROMEGAS) * LENGTH
        np.testing.assert_allclose(mine["z"], z, atol=1e-3)
        assert set(event.points[:, 5].astype(int)) == set(pads.tolist())
        if event.number != 20:  # its strange rows give one more hit
            order, truth = np.argsort(pads), event.points[np.argsort(event.points[:, 5])]
            np.testing.assert_allclose(mine["time_bucket"][order], truth[:, 6], atol=1.0)
            np.testing.assert_allclose(mine["charge"][order], truth[:, 3], rtol=0.15)


def test_it_says_how_its_hits_were_made(stores: Path) -> None:
    with h5py.File(store_of(stores, "merger_1.0")) as file:
        made = json.loads(file.attrs["made"])
        calibration = json.loads(file.attrs["calibration"])
        assert len(file.attrs["made_sha256"]) == 64
        filters = file["hits/charge"]
        assert (filters.compression, filters.shuffle, filters.fletcher32) == ("gzip", True, True)
    wanted = tiny_models.contract()["hits"]
    del wanted["min_hits"]
    assert {name: made[name] for name in wanted} == wanted
    assert calibration == tiny_models.contract()["detector"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peak_threshold": 60.0}, "peak_threshold 40.0, not 60.0"),
        ({"mode": "peak"}, "mode multi, not peak"),
    ],
)
def test_a_model_that_wants_other_hits_is_refused(
    change: dict[str, Any],
    words: str,
    stores: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    contract = tiny_models.contract(hits=tiny_models.contract()["hits"] | change)
    model = tiny_models.write_model(tmp_path / "m.onnx", json.dumps(contract))
    store = store_of(stores, "merger_1.0")
    assert run(store, "--out", tmp_path / "out", "--model", model) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert words in errors[0]
    assert "raw run" in errors[0]
    assert files_below(tmp_path / "out") == {"manifest.json"}


def test_min_hits_is_the_models(stores: Path, tmp_path: Path) -> None:
    """It says which events are scored, not how hits are made."""
    contract = tiny_models.contract(hits=tiny_models.contract()["hits"] | {"min_hits": 15})
    model = tiny_models.write_model(tmp_path / "m.onnx", json.dumps(contract))
    assert run(store_of(stores, "merger_1.0"), "--out", tmp_path / "out", "--model", model) == 0
    rows = read_tag_table(
        tmp_path / "out" / "tags" / store_of(stores, "merger_1.0").name.replace(".h5", ".parquet")
    )
    assert rows[3]["tag"] == "uncertain"
    assert rows[4]["tag"] == "proton"


def test_hits_of_another_pad_plane_are_refused(
    stores: Path, tmp_path: Path, counter_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = write_attpc(tmp_path, {"gain": 1.5})
    options = ["--out", tmp_path / "out", "--model", counter_model, "--detector", detector]
    assert run(store_of(stores, "merger_1.0"), *options) == 2
    assert "made with another detector" in capsys.readouterr().err
    # points are taken as they are, whatever the plane: from a store as from their file
    options = ["--restart", "--streams", "none", *options]
    assert run(store_of(stores, "spyral_cloud"), *options) == 0


def test_a_store_of_a_store_is_refused(
    stores: Path, tmp_path: Path, counter_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--out", tmp_path / "out", "--model", counter_model, "--keep-hits"]
    assert run(store_of(stores, "merger_1.0"), *options) == 2
    assert "leave out keep_hits" in capsys.readouterr().err


def test_unreadable_events_stay_what_they_were(tmp_path: Path, counter_model: Path) -> None:
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5")
    with h5py.File(path, "r+") as file:
        del file["events/event_4/get_traces"]
        file["events/event_4/get_traces"] = np.zeros((3, 7), np.int16)
    options = ["--model", counter_model, "--streams", "none"]
    assert run(path, "--out", tmp_path / "a", *options, "--keep-hits") == 0
    store = tmp_path / "a" / "hits" / path.name
    assert run(store, "--out", tmp_path / "b", *options) == 0
    assert same_tables(tmp_path / "a/tags/run_0001.parquet", tmp_path / "b/tags/run_0001.parquet")
    row = read_tag_table(tmp_path / "b/tags/run_0001.parquet")[4]
    assert (row["tag"], row["n_hits"]) == ("unreadable", 0)
    assert "(3, 7)" in row["reason"]


def test_flipped_bytes_are_noticed(stores: Path, tmp_path: Path, counter_model: Path) -> None:
    store = shutil.copyfile(store_of(stores, "merger_1.0"), tmp_path / "run_0001.h5")
    with h5py.File(store) as file:
        chunk = file["hits/charge"].id.get_chunk_info(0)
    content = bytearray(store.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    store.write_bytes(content)
    # all events lie in the one damaged chunk
    assert run(store, "--out", tmp_path / "out", "--model", counter_model) == 2
    rows = read_tag_table(tmp_path / "out" / "tags" / "run_0001.parquet").values()
    with_hits = [row for row in rows if row["tag"] != "passthrough"]
    assert {row["tag"] for row in with_hits} == {"unreadable"}
    assert all("cannot be read" in row["reason"] for row in with_hits)


@pytest.mark.parametrize("damage", ["column", "events", "version", "length", "cut"])
def test_damaged_stores(damage: str, stores: Path, tmp_path: Path) -> None:
    store = shutil.copyfile(store_of(stores, "merger_1.0"), tmp_path / "run_0001.h5")
    if damage == "cut":
        store.write_bytes(store.read_bytes()[:-500])
    else:
        with h5py.File(store, "r+") as file:
            if damage == "column":
                del file["hits/z"]
            elif damage == "events":
                del file["events"]
            elif damage == "version":
                file.attrs["attpc_filter_hits"] = 99
            else:
                file["hits/z"].resize(3, axis=0)
    with pytest.raises(InputError, match=str(store)):
        open_run(store)


def test_blocks_of_many_hits(tmp_path: Path) -> None:
    """A store longer than what is read at once, written here with h5py: events in any order."""
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 900, 400)
    first = np.concatenate([[0], np.cumsum(counts)])
    columns = {
        name: rng.normal(100, 30, first[-1]).astype(np.float32)
        for name in ("x", "y", "z", "time_bucket", "charge", "integral")
    }
    columns["pad"] = rng.integers(0, 10240, first[-1]).astype(np.int32)
    path = tmp_path / "run_0001.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"attpc_filter_hits": 1, "made": "{}", "run": 1})
        for name, values in columns.items():
            file[f"hits/{name}"] = values
        file["events/number"] = np.arange(400) * 2
        file["events/name"] = np.array([f"event_{n}" for n in range(0, 800, 2)], np.bytes_)
        file["events/reason"] = np.full(400, b"", "S1")
        file["events/passthrough"] = np.zeros(400, np.uint8)
        file["events/origin"] = np.full(400, 2, np.uint8)
        file["events/first_hit"] = first
    with open_run(path) as opened:
        for index in rng.permutation(400):
            record = opened.read(*opened.events[index])
            rows = slice(first[index], first[index + 1])
            assert record.points is not None
            for at, name in enumerate(("x", "y", "z", "time_bucket", "charge", "integral", "pad")):
                np.testing.assert_array_equal(record.points[:, at], columns[name][rows])


def test_small_and_identical_on_the_shared_runs(tmp_path: Path) -> None:
    raw = shared("train/raw/run_0102.h5")
    assert run(raw, "--out", tmp_path / "a", "--keep-hits", "--streams", "none") == 0
    store = tmp_path / "a" / "hits" / raw.name
    assert store.stat().st_size < 0.05 * raw.stat().st_size
    assert run(store, "--out", tmp_path / "b") == 0
    name = "tags/run_0102.parquet"
    assert same_tables(tmp_path / "a" / name, tmp_path / "b" / name)


@pytest.mark.parametrize("layout", ["merger_1.0", "spyral_cloud"])
def test_hits_of_a_tilted_beam_are_turned_once(
    layout: str,
    tmp_path: Path,
    counter_model: Path,
    miniature: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    beam = {"tilt_deg": 6.2, "x_mm": 10.0}
    detector = write_attpc(tmp_path / "d", beam=beam)
    options = ["--model", counter_model, "--keep-hits", "--streams", "none", "--no-picture"]
    first = [*options, "--out", tmp_path / "first", "--detector", detector]
    assert run(miniature(layout), *first) == 0
    store = next((tmp_path / "first" / "hits").iterdir())
    again = ["--model", counter_model, "--streams", "none", "--no-picture"]
    same = [*again, "--out", tmp_path / "again", "--detector", detector]
    assert run(store, *same) == 0
    tables = [next((tmp_path / out / "tags").iterdir()) for out in ("first", "again")]
    before, after = map(read_tag_table, tables)
    for event, row in before.items():
        if row["tag"] != "passthrough":
            assert after[event] | {"run": 0} == row | {"run": 0}
    capsys.readouterr()
    assert run(store, *again, "--out", tmp_path / "other") == 2
    assert "made with another detector" in capsys.readouterr().err
