"""Memory stays flat: a run of many events needs no more than one of few."""

import subprocess
from pathlib import Path

from tests import miniatures
from tests.conftest import command, environment, read_manifest


def _peak_mib(path: Path, out: Path, model: Path) -> float:
    """Largest resident size [MiB] of a job in a process of its own."""
    arguments = command("run", path, "--out", out, "--model", model, "--no-picture", "--threads", 2)
    subprocess.run(arguments, env=environment(), capture_output=True, check=True)
    manifest = read_manifest(out)
    assert manifest["exit_status"] == 0
    return float(manifest["peak_memory_bytes"]) / 2**20


def test_memory_is_flat(tmp_path: Path, counter_model: Path) -> None:
    """12,000 events of 300 traces are 3.7 GB of samples; a process of its own reads both runs.

    Both are large enough to be worth helpers: their memory is in both sizes, or in neither.
    """
    few = miniatures.write_long_run(tmp_path / "run_0001.h5", 3_000, n_lit=300)
    many = miniatures.write_long_run(tmp_path / "run_0002.h5", 12_000, n_lit=300)
    small = _peak_mib(few, tmp_path / "few", counter_model)
    large = _peak_mib(many, tmp_path / "many", counter_model)
    assert large - small < 60, f"{small:.0f} MiB for 3,000 events, {large:.0f} for 12,000"
