"""The sample run, filtered by the real command, and servers of it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import command, environment, made_once

SAMPLE = Path(__file__).parents[3] / "sample" / "run_0101.h5"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of the sample run, with latents; do not change it."""

    def make(path: Path) -> None:
        arguments = ["run", SAMPLE, "--out", path / "out", "--keep-latents", "--threads", 1]
        subprocess.run(
            command(*arguments, "--no-picture"), check=True, env=environment(), capture_output=True
        )

    return made_once(tmp_path_factory, "web-sample", make) / "out"


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def get(self, path: str) -> Any:
        """JSON that a page would get."""
        with urllib.request.urlopen(self.address + path, timeout=60) as response:
            return json.load(response)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send what a page would send; gives the answer."""
        request = urllib.request.Request(
            self.address + path,
            json.dumps(body).encode(),
            {"content-type": "application/json", "x-attpc-filter": "1"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def answer(self, row: int, label: str, labeller: str = "anna", **more: Any) -> Any:
        """Answer an event."""
        body = {"row": row, "label": label, "labeller": labeller, "policy": "random", "seconds": 1}
        return self.post("/api/answers", body | more)

    def kill(self) -> None:
        """Kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


StartServer = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[StartServer]:
    """Start ``attpc-filter label`` as a user would; all servers are stopped at the end."""
    with starter() as run:
        yield run


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:
    """A server of the sample run; tests must not give answers to it."""
    with starter() as run:
        yield run(folder, "--labels", tmp_path_factory.mktemp("labels") / "l.sqlite")


@contextlib.contextmanager
def starter() -> Iterator[StartServer]:
    """What starts servers; all are stopped at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object, port: int = 0) -> Server:
        process = subprocess.Popen(
            command("label", *arguments, "--port", port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment() | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if match := re.match(r"open\s+(http://\S+?)/?$", line.strip()):
                return Server(process, match.group(1))
        raise AssertionError(f"no server: {said}")

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()
