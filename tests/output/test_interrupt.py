"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1, sent to the real process during a run that takes long."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

from attpc_filter.cli import main
from attpc_filter.output import staging
from tests import miniatures, tiny_models
from tests.conftest import (
    CAMPAIGN,
    Cli,
    command,
    environment,
    files_below,
    read_manifest,
    read_tag_table,
)

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
TAGS = (*tiny_models.CLASSES, "uncertain", "unreadable")
#: More events than a job gets through before its signal comes.
LONG = 40_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short runs, a long one, and one that is never reached."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        miniatures.write_run("merger_2.0", folder / "run_0001.h5"),
        miniatures.write_run("merger_legacy", folder / "run_0002.h5"),
        miniatures.write_long_run(folder / "run_0003.h5", LONG),
        miniatures.write_run("merger_1.0", folder / "run_0004.h5"),
    ]


class Process:
    """A job in a process of its own, in its own session as a batch system starts it."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    def wait_for(self, condition: Callable[[], bool], limit: float = 300) -> None:
        end = time.monotonic() + limit
        while not condition():
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, limit: float = 20) -> tuple[int, str]:
        """Status and stderr; a job that does not end when told to is an error."""
        try:
            _, err = self._process.communicate(timeout=limit)
        finally:
            self._process.kill()
        assert "Traceback" not in err, err
        return self._process.returncode, err


def check_books(out: Path, runs: list[Path]) -> list[str]:
    """What is on disk is what the manifest says, whole; returns the names of the complete runs."""
    manifest = read_manifest(out)
    complete = [Path(run["input"]).name for run in manifest["runs"] if not run["error"]]
    expected = {"manifest.json"}
    for name in complete:
        expected |= {f"tags/{Path(name).stem}.parquet", *(f"{tag}/{name}" for tag in TAGS)}
    assert files_below(out) == expected, "neither partial files nor files of no entry"
    by_name = {path.name: path for path in runs}
    for entry in manifest["runs"]:
        name = Path(entry["input"]).name
        rows = read_tag_table(out / "tags" / f"{Path(name).stem}.parquet")
        assert len(rows) == entry["n_events"] == sum(entry["counts"].values())
        with h5py.File(by_name[name]) as file:
            group = file["get"] if "get" in file else file["events"]
            in_input = sum(not name.endswith("_header") for name in group)
        assert in_input == entry["n_events"]
    return complete


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_in_the_middle_of_a_run(
    number: signal.Signals, runs: list[Path], tmp_path: Path, counter_model: Path
) -> None:
    out = tmp_path / "out"
    process = Process("run", *runs, "--out", out, "--model", counter_model, "--no-picture")

    def the_long_run_is_begun() -> bool:
        return (out / "tags" / "run_0002.parquet").exists() and any(
            path.stat().st_size for path in (out / ".attpc_filter").glob("*.partial")
        )

    process.wait_for(the_long_run_is_begun)
    time.sleep(0.3)
    process.send(number)
    status, err = process.end()
    assert status == 130
    assert sum("interrupted" in line for line in err.splitlines()) == 1
    assert check_books(out, runs) == ["run_0001.h5", "run_0002.h5"]
    manifest = read_manifest(out)
    assert manifest["exit_status"] == 130
    rows = read_tag_table(out / "tags" / "run_0001.parquet")
    assert {n: row["tag"] for n, row in rows.items()} == {
        e.number: e.tag for e in miniatures.events()
    }


def test_at_any_time(runs: list[Path], tmp_path: Path, counter_model: Path) -> None:
    check_at_any_time(2, 4, runs, tmp_path, counter_model)


@pytest.mark.campaign
def test_at_many_times(runs: list[Path], tmp_path: Path, counter_model: Path) -> None:
    check_at_any_time(round(12 * CAMPAIGN), 5, runs, tmp_path, counter_model)


def check_at_any_time(
    n_jobs: int, seed: int, runs: list[Path], tmp_path: Path, counter_model: Path
) -> None:
    """Whenever a signal comes after the start, nothing is left half written."""
    chance = random.Random(seed)
    for index in range(n_jobs):
        out = tmp_path / f"out {index}"
        number = chance.choice(SIGNALS)
        process = Process("run", *runs, "--out", out, "--model", counter_model, "--no-picture")
        process.wait_for(out.exists)
        time.sleep(chance.uniform(0, 1.0))
        process.send(number)
        status, _ = process.end()
        assert status == 130
        held = files_below(out)
        if not held:  # it came before the first run
            continue
        assert read_manifest(out)["exit_status"] == 130
        listed = {Path(run["input"]).name for run in read_manifest(out)["runs"]}
        for path in runs:
            of_run = {name for name in held if path.stem in name}
            whole = {f"tags/{path.stem}.parquet", *(f"{tag}/{path.name}" for tag in TAGS)}
            assert of_run in (set(), whole)
            assert path.name not in listed or of_run == whole


def test_impatient(runs: list[Path], tmp_path: Path, counter_model: Path) -> None:
    """SIGTERM again and again until it is gone."""
    out = tmp_path / "out"
    process = Process("run", *runs, "--out", out, "--model", counter_model, "--no-picture")
    process.wait_for((out / "tags" / "run_0002.parquet").exists)
    while process.is_alive():
        process.send(signal.SIGTERM)
        time.sleep(0.002)
    status, _ = process.end()
    assert status == 130
    check_books(out, runs)


def test_the_job_can_be_done_again(
    runs: list[Path], tmp_path: Path, counter_model: Path, cli: Cli
) -> None:
    out = tmp_path / "out"
    process = Process("run", *runs, "--out", out, "--model", counter_model, "--no-picture")
    process.wait_for((out / "tags" / "run_0001.parquet").exists)
    process.send(signal.SIGTERM)
    assert process.end()[0] == 130
    again = cli(
        "run", runs[0], runs[1], runs[3], "--out", out, "--model", counter_model,
        "--no-picture",
    )  # fmt: skip
    assert again.status == 0
    assert check_books(out, runs) == ["run_0001.h5", "run_0002.h5", "run_0004.h5"]


class TestDuringCommit:
    """A signal that comes while the files of a run get their final names waits for that."""

    @pytest.fixture
    def interrupted_at(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
        """Send this process a signal at the n-th file that gets its final name."""
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        replace = os.replace

        def arm(nth: int) -> None:
            seen = 0

            def replace_and_interrupt(source: Path, target: Path) -> None:
                nonlocal seen
                seen += 1
                replace(source, target)
                if seen == nth:
                    os.kill(os.getpid(), signal.SIGINT)

            monkeypatch.setattr(staging.os, "replace", replace_and_interrupt)

        yield arm
        for number, handler in handlers.items():
            signal.signal(number, handler)

    @pytest.mark.parametrize("nth", [2, 4, 7])
    def test_no_run_is_half_committed(
        self,
        nth: int,
        interrupted_at: Callable[[int], None],
        runs: list[Path],
        tmp_path: Path,
        counter_model: Path,
    ) -> None:
        out = tmp_path / "out"
        interrupted_at(nth)
        options = ["--out", str(out), "--model", str(counter_model), "--no-picture"]
        assert main(["run", str(runs[0]), str(runs[1]), *options]) == 130
        assert check_books(out, runs) == ["run_0001.h5"]
        assert read_manifest(out)["exit_status"] == 130
