"""ATTPCROOT's tables of hits: columns by name, and what a table may lack."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from attpc_filter.formats.registry import open_run
from attpc_filter.records import Record


def _only_record(path: Path, table: Any) -> Record:
    with h5py.File(path, "w") as file:
        file["Event_[9]"] = table
    with open_run(path) as run:
        (record,) = list(run.records())
    return record


@pytest.mark.parametrize("names", ["xyztA", "Atzyx"])
def test_columns_go_by_name(names: str, tmp_path: Path) -> None:
    table = np.zeros(4, [(name, "f4") for name in names])
    for value, name in enumerate("xyztA"):
        table[name] = value + np.arange(4)
    record = _only_record(tmp_path / "run_0001.h5", table)
    assert record.event == 9
    assert record.points is not None
    np.testing.assert_array_equal(record.points[:, :5], np.arange(5) + np.arange(4)[:, None])


def test_older_names_of_time_and_charge(tmp_path: Path) -> None:
    table = np.zeros(2, [("x", "f8"), ("y", "f8"), ("z", "f8"), ("time", "f8"), ("charge", "f8")])
    table["time"], table["charge"] = 77.0, 900.0
    record = _only_record(tmp_path / "run_0001.h5", table)
    assert record.points is not None
    np.testing.assert_array_equal(record.points[:, 3:5], [[77.0, 900.0]] * 2)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.zeros(3, [("x", "f8"), ("y", "f8"), ("z", "f8"), ("t", "f8")]), "without A"),
        (np.zeros((3, 5)), "float64"),
        (np.zeros(3, [(n, "S2" if n == "y" else "f8") for n in "xyztA"]), "y is no number"),
        (np.zeros(3, [(n, "f8", (2,)) if n == "x" else (n, "f8") for n in "xyztA"]), "x is no"),
    ],
    ids=["lacks a column", "matrix", "text", "array column"],
)
def test_tables_that_cannot_be_used_say_why(table: Any, reason: str, tmp_path: Path) -> None:
    record = _only_record(tmp_path / "run_0001.h5", table)
    assert record.points is None
    assert reason in record.reason


def test_an_event_without_its_table(tmp_path: Path) -> None:
    path = tmp_path / "run_0001.h5"
    with h5py.File(path, "w") as file:
        file.create_group("Event_[1]")["Pads"] = 1
    with open_run(path) as run:
        (record,) = list(run.records())
    assert record.reason == "no HitArray; it holds Pads"
