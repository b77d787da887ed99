"""Compiled kernels: a folder is found or done without; jobs that start together share the work."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import environment

ROOT = Path(__file__).parents[1]


def in_a_process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with nothing else in the environment."""
    keep = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env=keep | variables,
        timeout=300,
    )


FOLDER = "from attpc_filter import compiled; print(compiled.folder())"


def test_the_folder_that_numba_is_told_is_taken(tmp_path: Path) -> None:
    done = in_a_process(FOLDER, NUMBA_CACHE_DIR=str(tmp_path / "mine"), HOME=str(tmp_path))
    assert done.stdout.strip() == str(tmp_path / "mine"), done.stderr


#: As in a container: the package cannot be written, and there is no home.
READ_ONLY = """
from pathlib import Path
from attpc_filter import compiled
compiled._PACKAGE = Path("/proc")
{more}
print(compiled.folder())
import numpy as np
from attpc_filter.compiled import njit
@njit(cache=True)
def twice(x):
    return 2 * x
print(twice(21))
"""


def test_a_read_only_installation_without_home_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    code = READ_ONLY.format(more="")
    done = in_a_process(code, TMPDIR=str(tmp_path), HOME="/proc", XDG_CACHE_HOME="/proc")
    assert done.stdout.split()[0] == str(tmp_path / f"attpc-filter-{os.getuid()}"), done.stderr
    assert (tmp_path / f"attpc-filter-{os.getuid()}").stat().st_mode & 0o077 == 0


def test_without_any_folder_it_compiles_anew_and_says_so() -> None:
    code = READ_ONLY.format(more="import tempfile; tempfile.tempdir = '/proc'")
    done = in_a_process(code, HOME="/proc", XDG_CACHE_HOME="/proc")
    assert done.stdout.split() == ["None", "42"], done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr


#: Two kernels that take a while; each process says which of them it compiled itself.
TOGETHER = """
import sys, time
from pathlib import Path
from attpc_filter import compiled
compiled._key = lambda: "test"
place = Path(sys.argv[1])
def kernel(name):
    def call():
        if not (place / name).exists():
            time.sleep(0.3)
            with open(place / "log", "a") as log:
                log.write(name + "\\n")
            (place / name).touch()
    return call
compiled.compile_together({name: kernel(name) for name in ("hits", "reading")})
assert compiled.is_compiled("hits") and compiled.is_compiled("reading")
"""


def test_of_many_processes_one_compiles_each_kernel(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(tmp_path)],
            env=environment() | {"NUMBA_CACHE_DIR": str(cache)},
        )
        for _ in range(6)
    ]
    assert [process.wait(300) for process in processes] == [0] * 6
    assert sorted((tmp_path / "log").read_text().split()) == ["hits", "reading"]


def test_a_kernel_that_cannot_be_compiled_is_not_marked(tmp_path: Path) -> None:
    code = """
    from attpc_filter import compiled
    def fail():
        raise RuntimeError("no compiler")
    try:
        compiled.compile_together({"hits": fail})
    except RuntimeError:
        print(compiled.is_compiled("hits"))
    """
    done = in_a_process(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.campaign
def test_jobs_that_start_together_in_an_empty_cache_all_succeed(tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "attpc_filter.cli", "run"),
                *(str(ROOT / "sample" / "run_0101.h5"), "--out", str(tmp_path / f"out{index}")),
                *("--threads", "1", "--no-picture"),
            ],
            env=environment()
            | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DEBUG_CACHE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for index in range(6)
    ]
    outputs = [job.communicate(timeout=1200)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 6
    saved = sum(output.count("data saved to") for output in outputs)
    kept = len(list((tmp_path / "cache").glob("**/*.nbc")))
    assert kept > 3
    assert saved <= 3 * kept  # of six jobs


#: Compiles a small kernel, or takes it from the cache; says which.
CACHED = """
import os
import sys
sys.path.insert(0, os.environ["PYTHONPATH"])  # before the working folder
import numpy as np
from attpc_filter.rebuild.input_kernels import _hash
_hash(*np.ones(4, np.float32))
print(sum(_hash.stats.cache_hits.values()), sum(_hash.stats.cache_misses.values()))
"""


def test_a_change_in_one_file_of_kernels_compiles_those_of_the_others_anew(tmp_path: Path) -> None:
    """A kernel is made of functions in several files; numba itself looks at its own file alone."""
    sources = tmp_path / "attpc_filter"
    shutil.copytree(ROOT / "attpc_filter", sources, ignore=shutil.ignore_patterns("__pycache__"))
    where = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert in_a_process(CACHED, **where).stdout == "0 1\n"
    assert in_a_process(CACHED, **where).stdout == "1 0\n"
    other = sources / "rebuild" / "peak_kernels.py"
    other.write_text(other.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert in_a_process(CACHED, **where).stdout == "0 1\n"
