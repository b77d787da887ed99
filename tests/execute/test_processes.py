"""Events tagged by processes beside this one: the same, in order, whatever happens to them."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.config import Config
from attpc_filter.errors import InputError
from attpc_filter.execute import memory as memory_module
from attpc_filter.execute.base import InProcess, tag_events
from attpc_filter.execute.memory import cpu_seconds, peak_memory_bytes
from attpc_filter.execute.processes import WorkerPool
from attpc_filter.formats.registry import open_run
from attpc_filter.tagging.batch import Batch
from attpc_filter.tagging.plan import Plan, make_plan
from attpc_filter.tagging.stages import BATCH_EVENTS
from tests import miniatures
from tests.conftest import command, environment, read_manifest, read_tag_table

#: Lit pixels of an event: none at all, and few to many.
SIZES = [10, 60, 0, 30, 10, 60]
N_EVENTS = 5 * BATCH_EVENTS + 7


@pytest.fixture(scope="module")
def events() -> list[miniatures.SimEvent]:
    few = [miniatures.simulate(n, SIZES[n % len(SIZES)]) for n in range(12)]
    return [dataclasses.replace(few[n % 12], number=n) for n in range(N_EVENTS)]


@pytest.fixture
def path(events: list[miniatures.SimEvent], tmp_path: Path) -> Path:
    return miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5", events)


@pytest.fixture(scope="module")
def plan(counter_model: Path) -> Plan:
    return make_plan(Config(model=str(counter_model), threads=2))


@contextlib.contextmanager
def _pool(plan: Plan) -> Iterator[WorkerPool]:
    with WorkerPool(plan.config) as pool:
        pool.load(plan)
        yield pool


@contextlib.contextmanager
def _on_run(pool: WorkerPool, path: Path, plan: Plan) -> Iterator[Iterator[Batch]]:
    with (
        open_run(path) as run,
        tag_events(run, plan, pool) as batches,
    ):
        yield batches


@contextlib.contextmanager
def _tagging(path: Path, plan: Plan) -> Iterator[Iterator[Batch]]:
    with _pool(plan) as pool, _on_run(pool, path, plan) as batches:
        yield batches


def _children(parent: int | None = None) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", "-P", str(parent or os.getpid()), "attpc_filter.execute.processes"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(line) for line in found.stdout.split()]


def _exhaust(batches: Iterator[Batch]) -> int:
    return sum(len(batch.records) for batch in batches)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_tags_are_those_of_the_simulation(
    threads: int, path: Path, events: list[miniatures.SimEvent], counter_model: Path
) -> None:
    plan = make_plan(Config(model=str(counter_model), threads=threads))
    with _pool(plan) as pool, _on_run(pool, path, plan) as stream:
        assert len(_children()) == threads
        batches = list(stream)
    assert not _children()
    assert {len(batch.records) for batch in batches[:-1]} == {BATCH_EVENTS}
    assert np.concatenate([batch.events for batch in batches]).tolist() == list(range(N_EVENTS))
    assert [tag for batch in batches for tag in batch.tags] == [event.tag for event in events]
    counts = np.concatenate([batch.n_hits for batch in batches])
    assert counts.tolist() == [event.n_lit for event in events]


def test_hits_are_those_of_a_single_process(path: Path, counter_model: Path) -> None:
    plan = make_plan(Config(model=str(counter_model), threads=2, keep_hits=True))
    with _tagging(path, plan) as batches:
        found = list(batches)
    alone = InProcess(plan.config)
    alone.load(plan)
    with open_run(path) as run, tag_events(run, plan, alone) as batches:
        for batch, alone in zip(found, batches, strict=True):
            assert batch.hits is not None
            assert alone.hits is not None
            for column in dataclasses.fields(batch.hits):
                np.testing.assert_array_equal(
                    getattr(batch.hits, column.name), getattr(alone.hits, column.name)
                )
            np.testing.assert_array_equal(batch.scores, alone.scores)


def test_bad_events_keep_their_reasons(path: Path, plan: Plan) -> None:
    with h5py.File(path, "r+") as file:
        for number in (50, 51):
            del file[f"events/event_{number}/get_traces"]
        file["events/event_50/get_traces"] = np.zeros((3, 400), np.int16)
    reasons = {}
    with _tagging(path, plan) as batches:
        for batch in batches:
            reasons |= {record.event: record.reason for record in batch.records if record.reason}
    assert reasons.keys() == {50, 51}
    assert "(3, 400)" in reasons[50]
    assert "no trace matrix" in reasons[51]


def test_a_process_that_is_killed_is_reported(tmp_path: Path, plan: Plan) -> None:
    long = miniatures.write_long_run(tmp_path / "run_0001.h5", 10_000)
    with _tagging(long, plan) as batches:
        next(batches)
        os.kill(_children()[0], signal.SIGKILL)
        with pytest.raises(InputError, match=r"run_0001\.h5: a process .* \(exit status -9"):
            _exhaust(batches)
    assert not _children()


def test_a_process_that_is_held_up_changes_no_order(tmp_path: Path, plan: Plan) -> None:
    """The other takes more of the batches meanwhile; they come in the order of the run."""
    long = miniatures.write_long_run(tmp_path / "run_0001.h5", 2_000)
    with _tagging(long, plan) as batches:
        numbers = next(batches).events.tolist()
        slow = _children()[0]
        os.kill(slow, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (slow, signal.SIGCONT)).start()
        for batch in batches:
            numbers += batch.events.tolist()
    with open_run(long) as run:
        assert numbers == [number for number, _ in run.events]


def test_a_file_that_is_gone_is_reported(path: Path, plan: Plan) -> None:
    with open_run(path) as run:
        path.rename(path.with_name("elsewhere.h5"))
        with (
            _pool(plan) as pool,
            tag_events(run, plan, pool) as batches,
            pytest.raises(InputError, match="no such file"),
        ):
            _exhaust(batches)


def test_a_model_that_is_replaced_after_the_start_changes_nothing(
    path: Path, events: list[miniatures.SimEvent], tmp_path: Path, counter_model: Path
) -> None:
    """A plan holds the model's bytes: workers never look at the file, new ones neither."""
    model = tmp_path / "model.onnx"
    model.write_bytes(counter_model.read_bytes())
    plan = make_plan(Config(model=str(model), threads=2))
    model.write_bytes(b"another model")
    with _pool(plan) as pool:
        for _ in range(2):
            with _on_run(pool, path, plan) as batches:
                tags = [tag for batch in batches for tag in batch.tags]
            assert tags == [event.tag for event in events]
            os.kill(_children()[0], signal.SIGKILL)
            time.sleep(0.1)


