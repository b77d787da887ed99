"""An event that ends its worker process twice is tagged unreadable; the run goes on."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from attpc_filter.config import Config
from attpc_filter.errors import InputError
from attpc_filter.execute import processes
from attpc_filter.execute.base import tag_events
from attpc_filter.formats.registry import open_run
from attpc_filter.tagging.batch import Batch
from attpc_filter.tagging.plan import Plan, make_plan
from tests import miniatures, tiny_models
from tests.conftest import Cli, read_manifest, read_tag_table

STEP_TIMEOUT_S = 4.0


@pytest.fixture
def write_damaging(tmp_path: Path) -> Callable[[list[str]], Path]:
    """Write a run whose events crash their reader, hang, or do neither; a word each."""
    try:
        version("attpc-filter-example")
    except PackageNotFoundError:
        pytest.skip("needs pip install --no-deps --editable tests/plugin_package")

    def write(words: list[str]) -> Path:
        path = tmp_path / "run_0007.txt"
        path.write_text("\n".join(["events that end their reader", *words]), encoding="ascii")
        return path

    return write


def _tag(path: Path, plan: Plan) -> list[Batch]:
    with processes.WorkerPool(plan.config) as pool:
        pool.load(plan)
        with open_run(path) as run, tag_events(run, plan, pool) as batches:
            return list(batches)


def test_an_event_that_crashes_its_reader_and_one_that_hangs_it(
    write_damaging: Callable[[list[str]], Path], counter_model: Path, cli: Cli, tmp_path: Path
) -> None:
    words = ["fine"] * 150
    words[3], words[100] = "crash", "hang"
    path = write_damaging(words)
    out = tmp_path / "out"
    options = ["--executor", "processes", "--step-timeout", STEP_TIMEOUT_S, "--no-picture"]
    ended = cli("run", path, "--out", out, "--model", counter_model, *options, timeout=300)
    assert ended.status == 0, ended.err
    rows = read_tag_table(out / "tags" / "run_0007.parquet")
    assert list(rows) == list(range(150))
    unreadable = {n: row["reason"] for n, row in rows.items() if row["tag"] == "unreadable"}
    assert unreadable.keys() == {3, 100}
    assert "crashed on it (SIGSEGV)" in unreadable[3]
    assert "no progress for" in unreadable[100]
    assert read_manifest(out)["runs"][0]["counts"]["unreadable"] == 2


def test_an_event_on_which_the_model_never_ends(tmp_path: Path) -> None:
    """A graph with a loop: ONNX Runtime itself does not come back."""
    model = tiny_models.write_model(tmp_path / "endless.onnx", endless_above=80.0)
    sizes = [30, 60, 90, 10]
    events = [miniatures.simulate(n, sizes[n]) for n in range(4)]
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0001.h5", events)
    plan = make_plan(Config(model=str(model), threads=1, step_timeout=STEP_TIMEOUT_S))
    (batch,) = _tag(path, plan)
    assert batch.tags == ["proton", "carbon", "unreadable", "noise"]
    assert "no progress for" in batch.reasons[2]
    assert batch.n_hits.tolist()[:2] == [30, 60]


@pytest.mark.parametrize("n_crashes", [2, 3])
def test_only_so_many_events_of_a_run_may_do_that(
    n_crashes: int,
    write_damaging: Callable[[list[str]], Path],
    counter_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If more do, the file or the model is to blame, and each costs the start of two workers."""
    monkeypatch.setattr(processes, "_MOST_SET_ASIDE", 2)
    path = write_damaging(["crash"] * n_crashes + ["fine"])
    plan = make_plan(Config(model=str(counter_model), threads=1))
    if n_crashes == 2:
        (batch,) = _tag(path, plan)
        assert batch.tags[:2] == ["unreadable", "unreadable"]
        assert batch.tags[2] != "unreadable"
    else:
        with pytest.raises(InputError, match=r"run_0007\.txt: more than 2 events each ended"):
            _tag(path, plan)
