"""Damage GET's files at random and see what becomes of the events.

``python -m tests.formats.graw_fuzz 6000 7`` damages so many files and prints what came of them: a
clear error, events that are unreadable, events that are read as they were; or, what must not be,
wrong numbers, a crash, a hang.

GET's frames have no checksum. A flipped bit in a sample is another sample. In partial readout a
sample carries its channel and time bucket, so that it may also stand elsewhere: of each damaged
sample at most the place where it was and the one where it is now may differ. All else must be as it
was, or said. One thing cannot be told from what belongs there: a count of samples that lost a few
of the last unit of a frame; its frames may lack as many.
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import InputError
from attpc_filter.formats.graw import GrawRun
from tests import graw_files

MOST_SECONDS = 20.0
N_EVENTS = 5
ASADS = [(0, 0), (0, 1), (3, 2)]
STYLES = (
    graw_files.Style(),
    graw_files.Style(unit=64, order="little", suppress=True),
    graw_files.Style("full"),
)

Truth = dict[int, NDArray[np.int16]]


def channel_map() -> NDArray[np.int64]:
    channels = [c for c in range(68) if c not in graw_files.FPN]
    keys = [(*asad, aget, c) for asad in ASADS for aget in range(4) for c in channels]
    return np.column_stack([keys, np.arange(len(keys))]).astype(np.int64)


def simulate(event: int) -> NDArray[np.int16]:
    rng = np.random.default_rng([6, event])
    rows = channel_map()[rng.choice(len(channel_map()), 12, replace=False)]
    samples = rng.integers(100, 4096, (len(rows), 512))
    samples[rng.random(samples.shape) < 0.3] = 0
    return np.column_stack([rows, samples]).astype(np.int16)


def damage(content: bytes, rng: random.Random, frame_bytes: int) -> tuple[str, bytes]:
    """A damaged copy of a file, and what was done to it."""
    data = bytearray(content)
    kinds = ["cut", "bit", "bit", "head", "head", "head", "word", "zeros", "swap", "gone"]
    kind = rng.choice(kinds)
    at = rng.randrange(len(data))
    if kind == "cut":
        return kind, bytes(data[:at])
    if kind == "head":  # the fields of a frame's header
        at = rng.randrange(len(data) // frame_bytes + 1) * frame_bytes + rng.randrange(31)
        at = min(at, len(data) - 1)
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "bit":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "word":
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", rng.randbytes(4)])
    elif kind == "zeros":
        stop = min(len(data), at + rng.choice([16, 512, 4096]))
        data[at:stop] = bytes(stop - at)
    elif kind == "gone":
        del data[at : at + rng.choice([1, 4, 64, 256, 4096])]
    else:
        other = rng.randrange(len(data))
        length = rng.randrange(1, 64)
        data[at : at + length], data[other : other + length] = (
            data[other : other + length],
            data[at : at + length],
        )
    return kind, bytes(data[: len(content)])


def outcome(path: Path, truth: Truth, most_different: int) -> str:
    """What becomes of the events of a damaged run, in a word."""
    try:
        run = GrawRun(path, channel_map())
    except InputError as error:
        text = str(error)
        return "error" if text.startswith(f"{path}: ") and "\n" not in text else "UNCLEAR"
    seen = set()
    unreadable = changed = False
    with run:
        for record in run.records():
            number = run.event_id(record.event)
            if record.reason:
                unreadable = True
                if "\n" in record.reason:
                    return "UNCLEAR"
            elif number not in truth:
                return "WRONG"
            else:
                assert record.traces is not None
                different = count_different(record.traces, truth[number])
                if different > most_different:
                    return "WRONG"
                changed |= different > 0
            seen.add(number)
        if not seen >= set(truth) and not (unreadable or run.notes[1:]):
            return "SILENTLY SHORT"
    return "unreadable events" if unreadable else "other samples" if changed else "as it was"


def count_different(found: NDArray[np.int16], wanted: NDArray[np.int16]) -> int:
    """Samples that differ; a trace that is not there is one of zeros."""
    cells = np.zeros((2, len(channel_map()), 512), np.int16)
    for table, traces in zip(cells, (found, wanted), strict=True):
        table[traces[:, 4]] = traces[:, 5:]
    if len(np.unique(found[:, 4])) != len(found):
        return 1 << 30
    return int((cells[0] != cells[1]).sum())


def most_different(content: bytes, damaged: bytes, unit: int) -> int:
    """Samples that may differ without a word."""
    if len(damaged) != len(content):
        return 0
    different = np.flatnonzero(np.frombuffer(content, np.uint8) != np.frombuffer(damaged, np.uint8))
    at, counts = 0, set()
    while at < len(content):
        counts |= {at + 12 + byte for byte in range(4)}
        order: Any = "little" if content[at] & 0x80 else "big"
        at += int.from_bytes(content[at + 1 : at + 4], order) * unit
    lost = unit // 2 if counts & set(different.tolist()) else 0
    return 2 * len(different) + lost


def _run(n_files: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    wrong: list[str] = []

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {MOST_SECONDS} s")

    signal.signal(signal.SIGPROF, too_long)  # of processor time: a machine may be busy
    truth = {100 + event: simulate(event) for event in range(N_EVENTS)}
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for index, style in enumerate(STYLES):
            path = graw_files.write_run(Path(folder) / f"run_{index}", truth, style, asads=ASADS)
            runs.append((path, sorted(path.iterdir()), style))
        for index in range(n_files):
            path, files, style = runs[index % len(runs)]
            file = files[rng.randrange(len(files))]
            content = file.read_bytes()
            state = rng.getrandbits(64)
            kind, damaged = damage(content, random.Random(state), len(content) // N_EVENTS)
            file.write_bytes(damaged)
            most = most_different(content, damaged, style.unit)
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
            try:
                came = outcome(path, truth, most)
            except BaseException as error:  # noqa: BLE001  whatever it is, it must not be
                came = f"CRASH {type(error).__name__}: {error}"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                file.write_bytes(content)
            if came.split()[0].isupper():
                wrong.append(f"{path.name} {file.name} {kind} {state}: {came}"[:300])
            counts[came.split(":")[0]] += 1
    return {"counts": dict(counts), "wrong": wrong}


def fuzz(n_files: int, seed: int) -> dict[str, Any]:
    """Damage so many files in a process of its own, and report.

    Returns
    -------
    dict
        ``counts``, and ``wrong``: how to make each file that was read wrongly or crashed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.formats.graw_fuzz", str(n_files), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=MOST_SECONDS * 10 + n_files,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)))