def test_nothing_is_left_of_an_early_end(path: Path, plan: Plan) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with _tagging(path, plan) as batches:
            next(batches)
            assert len(_children()) == 2
        assert not _children()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the listing's own


def test_run_after_run_by_the_same_processes(
    path: Path, events: list[miniatures.SimEvent], tmp_path: Path, plan: Plan
) -> None:
    """Runs of one batch too; this process scores nothing: it may have no model on the device."""
    other = miniatures.write_run("merger_2.0", tmp_path / "run_0002.h5", events[:100])
    short = miniatures.write_run("merger_2.0", tmp_path / "run_0003.h5", events[:5])
    with _pool(plan) as pool:
        processes = _children()
        assert len(processes) == 2
        for run, n_events in [(path, N_EVENTS), (other, 100), (short, 5), (path, N_EVENTS)]:
            with _on_run(pool, run, plan) as batches:
                tags = [tag for batch in batches for tag in batch.tags]
            assert tags == [event.tag for event in events[:n_events]]
            assert sorted(_children()) == sorted(processes)
    assert not _children()


def test_processes_that_were_left_or_killed_are_replaced(path: Path, plan: Plan) -> None:
    with _pool(plan) as pool:
        with _on_run(pool, path, plan) as batches:
            next(batches)
        with _on_run(pool, path, plan) as batches:
            assert _exhaust(batches) == N_EVENTS
        os.kill(_children()[0], signal.SIGKILL)
        time.sleep(0.1)
        with _on_run(pool, path, plan) as batches:
            assert _exhaust(batches) == N_EVENTS
            assert len(_children()) == 2


def test_their_processor_time_and_memory_are_counted(
    path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "_most_of_workers", 0)
    memory, seconds = peak_memory_bytes(), cpu_seconds()
    with _tagging(path, plan) as batches:
        _exhaust(batches)
        assert cpu_seconds() - seconds > 0.5  # Python, numba and ONNX Runtime were loaded
        assert peak_memory_bytes() - memory > 100 << 20
    assert cpu_seconds() - seconds > 0.5
    assert peak_memory_bytes() - memory > 100 << 20


