"""Kills a job wherever it can be killed, runs the same command again, and compares the end state.

The command line is called on small runs of three layouts: ``run`` into a new folder, ``run`` that
goes on with a folder, ``run`` with other options, and ``retag`` of copies. In turn the process is

- killed before its n-th rename, removal or sync, for every n there is (SIGKILL, no clean-up);
- killed at a random time, alone, with its workers, or its workers without it;
- started twice at once in the same folder.

Then the same command runs to its end. Tags, streams and the books of each run must be those of a
job that nobody disturbed, and no file may be left over::

    python benchmarks/reliability/kills.py --count 300 --seed 1 --csv FILE

prints one line with the figures; the exit code is 1 if an end state was another one.
"""

import argparse
import contextlib
import csv
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from golden import of_output  # noqa: E402

from attpc_filter.cli import main as attpc_filter  # noqa: E402
from tests import miniatures, tiny_models  # noqa: E402

LAYOUTS = ("merger_2.0", "merger_legacy", "pytpc_get")
#: What differs from job to job in an entry of the books.
_TIMES = ("seconds", "events_per_s", "mb_per_s", "last_error")
#: Calls that change what is on the disk.
_CALLS = ("replace", "unlink", "fsync", "rmdir", "mkdir")
_MODES = ("crash point", "alone", "with its workers", "its workers", "two at once")


@dataclass(frozen=True)
class Scenario:
    """A command, and the commands that made the folder in which it runs."""

    name: str
    before: tuple[tuple[str, ...], ...]
    command: tuple[str, ...]


def scenarios(place: Path) -> list[Scenario]:
    """Write runs and model; the scenarios, with ``OUT`` for the output folder."""
    runs = [
        str(miniatures.write_run(layout, place / "raw" / f"run_{index:04d}.h5"))
        for index, layout in enumerate(LAYOUTS, start=1)
    ]
    model = str(tiny_models.write_model(place / "model.onnx"))

    def run(files: Sequence[str], *options: str) -> tuple[str, ...]:
        return ("run", *files, "--out", "OUT", "--model", model, "--no-picture", *options)

    thresholds = ("--thresholds", "noise=1", "proton=0.45")
    return [
        Scenario("run", (), run(runs)),
        Scenario("run, goes on", (run(runs[:1]),), run(runs)),
        Scenario("run, other options", (run(runs, "--keep-hits"),), run(runs, *thresholds)),
        Scenario("retag", (run(runs, "--streams", "copy"),), ("retag", "OUT", *thresholds)),
    ]


def state_of(out: Path) -> dict[str, Any]:
    """All that counts of an output folder."""
    books = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    runs = {
        Path(entry["input"]).name: {k: v for k, v in entry.items() if k not in _TIMES}
        for entry in books["runs"]
    }
    kept = {name: books[name] for name in ("version", "thresholds", "counts", "n_events")}
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir())
    return {"files": files, "content": of_output(out), "runs": runs, "books": kept}


def call(words: Sequence[str], out: Path, before_call: Callable[[], None] | None = None) -> int:
    """Call the command line in a process of its own that is forked: its exit code, or -9."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            if before_call is not None:
                _patch(before_call)
            status = attpc_filter(_words(words, out, "--threads", "1"))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _words(words: Sequence[str], out: Path, *more: str) -> list[str]:
    given = [str(out) if word == "OUT" else word for word in words]
    return [*given, *(more if words[0] == "run" else ())]


def _patch(before_call: Callable[[], None]) -> None:
    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def patched(*arguments: Any, **named: Any) -> Any:
            before_call()
            return original(*arguments, **named)

        return patched

    for name in _CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


def kill_at(nth: int) -> Callable[[], None]:
    """Kills this process when it is called for the n-th time."""
    seen = 0

    def kill() -> None:
        nonlocal seen
        seen += 1
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def count_calls(words: Sequence[str], out: Path) -> int:
    """How often an undisturbed command changes what is on the disk."""
    counter = out.with_suffix(".calls")
    descriptor = os.open(counter, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    assert call(words, out, lambda: os.write(descriptor, b"x") and None) == 0
    os.close(descriptor)
    return counter.stat().st_size


@contextlib.contextmanager
def started(words: Sequence[str], out: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The real command with two workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "attpc_filter.cli", *_words(words, out, "--threads", "2")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def workers_of(process: int) -> list[int]:
    """The processes that a process started."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def kill_some(words: Sequence[str], out: Path, mode: str, after_s: float) -> None:
    """Start the command and kill some of its processes after a time."""
    with started(words, out) as process:
        time.sleep(after_s)
        workers = workers_of(process.pid)
        if mode != "its workers":
            process.kill()
        for worker in workers if mode != "alone" else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        process.wait(timeout=120)


