"""Another distribution adds a format, a model output and an executor; all are used at once.

``make test`` installs the distribution, ``tests/plugin_package``.
"""

import ast
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py
import numpy as np
import pytest

import attpc_filter
from tests import miniatures, tiny_models
from tests.conftest import Cli, read_manifest, read_tag_table

PACKAGE = Path(__file__).parent / "plugin_package"
DETECTOR = {"calibration": tiny_models.contract()["detector"]}
#: Lit pixels of the events: three classes, too few hits, and none at all.
SIZES = [10, 60, 0, 30, 20]
N_EVENTS = 150


@pytest.fixture(autouse=True)
def _needs_the_package() -> None:
    try:
        version("attpc-filter-example")
    except PackageNotFoundError:
        pytest.skip("needs pip install --no-deps --editable tests/plugin_package")


@pytest.fixture(scope="module")
def events() -> list[miniatures.SimEvent]:
    few = [miniatures.simulate(n, size) for n, size in enumerate(SIZES)]
    return [few[n % len(few)] for n in range(N_EVENTS)]


@pytest.fixture
def run_file(events: list[miniatures.SimEvent], tmp_path: Path) -> Path:
    """A run of the package's format, written with h5py; numbers have gaps."""
    path = tmp_path / "run_0012.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(N_EVENTS) * 2 + 5
        file["starts"] = np.cumsum([0, *(len(event.traces) for event in events)])
        file["traces"] = np.concatenate([event.traces for event in events])
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The model that counts pixels and gives the package's output."""
    text = json.dumps(
        tiny_models.contract(version=2, detector=DETECTOR, outputs={"energy_band": {}})
    )
    outputs = ("scores", "latent", "energy_band")
    return tiny_models.write_model(tmp_path / "model.onnx", text, outputs=outputs)


@pytest.mark.parametrize("executor", ["futures", "in-process", "processes"])
def test_its_format_output_and_executor_filter_a_run(
    executor: str,
    run_file: Path,
    model: Path,
    events: list[miniatures.SimEvent],
    cli: Cli,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    options = ["--streams", "copy", "--threads", 2, "--executor", executor, "--no-picture"]
    ended = cli("run", run_file, "--out", out, "--model", model, *options)
    assert ended.status == 0, ended.err
    rows = read_tag_table(out / "tags" / "run_0012.parquet")
    assert list(rows) == [2 * n + 5 for n in range(N_EVENTS)]
    for event, row in zip(events, rows.values(), strict=True):
        assert row["tag"] == event.tag_without_frib
        assert row["n_hits"] == event.n_lit
        band = [row[name] for name in ("band_energy", "band_low", "band_high")]
        n = event.n_lit
        assert band == ([n, n - 1, n + 1] if n >= 5 else [None] * 3)
    _check_streams(out, rows, events)
    assert read_manifest(out)["runs"][0]["format"] == "flat traces"


def _check_streams(
    out: Path, rows: dict[int, dict[str, object]], events: list[miniatures.SimEvent]
) -> None:
    """Each stream has the format of the run, and the traces of its events."""
    for tag in ("proton", "carbon", "noise", "uncertain"):
        wanted = [number for number, row in rows.items() if row["tag"] == tag]
        assert wanted
        with h5py.File(out / tag / "run_0012.h5") as file:
            assert file["numbers"][:].tolist() == wanted
            traces = [events[(number - 5) // 2].traces for number in wanted]
            np.testing.assert_array_equal(file["traces"][:], np.concatenate(traces))
            assert np.diff(file["starts"]).tolist() == [len(part) for part in traces]


def test_a_stream_of_its_format_is_a_run_again(
    run_file: Path, model: Path, cli: Cli, tmp_path: Path
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    options = ["--model", model, "--streams", "copy", "--no-picture"]
    assert cli("run", run_file, "--out", out, *options).status == 0
    assert cli("run", out / "carbon" / "run_0012.h5", "--out", again, *options).status == 0
    rows = read_tag_table(again / "tags" / "run_0012.parquet")
    assert {row["tag"] for row in rows.values()} == {"carbon"}
    assert len(rows) == N_EVENTS // len(SIZES)


def test_events_of_its_format_that_are_damaged_are_counted(
    run_file: Path, model: Path, cli: Cli, tmp_path: Path
) -> None:
    with h5py.File(run_file, "r+") as file:
        file["starts"][-1] = 10**9
    out = tmp_path / "out"
    options = ["--model", model, "--streams", "copy", "--no-picture"]
    assert cli("run", run_file, "--out", out, *options).status == 0
    row = read_tag_table(out / "tags" / "run_0012.parquet")[2 * N_EVENTS + 3]
    assert row["tag"] == "unreadable"
    assert "1000000000" in str(row["reason"])
    with h5py.File(out / "unreadable" / "run_0012.h5") as file:
        assert file["numbers"][:].tolist() == [2 * N_EVENTS + 3]


def test_links_that_its_format_cannot_make_are_refused(
    run_file: Path, model: Path, cli: Cli, tmp_path: Path
) -> None:
    ended = cli("run", run_file, "--out", tmp_path / "out", "--model", model, "--no-picture")
    assert ended.status == 2
    assert "run_0012.h5" in ended.the_error()
    assert "--streams copy" in ended.the_error()


def test_its_output_needs_a_graph_that_gives_it(cli: Cli, run_file: Path, tmp_path: Path) -> None:
    text = json.dumps(
        tiny_models.contract(version=2, detector=DETECTOR, outputs={"energy_band": {}})
    )
    lacks = tiny_models.write_model(tmp_path / "lacks.onnx", text)
    ended = cli("run", run_file, "--out", tmp_path / "out", "--model", lacks)
    assert ended.status == 2
    assert "'energy_band', 3 numbers an event" in ended.the_error()


def test_an_executor_that_nobody_adds_is_refused_and_those_there_are_named(
    run_file: Path, cli: Cli, tmp_path: Path
) -> None:
    ended = cli("run", run_file, "--out", tmp_path / "out", "--executor", "dusk")
    assert ended.status == 2
    assert "'dusk'" in ended.the_error()
    assert "futures" in ended.the_error()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_it_uses_the_public_face_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.startswith("attpc_filter.")]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.module.startswith("attpc_filter.")
            if node.module == "attpc_filter":
                assert {alias.name for alias in node.names} <= set(attpc_filter.__all__)
