"""Compiled kernels: where numba keeps them, and how processes that start together share the work.

numba compiles a kernel when it is first called and keeps the result in a folder: the package's own
``__pycache__`` if that can be written, else one of the user's, or the one that ``NUMBA_CACHE_DIR``
names. Compiling takes some ten seconds, so of the processes that start in an empty cache one
compiles each kernel and the others wait for it. A cache serves nodes with different processors:
numba and the marks here tell them apart.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.misc.appdirs import AppDirs

_PACKAGE = Path(__file__).parent
_CONFIG: Any = numba.config
_DIRS: Any = AppDirs
_LOG = logging.getLogger("attpc_filter")


def njit(*arguments: Any, **options: Any) -> Any:
    """Compile as ``numba.njit`` does; without a cache if there is no folder for one.

    numba compiles a kernel anew when its own file has changed. A kernel may be made of functions in
    other files: here it is compiled anew when any file of kernels has changed.
    """
    if not options.get("cache"):
        return numba.njit(*arguments, **options)
    if folder() is None:
        return numba.njit(*arguments, **options | {"cache": False})
    compile_one = numba.njit(*arguments, **options)

    def compile_and_cache(function: Callable[..., Any]) -> Any:
        kernel = compile_one(function)
        index = kernel._cache._cache_file  # numba has no public way to say what a kernel is made of
        index._source_stamp = (index._source_stamp, _key())
        return kernel

    return compile_and_cache


@cache
def folder() -> Path | None:
    """Find the folder in which compiled kernels are kept; None if no folder can be written.

    A read-only installation without a home, as containers have it, gets a folder of its own below
    the temporary one. Only its owner may write there: who can write to a cache can run code.
    """
    if _CONFIG.CACHE_DIR:
        return _writable(Path(_CONFIG.CACHE_DIR))
    usual = _writable(_PACKAGE / "__pycache__") or _writable(
        Path(_DIRS(appname="numba", appauthor=False).user_cache_dir)
    )
    if usual is not None:
        return usual
    made = _writable(Path(tempfile.gettempdir()) / f"attpc-filter-{os.getuid()}", mode=0o700)
    if made is None:
        _LOG.warning(
            "no folder for compiled code can be written (set NUMBA_CACHE_DIR to one that can):"
            " every start compiles anew"
        )
        return None
    _CONFIG.CACHE_DIR = str(made)  # numba asks for it when a kernel is declared
    return made


def _writable(path: Path, mode: int = 0o777) -> Path | None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        if path.stat().st_uid != os.getuid() and mode != 0o777:
            return None
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError:
        return None


def is_compiled(name: str) -> bool:
    """Whether the kernels of this name have been compiled here, for this processor."""
    mark = _mark(name)
    return mark is not None and mark.exists()


def compile_together(kernels: Mapping[str, Callable[[], object]]) -> None:
    """Have kernels compiled, or loaded from the cache.

    Processes that do this at the same time share the work: one compiles what no other is at, and
    waits at the end for what others compile.

    Parameters
    ----------
    kernels : mapping of str to callable
        What calls the kernels, so that they are compiled, by a name for them.
    """
    others = []
    for name, call in kernels.items():
        if not _compile(name, call, wait=False):
            others.append((name, call))
    for name, call in others:
        _compile(name, call, wait=True)


def _compile(name: str, call: Callable[[], object], *, wait: bool) -> bool:
    mark = _mark(name)
    if mark is None or mark.exists():
        call()
        return True
    with _locked(mark.with_suffix(".lock"), wait=wait) as is_mine:
        if not is_mine:
            return False
        call()
        with contextlib.suppress(OSError):
            mark.touch()
    return True


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock between processes; gives False if another has it and this one does not wait."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # the cache can no longer be written: every process for itself
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: every process for itself
            pass
        yield True
    finally:
        os.close(descriptor)


def _mark(name: str) -> Path | None:
    """File that is there once the kernels of this name are compiled."""
    place = folder()
    return None if place is None else place / f"attpc-filter-{name}-{_key()}.compiled"


@cache
def _key() -> str:
    """Key of all that compiled code depends on: versions, processor, sources."""
    features = llvm.get_host_cpu_features().flatten()
    parts = [
        numba.__version__,
        llvmlite.__version__,
        platform.python_version(),
        llvm.get_host_cpu_name(),
        features,
    ]
    for source in sorted(Path(__file__).parent.glob("**/*kernels.py")):
        stat = source.stat()
        parts.append(f"{source}:{stat.st_mtime_ns}:{stat.st_size}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
