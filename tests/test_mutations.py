"""Files of every kind, damaged at random: a clear line or what was written, never a crash."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CAMPAIGN, environment

ROOT = Path(__file__).parents[1]


@pytest.mark.campaign
def test_damaged_files_of_every_kind(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/reliability/mutations.py", "--seed", "2"]
    done = subprocess.run(
        [*command, "--count", str(round(400 * CAMPAIGN)), "--csv", str(tmp_path / "outcomes.csv")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "outcomes.csv").read_text().splitlines()[-1].startswith("all,")
