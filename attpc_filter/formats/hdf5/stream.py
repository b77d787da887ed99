"""Streams of HDF5 runs: files in the layout of their run, of links into it or of copies."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
from h5py import h5g, h5o, h5p

from attpc_filter import __version__
from attpc_filter.errors import InputError, OutputError
from attpc_filter.formats.hdf5 import link_kernels
from attpc_filter.formats.hdf5.file import HDF5_ERRORS, encode, one_line, require_working_disk
from attpc_filter.formats.hdf5.links import open_group
from attpc_filter.formats.hdf5.objects import (
    MOST_EXPANSION,
    copy_attributes,
    copy_object,
    is_readable,
    link_exists,
    opens,
)
from attpc_filter.formats.hdf5.run import Addition, Hdf5Run, Members
from attpc_filter.formats.run import Stream, StreamMode
from attpc_filter.records import Hits, Record

_MUCH = 256 << 20
_SHALLOW = h5p.create(h5p.OBJECT_COPY)
_SHALLOW.set_copy_object(h5o.COPY_SHALLOW_HIERARCHY_FLAG)


class Hdf5Stream(Stream):
    """A stream in the layout of its run; see :meth:`Run.create_stream`."""

    def __init__(self, run: Hdf5Run, path: Path, mode: StreamMode, label: str) -> None:
        self._run = run
        self._mode = mode
        self._path = path
        self._n_added = 0
        self._n_bytes = 0  # of numbers copied
        self._ends: list[str] = []  # the first event added and the last
        # HDF5 looks a relative link up from the folder of the file that holds it
        source = os.path.relpath(run.path.resolve(), path.parent.resolve())
        self._source_path = os.fsencode(source)
        try:
            # groups as of HDF5 1.8: small ones are stored within their header, large ones indexed
            self._file = h5py.File(path, "w", libver=("v108", "latest"))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {one_line(error)}") from error
        try:
            self._copy_run_level(run.file, self._file, "")
            # after the run's own: a stream of a stream says where it comes from itself
            self._file.attrs["attpc_filter"] = __version__
            self._file.attrs["attpc_filter_stream"] = label
            self._file.attrs["attpc_filter_source"] = source
            for group in run.event_groups:
                self._file.require_group(group)
            run.finish_run_level(self._file)
            self._event_group: h5g.GroupID = self._file[run.container].id
            self._linker: link_kernels.Linker | None = None
            if mode == "link" and run.usual_event is not None and link_kernels.AVAILABLE:
                self._linker = link_kernels.Linker(
                    run.usual_event,
                    run.event_group,
                    self._event_group,
                    run.container,
                    self._source_path,
                )
        except HDF5_ERRORS as error:
            self.abort()
            raise OutputError(f"{path}: cannot be written: {one_line(error)}") from error

    def add(self, record: Record, hits: Hits | None = None) -> None:
        """Add an event of the run (see :meth:`Stream.add`); the layout has no place for hits."""
        if not self._link_usual(record):
            self._add_any(record)
        self._n_added += 1
        self._ends[1:] = [record.name]

    def _link_usual(self, record: Record) -> bool:
        """Link a usual event in compiled code; False, and nothing added, if it is not usual."""
        if self._mode != "link" or not link_kernels.AVAILABLE:
            return False
        if self._linker is not None:
            return not record.is_complete and self._linker.link(record.name.encode())
        parts = [b"/" + part.encode() for part in self._run.event_parts(record.name)]
        return len(parts) > 1 and link_kernels.link_parts(
            self._run.file.id, self._file.id, self._source_path, parts
        )

    def _add_any(self, record: Record) -> None:
        """Add an event, whatever it holds."""
        name = record.name
        members: Members = {}
        additions: dict[bytes, Addition] = {}
        if not (record.is_complete or self._run.is_complete(name.encode())):
            try:
                members = list_members(self._run.event_group, name.encode(), self._run.inner_groups)
            except HDF5_ERRORS as error:  # damaged: the event goes into the stream as it is
                require_working_disk(error)
            else:
                additions = self._run.additions(members)
        parts = self._run.event_parts(name)
        if len(parts) > 1:
            parts = [part for part in parts if link_exists(self._run.file.id, part)]
        try:
            self._add_parts(parts, additions, members)
        except HDF5_ERRORS as error:
            if all(is_readable(self._run.file.id, part.encode()) for part in parts):
                raise OutputError(f"{self._path}: event {name}: {one_line(error)}") from error
            try:
                # damaged deeper down, where only a reference to the whole can pass it on
                for part in parts:
                    if link_exists(self._file.id, part):
                        self._file.id.unlink(part.encode())
                    self._link(part)
            except HDF5_ERRORS as error:
                raise OutputError(f"{self._path}: event {name}: {one_line(error)}") from error

    def close(self) -> None:
        """Flush and close the file, and verify that it holds what was added."""
        try:
            self._file.close()
            with h5py.File(self._path, "r") as file:
                group = file[self._run.container]
                held = len(self._run.find_events(file))
                # a damaged event opens neither here nor in its own file
                source = self._run.event_group
                lost = [n for n in self._ends if opens(source, n) and not opens(group.id, n)]
        except HDF5_ERRORS as error:
            raise OutputError(f"{self._path}: cannot be written: {one_line(error)}") from error
        if held != self._n_added or lost:
            raise OutputError(
                f"{self._path}: {self._n_added} events were added, it holds {held}"
                + (f"; {', '.join(lost)} cannot be opened through it" if lost else "")
            )

    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""
        with contextlib.suppress(*HDF5_ERRORS):
            os.truncate(self._path, 0)  # on a full disk the file could not be closed otherwise
            self._file.close()

    def _add_parts(
        self, parts: Sequence[str], additions: dict[bytes, Addition], members: Members
    ) -> None:
        for part in parts:
            if self._mode == "copy":
                self._copy_or_link(part)
            elif additions:
                self._link_members(part, members, additions)
            else:
                self._link(part)
        for name, addition in additions.items():
            path = parts[0].encode() + b"/" + name
            if addition.same_as is None:
                self._file.create_dataset(path, addition.shape, addition.dtype)
            elif self._mode == "copy":
                self._file[path] = self._file[parts[0].encode() + b"/" + addition.same_as]

    def _copy_run_level(self, source: h5py.Group, target: h5py.Group, path: str) -> None:
        """Copy all that is of no single event, attributes included."""
        copy_attributes(source.id, target.id)
        for name in self._run.names_of_run(path, source):
            child = f"{path}/{name}".lstrip("/")
            if any(f"{group}/".startswith(f"{child}/") for group in self._run.event_groups):
                self._copy_run_level(source[name], target.create_group(name), child)
            else:
                self._copy_or_link(child)

    def _copy_or_link(self, path: str) -> None:
        source, encoded = self._run.file.id, encode(path)
        try:
            self._n_bytes += copy_object(source, encoded, self._file.id, encoded)
        except HDF5_ERRORS:
            if is_readable(source, encoded):
                raise
            # what is damaged cannot be copied, and must not be lost: refer to it
            if link_exists(self._file.id, path):
                self._file.id.unlink(encoded)
            self._link(path)
        if self._n_bytes > max(_MUCH, MOST_EXPANSION * self._run.path.stat().st_size):
            raise InputError(
                f"{self._run.path}: a copy of its events takes more than {self._n_bytes / 1e6:,.0f}"
                " MB, a thousand times what the file holds; filter it with --streams link"
            )

    def _link(self, path: str) -> None:
        """Link an object of the run."""
        encoded = encode(path)
        self._file.id.links.create_external(encoded, self._source_path, b"/" + encoded)

    def _link_members(self, path: str, members: Members, additions: dict[bytes, Addition]) -> None:
        """Make the groups of an event and link what is in them, and under what names besides."""
        # by the event's name in its group: from the file's root HDF5 would take the path twice over
        source, target, event = (
            self._run.event_group,
            self._event_group,
            path.split("/")[-1].encode(),
        )
        if all(name in members for name in members[b""]):
            # the event and its groups with their attributes, empty, in one call: ten times faster
            h5o.copy(source, event, target, event, _SHALLOW)
        else:
            for group in members:
                made = h5g.create(target, _join(event, group))
                copy_attributes(open_group(source, _join(event, group)), made)
        there = b"/" + path.encode() + b"/"
        for group, names in members.items():
            made = h5g.open(target, _join(event, group))
            links = made.links
            for name in names:
                if group or name not in members:
                    links.create_external(name, self._source_path, there + _join(group, name))
            for added, addition in additions.items():
                head, _, name = added.rpartition(b"/")
                if head == group and addition.same_as is not None:
                    links.create_external(name, self._source_path, there + addition.same_as)


def _join(group: bytes, name: bytes) -> bytes:
    return group + b"/" + name if group and name else group or name


def list_members(parent: h5g.GroupID, name: bytes, inner: Iterable[bytes]) -> Members:
    """Names in an event's group and, of the groups that may be in it, in those that are."""
    event = open_group(parent, name)
    members = {b"": _member_names(event)}
    for group in inner:
        if group in members[b""]:
            members[group] = _member_names(open_group(event, group))
    return members


def _member_names(group: h5g.GroupID) -> list[bytes]:
    names: list[bytes] = []
    group.links.iterate(names.append)  # one call for all: ten times faster than its own iterator
    return names
