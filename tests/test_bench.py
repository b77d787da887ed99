"""``attpc-filter bench`` on real files: what it says is measured is what was done."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.bench import Sample, Step, what_limits
from attpc_filter.formats.hdf5.ceilings import bare_reads
from attpc_filter.formats.registry import open_run
from tests import miniatures
from tests.conftest import Cli

STEPS = [
    "read, page cache cold",
    "read",
    "rebuild",
    "model inputs",
    "score",
    "tags without writing",
    "whole job",
]


@pytest.mark.parametrize(
    "layout", ["merger_2.0", "merger_1.0", "merger_legacy", "harmonizer_0.1.0"]
)
def test_bare_reads_read_the_traces(layout: str, tmp_path: Path) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0001.h5")
    buffer = np.empty((1000, 517), np.int16)
    with open_run(path) as run, h5py.File(path) as file:
        for number, name in run.events:
            run.events = [(number, name)]
            there = miniatures.traces_path(layout, number)
            reads = bare_reads(run, buffer)
            assert bool(reads) == (there in file)
            for kind, read in reads.items():
                buffer[:] = -7
                read()
                if kind != "h5py":  # which keeps nothing
                    expected = file[there][:]
                    np.testing.assert_array_equal(buffer[: len(expected)], expected)


def test_no_file_offsets_where_matrices_are_compressed(tmp_path: Path) -> None:
    path = tmp_path / "run_0001.h5"
    with h5py.File(path, "w") as file:
        file["meta/meta"] = np.array([0, 0, 1, 0], np.uint64)
        file.create_dataset("get/evt0_data", data=np.zeros((3, 517), np.int16), compression="gzip")
    with open_run(path) as run:
        assert set(bare_reads(run, np.empty((9, 517), np.int16))) == {
            "h5py",
            "h5py, low level, one buffer",
        }


def test_every_step_is_measured(tmp_path: Path, counter_model: Path, cli: Cli) -> None:
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0001.h5")
    options = ["--model", counter_model, "--repeats", 2, "--threads", 1]
    table, picture = tmp_path / "bench.csv", tmp_path / "bench.png"
    done = cli("bench", path, *options, "--csv", table, "--png", picture)
    assert done.status == 0, done.err
    with open(table, newline="") as file:
        rows = {row["step"]: row for row in csv.DictReader(file)}
    assert list(rows)[-len(STEPS) :] == STEPS
    with h5py.File(path) as file:
        n_events = len(file["events"])
    job = rows["whole job"]
    assert int(job["events"]) == n_events
    assert float(job["peak_memory_mib"]) > 20
    rate = float(job["events_per_s"])
    assert float(job["events_per_s_lowest"]) <= rate <= float(job["events_per_s_highest"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert all(step in done.out for step in STEPS)
    assert "of processor time an event" in done.out
    assert not list(tmp_path.glob("attpc-filter-bench-*"))


def test_only_the_first_events(tmp_path: Path, counter_model: Path, cli: Cli) -> None:
    path = miniatures.write_run("merger_legacy", tmp_path / "run_0001.h5")
    done = cli("bench", path, "--model", counter_model, "--repeats", 1, "--events", 3)
    assert done.status == 0, done.err
    assert "3 events" in done.out


@pytest.mark.parametrize("option", ["--events", "--repeats"])
def test_no_events_or_repeats(option: str, tmp_path: Path, call: Cli) -> None:
    done = call("bench", tmp_path / "run_0001.h5", option, 0)
    assert done.status == 2
    assert done.the_error().endswith(f"{option}: 0 is less than 1")


def test_a_file_that_is_not_there(tmp_path: Path, call: Cli) -> None:
    done = call("bench", tmp_path / "run_0001.h5")
    assert done.status == 2
    assert "no such file" in done.the_error()


def test_what_limits() -> None:
    """800 us of 2 ms go into rebuilding; two cores could then do 1,000 events/s."""

    def step(name: str, seconds: float, cpu_seconds: float) -> Step:
        return Step(name, Sample(1000, 300_000, 310_000_000), [seconds], [cpu_seconds])

    steps = [
        step("read, page cache cold", 0.5, 0.3),
        step("read", 0.2, 0.2),
        step("rebuild", 0.8, 0.8),
        step("model inputs", 0.1, 0.1),
        step("score", 0.2, 0.2),
        step("tags without writing", 1.0, 1.3),
        step("whole job", 1.25, 2.0),
    ]
    said = what_limits(steps, 2)
    assert "40% go into rebuild" in said
    assert "2 cores could do 1,000 events/s" in said
    assert "the job does 800" in said
    assert "2,000 events/s (620 MB/s)" in said
