"""What the links of a run file may lead to.

A link in an HDF5 file may name any file of the machine, and so may a dataset: external storage and
virtual datasets keep their numbers elsewhere. A run file from a stranger could make us read, and
copy into an output, what its sender may not see. So by default links lead only to files in the
folder of the file that holds the link, and below it; and a stream of ours leads to its run.

HDF5 asks :func:`_ask` before it opens the file that a link names, wherever a call is given
one of the lists here: :data:`LINK_ACCESS` and the others.
"""

import contextlib
import ctypes
import os
import stat
from pathlib import Path

import h5py
from h5py import h5d, h5f, h5g, h5i, h5l, h5o, h5p

from attpc_filter.errors import InputError
from attpc_filter.formats.hdf5 import kernels

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: A stream of a stream of a stream: as many as HDF5 follows.
_MOST_LINKS = 16
#: Groups with more links hold events, whose names have numbers. The links of events are looked at
#: when they are read.
_FEW_LINKS = 1000

#: The files whose links are followed wherever they lead.
_free: set[str] = set()
#: By the path of a stream: the path of its source.
_sources: dict[str, str] = {}
#: What was decided about links, by the file that holds them and the file that they name.
_decided: dict[tuple[bytes, bytes], bool] = {}
#: Why a link was not followed, until somebody asks.
_refusals: list[str] = []


def declare(file: h5py.File, follow_links: bool) -> None:
    """Look at the links near the root of a run file, before anything else is read of it.

    Parameters
    ----------
    file : h5py.File
        The open file.
    follow_links : bool
        Whether its links may lead anywhere.

    Raises
    ------
    InputError
        If a link leads where it may not.
    """
    path = os.path.realpath(file.filename)
    _decided.clear()
    _refusals.clear()
    _free.discard(path)
    if follow_links:
        _free.add(path)
    _declare_source(path, file, _MOST_LINKS)
    names = _names(file.id)
    if len(names) > _FEW_LINKS:
        names = [name for name in names if not any(map(str.isdigit, os.fsdecode(name)))]
    for name in names:
        try:
            item = h5o.open(file.id, name, lapl=LINK_ACCESS)
            if isinstance(item, h5g.GroupID):
                _look_at_links(item)
        except (OSError, KeyError, RuntimeError, ValueError, TypeError):  # damaged, or refused
            continue
    require_no_refusal()


def require_no_refusal() -> None:
    """Raise InputError if a link was not followed since this was asked last."""
    if _refusals:
        text = _refusals[-1]
        _refusals.clear()
        raise InputError(text)


def open_group(parent: h5g.GroupID, path: bytes) -> h5g.GroupID:
    """Open a group, as :func:`h5py.h5g.open` does, if its links may be followed."""
    group = h5o.open(parent, path, lapl=LINK_ACCESS)
    if not isinstance(group, h5g.GroupID):
        raise ValueError(f"{path!r} is no group")
    return group


def require_own_data(dataset: h5d.DatasetID) -> None:
    """Raise InputError if a dataset keeps its numbers in other files and may not.

    The files of external storage and of virtual datasets are refused in any folder: what they
    refer to in their turn cannot be seen from here.
    """
    if dataset.get_offset() is not None:
        return
    creation = dataset.get_create_plist()
    layout = creation.get_layout()
    if layout in (h5d.CHUNKED, h5d.COMPACT) or (
        layout == h5d.CONTIGUOUS and not creation.get_external_count()
    ):
        return
    holder = os.fsdecode(h5f.get_name(dataset))
    if os.path.realpath(holder) not in _free:
        name = (h5i.get_name(dataset) or b"a dataset").decode("utf-8", "replace")
        raise InputError(f"{holder}: {name} keeps its numbers in other files; {_REMEDY}")


_REMEDY = "if you trust whoever made the file, filter it with --follow-links"


def _names(group: h5g.GroupID) -> list[bytes]:
    names: list[bytes] = []
    group.links.iterate(names.append)
    return names


def _look_at_links(group: h5g.GroupID) -> None:
    """Open what the links in a group lead to, unless they are those of many events."""
    if group.get_num_objs() > _FEW_LINKS:
        return
    holder = h5f.get_name(group)
    for name in _names(group):
        kind = group.links.get_info(name).type
        if kind == h5l.TYPE_EXTERNAL:
            target, _ = group.links.get_val(name)
            _is_allowed(holder, target)
        elif kind == h5l.TYPE_SOFT:
            with contextlib.suppress(OSError, KeyError, RuntimeError):  # it leads nowhere
                h5o.open(group, name, lapl=LINK_ACCESS)


