"""Runs that make several parts, and what one undisturbed job makes of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attpc_filter.cli import main
from tests import miniatures
from tests.conftest import Ended, made_once

#: Two runs make five parts: of 3 and of 2 batches.
PART_SIZE = "1.6MB"
N_PARTS = 5


def _write_runs(folder: Path) -> None:
    """Two runs of two layouts: 170 and 100 events of every tag."""
    lit = (10, 30, 60, 8, 20, 0, 30)
    for layout, name, n_events in (("merger_2.0", "run_0001", 170), ("pytpc_get", "run_0002", 100)):
        events = [
            miniatures.simulate(
                3 * i, lit[i % 7], trigger=miniatures.IC_TRIGGER if i % 50 == 3 else None
            )
            for i in range(n_events)
        ]
        miniatures.write_run(layout, folder / f"{name}.h5", events)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs; do not change them."""
    folder = made_once(tmp_path_factory, "runs_for_parts", _write_runs)
    return sorted(folder.glob("*.h5"))


@pytest.fixture(scope="session")
def one_job(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Path], counter_model: Path
) -> Callable[..., Path]:
    """The output of one undisturbed ``attpc-filter run`` with some options."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*options: str) -> Path:
        if options not in made:
            out = tmp_path_factory.mktemp("one_job") / "out"
            arguments = [*map(str, runs), "--out", str(out), "--model", str(counter_model)]
            assert main(["run", *arguments, "--threads", "1", *options]) == 0
            made[options] = out
        return made[options]

    return run


@pytest.fixture
def plan(call: Callable[..., Ended], runs: list[Path], counter_model: Path) -> Callable[..., Ended]:
    """Write the list of parts of the runs."""

    def write(out: Path, *options: object) -> Ended:
        return call(
            *("plan", *runs, "--out", out, "--model", counter_model),
            *("--threads", "1", "--part-size", PART_SIZE, *options),
        )

    return write
