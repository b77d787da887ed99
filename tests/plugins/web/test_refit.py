"""The process that ranks events ends with the server that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("attpc_filter_web", reason="needs the distribution attpc-filter-web")

#: A server that starts a ranking of something that never comes (a pipe), and says its number.
SERVER = """
import os, subprocess, sys, time
ranking = [sys.executable, "-m", "attpc_filter_web.refit"]
command = [*ranking, sys.argv[1], sys.argv[2], str(os.getpid())]
print(subprocess.Popen(command).pid, flush=True)
time.sleep(600)
"""


def test_a_ranking_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    endless = tmp_path / "in.npz"
    os.mkfifo(endless)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(endless), str(tmp_path / "out.npy")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    ranking = int(server.stdout.readline())
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    server.stdout.close()
    end = time.monotonic() + 60
    while _is_there(ranking):
        assert time.monotonic() < end, "it outlives its server"
        time.sleep(0.2)


def _is_there(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"
