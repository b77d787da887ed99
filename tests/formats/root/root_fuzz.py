"""Damage ROOT files at random and see what becomes of the events.

``python -m tests.formats.root.root_fuzz 5000`` damages so many files and prints what came of them:
a clear error, events that are reported unreadable, events that are read as they were, or, what must
not be, wrong numbers, a crash, a hang, more than 1 GB, a good file that is no longer read after it.

A process of its own does the reading, with its memory limited; the tests start it too.
"""

import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from attpc_filter.errors import InputError
from attpc_filter.execute.memory import peak_memory_bytes
from attpc_filter.formats.registry import open_run
from attpc_filter.root_options import RootOptions
from tests.formats.root.root_truth import SHARED, Truth, miniature_truth, shared_truth

MOST_BYTES = 1_000_000_000
MOST_SECONDS = 20.0

#: Files to damage. What the second group holds has no checksum of ROOT's: numbers in zstd and
#: uncompressed, and, where no tree counts them, the objects of a directory. A flipped bit there is
#: a number (or a name) like any other, to ROOT as to us.
PROTECTED = (
    "now_zlib",
    "now_lzma",
    "now_lz4",
    "several",
    "several_unsplit",
    "single",
    "by_value",
    "hits_fair99",
    "raw_split0",
    "columns",
    "ntuple",
)
UNPROTECTED = ("now_zstd", "now_plain", "keys")


def damage(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A damaged copy of a file, and what was done to it."""
    data = bytearray(content)
    kind = rng.choice(["cut", "bit", "bit", "byte", "word", "zeros", "head", "tail", "swap"])
    at = rng.randrange(len(data))
    if kind == "cut":
        return kind, bytes(data[:at])
    if kind == "head":  # the file's header, and the first keys
        at = rng.randrange(min(600, len(data)))
        data[at] = rng.randrange(256)
    elif kind == "tail":  # the directory, the streamer information, the tree
        at = len(data) - 1 - rng.randrange(min(12_000, len(data)))
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "bit":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        data[at] = rng.randrange(256)
    elif kind == "word":
        data[at : at + 4] = rng.choice(
            [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", rng.randbytes(4)]
        )
    elif kind == "zeros":
        stop = min(len(data), at + rng.choice([16, 512, 4096]))
        data[at:stop] = bytes(stop - at)
    else:
        other = rng.randrange(len(data))
        length = rng.randrange(1, 64)
        data[at : at + length], data[other : other + length] = (
            data[other : other + length],
            data[at : at + length],
        )
    return kind, bytes(data[: len(content)])


def outcome(path: Path, options: RootOptions | None, truth: Truth) -> str:
    """What becomes of the events of a damaged file, in a word."""
    try:
        run = open_run(path, options)
    except InputError as error:
        text = str(error)
        return "error" if text.startswith(f"{path}: ") and "\n" not in text else "UNCLEAR"
    with run:
        if len(run.events) != len(truth):
            return "WRONG"
        unreadable = 0
        for index, record in enumerate(run.records()):
            if record.reason:
                if not record.reason.startswith(f"{path.name}, ") or "\n" in record.reason:
                    return "UNCLEAR"
                unreadable += 1
            elif not truth[index].matches(record):
                return "WRONG"
    return "unreadable events" if unreadable else "as it was"


def _run(n_files: int, seed: int, names: list[str]) -> dict[str, Any]:
    rng = random.Random(seed)
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    wrong: list[str] = []
    originals = {}
    for name in names:
        find = shared_truth if (SHARED / f"{name}.root").exists() else miniature_truth
        path, options, truth = find(name)
        originals[name] = (path.read_bytes(), options, truth)
    slowest = 0.0

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {MOST_SECONDS} s")

    signal.signal(signal.SIGPROF, too_long)  # of processor time: a machine may be busy
    with tempfile.TemporaryDirectory() as folder:
        for index in range(n_files):
            name = names[index % len(names)]
            content, options, truth = originals[name]
            state = rng.getrandbits(64)
            kind, damaged = damage(content, random.Random(state))
            path = Path(folder) / f"{name}.root"
            path.write_bytes(damaged)
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
            began = time.process_time()
            try:
                came = outcome(path, options, truth)
            except BaseException as error:  # noqa: BLE001  whatever it is, it must not be
                came = f"CRASH {type(error).__name__}"
                wrong.append(f"{name} {kind} {state}: {error}"[:300])
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - began)
            if came == "error" and index % 10 == 0:
                path.write_bytes(content)
                if outcome(path, options, truth) != "as it was":
                    came = "SPOILT"  # what is damaged in one file must not stay for the next
            if came in ("WRONG", "UNCLEAR", "SPOILT"):
                wrong.append(f"{name} {kind} {state}")
            counts[name][came] += 1
    return {
        "counts": {name: dict(counter) for name, counter in counts.items()},
        "wrong": wrong,
        "slowest_s": round(slowest, 2),
        "peak_bytes": peak_memory_bytes(),
    }


def fuzz(n_files: int, seed: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Damage so many files in a process of its own, and report.

    Returns
    -------
    dict
        ``counts`` by file, ``wrong`` (how to make each file that was read wrongly or crashed),
        ``slowest_s``, ``peak_bytes``.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.formats.root.root_fuzz", str(n_files), str(seed), *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=MOST_SECONDS * 10 + n_files,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


if __name__ == "__main__":
    total = int(sys.argv[1])
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    chosen = sys.argv[3:] or [
        n
        for n in (*PROTECTED, *UNPROTECTED)
        if (SHARED / f"{n}.root").exists() or not n.startswith(("hits_", "raw_"))
    ]
    np.seterr(all="ignore")
    # room for the libraries, which are mapped rather than used, and 1 GB
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    print(json.dumps(_run(total, start, chosen)))
