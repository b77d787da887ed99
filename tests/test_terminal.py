"""Results count, whatever becomes of the terminal; no command writes over what it reads."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli, command, environment, files_below


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_a_stream_that_is_closed_or_full(
    redirection: str, tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
) -> None:
    words = command("run", miniature("merger_2.0"), "--out", tmp_path / "out", "--no-picture")
    line = subprocess.list2cmdline([*words, "--model", str(counter_model)])
    ended = subprocess.run(["sh", "-c", f"{line} {redirection}"], env=environment(), timeout=120)
    assert ended.returncode == 0
    assert "tags/run_0046.parquet" in files_below(tmp_path / "out")


def test_a_reader_that_goes_away(counter_model: Path) -> None:
    words = subprocess.list2cmdline(command("models", counter_model))
    script = f"{words} | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_matplotlibrc_that_wants_latex(
    tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    words = command("run", miniature("merger_2.0"), "--out", tmp_path / "out")
    ended = subprocess.run(
        [*words, "--model", str(counter_model)],
        env=environment(), cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    assert "summary.png" in files_below(tmp_path / "out")


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "RUN", "--event", "3", "--png", "RUN"),
        ("bench", "RUN", "--csv", "RUN"),
        ("bench", "RUN", "--png", "LINK"),
        ("compare", "TABLE", "TABLE", "--csv", "TABLE"),
        ("compare", "OUT", "OUT", "--png", "TABLE"),
        ("tags", "TABLE", "LINK.root"),
    ],
)
def test_no_input_is_overwritten(
    words: tuple[str, ...],
    tmp_path: Path,
    counter_model: Path,
    miniature: Callable[[str], Path],
    call: Cli,
) -> None:
    run, out = tmp_path / "run_0046.h5", tmp_path / "out"
    run.write_bytes(miniature("merger_2.0").read_bytes())
    assert call("run", run, "--out", out, "--model", counter_model, "--no-picture").status == 0
    table = out / "tags" / "run_0046.parquet"
    link, root = tmp_path / "link", tmp_path / "link.root"
    link.symlink_to(run)
    root.hardlink_to(table)
    names = {"RUN": run, "OUT": out, "TABLE": table, "LINK": link, "LINK.root": root}
    before = {path: path.read_bytes() for path in (run, table)}
    ended = call(*(names.get(word, word) for word in words))
    assert ended.status == 2
    assert "an input of this command" in ended.the_error()
    assert {path: path.read_bytes() for path in (run, table)} == before
