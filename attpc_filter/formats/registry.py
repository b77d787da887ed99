"""The formats, a row each: how a file of it is recognised, opened, written to streams and edited.

A format that is neither HDF5 nor ROOT is a module of its own and a row in :data:`FORMATS`. Other
distributions add a row (a :class:`Format`) by an entry point of the group ``attpc_filter.formats``.
Entry points are loaded only for files and names that none of the rows here knows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import EmptyRunError, InputError
from attpc_filter.formats.graw_files import is_graw
from attpc_filter.formats.graw_stream import move_listed_events
from attpc_filter.formats.hdf5 import attpcroot, hit_store, merger, pytpc, spyral
from attpc_filter.formats.hdf5.file import HDF5_ERRORS, describe_names, one_line
from attpc_filter.formats.hdf5.moves import move_events
from attpc_filter.formats.hdf5.run import Hdf5File, Hdf5Run
from attpc_filter.formats.hdf5.stream import Hdf5Stream
from attpc_filter.formats.input_file import InputFile, describe_head
from attpc_filter.formats.run import Events, Move, Run, Stream, StreamMaker, StreamMode
from attpc_filter.root_options import RootOptions

ENTRY_POINTS = "attpc_filter.formats"

#: Writes the streams of a run anew that events leave or enter: streams by label, their mode, the
#: moves, and what gives the name to write a stream under until all are complete.
Mover = Callable[[Mapping[str, Path], StreamMode, Sequence[Move], Callable[[Path], Path]], None]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of event records.

    Attributes
    ----------
    name : str
        The name, as it stands in the manifest (:attr:`Run.format_name`).
    recognise : callable
        Whether a file is of the format.
    open : callable
        Opens it; with its events, or some of them, where they are known.
    create_stream : callable or None
        Creates a stream of an open run; None: the format has no streams.
    move_events : callable or None
        Moves events from stream to stream when their tags change; None: it cannot.
    """

    name: str
    recognise: Callable[[InputFile], bool]
    open: Callable[[InputFile, Events | None], Run]
    create_stream: StreamMaker | None = None
    move_events: Mover | None = None


# ------------------------------------------------------------------------------------------- HDF5


def _hdf5_format(kind: type[Hdf5File]) -> Format:
    def recognise(file: InputFile) -> bool:
        if file.hdf5 is None:
            return False
        try:
            return kind.recognise(file.hdf5)
        except HDF5_ERRORS as error:
            raise InputError(f"{file.path}: damaged: {one_line(error)}") from error

    def open_run(file: InputFile, events: Events | None) -> Run:
        assert file.hdf5 is not None
        try:
            run = kind(file.path, file.hdf5)
            if events is not None:
                run.events = events
            if run.events and isinstance(run, Hdf5Run):
                run.n_samples = run.count_samples()
        except HDF5_ERRORS as error:
            raise InputError(f"{file.path}: damaged: {one_line(error)}") from error
        return run

    if not issubclass(kind, Hdf5Run):
        return Format(kind.format_name, recognise, open_run)
    mover = partial(move_events, kind)
    return Format(kind.format_name, recognise, open_run, _create_hdf5_stream, mover)


def _create_hdf5_stream(run: Run, path: Path, mode: StreamMode, label: str) -> Stream:
    assert isinstance(run, Hdf5Run)
    return Hdf5Stream(run, path, mode, label)


# -------------------------------------------------------- ROOT; uproot is imported where needed


def _begins_like_root(file: InputFile) -> bool:
    return file.head.startswith(b"root")


def _open_root(file: InputFile, events: Events | None) -> Run:
    from attpc_filter.formats.root.open import open_root_run

    run = open_root_run(file.path, file.root)
    if events is not None:
        run.events = events
    return run


def _create_root_stream(run: Run, path: Path, mode: StreamMode, label: str) -> Stream:
    from attpc_filter.formats.root.run import RootRun
    from attpc_filter.formats.root.stream import RootStream

    assert isinstance(run, RootRun)
    return RootStream(run, path, mode, label)


def _move_root_events(
    streams: Mapping[str, Path],
    mode: StreamMode,
    moves: Sequence[Move],
    staged: Callable[[Path], Path],
) -> None:
    from attpc_filter.formats.root.moves import move_root_events

    move_root_events(streams, moves, staged)


def _root_format(name: str) -> Format:
    """A format in ROOT files; which of them a file holds is found when it is opened."""
    return Format(name, _begins_like_root, _open_root, _create_root_stream, _move_root_events)


# -------------------------------------------------------------------------------------------- GET


def _is_graw(file: InputFile) -> bool:
    return is_graw(file.path, file.head)


def _open_graw(file: InputFile, events: Events | None) -> Run:
    from attpc_filter.formats.graw import GrawRun

    run = GrawRun(file.path, file.channels)
    if events is not None:
        run.events = events
    return run


