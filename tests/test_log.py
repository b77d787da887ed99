"""The log that a user sends with a report; the switch that raises errors; commands of others."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli, command, environment

Miniature = Callable[[str], Path]


@pytest.mark.parametrize(
    ("before", "after", "levels"),
    [
        ([], [], set()),
        (["-v"], [], {"INFO"}),
        ([], ["-v"], {"INFO"}),
        (["-v"], ["-v"], {"INFO", "DEBUG"}),
        ([], ["-vv"], {"INFO", "DEBUG"}),
    ],
)
def test_levels(
    before: list[str],
    after: list[str],
    levels: set[str],
    cli: Cli,
    miniature: Miniature,
    tmp_path: Path,
) -> None:
    run = miniature("merger_2.0")
    ended = cli(*before, "run", run, "--out", tmp_path / "out", "--no-picture", *after)
    assert ended.status == 0
    lines = re.findall(r"^\d{4}-\S+ \S+ (INFO|DEBUG) +attpc_filter", ended.err, re.MULTILINE)
    assert set(lines) == levels
    assert "attpc_filter" not in ended.out, "results alone go to stdout"


def test_a_log_names_what_a_report_needs(cli: Cli, miniature: Miniature, tmp_path: Path) -> None:
    run = miniature("merger_2.0")
    log = cli("run", run, "--out", tmp_path / "out", "--no-picture", "--device", "cpu", "-v").err
    assert re.search(r"versions: attpc-filter \S+, python \S+, numpy .*onnxruntime", log)
    assert re.search(r"model: .*default\.onnx, SHA-256 [0-9a-f]{64}, on cpu", log)
    assert f"{run}: format attpc_merger 2.0" in log
    assert "--device cpu" in log


def test_the_original_of_a_translated_error_is_logged(cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "run.h5"
    text.write_bytes(b"\x89HDF\r\n\x1a\n, and then no HDF5")
    words = ["run", text, "--no-picture", "--out"]
    plain = cli(*words, tmp_path / "a")
    logged = subprocess.run(
        command(*words, tmp_path / "b", "-vv"),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert plain.status == logged.returncode == 2
    assert "OSError" not in plain.err
    assert "OSError: " in logged.stderr
    assert plain.the_error() in logged.stderr.splitlines()


@pytest.mark.parametrize(("value", "raised"), [("1", True), ("0", False), ("", False)])
def test_debug_raises_with_the_traceback(value: str, raised: bool, tmp_path: Path) -> None:
    words = command("inspect", tmp_path / "nowhere.h5")
    switched = environment() | {"ATTPC_FILTER_DEBUG": value}
    ended = subprocess.run(words, capture_output=True, text=True, env=switched, check=False)
    assert ended.returncode == (1 if raised else 2)
    assert ("Traceback" in ended.stderr) is raised
    assert "nowhere.h5" in ended.stderr


# -------------------------------------------------------------- commands of other distributions


@pytest.fixture
def with_extra(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run attpc-filter beside an installed distribution that adds commands."""
    site = tmp_path / "site"
    information = site / "attpc_extra-1.5.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: attpc-extra\nVersion: 1.5\n"
    )
    (information / "entry_points.txt").write_text(
        "[attpc_filter.commands]\nhello = attpc_extra\nmodels = attpc_extra\nlost = attpc_lost\n"
    )
    (site / "attpc_extra.py").write_text(
        "def add_arguments(parser):\n"
        "    parser.add_argument('name')\n"
        "def act(options, command):\n"
        "    print(f'hello {options.name}: {command}')\n"
        "    return 7\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        extended = environment() | {"PYTHONPATH": paths}
        return subprocess.run(
            command(*words), capture_output=True, text=True, env=extended, check=False
        )

    return run


def test_a_command_of_another_distribution(
    with_extra: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = with_extra("-v", "hello", "sample")
    assert ended.returncode == 7
    assert ended.stdout == "hello sample: attpc-filter -v hello sample\n"


def test_help_lists_what_is_installed(
    with_extra: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert re.search(r"hello +from the distribution attpc-extra", with_extra("--help").stdout)


def test_other_distributions_replace_no_command(
    with_extra: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = with_extra("models")
    assert ended.returncode == 0
    assert "default" in ended.stdout


def test_a_command_that_cannot_be_loaded(
    with_extra: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = with_extra("lost")
    assert ended.returncode == 2
    assert "attpc-extra" in ended.stderr
    assert "attpc_lost" in ended.stderr
    assert "Traceback" not in ended.stderr
