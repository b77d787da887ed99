"""The output folder: what it may be, and what an earlier job left in it."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.manifest import MANIFEST_NAME


def prepare_folder(paths: Sequence[Path], out: Path, overwrite: bool) -> list[Path]:
    """Make the output folder; returns the files of an earlier output that it holds."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: a file of that name exists")
    resolved = out.resolve()
    for path in paths:
        if resolved in path.resolve().parents:
            raise UsageError(f"--out {out}: the input {path} lies in it; choose another folder")
    try:
        held = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
        if held and not overwrite:
            raise UsageError(
                f"--out {out}: not empty; choose another folder, or --overwrite an earlier output"
            )
        if held and MANIFEST_NAME not in held:
            raise UsageError(
                f"--out {out}: holds no {MANIFEST_NAME}, so it is no output of attpc-filter;"
                " nothing was overwritten"
            )
        out.mkdir(parents=True, exist_ok=True)
        return [entry for entry in out.rglob("*") if not entry.is_dir()] if held else []
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}: {error.filename}") from error


def remove_former_output(out: Path, former: list[Path], new: set[Path]) -> None:
    """Remove what ``--overwrite`` replaces; called when the first new run is complete."""
    for file in set(former) - new:
        file.unlink(missing_ok=True)
    former.clear()
    for folder in sorted((f for f in out.rglob("*") if f.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty: it holds new files
            folder.rmdir()


def require_space(out: Path, n_bytes: int) -> None:
    """Raise OutputError if the folder's disk has less room than copies of a run need."""
    free = shutil.disk_usage(out).free
    if free < n_bytes:
        raise OutputError(
            f"{out}: {free / 1e9:.1f} GB free, copies of the events need {n_bytes / 1e9:.1f} GB;"
            " free some, or take --streams link"
        )
