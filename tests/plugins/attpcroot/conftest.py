"""Real ROOT, in a Python of its own: pip has it as an alpha for some versions of Python only."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.formats.root.root_truth import DATA

PLUGIN = Path(__file__).parents[3] / "plugins" / "attpcroot"
VARIABLE = "ATTPC_ROOT_PYTHON"

#: Runs in ROOT's Python: code of a test, after this, and what it puts into ``answer``.
_PROLOGUE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import ROOT
ROOT.gErrorIgnoreLevel = ROOT.kError
ROOT.gROOT.SetBatch(True)
given = json.loads(sys.argv[1])
answer = {}
"""
_EPILOGUE = """
sys.stdout.flush()
print("ANSWER" + json.dumps(answer), flush=True)
import os
os._exit(0)
"""

Root = Callable[..., dict[str, Any]]


@lru_cache
def _root_python() -> str | None:
    """A Python that has ROOT: the one named by the environment, or this one."""
    for python in (os.environ.get(VARIABLE), sys.executable):
        if python is None:
            continue
        command = [python, "-W", "ignore", "-c", "import ROOT"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return python
    return None


@pytest.fixture(scope="session")
def root() -> Root:
    """Run code under real ROOT; skips the test where there is none."""
    python = _root_python()
    if python is None:
        pytest.skip(
            "needs real ROOT: `pip install --pre root` in a Python 3.11 of its own, and"
            f" {VARIABLE}=its python"
        )

    def run(code: str, **given: Any) -> dict[str, Any]:
        done = subprocess.run(
            [python, "-c", _PROLOGUE + code + _EPILOGUE, json.dumps(given, default=str)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
        assert lines, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        answer: dict[str, Any] = json.loads(lines[-1].removeprefix("ANSWER"))
        return answer | {"out": done.stdout}

    return run


@pytest.fixture(scope="session")
def dictionary(root: Root, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A shared library with the members of ATTPCROOT's classes, as ROOT needs it to copy them."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler to make the dictionaries of the event classes")
    folder = tmp_path_factory.mktemp("classes")
    header = folder / "classes.h"
    header.write_text("#define GENERATION 2024\n" + (DATA / "classes.h").read_text())
    made = root(
        """
answer["made"] = ROOT.gSystem.CompileMacro(given["header"], "kO", "", given["folder"])
answer["library"] = [lib for lib in ROOT.gSystem.GetLibraries().split() if "classes_h" in lib]
""",
        header=header,
        folder=folder,
    )
    assert made["made"], made["out"]
    return str(made["library"][0])
