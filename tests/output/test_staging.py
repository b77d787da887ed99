"""Output is complete or absent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attpc_filter.errors import OutputError
from attpc_filter.output.staging import Staging, write_json
from tests.conftest import files_below


def test_files_come_under_their_names_together(tmp_path: Path) -> None:
    with Staging() as staging:
        for name in ("a/one", "a/two", "b/c/three"):
            staging.path(tmp_path / name).write_text(name)
            assert not (tmp_path / name).exists()
        staging.commit()
        assert files_below(tmp_path) == {"a/one", "a/two", "b/c/three"}
    assert files_below(tmp_path) == {"a/one", "a/two", "b/c/three"}
    assert (tmp_path / "b/c/three").read_text() == "b/c/three"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_what_was_not_committed(
    error: type[BaseException], tmp_path: Path
) -> None:
    (tmp_path / "one").write_text("earlier")

    def write() -> None:
        with Staging() as staging:
            staging.path(tmp_path / "one").write_text("half")
            staging.path(tmp_path / "two").write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert files_below(tmp_path) == {"one"}
    assert (tmp_path / "one").read_text() == "earlier"


def test_not_committed_is_removed_without_an_error_too(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.path(tmp_path / "one").write_text("never committed")
    assert files_below(tmp_path) == set()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Staging() as staging, pytest.raises(OutputError, match="cannot be created"):
        staging.path(tmp_path / "file" / "one")


def test_a_file_that_was_never_written(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.path(tmp_path / "one").write_text("one")
        staging.path(tmp_path / "two")
        with pytest.raises(OutputError, match="cannot be written"):
            staging.commit()
    assert files_below(tmp_path) == set(), "all or none"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_commit(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    replace = os.replace

    def replace_and_interrupt(source: Path, target: Path) -> None:
        os.kill(os.getpid(), number)
        replace(source, target)

    monkeypatch.setattr("attpc_filter.output.staging.os.replace", replace_and_interrupt)

    def write() -> None:
        with Staging() as staging:
            for name in "abc":
                staging.path(tmp_path / name).write_text(name)
            staging.commit()

    try:
        with pytest.raises(KeyboardInterrupt):
            write()
        assert files_below(tmp_path) == {"a", "b", "c"}
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_a_signal_waits_until_what_was_not_committed_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def unlink_and_interrupt(path: Path, missing_ok: bool = False) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        unlink(path, missing_ok)

    def write() -> None:
        with Staging() as staging:
            for name in "abc":
                staging.path(tmp_path / name).write_text(name)
            monkeypatch.setattr(Path, "unlink", unlink_and_interrupt)

    with pytest.raises(KeyboardInterrupt):
        write()
    monkeypatch.undo()
    assert files_below(tmp_path) == set()


def test_json_is_written_whole_even_if_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def write_and_interrupt(path: Path, text: str, encoding: str) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return write_text(path, text, encoding=encoding)

    monkeypatch.setattr(Path, "write_text", write_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "manifest.json", {"exit_status": 130})
    monkeypatch.undo()
    assert files_below(tmp_path) == {"manifest.json"}
    assert '"exit_status": 130' in (tmp_path / "manifest.json").read_text()


def test_a_storm_of_signals_is_noted_once() -> None:
    """One comes while the one before it is being noted, in a process of its own that would hang."""
    script = """
import os, signal, subprocess, sys
from attpc_filter.interrupts import check_interrupted, interrupts_noted

signal.signal(signal.SIGTERM, lambda *_: None)
storm = f"import os\\nfor _ in range(200_000): os.kill({os.getpid()}, {int(signal.SIGTERM)})"
with interrupts_noted():
    sender = subprocess.Popen([sys.executable, "-c", storm])
    while sender.poll() is None:
        sum(range(100))
    try:
        check_interrupted()
    except KeyboardInterrupt:
        sys.exit(33)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (33, "")
