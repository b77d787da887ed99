"""Damages files of every kind at random and says what comes of reading them.

Run files of all layouts, hit stores, tag tables, latents, head files, models, options, detectors,
manifests and frames of GET are changed: bits flipped, bytes set, runs zeroed, blocks doubled,
swapped or removed, ends cut off. A worker process with limited memory and time reads each. It must
end in

- *clean*: one line that names the file, or events that say why they cannot be read;
- *same*: all was read as it was written;
- *other*: other numbers, which is allowed only where no checksum covers them;

and never in a crash, a hang, a traceback, an unclear message or more than 1 GB of memory::

    python benchmarks/reliability/mutations.py --count 3000 --seed 1 --csv FILE

prints one line with the figures; the exit code is 1 if anything was as it must not be.
``--keep FOLDER`` keeps the files that were.
"""

import argparse
import csv
import json
import os
import random
import resource
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

MOST_SECONDS = 60.0
MOST_BYTES = 1_000_000_000
_ADDRESS_SPACE = 4 << 30
#: A worker reads so many files, so that what one leaves behind is seen at another.
_FILES_A_WORKER = 500

GOOD = ("clean", "same", "other")
BAD = ("OTHER THOUGH CHECKED", "TRACEBACK", "UNCLEAR", "CRASH", "HANG", "MEMORY")
KINDS = ("bit", "bit", "bits", "byte", "word", "zeros", "head", "doubled", "swapped", "gone", "cut")


