"""Events read by processes beside this one: the same, in order, whole, whatever happens to them."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter import memory as memory_module
from attpc_filter.errors import InputError
from attpc_filter.formats import open_run
from attpc_filter.memory import cpu_seconds, peak_memory_bytes
from attpc_filter.reading import Part, Readers, can_read_beside, read_parts_beside
from attpc_filter.root_options import RootOptions
from tests import miniatures
from tests.conftest import command, environment, read_manifest, read_tag_table

pytestmark = pytest.mark.skipif(not can_read_beside(), reason="no memory without a name here")

#: Lit pixels of an event: none at all, fewer traces than a buffer holds, and more.
SIZES = [10, 60, 0, 30, 10, 60]
N_EVENTS = 90
BATCH, ROWS = 4, 50


@pytest.fixture(scope="module")
def events() -> list[miniatures.SimEvent]:
    return [miniatures.simulate(n, SIZES[n % len(SIZES)]) for n in range(N_EVENTS)]


@pytest.fixture
def path(events: list[miniatures.SimEvent], tmp_path: Path) -> Path:
    return miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5", events)


@contextlib.contextmanager
def _parts(readers: Readers, path: Path, n_buffers: int = 2) -> Iterator[Iterator[Part]]:
    with (
        open_run(path) as run,
        contextlib.closing(
            read_parts_beside(readers, run, RootOptions(), BATCH, ROWS, n_buffers)
        ) as parts,
    ):
        yield parts


@contextlib.contextmanager
def _reading(path: Path, n_buffers: int = 2, n_processes: int = 1) -> Iterator[Iterator[Part]]:
    with Readers(n_processes) as readers, _parts(readers, path, n_buffers) as parts:
        yield parts


def _children(parent: int | None = None) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", "-P", str(parent or os.getpid()), "attpc_filter.reading"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(line) for line in found.stdout.split()]


def _exhaust(parts: Iterator[Part]) -> None:
    for _, give_back in parts:
        give_back()


@pytest.mark.parametrize("n_processes", [1, 3])
@pytest.mark.parametrize("n_buffers", [1, 3])
def test_events_are_those_of_the_file(
    n_buffers: int, n_processes: int, path: Path, events: list[miniatures.SimEvent]
) -> None:
    seen, sizes = 0, []
    with _reading(path, n_buffers, n_processes) as parts:
        for records, give_back in parts:
            sizes.append(len(records))
            for record in records:
                assert (record.event, record.reason) == (seen, "")
                np.testing.assert_array_equal(record.traces, events[seen].traces)
                seen += 1
                assert seen % BATCH or record is records[-1], "a part crosses a batch"
            give_back()
    assert seen == N_EVENTS
    assert max(sizes) > 1, "each event came alone"
    assert not _children()


def test_a_buffer_is_left_alone_until_it_is_given_back(
    path: Path, events: list[miniatures.SimEvent]
) -> None:
    with _reading(path, n_buffers=2) as parts:
        records, give_back = next(parts)
        copies = [record.traces.copy() for record in records]
        next(parts)[1]()
        time.sleep(0.3)  # the process goes on with the other buffer
        for record, copy in zip(records, copies, strict=True):
            np.testing.assert_array_equal(record.traces, copy)
            np.testing.assert_array_equal(record.traces, events[record.event].traces)
        give_back()


def test_bad_events_keep_their_reasons(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for number in (50, 51):
            del file[f"events/event_{number}/get_traces"]
        file["events/event_50/get_traces"] = np.zeros((3, 400), np.int16)
    reasons = {}
    with _reading(path) as parts:
        for records, give_back in parts:
            reasons |= {record.event: record.reason for record in records if record.reason}
            give_back()
    assert reasons.keys() == {50, 51}
    assert "(3, 400)" in reasons[50]
    assert "no trace matrix" in reasons[51]


def test_a_process_that_is_killed_is_reported(path: Path) -> None:
    with _reading(path) as parts:
        next(parts)
        os.kill(_children()[0], signal.SIGKILL)
        with pytest.raises(InputError, match=r"run_0001\.h5: the process .* \(exit status -9"):
            _exhaust(parts)
    assert not _children()


def test_a_file_that_is_gone_is_reported(path: Path) -> None:
    with open_run(path) as run:
        path.rename(path.with_name("elsewhere.h5"))
        with (
            Readers(1) as readers,
            contextlib.closing(
                read_parts_beside(readers, run, RootOptions(), BATCH, ROWS, 2)
            ) as parts,
            pytest.raises(InputError, match="no such file"),
        ):
            _exhaust(parts)


def test_nothing_is_left_of_an_early_end(path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with _reading(path, n_processes=2) as parts:
            _, give_back = next(parts)
            assert len(_children()) == 2
        give_back()  # late, as a worker does: nobody is there to take it
        assert not _children()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the listing's own


def test_run_after_run_by_the_same_processes(
    path: Path, events: list[miniatures.SimEvent], tmp_path: Path
) -> None:
    other = miniatures.write_run("merger_2.0", tmp_path / "run_0002.h5", events[:30])
    with Readers(2) as readers:
        processes = _children()
        assert len(processes) == 2
        for run, n_events in [(path, N_EVENTS), (other, 30), (path, N_EVENTS)]:
            seen = 0
            with _parts(readers, run) as parts:
                while seen < n_events:  # whoever knows how many there are asks for no more
                    records, give_back = next(parts)
                    for record in records:
                        np.testing.assert_array_equal(record.traces, events[seen].traces)
                        seen += 1
                    give_back()
            assert sorted(_children()) == sorted(processes)
    assert not _children()


def test_processes_that_were_left_or_killed_are_replaced(
    path: Path, events: list[miniatures.SimEvent]
) -> None:
    with Readers(1) as readers:
        with _parts(readers, path) as parts:
            next(parts)
        with _parts(readers, path) as parts:
            _exhaust(parts)
        os.kill(_children()[0], signal.SIGKILL)
        time.sleep(0.1)
        with _parts(readers, path) as parts:
            records, _ = next(parts)
            np.testing.assert_array_equal(records[0].traces, events[0].traces)
            assert len(_children()) == 1


def test_its_processor_time_and_memory_are_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "_most_of_helpers", 0)
    memory, seconds = peak_memory_bytes(), cpu_seconds()
    with _reading(path) as parts:
        _exhaust(parts)
        assert cpu_seconds() - seconds > 0.05  # Python and HDF5 were loaded
        assert peak_memory_bytes() - memory > 15 << 20
    assert cpu_seconds() - seconds > 0.05
    assert peak_memory_bytes() - memory > 15 << 20


@pytest.mark.parametrize("layout", ["merger_2.0", "spyral_cloud"])
def test_a_long_run_on_two_threads(layout: str, tmp_path: Path, counter_model: Path) -> None:
    """The second thread has a process that reads for it."""
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


def _is_running(process: int) -> bool:
    """Whether it is there and not only waits for someone to take note of its end."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_none_outlives_a_job_that_is_killed(tmp_path: Path, counter_model: Path) -> None:
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
        time.sleep(1.0)
        job.kill()
    while any(_is_running(child) for child in children):
        assert time.monotonic() < end, "it still reads"
        time.sleep(0.05)


def test_modules_that_lie_in_the_working_folder_are_not_taken(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    with _reading(path) as parts:
        _exhaust(parts)