def _declare_source(path: str, file: h5py.File, depth: int) -> None:
    """Remember what a stream is a stream of, and so on to the run."""
    _sources.pop(path, None)
    try:
        source = file.attrs.get("attpc_filter_source")
    except (OSError, KeyError, RuntimeError, TypeError, ValueError):  # damaged
        return
    if not isinstance(source, str | bytes):
        return
    target = os.path.realpath(os.path.join(os.path.dirname(path), os.fsdecode(source)))
    _sources[path] = target
    if depth and _is_hdf5(target):
        try:
            with h5py.File(target, "r", locking=False) as run:
                _declare_source(target, run, depth - 1)
        except (OSError, RuntimeError):
            return


def _is_allowed(holder: bytes, target: bytes) -> bool:
    """Whether a link in a file may be followed to the file that it names."""
    key = (holder, target)
    if key not in _decided:
        _decided[key] = _decide(os.fsdecode(holder), os.fsdecode(target))
    return _decided[key]


def _decide(holder: str, target: str) -> bool:
    real = os.path.realpath(holder)
    folders = {os.path.dirname(real), os.path.dirname(os.path.abspath(holder))}
    for candidate in _candidates(holder, target):
        try:
            kind = os.stat(candidate).st_mode
        except (OSError, ValueError):
            continue
        found = os.path.realpath(candidate)
        if not stat.S_ISREG(kind):  # opening a pipe would wait for a writer
            _refusals.append(f"{holder}: links to {found}, which is no regular file; remove it")
            return False
        if real in _free:
            _free.add(found)
        elif found != _sources.get(real) and not any(
            found.startswith(os.path.join(folder, "")) for folder in folders
        ):
            _refusals.append(f"{holder}: links to {found}, outside of its own folder; {_REMEDY}")
            return False
        if _is_hdf5(found):
            return True
    return True  # HDF5 finds no file


def _candidates(holder: str, target: str) -> list[str]:
    """The paths that HDF5 (2.0) tries for the file that a link names, in its order."""
    found = []
    if os.path.isabs(target):
        found.append(target)
        target = os.path.basename(target)
    prefixes = os.environ.get("HDF5_EXT_PREFIX", "").split(":")
    folders = [*filter(None, prefixes), os.path.dirname(os.path.abspath(holder)), ""]
    folders.append(os.path.dirname(os.path.realpath(holder)))
    return found + [os.path.join(folder, target) for folder in folders]


def _is_hdf5(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with Path(path).open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


# ------------------------------------------------------------------------------- asked by HDF5

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int,
    *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p),
    *(ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p),
)


def _ask(
    holder: bytes, _group: bytes, target: bytes, _name: bytes, _flags: int, _list: int, _data: int
) -> int:
    """Whether HDF5 may open the file that an external link names: 0, or -1."""
    try:
        return 0 if _is_allowed(holder, target) else -1
    except Exception:  # noqa: BLE001  nothing may pass through HDF5
        return -1


_may_follow = _Callback(_ask)


def _create_group_access() -> int:
    """Create the list that h5py does not offer."""
    library = kernels.library()
    create = library.H5Pcreate
    create.argtypes, create.restype = [ctypes.c_int64], ctypes.c_int64
    made: int = create(ctypes.c_int64.in_dll(library, "H5P_CLS_GROUP_ACCESS_ID_g"))
    return made


def _ask_first(properties: int) -> None:
    """Let HDF5 ask before it follows a link by a list of properties."""
    set_callback = kernels.library().H5Pset_elink_cb
    set_callback.argtypes = [ctypes.c_int64, _Callback, ctypes.c_void_p]
    if set_callback(properties, _may_follow, None) < 0:
        raise RuntimeError("HDF5 takes no callback for links")


#: Lists for the opening of any object, of datasets, and of groups (an identifier of the library).
LINK_ACCESS = h5p.create(h5p.LINK_ACCESS)
DATASET_ACCESS = h5p.create(h5p.DATASET_ACCESS)
GROUP_ACCESS = _create_group_access()
for _list in (LINK_ACCESS.id, DATASET_ACCESS.id, GROUP_ACCESS):
    _ask_first(_list)
