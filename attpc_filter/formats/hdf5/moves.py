"""Events moved from stream to stream of a run, without the run itself.

A stream is a file in the layout of its run, and the streams of one run lie in folders beside each
other. So what a stream holds of an event, be it a link into the run, a group of such links or a
copy, is as good in another stream: links are taken over as they are, objects are copied.
"""

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import h5py
from h5py import h5g, h5o

from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.hdf5.file import HDF5_ERRORS, encode, large_metadata_cache, names_in
from attpc_filter.formats.hdf5.objects import copy_attributes
from attpc_filter.formats.hdf5.run import Hdf5Run
from attpc_filter.formats.run import Move, StreamMode


@dataclass(slots=True)
class _Changes:
    """What happens to one stream: the objects that leave, and those that come, by their source."""

    leave: list[str] = field(default_factory=list)
    come: list[tuple[str, str]] = field(default_factory=list)


def move_events(
    kind: type[Hdf5Run],
    streams: Mapping[str, Path],
    mode: StreamMode,
    moves: Sequence[Move],
    staged: Callable[[Path], Path],
) -> None:
    """Write the streams anew that events leave or enter.

    Parameters
    ----------
    kind : type of Hdf5Run
        Format of the run that they are streams of.
    streams : mapping of str to Path
        The run's streams by label; they stay as they are.
    mode : {"link", "copy"}
        How the streams hold their events.
    moves : sequence of Move
        Which events go where.
    staged : callable
        Gives the name to write a stream under until all are complete.

    Raises
    ------
    InputError
        If a stream is not there, is damaged, or lacks an event that should leave it.
    OutputError
        If a stream cannot be written, or does not hold what it should.
    """
    with ExitStack() as stack:
        olds: dict[str, h5py.File] = {}
        for label, path in streams.items():
            try:
                olds[label] = stack.enter_context(h5py.File(path, "r", locking="best-effort"))
            except HDF5_ERRORS as error:
                raise InputError(f"{path}: the stream cannot be read: {error}") from error
            stack.enter_context(large_metadata_cache(olds[label]))
        changes = _plan(kind, olds, moves)
        for label, path in streams.items():
            change = changes[label]
            if not change.leave and not change.come:
                continue
            new = staged(path)
            try:
                if mode == "link":
                    _edit(path, new, change, olds)
                else:
                    _rebuild(kind, olds[label], new, change, olds)
                with h5py.File(new, "r") as file:
                    held = file[kind.container].id.get_num_objs()
            except HDF5_ERRORS as error:
                raise OutputError(f"{path}: cannot be written: {error}") from error
            expected = olds[label][kind.container].id.get_num_objs() + _growth(kind, change)
            if held != expected:
                raise OutputError(f"{path}: {expected} objects should be in it, it holds {held}")


def _plan(
    kind: type[Hdf5Run], olds: Mapping[str, h5py.File], moves: Sequence[Move]
) -> dict[str, _Changes]:
    changes = {label: _Changes() for label in olds}
    groups = {label: _Groups(old) for label, old in olds.items()}
    unusual: dict[str, dict[int, str]] = {}
    for move in moves:
        there = groups[move.source].holds
        name = kind.usual_name(move.event)
        parts = [part for part in kind.event_parts(name) if there(part)]
        if not parts:
            if move.source not in unusual:
                unusual[move.source] = dict(kind.find_events(olds[move.source]))
            name = unusual[move.source].get(move.event, name)
            parts = [part for part in kind.event_parts(name) if there(part)]
        if not parts:
            raise InputError(
                f"{olds[move.source].filename}: event {move.event} is not there, though the tag"
                " table says so"
            )
        changes[move.source].leave += parts
        changes[move.target].come += [(move.source, part) for part in parts]
    return changes


class _Groups:
    """The groups of a file, each opened once: HDF5 takes as long for the path as for the link."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._open: dict[str, h5g.GroupID] = {}

    def of(self, part: str) -> tuple[h5g.GroupID, bytes]:
        """The group that an object is in, and its name there."""
        path, _, name = part.rpartition("/")
        if path not in self._open:
            self._open[path] = self._file[path or "/"].id
        return self._open[path], encode(name)

    def holds(self, part: str) -> bool:
        """Whether there is a link of that path, be it one that leads nowhere."""
        group, name = self.of(part)
        return bool(group.links.exists(name))


def _growth(kind: type[Hdf5Run], change: _Changes) -> int:
    """Objects that the group of the events has more, or less."""
    prefix = f"{kind.container}/".lstrip("/")
    come = sum(part.startswith(prefix) for _, part in change.come)
    return come - sum(part.startswith(prefix) for part in change.leave)


def _edit(old: Path, path: Path, change: _Changes, olds: Mapping[str, h5py.File]) -> None:
    """Copy the file and change it: links take next to no room, whether they leave or stay."""
    shutil.copyfile(old, path)
    with h5py.File(path, "r+", libver=("v108", "latest")) as file, large_metadata_cache(file):
        groups = _Groups(file)
        for part in change.leave:
            group, name = groups.of(part)
            group.unlink(name)
        _enter(file, change.come, olds)


def _rebuild(
    kind: type[Hdf5Run],
    old: h5py.File,
    path: Path,
    change: _Changes,
    olds: Mapping[str, h5py.File],
) -> None:
    """Write a new file, so that the events that leave give their room back."""
    with h5py.File(path, "w", libver=("v108", "latest")) as file:
        _copy_all_but(kind, old, file, "", set(change.leave))
        _enter(file, change.come, olds)


def _enter(file: h5py.File, come: Iterable[tuple[str, str]], olds: Mapping[str, h5py.File]) -> None:
    sources = {label: _Groups(old) for label, old in olds.items()}
    targets = _Groups(file)
    for label, part in come:
        source, name = sources[label].of(part)
        _take_over(source, name, targets.of(part)[0])


def _copy_all_but(
    kind: type[Hdf5Run], source: h5py.Group, target: h5py.Group, path: str, leave: Collection[str]
) -> None:
    copy_attributes(source.id, target.id)
    for name in names_in(source.id):
        child = f"{path}/{name}".lstrip("/")
        if child in leave:
            continue
        if any(f"{group}/".startswith(f"{child}/") for group in kind.event_groups):
            _copy_all_but(kind, source[name], target.create_group(name), child, leave)
        else:
            _take_over(source.id, encode(name), target.id)


def _take_over(source: h5g.GroupID, name: bytes, target: h5g.GroupID) -> None:
    """Take a link over as it is, and copy an object; links within it stay links."""
    try:
        link = source.links.get_val(name)
    except TypeError:  # no link to elsewhere, the object itself
        link = None
    if isinstance(link, tuple):
        target.links.create_external(name, *link)
    else:
        h5o.copy(source, name, target, name)
