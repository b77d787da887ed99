"""The formats by name: which one a file is of, opened as a run."""

from pathlib import Path

from attpc_filter.formats.hdf5 import attpcroot, hit_store, merger, pytpc, spyral
from attpc_filter.formats.hdf5.file import Hdf5Run, open_hdf5_run
from attpc_filter.formats.run import Events, Run
from attpc_filter.root_options import RootOptions

_HDF5_FORMATS = (*merger.FORMATS, *spyral.FORMATS, *pytpc.FORMATS, *attpcroot.FORMATS)


def open_run(
    path: Path | str, root: RootOptions | None = None, events: Events | None = None
) -> Run:
    """Open a run file, whatever its format; recognised by content, not by name.

    Parameters
    ----------
    path : Path or str
        The file.
    root : RootOptions, optional
        What to read if it is a ROOT file; left out, it is found by class.
    events : list of (int, str), optional
        Its events, or some of them, where they are known: they are not looked for then.

    Returns
    -------
    Run
        The open run; use it as a context manager.

    Raises
    ------
    InputError
        If the file cannot be opened, is of no known format, or holds no events.
    """
    path = Path(path)
    if _begins_like_root(path):
        from attpc_filter.formats.root.open import open_root_run  # uproot takes long to import

        run = open_root_run(path, root)
        run.events = run.events if events is None else events
        return run
    return open_hdf5_run(path, (hit_store.HitStoreRun, *_HDF5_FORMATS), events)


def list_contents(path: Path | str) -> list[tuple[str, str]]:
    """Titles and texts that say what a ROOT file holds, events or not; nothing of other files.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = Path(path)
    if not _begins_like_root(path):
        return []
    from attpc_filter.formats.root.open import list_contents as list_root_contents

    return list_root_contents(path)


def _begins_like_root(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"root"
    except OSError:
        return False  # who opens it says what is wrong


def hdf5_format(name: str) -> type[Hdf5Run] | None:
    """Look up an HDF5 format with streams by its name in the manifest; None if it is none."""
    return next((kind for kind in _HDF5_FORMATS if kind.format_name == name), None)