@pytest.mark.parametrize("layout", ["merger_2.0", "spyral_cloud"])
def test_a_long_run_on_two_threads(layout: str, tmp_path: Path, counter_model: Path) -> None:
    """Each thread that is asked for is a process."""
    few = [miniatures.simulate(n, [10, 30, 60, 20, 0][n % 5]) for n in range(20)]
    chosen = [dataclasses.replace(few[n % 20], number=n) for n in range(1100)]
    path = miniatures.write_run(layout, tmp_path / "run_0001.h5", chosen)
    out = tmp_path / "out"
    arguments = ("run", path, "--out", out, "--model", counter_model, "--threads", 2)
    subprocess.run(
        [*command(*arguments), "--no-picture"],
        env=environment(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    rows = read_tag_table(out / "tags" / "run_0001.parquet")
    assert {n: row["tag"] for n, row in rows.items()} == {
        event.number: event.tag_without_frib for event in chosen
    }
    assert read_manifest(out)["n_events"] == 1100


def test_workers_outlive_the_thread_that_started_them(path: Path, plan: Plan) -> None:
    """A host program may start the executor in one thread and use it in another."""
    pool = WorkerPool(plan.config)

    def start() -> None:
        pool.__enter__()
        pool.load(plan)
        pool.wait()

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    workers = _children()
    try:
        time.sleep(0.2)
        with _on_run(pool, path, plan) as batches:
            assert _exhaust(batches) == N_EVENTS
        assert sorted(_children()) == sorted(workers)
    finally:
        pool.__exit__(None, None, None)


def _is_running(process: int) -> bool:
    """Whether it is there and not only waits for someone to take note of its end."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def _watches_its_parent(process: int) -> bool:
    """Whether the system sends it a signal when something happens to one of its files."""
    texts = []
    for file in Path(f"/proc/{process}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it closed that file meanwhile
            texts.append(file.read_text())
    return any(int(text.split("flags:")[1].split()[0], 8) & os.O_ASYNC for text in texts)


@pytest.mark.parametrize("workers_are_stopped", [False, True])
def test_none_outlives_a_job_that_is_killed(
    workers_are_stopped: bool, tmp_path: Path, counter_model: Path
) -> None:
    """Not even one that executes nothing at that time."""
    path = miniatures.write_long_run(tmp_path / "run_0001.h5", 40_000)
    arguments = ("run", path, "--out", tmp_path / "out", "--model", counter_model, "--threads", 2)
    with subprocess.Popen(
        [*command(*arguments), "--no-picture"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as job:
        children: list[int] = []
        end = time.monotonic() + 60
        while not children:
            assert job.poll() is None
            assert time.monotonic() < end, "no process reads"
            children = _children(job.pid)
        while not all(map(_watches_its_parent, children)):
            assert time.monotonic() < end, "they do not start"
            time.sleep(0.05)
        for child in children if workers_are_stopped else []:
            os.kill(child, signal.SIGSTOP)
        job.kill()
    while any(_is_running(child) for child in children):
        assert time.monotonic() < end, "it still reads"
        time.sleep(0.05)


def test_modules_that_lie_in_the_working_folder_are_not_taken(
    tmp_path: Path, path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    with _tagging(path, plan) as batches:
        assert _exhaust(batches) == N_EVENTS


@pytest.mark.parametrize("sent", [signal.SIGSEGV, signal.SIGSTOP])
def test_a_worker_that_crashes_or_hangs_costs_no_event(
    sent: signal.Signals, tmp_path: Path, counter_model: Path
) -> None:
    """Its batch is done again in a fresh worker; no event does it again, so none is set aside."""
    long = miniatures.write_long_run(tmp_path / "run_0001.h5", 2_000)
    plan = make_plan(Config(model=str(counter_model), threads=2, step_timeout=2.0))
    with open_run(long) as run:
        numbers = [number for number, _ in run.events]
    with _tagging(long, plan) as batches:
        first = next(batches)
        os.kill(_children()[0], sent)
        rest = list(batches)
    found = [first, *rest]
    assert [n for batch in found for n in batch.events.tolist()] == numbers
    assert not [reason for batch in found for reason in batch.reasons if "worker" in reason]
    assert not [tag for batch in found for tag in batch.tags if tag == "unreadable"]
    assert not _children()
