"""``attpc-filter status`` tells what was done, what runs and what failed; nothing is changed."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from attpc_filter.parts.status import SILENCE_S
from tests import miniatures
from tests.conftest import Cli, Ended, command, environment, files_below
from tests.parts.conftest import N_PARTS

Plan = Callable[..., Ended]


def states(ended: Ended) -> dict[str, int]:
    """The numbers of the first line."""
    return {name: int(n) for n, name in re.findall(r"(\d+) (\w+)", ended.out.splitlines()[0])}


def test_parts(call: Cli, plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan(out, "--no-picture")
    ended = call("status", out)
    assert ended.status == 1
    assert states(ended) == {"done": 0, "running": 0, "failed": 0, "waiting": N_PARTS}
    call("run", "--part", "1-2", out)
    before = files_below(out)
    ended = call("status", out)
    assert ended.status == 1
    assert states(ended) == {"done": 2, "running": 0, "failed": 0, "waiting": N_PARTS - 2}
    assert "MB/s a process" in ended.out
    assert files_below(out) == before
    call("run", "--part", "0-4", out)
    ended = call("status", out)
    assert ended.status == 0
    assert re.search(r"^events +270$", ended.out, re.MULTILINE)
    assert f"attpc-filter join {out}" in ended.out
    assert call("join", out).status == 0
    ended = call("status", out)
    assert ended.status == 0
    assert "join" not in ended.out


def test_a_part_that_failed(call: Cli, counter_model: Path, tmp_path: Path) -> None:
    run = miniatures.write_run("pytpc_get", tmp_path / "run_0001.h5")
    out = tmp_path / "out"
    call("plan", run, "--out", out, "--model", counter_model)
    with h5py.File(run, "a") as file:
        del file["get"]
    assert call("run", "--part", "0", out).status == 2
    ended = call("status", out)
    assert ended.status == 2
    assert states(ended)["failed"] == 1
    assert "part 0, run_0001.h5, part 1 of 1: failed: " in ended.out
    # the list is written anew for a run that is whole again: it is waiting, not failed
    miniatures.write_run("pytpc_get", run)
    call("plan", run, "--out", out, "--model", counter_model, "--thresholds", "proton=0.7")
    assert call("status", out).status == 1


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """A run that takes a second or more."""
    return miniatures.write_long_run(tmp_path / "run_0001.h5", 20_000)


def test_a_part_that_runs_and_one_that_was_killed(
    long_run: Path, call: Cli, counter_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    call("plan", long_run, "--out", out, "--model", counter_model, "--threads", "1")
    process = subprocess.Popen(
        command("run", "--part", "0", out), stderr=subprocess.DEVNULL, env=environment()
    )
    end = time.monotonic() + 60
    while not (progress := list(out.glob("parts/*/progress.json"))):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    ended = call("status", out)
    assert ended.status == 1
    assert states(ended)["running"] == 1
    assert re.search(r"run_0001.h5, part 1 of 1: \d+ of 20000 events", ended.out)
    process.kill()
    process.wait()
    long_ago = time.time() - SILENCE_S - 1
    os.utime(progress[0], (long_ago, long_ago))
    assert states(call("status", out)) == {"done": 0, "running": 0, "failed": 0, "waiting": 1}


def test_a_plain_job(call: Cli, runs: list[Path], counter_model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "run_0009.h5"
    bad.write_text("no run")
    options = ("--model", counter_model, "--no-picture", "--threads", "1")
    call("run", *runs, "--out", tmp_path / "good", *options)
    ended = call("status", tmp_path / "good")
    assert ended.status == 0
    assert states(ended) == {"done": 2, "running": 0, "failed": 0, "waiting": 0}
    call("run", runs[0], bad, "--out", tmp_path / "bad", *options)
    ended = call("status", tmp_path / "bad")
    assert ended.status == 2
    assert str(bad) in ended.out
    assert call("status", tmp_path).status == 2
