"""Which files of GET's make a run, and the table of their frames."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats import graw_kernels as kernels

SUFFIX = ".graw"
#: What GET's DAQ calls its files: ``CoBo0_AsAd2_2022-04-12T08_03_44.536_0001.graw``.
_NAME = re.compile(
    r"(?P<head>.*?)(?:CoBo(?P<cobo>\d+)_)?(?:AsAd(?P<asad>\d+)_)?(?P<rest>.*?)_(?P<index>\d{4})",
    re.IGNORECASE,
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d[_:]\d\d[_:]\d\d(\.\d+)?")
#: Frames are listed this many at a time.
_FRAMES_AT_ONCE = 65_536


@dataclass(slots=True)
class FrameTable:
    """The frames of a run, sorted by event, CoBo and AsAd.

    Attributes
    ----------
    frames : ndarray of int64, shape (n_frames, 11)
        The fields of :mod:`attpc_filter.formats.graw_kernels`; the event number does not wrap.
    files : ndarray of int64, shape (n_frames,)
        Which of the run's files each lies in.
    damaged_bytes : ndarray of int64, shape (n_files,)
        Bytes of each file that are no frame.
    """

    frames: NDArray[np.int64]
    files: NDArray[np.int64]
    damaged_bytes: NDArray[np.int64]


def files_of_run(path: Path) -> list[Path]:
    """Find the files of a run.

    Parameters
    ----------
    path : Path
        A folder, all of whose ``.graw`` files (those in its folders too) are one run; or one file,
        which stands for itself, the other files of its AsAd and those of the other AsAds that were
        opened with it: same folder, same name but for CoBo, AsAd, time and number.

    Returns
    -------
    list of Path
        By CoBo, AsAd and number.

    Raises
    ------
    InputError
        If there are none, or the folder holds several runs.
    """
    if not path.is_dir():
        beside = path.parent.glob(f"*{SUFFIX}")
        runs = runs_of_files([path, *(file for file in beside if file != path)])
        return next(run for run in runs if path in run)
    runs = runs_of_files(list(path.rglob(f"*{SUFFIX}")))
    if not runs:
        raise InputError(f"{path}: a folder without {SUFFIX} files")
    if len(runs) > 1:
        names = ", ".join(str(run[0].relative_to(path)) for run in runs)
        raise InputError(
            f"{path}: {SUFFIX} files of {len(runs)} runs; give one file of the run that you mean,"
            f" one of: {names}"
        )
    return runs[0]


def one_path_a_run(paths: Sequence[Path]) -> list[Path]:
    """The paths without the ``.graw`` files of a run that an earlier path stands for already."""
    seen: set[str] = set()
    kept = []
    for path in paths:
        if os.path.realpath(path) not in seen:  # unlike resolve, it stands a loop of links
            kept.append(path)
            if path.suffix == SUFFIX and os.path.isfile(path):
                seen.update(os.path.realpath(file) for file in files_of_run(path))
    return kept


def is_graw(path: Path, head: bytes) -> bool:
    """Whether a path is a folder with ``.graw`` files, or a file that begins with a GET frame.

    A file that is called ``.graw`` is one, too, so that what is wrong with it can be said.
    """
    if path.is_dir():
        return next(path.rglob(f"*{SUFFIX}"), None) is not None
    if path.suffix == SUFFIX:
        return True
    if len(head) < 32 or head[0] & 0x70 or not 6 <= head[0] & 0x0F <= 12:
        return False
    order: Literal["little", "big"] = "little" if head[0] & 0x80 else "big"
    kind, item_size = (int.from_bytes(head[at : at + 2], order) for at in (5, 10))
    return (kind, item_size) in ((1, 4), (2, 2))


def runs_of_files(files: list[Path]) -> list[list[Path]]:
    """Sort files into runs, and the files of a run by folder, CoBo, AsAd and number.

    Files are of one run if their names are alike but for CoBo, AsAd, time and number. An AsAd whose
    numbers begin anew has a further run.
    """
    runs: dict[tuple[str, int], list[Path]] = {}
    last: dict[tuple[str, str, int, int], tuple[int, int]] = {}
    for file in sorted(files, key=_key):
        name, folder, cobo, asad, _, number = _parts(file)
        rank, former = last.get((name, folder, cobo, asad), (0, -1))
        rank += former >= number
        last[name, folder, cobo, asad] = (rank, number)
        runs.setdefault((name, rank), []).append(file)
    return list(runs.values())


def stack_of(path: Path) -> tuple[str, ...]:
    """What the files of one AsAd have in common, apart from their number and time."""
    return tuple(str(part) for part in _parts(path)[:4])


def _parts(path: Path) -> tuple[str, str, int, int, str, int]:
    """What the names of a run have in common; folder, CoBo, AsAd, time and number."""
    folder = str(path.parent)
    match = _NAME.fullmatch(path.stem)
    if match is None or (match["cobo"] is None and match["asad"] is None):
        return (path.stem, folder, 0, 0, "", 0)
    cobo, asad, number = (int(match[name] or 0) for name in ("cobo", "asad", "index"))
    name = f"{match['head']}*{_TIME.sub('*', match['rest'])}"
    return (name, folder, cobo, asad, match["rest"], number)


def _key(path: Path) -> tuple[str, int, int, str, int, str]:
    return (*_parts(path)[1:], path.name)


def open_files(paths: list[Path]) -> list[int]:
    """Open files to read; returns their descriptors.

    Raises
    ------
    InputError
        If one cannot be opened.
    """
    opened: list[int] = []
    for path in paths:
        try:
            opened.append(os.open(path, os.O_RDONLY))
        except OSError as error:
            close_files(opened)
            raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    return opened


def close_files(files: list[int]) -> None:
    """Close files."""
    for file in files:
        os.close(file)


def list_frames(files: list[int]) -> FrameTable:
    """List the frames of a run's files.

    Damaged bytes are passed over up to the next header that is sound.

    Parameters
    ----------
    files : list of int
        Descriptors of the open files.
    """
    tables, damaged = [], []
    for file in files:
        table, lost = _list_file(file)
        tables.append(table)
        damaged.append(lost)
    frames = np.concatenate(tables)
    owners = np.repeat(np.arange(len(files)), [len(table) for table in tables])
    _unwrap(frames)
    order = np.lexsort([frames[:, kernels.ASAD], frames[:, kernels.COBO], frames[:, kernels.EVENT]])
    return FrameTable(frames[order], owners[order], np.array(damaged, np.int64))


def _list_file(file: int) -> tuple[NDArray[np.int64], int]:
    n_bytes = os.fstat(file).st_size
    parts: list[NDArray[np.int64]] = []
    at = damaged = 0
    while at < n_bytes:
        rows = np.zeros((_FRAMES_AT_ONCE, kernels.N_FIELDS), np.int64)
        count, at, is_cut = kernels.index_frames(file, n_bytes, at, rows)
        parts.append(rows[:count])
        if count < len(rows) and at < n_bytes:
            if count and not is_cut:
                rows[count - 1, kernels.DOUBTFUL] = 1
            next_unit = at - at % 64 + 64  # frames begin at multiples of their unit
            after = kernels.find_frame(file, n_bytes, next_unit, np.zeros_like(rows[0]))
            damaged += after - at
            at = after
    return np.concatenate([np.zeros((0, kernels.N_FIELDS), np.int64), *parts]), damaged


def _unwrap(frames: NDArray[np.int64]) -> None:
    """Make event numbers, of 32 bits, go on where they wrap; no run has 2**31 events."""
    events = frames[:, kernels.EVENT]
    if not len(events):
        return
    reference = np.sort(events)[len(events) // 2]
    events[:] = reference + (events - reference).astype(np.uint32).astype(np.int32)
    if events.min() < 0:  # begun before the wrap
        events += 1 << 32
