"""Inputs of a job: looked at before anything is loaded, and again when a run is done."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attpc_filter.errors import InputError, UsageError
from attpc_filter.formats.graw_files import SUFFIX, files_of_run
from attpc_filter.formats.registry import require_known
from attpc_filter.root_options import RootOptions

_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10
_END_BYTES = 1 << 20

_log = logging.getLogger(__name__)


def check_inputs(
    paths: Sequence[Path],
    out: Path,
    root: RootOptions | None = None,
    follow_links: bool = False,
) -> tuple[list[Path], dict[Path, str]]:
    """Look at all inputs of a job without reading their events.

    Parameters
    ----------
    paths : sequence of Path
        Run files as they were given.
    out : Path
        Output folder, in which no input may lie.
    root : RootOptions, optional
        What to read of ROOT files.
    follow_links : bool, optional
        Whether links of HDF5 files may lead to files outside of their folder.

    Returns
    -------
    good : list of Path
        Those that can be opened, in their order.
    bad : dict of Path to str
        The others, each with the one line that says what is wrong.
    """
    bad: dict[Path, str] = {}
    first: dict[str, Path] = {}
    for path in paths:
        other = first.setdefault(path.stem, path)
        if other is not path:
            bad[path] = bad[other] = (
                f"{other} and {path} would both be written as {path.stem}; filter them into two"
                " folders"
            )
    for path in paths:
        if path not in bad and (line := _what_is_wrong(path, out, root, follow_links)):
            bad[path] = line
    return [path for path in paths if path not in bad], bad


def _what_is_wrong(path: Path, out: Path, root: RootOptions | None, follow_links: bool) -> str:
    try:
        if out.resolve() in path.resolve().parents:
            return f"--out {out}: the input {path} lies in it; choose another folder"
        str(path.resolve()).encode()
        require_known(path, root, follow_links)
    except InputError as error:
        _log.debug("%s: refused", path, exc_info=True)
        return str(error)
    except UnicodeEncodeError:  # tables, manifests and streams could not say where they are from
        return f"{path}: a name in its path is no UTF-8 text; rename it"
    except ValueError as error:  # a null byte in the name
        return f"{path!r}: {error}"
    except RuntimeError:
        return f"{path}: a loop of symbolic links"
    except OSError as error:
        return f"{path}: cannot be opened: {error.strerror}"
    return ""


def fingerprint(path: Path) -> dict[str, Any]:
    """Take size, time and a SHA-256 over samples of the whole file: quick for any size of run.

    The samples are the first and the last MiB, and 64 KiB at 64 places spread evenly. Of a run of
    several files all are taken together.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        status = path.stat()
        size, modified_ns = status.st_size, status.st_mtime_ns
        files = input_files(path)
        if files != [path]:
            size = 0
            for file in files:
                of_file = _add_samples(file, digest)
                digest.update(file.name.encode(errors="surrogateescape"))
                size += of_file.st_size
                modified_ns = max(modified_ns, of_file.st_mtime_ns)
        else:
            _add_samples(path, digest)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    modified = datetime.fromtimestamp(modified_ns / 1e9, UTC)
    return {
        "path": str(path.resolve()),
        "bytes": size,
        "modified": modified.isoformat(timespec="seconds"),
        "modified_ns": modified_ns,
        "inode": status.st_ino,
        "sha256_of_samples": digest.hexdigest(),
    }


def input_files(path: Path) -> list[Path]:
    """All files of an input: those in a folder; of a ``.graw`` file also those of its run."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return files_of_run(path) if path.suffix == SUFFIX else [path]


def _add_samples(path: Path, digest: "hashlib._Hash") -> os.stat_result:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        places = [(0, _END_BYTES), (max(0, status.st_size - _END_BYTES), _END_BYTES)]
        if status.st_size > 2 * _END_BYTES:
            step = status.st_size / _SAMPLES
            places += [(int(step * index), _SAMPLE_BYTES) for index in range(_SAMPLES)]
        for place, size in places:
            file.seek(place)
            digest.update(file.read(size))
    return status


def require_unchanged(path: Path, before: dict[str, Any]) -> None:
    """Compare a run file with the fingerprint that was taken when it was opened.

    Raises
    ------
    InputError
        If it was changed, replaced or removed meanwhile.
    """
    if fingerprint(path) != before:
        raise InputError(f"{path}: changed while it was read; filter it again once it is complete")


def refuse_overwriting(target: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write a file over one that the same command reads.

    Raises
    ------
    UsageError
        If the target is one of the inputs, under whatever name.
    """
    for path in inputs:
        try:
            same = target.samefile(path)
        except OSError:  # one of them is not there
            same = False
        if same:
            raise UsageError(f"{target}: an input of this command; give another file to write")
