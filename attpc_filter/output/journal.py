"""The journal of an output folder: many renames and removals, all of them or none.

A commit writes ``.attpc_filter/journal.json`` once all new files are on the disk. From then on the
commit counts: the renames and removals follow, and the journal goes last. Whatever ends the process
before the journal is there leaves the folder as it was, with files of random names in
``.attpc_filter``; whatever ends it later leaves a journal, which the next command carries out.

Version 1: ``version``; ``renames``, a list of pairs: a name in ``.attpc_filter``, and the path in
the output folder that it gets; ``removals``, a list of paths in the output folder.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from attpc_filter.errors import OutputError
from attpc_filter.output.staging import (
    cannot_write,
    new_file,
    rename,
    sync_file,
    sync_folder,
    write_text,
)

#: Folder within an output folder for all that is under way.
HIDDEN_NAME = ".attpc_filter"
JOURNAL_NAME = "journal.json"
JOURNAL_VERSION = 1


class UnfinishedCommit(OutputError):
    """A commit that counts could not be carried out; its journal stays for the next command."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What a commit does; see the module.

    Attributes
    ----------
    renames : sequence of (str, str)
        Names in the hidden folder, and the paths that they get.
    removals : sequence of str
        Paths of files that go.
    """

    renames: Sequence[tuple[str, str]]
    removals: Sequence[str]
    version: int = JOURNAL_VERSION


def is_inside(path: str) -> bool:
    """Whether a path of the books stays in its folder: relative, and no step up."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path


def inside(out: Path, path: str) -> Path:
    """A path of the books, below the output folder.

    Raises
    ------
    OutputError
        If it leads out of the folder, by ``..`` or by a symbolic link.
    """
    full = out / path
    if not is_inside(path) or not full.parent.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"{full}: leads out of the output folder; nothing was changed")
    return full


def carry_out(out: Path, journal: Journal) -> None:
    """Do what a commit does: all of it, or nothing that counts.

    Parameters
    ----------
    out : Path
        Output folder.
    journal : Journal
        With its renames in the order in which they are made.

    Raises
    ------
    OutputError
        If nothing was changed.
    UnfinishedCommit
        If it has begun and cannot go on.
    """
    hidden = out / HIDDEN_NAME
    for _, path in journal.renames:
        folder = inside(out, path).parent
        if not folder.is_dir():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be created: {error.strerror}") from error
            sync_folder(folder.parent)
    for path in journal.removals:
        inside(out, path)
    if len(journal.renames) == 1 and not journal.removals:  # a rename is all or nothing itself
        (name, path), *_ = journal.renames
        rename(hidden / name, out / path)
        sync_folder((out / path).parent)
        return
    sync_folder(hidden)
    final = hidden / JOURNAL_NAME
    written = new_file(hidden, final)
    try:
        write_text(written, json.dumps(asdict(journal)) + "\n", final)
        sync_file(written, final)
        rename(written, final)
    except OutputError:
        written.unlink(missing_ok=True)
        raise
    try:
        sync_folder(hidden)
        _perform(out, journal)
    except (OutputError, OSError) as error:
        raise UnfinishedCommit(
            f"{error} (the next command on {out} will finish what was begun)"
        ) from error


def finish(out: Path) -> None:
    """Carry out the journal that a command left, and remove its files of random names.

    The caller holds the folder's lock.

    Raises
    ------
    OutputError
        If the journal cannot be read or carried out.
    """
    hidden = out / HIDDEN_NAME
    path = hidden / JOURNAL_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read: {error}") from error
    else:
        _perform(out, _parse(path, text))
    for left in hidden.glob(".*.partial"):
        with contextlib.suppress(OSError):
            left.unlink()


def _parse(path: Path, text: str) -> Journal:
    try:
        content = json.loads(text)
        if content["version"] != JOURNAL_VERSION:
            raise ValueError(f"version {content['version']}, this attpc-filter knows 1")
        renames = [(str(name), str(final)) for name, final in content["renames"]]
        if any("/" in name for name, _ in renames):
            raise ValueError("a name with a slash")
        return Journal(renames, [str(name) for name in content["removals"]])
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{path}: no journal of attpc-filter: {error}") from error


def _perform(out: Path, journal: Journal) -> None:
    """Make the renames and removals that have not been made; the journal goes last."""
    hidden = out / HIDDEN_NAME
    folders = set()
    for name, path in journal.renames:
        final = inside(out, path)
        if os.path.lexists(hidden / name):
            rename(hidden / name, final)
        elif not os.path.lexists(final):
            raise OutputError(f"{final}: gone, though {hidden / JOURNAL_NAME} lists it")
        folders.add(final.parent)
    for path in journal.removals:
        gone = inside(out, path)
        try:
            gone.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(gone, error) from error
        folders.add(gone.parent)
    for folder in folders:
        if folder.is_dir():
            sync_folder(folder)
    (hidden / JOURNAL_NAME).unlink()
    sync_folder(hidden)
    for folder in folders - {out}:
        with contextlib.suppress(OSError):  # it holds files
            folder.rmdir()
