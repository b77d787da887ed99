"""A small count of the campaign of kills; the long one: benchmarks/reliability/kills.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "reliability" / "kills.py"


@pytest.mark.campaign
def test_every_end_state_is_that_of_an_undisturbed_job() -> None:
    ended = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--count", "24", "--seed", "3"],
        capture_output=True, text=True, env=environment(), timeout=900, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 folders not carried on, 0 end states not equal" in ended.stdout