def _create_graw_stream(run: Run, path: Path, mode: StreamMode, label: str) -> Stream:
    from attpc_filter.formats.graw import create_graw_stream

    return create_graw_stream(run, path, mode, label)


def _move_graw_events(
    streams: Mapping[str, Path],
    mode: StreamMode,
    moves: Sequence[Move],
    staged: Callable[[Path], Path],
) -> None:
    if mode == "copy":
        move_events(merger.Merger2Run, streams, mode, moves, staged)
    else:
        move_listed_events(streams, moves, staged)


# ---------------------------------------------------------------------------------------- the table

#: In the order in which they are tried.
FORMATS: tuple[Format, ...] = (
    _hdf5_format(hit_store.HitStoreRun),
    *map(_hdf5_format, merger.FORMATS),
    *map(_hdf5_format, spyral.FORMATS),
    *map(_hdf5_format, pytpc.FORMATS),
    *map(_hdf5_format, attpcroot.FORMATS),
    *map(_root_format, ("ATTPCROOT traces", "ATTPCROOT hits", "ROOT tree")),
    Format("GET frames", _is_graw, _open_graw, _create_graw_stream, _move_graw_events),
)


def open_run(
    path: Path | str,
    root: RootOptions | None = None,
    events: Events | None = None,
    channels: NDArray[np.int64] | None = None,
    follow_links: bool = False,
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
    channels : ndarray of int64, shape (n, 5), optional
        CoBo, AsAd, AGET, channel and pad (:attr:`attpc_filter.rebuild.detector.Detector.channels`),
        for GET's own files, which know no pads.
    follow_links : bool, optional
        Whether links of an HDF5 file may lead to files outside of its folder.

    Returns
    -------
    Run
        The open run; use it as a context manager.

    Raises
    ------
    InputError
        If the file cannot be opened, is of no known format, or holds no events.
    """
    file = InputFile(Path(path), root, channels, follow_links)
    try:
        row = _recognise(file)
        run = row.open(file, events)
        if not run.events:
            run.close()
            raise EmptyRunError(f"{path}: {run.format_name} without a single event")
        if run.events[-1][0] >= 2**63:
            name = run.events[-1][1]
            run.close()
            raise InputError(f"{path}: {name}: numbers of events end at 2^63 - 1; rename it")
    except BaseException:
        file.close()
        raise
    run.stream_maker = row.create_stream
    return run


def find_format(name: str) -> Format:
    """Look up a format by its name in the manifest.

    Raises
    ------
    InputError
        If no format has the name, or an entry point cannot be loaded.
    """
    for row in _all_formats():
        if row.name == name:
            return row
    raise InputError(f"no format {name!r} is known here; install the distribution that adds it")


def list_contents(path: Path | str) -> list[tuple[str, str]]:
    """Titles and texts that say what a ROOT file holds, events or not; nothing of other files.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not _begins_like_root(InputFile(Path(path))):
        return []
    from attpc_filter.formats.root.open import list_contents as list_root_contents

    return list_root_contents(Path(path))


def require_known(path: Path, root: RootOptions | None = None, follow_links: bool = False) -> None:
    """Raise InputError unless a file is of a known format; its events are not looked for."""
    file = InputFile(path, root, follow_links=follow_links)
    try:
        _recognise(file)
    finally:
        file.close()


def _recognise(file: InputFile) -> Format:
    """The first format that knows the file."""
    for row in _all_formats():
        if row.recognise(file):
            return row
    if file.path.is_dir():
        raise InputError(
            f"{file.path}: a folder, not a run file; only a folder of .graw files is a run"
        )
    if file.hdf5 is not None:
        try:
            held = f"no known event format; it holds {describe_names(file.hdf5)}"
        except HDF5_ERRORS as error:
            raise InputError(f"{file.path}: damaged: {one_line(error)}") from error
        held += ". Clouds of another program's: attpc-filter import makes a run of text or .npy"
    else:
        if what := describe_head(file.head):
            raise InputError(f"{file.path}: {what}")
        held = "not an HDF5 file, and of no other format"
    known = ", ".join(dict.fromkeys(row.name for row in _all_formats()))
    raise InputError(f"{file.path}: {held}. Known are: {known}")


def _all_formats() -> Iterator[Format]:
    """The rows above, then those of other distributions, each loaded when its turn comes."""
    yield from FORMATS
    yield from map(_load, entry_points(group=ENTRY_POINTS))


def _load(point: EntryPoint) -> Format:
    where = "an unknown distribution" if point.dist is None else point.dist.name
    try:
        row = point.load()
    except Exception as error:
        raise InputError(
            f"format {point.name} of {where} cannot be loaded:"
            f" {type(error).__name__}: {one_line(error)}; repair or uninstall {where}"
        ) from error
    if not isinstance(row, Format):
        raise InputError(
            f"format {point.name} of {where} is {row!r}, no Format; repair or uninstall {where}"
        )
    return row
