"""Run numbers from file names."""

from pathlib import Path

import pytest

from attpc_filter.formats.run import run_number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("run_0042.h5", 42),
        ("run_0101.h5", 101),
        ("RUN-7.h5", 7),
        ("run12_merged_2023.h5", 12),
        ("ar46_2015_run_0300.clean.h5", 300),
        ("output_0069.h5", 69),
        ("events.h5", 0),
        ("runs2024_0101.h5", 101),
        ("run1_of_run_0007.h5", 7),
        ("run_20241123093000.h5", 20241123093000),
        ("run_99999999999999999999.h5", 0),
        (f"run_{'9' * 200}.h5", 0),
    ],
)
def test_run_number(name: str, number: int) -> None:
    assert run_number(Path("/data/run_9999") / name) == number