def mutate(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A damaged copy of a file's content, and what was done to it."""
    kind = chance.choice(KINDS)
    data = bytearray(content)
    at = chance.randrange(len(data))
    length = min(chance.choice([1, 4, 16, 64, 512, 4096]), len(data) - at)
    if kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else chance.randrange(2, 20)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        data[at] = chance.randrange(256)
    elif kind == "word":
        words = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", chance.randbytes(4)]
        data[at : at + 4] = chance.choice(words)
    elif kind == "zeros":
        data[at : at + length] = bytes(length)
    elif kind == "head":
        data[chance.randrange(min(600, len(data)))] = chance.randrange(256)
    elif kind == "doubled":
        data[at:at] = data[at : at + length]
    elif kind == "swapped":
        other = chance.randrange(len(data))
        first, second = data[at : at + length], data[other : other + length]
        data[at : at + length], data[other : other + length] = second, first
    elif kind == "gone":
        del data[at : at + length]
    else:
        del data[at:]
    return kind, bytes(data)


# ------------------------------------------------------------------------------------ the worker


def outcome(subject: Any, folder: Path, truth: dict[str, str]) -> tuple[str, str]:
    """What comes of reading a damaged folder, in a word, and the message if there is one."""
    from subjects import REFUSED, UNCHECKED

    from attpc_filter.errors import AttpcFilterError

    try:
        found = subject.read(folder)
    except AttpcFilterError as error:
        text = str(error)
        clear = str(folder) in text and "\n" not in text
        return ("clean" if clear else "UNCLEAR"), text
    except Exception:  # noqa: BLE001  that is what is looked for
        return "TRACEBACK", traceback.format_exc()
    reasons = [text for text in found.values() if text.startswith(REFUSED)]
    if any("\n" in reason for reason in reasons):
        return "UNCLEAR", "; ".join(reasons)
    read = {key: text for key, text in found.items() if not text.startswith(REFUSED)}
    other = {key for key, text in read.items() if truth.get(key) != text}
    if not reasons:
        other |= set(truth) - set(found)
    if other:
        checked = subject.protected and any(not key.startswith(UNCHECKED) for key in other)
        return ("OTHER THOUGH CHECKED" if checked else "other"), ", ".join(sorted(other))
    return ("clean", reasons[0]) if reasons else ("same", "")


def serve(corpus: Path) -> None:
    """Read damaged folders, named on stdin by their subject, and say what comes of each."""
    from subjects import list_subjects

    from attpc_filter.execute.memory import peak_memory_bytes

    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like
    subjects = {subject.name: subject for subject in list_subjects()}
    truth = {name: subject.read(corpus / name) for name, subject in subjects.items()}
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, folder = json.loads(line)
        word, text = outcome(subjects[name], Path(folder), truth[name])
        if peak_memory_bytes() > MOST_BYTES:
            word = "MEMORY"
        print(json.dumps([word, text]), file=answers, flush=True)
        if word == "MEMORY":
            return


class Worker:
    """A process that reads damaged files."""

    def __init__(self, corpus: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(corpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
        )
        self.n_files = 0
        if not self._answer(300):
            raise RuntimeError(self._said())

    def read(self, name: str, folder: Path) -> tuple[str, str]:
        """What comes of a folder."""
        assert self._process.stdin is not None
        self.n_files += 1
        self._process.stdin.write(json.dumps([name, str(folder)]) + "\n")
        self._process.stdin.flush()
        answer = self._answer(MOST_SECONDS)
        if answer is None:
            return "HANG", ""
        if not answer:
            self._process.wait()
            return "CRASH", f"{self._process.returncode}: {self._said()}"
        word, text = json.loads(answer)
        return word, text

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        """The end of what it said on stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def _answer(self, seconds: float) -> str | None:
        """The next line of its output; empty if it has ended, None if it takes too long."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else None


# ---------------------------------------------------------------------------------- the campaign


def campaign(
    n_files: int, seed: int, only: str, keep: Path | None
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Damage so many files; gives the outcomes by subject, and what must not be."""
    from subjects import list_subjects, make_corpus

    counts: dict[str, Counter[str]] = {}
    bad: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        make_corpus(corpus)
        subjects = [subject for subject in list_subjects() if only in subject.name]
        worker = Worker(corpus)
        for index in range(n_files):
            subject = subjects[index % len(subjects)]
            chance = random.Random(f"{seed} {index} {subject.name}")
            folder = Path(scratch) / "damaged"
            shutil.copytree(corpus / subject.name, folder)
            kind, content = mutate((folder / subject.file).read_bytes(), chance)
            (folder / subject.file).write_bytes(content)
            word, text = worker.read(subject.name, folder)
            counts.setdefault(subject.name, Counter())[word] += 1
            if word in BAD:
                bad.append(f"{index}: {subject.name}, {kind}: {word}: {text}")
                print(bad[-1], file=sys.stderr, flush=True)
                if keep is not None:
                    shutil.copytree(
                        folder, keep / f"{seed} {index} {subject.name}", dirs_exist_ok=True
                    )
            shutil.rmtree(folder)
            if word in ("CRASH", "HANG", "MEMORY") or worker.n_files >= _FILES_A_WORKER:
                worker.end()
                worker = Worker(corpus)
        worker.end()
    return counts, bad


def main() -> int:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="damaged files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds of files with this in their name")
    parser.add_argument("--csv", type=Path, help="outcomes by kind of file")
    parser.add_argument("--keep", type=Path, help="where to keep files that were read wrongly")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    began = time.monotonic()
    counts, bad = campaign(options.count, options.seed, options.only, options.keep)
    total: Counter[str] = Counter()
    for counted in counts.values():
        total.update(counted)
    if options.csv is not None:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            only = f" --only {shlex.quote(options.only)}" if options.only else ""
            file.write(
                "# python benchmarks/reliability/mutations.py"
                f" --count {options.count} --seed {options.seed}{only}\n"
            )
            writer = csv.writer(file)
            writer.writerow(["file", *GOOD, *map(str.lower, BAD)])
            for name, counted in [*counts.items(), ("all", total)]:
                writer.writerow([name, *(counted[word] for word in (*GOOD, *BAD))])
    told = ", ".join(f"{total[word]} {word.lower()}" for word in (*GOOD, *BAD))
    print(f"{sum(total.values())} damaged files, {time.monotonic() - began:.0f} s: {told}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