def two_at_once(words: Sequence[str], out: Path, after_s: float) -> None:
    """Start the command twice; one may be refused, and says so by its exit code."""
    with started(words, out) as first:
        time.sleep(after_s)
        with started(words, out) as second:
            codes = sorted((first.wait(timeout=120), second.wait(timeout=120)))
    assert codes in ([0, 0], [0, 2]), codes


def campaign(
    count: int, chance: random.Random, place: Path, modes: Sequence[str], seconds_at_most: float
) -> list[dict[str, Any]]:
    """Kill so many times, or until the time is over; what became of each folder."""
    end = time.monotonic() + seconds_at_most
    table = scenarios(place)
    wanted: dict[str, dict[str, Any]] = {}
    starts: dict[str, Path] = {}
    points: list[tuple[Scenario, int]] = []
    seconds: dict[str, float] = {}
    for index, scenario in enumerate(table):
        start = starts[scenario.name] = place / f"start {index}"
        start.mkdir()
        for words in scenario.before:
            assert call(words, start) == 0, words
        whole = place / "out"
        shutil.copytree(start, whole)
        points += [(scenario, n + 1) for n in range(count_calls(scenario.command, whole))]
        wanted[scenario.name] = state_of(whole)
        shutil.rmtree(whole)
        if set(modes) - {"crash point"}:
            shutil.copytree(start, whole)
            began = time.monotonic()
            with started(scenario.command, whole) as process:
                assert process.wait(timeout=300) == 0
            seconds[scenario.name] = time.monotonic() - began
            shutil.rmtree(whole)
    chance.shuffle(points)
    rows = []
    for number in range(count):
        if time.monotonic() > end:
            break
        mode = modes[number % len(modes)] if number % 4 == 3 else "crash point"
        mode = mode if mode in modes else modes[0]
        scenario, nth = points[number % len(points)]
        out = place / "out"
        shutil.copytree(starts[scenario.name], out)
        after_s = 0.0
        if mode == "crash point":
            ended = call(scenario.command, out, kill_at(nth))
            where = f"call {nth}"
            if ended == 0:  # fewer calls than at first: numba's cache is written by now
                where += ", not reached"
            else:
                assert ended == -signal.SIGKILL, (scenario.name, nth, ended)
        else:
            after_s = chance.uniform(0.0, seconds[scenario.name])
            where = f"after {after_s:.2f} s"
            if mode == "two at once":
                two_at_once(scenario.command, out, after_s)
            else:
                kill_some(scenario.command, out, mode, after_s)
        status = call(scenario.command, out)
        state = state_of(out) if status == 0 else {}
        differs = [k for k in wanted[scenario.name] if state.get(k) != wanted[scenario.name][k]]
        row = {"scenario": scenario.name, "kill": mode, "where": where, "status": status}
        rows.append(row | {"differs": " ".join(differs)})
        if status or differs:
            print(f"{scenario.name}, {mode}, {where}: exit {status}, other: {differs}", flush=True)
            shutil.copytree(out, place.with_name(f"{place.name} failed {number}"))
        shutil.rmtree(out)
    print(
        f"{sum('not reached' not in row['where'] for row in rows)} kills"
        f" ({len(points)} crash points there are):"
        f" {sum(row['status'] != 0 for row in rows)} folders not carried on,"
        f" {sum(bool(row['differs']) for row in rows)} end states not equal to an undisturbed one"
    )
    return rows


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=40, help="kills (default: 40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="write a row for each kind of kill")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end by then")
    parser.add_argument("--modes", nargs="+", default=list(_MODES), choices=_MODES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attpc-filter-kills-") as folder:
        place = Path(folder) / "campaign"
        place.mkdir()
        chance = random.Random(options.seed)
        rows = campaign(options.count, chance, place, options.modes, options.minutes * 60)
    bad = [row for row in rows if row["status"] or row["differs"]]
    if options.csv is not None:
        killed = [row for row in rows if "not reached" not in row["where"]]
        tried = Counter((row["scenario"], row["kill"]) for row in killed)
        failed = Counter((row["scenario"], row["kill"]) for row in bad)
        command = shlex.join(["python", "benchmarks/reliability/kills.py", *sys.argv[1:]])
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["scenario", "kill", "kills", "other end states", "command"])
            for key, number in sorted(tried.items()):
                writer.writerow([*key, number, failed[key], command])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
