"""The scripts for Slurm: their text, and (``make campaigns``) what a real Slurm does with them."""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attpc_filter import compiled
from attpc_filter.parts.slurm import seconds_of
from tests import miniatures
from tests.conftest import CAMPAIGN, Cli, Ended
from tests.parts.conftest import N_PARTS
from tests.parts.slurm_cluster import SlurmCluster, what_is_missing
from tests.parts.test_parts import same_outputs

Plan = Callable[..., Ended]


def directives(script: Path) -> dict[str, str]:
    """The options that a script gives to sbatch."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE)
    return {name: value.strip('"') for name, value in found}


def test_what_the_array_asks_for(call: Cli, plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    plan(out)
    wishes = ("--time", "2:00:00", "--account", "nuclear", "--mem", "4G", "--max-array-size", "2")
    ended = call("slurm", out, *wishes, "--cpus", "4", "--gpu", "--at-once", "64")
    assert ended.status == 0
    assert f"2 tasks, {N_PARTS} parts, at most 3 each" in ended.out
    array = out / "parts" / "array.sh"
    assert directives(array) == {
        "job-name": "attpc-filter",
        "time": "2:00:00",
        "account": "nuclear",
        "mem": "4G",
        "ntasks": "1",
        "cpus-per-task": "4",
        "gpus-per-task": "1",
        "array": "0-1%64",
        "requeue": "",
        "open-mode": "append",
        "signal": "B:TERM@60",
        "output": str(out / "parts" / "logs" / "%A_%a.log"),
    }
    text = array.read_text()
    assert '--part "$SLURM_ARRAY_TASK_ID-4:2" --threads 4 --device cuda' in text
    for name in ("array.sh", "join.sh", "submit.sh"):
        subprocess.run(["bash", "-n", out / "parts" / name], check=True)


def test_without_slurm_the_array_has_its_default_size(
    call: Cli, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    plan(tmp_path / "out")
    listed = tmp_path / "out" / "parts" / "parts.json"
    content = json.loads(listed.read_text())
    content["parts"] *= 1000
    listed.write_text(json.dumps(content))
    assert call("slurm", tmp_path / "out", "--time", "60").status == 0
    assert directives(tmp_path / "out" / "parts" / "array.sh")["array"] == "0-1000"


def test_dry_run_measures_and_writes_nothing(
    call: Cli, counter_model: Path, tmp_path: Path
) -> None:
    run = miniatures.write_long_run(tmp_path / "run_0001.h5", 2000)
    out = tmp_path / "out"
    call("plan", run, "--out", out, "--model", counter_model)
    ended = call("slurm", out, "--time", "1:00:00", "--dry-run")
    assert ended.status == 0
    assert re.search(r"measured +\d+ MB/s on one core", ended.out)
    assert "the limit is 1:00:00" in ended.out
    assert not (out / "parts" / "array.sh").exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("1:30:00", 5400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("2-12:30:05", 217_805),
    ],
)
def test_times_as_slurm_writes_them(text: str, seconds: int) -> None:
    """The forms that the manual page of sbatch lists."""
    assert seconds_of(text) == seconds


def test_bad_usage_is_one_line(call: Cli, plan: Plan, tmp_path: Path) -> None:
    plan(tmp_path / "out")
    assert "not a time" in call("slurm", tmp_path / "out", "--time", "soon").the_error()
    assert "--cpus" in call("slurm", tmp_path / "out", "--time", "1", "--cpus", "0").the_error()
    assert "no list of parts" in call("slurm", tmp_path, "--time", "1").the_error()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A real Slurm on this machine; it stops with the test."""
    if why := what_is_missing():
        pytest.skip(why)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(compiled.folder()))  # or each test compiles anew
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, SlurmCluster(Path(folder)) as slurm:
        monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
        yield slurm


def submit(out: Path) -> tuple[str, str]:
    """Numbers of the array and of the job that joins."""
    text = subprocess.run(
        ["sh", out / "parts" / "submit.sh"], capture_output=True, text=True, check=True
    ).stdout
    return re.search(r"filter +(\d+)", text)[1], re.search(r"join +(\d+)", text)[1]  # type: ignore[index]


def logs_of(out: Path) -> dict[str, str]:
    """What the tasks wrote, by the names of their logs."""
    return {path.name: path.read_text() for path in (out / "parts" / "logs").iterdir()}


@pytest.mark.campaign
def test_a_real_slurm_filters_and_joins(
    cluster: SlurmCluster,
    call: Cli,
    plan: Plan,
    one_job: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five parts in four tasks, as the cluster's MaxArraySize wants it; then the join."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    out = tmp_path / "out"
    plan(out)
    ended = call("slurm", out, "--time", "10")
    assert f"4 tasks, {N_PARTS} parts" in ended.out
    array, join = submit(out)
    cluster.wait(300)
    logs = logs_of(out)
    assert set(logs) == {f"{array}_{task}.log" for task in range(4)} | {f"join_{join}.log"}, logs
    assert call("status", out).status == 0, logs
    same_outputs(out, one_job())
    assert list((tmp_path / "scratch").glob("attpc-filter.*")) == []


@pytest.mark.campaign
@pytest.mark.skipif(CAMPAIGN <= 1, reason="Slurm takes its time: make campaigns CAMPAIGN=2")
def test_a_task_that_slurm_ends_is_queued_again_and_goes_on(
    cluster: SlurmCluster, call: Cli, counter_model: Path, tmp_path: Path
) -> None:
    """SIGTERM, as before the time limit: the part is given up, the task is queued again."""
    run = miniatures.write_long_run(tmp_path / "run_0001.h5", 40_000)
    out = tmp_path / "out"
    size = run.stat().st_size // 2 + 1
    call("plan", run, "--out", out, "--model", counter_model, "--part-size", size, "--no-picture")
    call("slurm", out, "--time", "10", "--max-array-size", "1")
    array, _ = submit(out)
    second = out / "parts" / "run_0001.2-of-2"
    end = time.monotonic() + 300
    while not (second / "progress.json").exists():  # the first part is done
        assert time.monotonic() < end, (out / "parts/logs" / f"{array}_0.log").read_text()
        time.sleep(0.05)
    first = out / "parts" / "run_0001.1-of-2" / "report.json"
    before = first.read_bytes()
    cluster.ask("scancel", "--batch", "--signal=TERM", f"{array}_0")
    while "PENDING" not in cluster.ask("squeue", "-h", "-j", f"{array}_0", "-o", "%T"):
        assert time.monotonic() < end, logs_of(out)
        time.sleep(0.5)
    assert "Restarts=1" in cluster.ask("scontrol", "show", "job", f"{array}_0")
    assert not (second / "report.json").exists()
    assert not list(second.glob(".*.partial"))
    # Slurm lets a job that is queued again wait for two minutes
    cluster.ask("scontrol", "update", f"jobid={array}_0", "starttime=now")
    cluster.wait(300)
    assert call("status", out).status == 0, (logs_of(out), cluster.log())
    assert first.read_bytes() == before
    assert (out / "tags" / "run_0001.parquet").exists()
