"""The labelling page in figures: how quick, how safe, and what its suggestions are worth.

    python benchmarks/labelling.py latency       key press to the next event of 10,000 hits drawn
    python benchmarks/labelling.py pages         every page with 100,000 events and 1,000 labels
    python benchmarks/labelling.py kills         100 times kill -9: answers lost
    python benchmarks/labelling.py suggestions RUNS LABELS.csv
        a scripted labeller with 5% errors: 100 suggested answers against 100 random ones

The first three make their own runs. ``latency`` needs Chromium, ``suggestions`` needs attpc-export
and labelled runs.
"""

import argparse
import contextlib
import csv
import http.client
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the tests' browser

PROGRAM = [sys.executable, "-m", "attpc_filter.cli"]


def write_clouds(path: Path, n_events: int, n_hits: int) -> Path:
    """A run of point clouds as Spyral writes them: a spiral and scattered hits an event."""
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        group = file.create_group("cloud")
        group.attrs.update({"min_event": 0, "max_event": n_events - 1})
        for event in range(n_events):
            t = np.sort(rng.random(n_hits))
            on_track = rng.random(n_hits) < 0.7
            radius = np.where(on_track, 30 + 150 * t, 260 * np.sqrt(rng.random(n_hits)))
            angle = np.where(on_track, 9 * t + event, 2 * np.pi * rng.random(n_hits))
            cloud = np.zeros((n_hits, 8))
            cloud[:, 0], cloud[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
            cloud[:, 2] = 1000 * t
            cloud[:, 3] = rng.lognormal(6, 0.8, n_hits)
            cloud[:, 4] = 8 * cloud[:, 3]
            cloud[:, 5] = rng.integers(0, 10_240, n_hits)
            cloud[:, 6] = 278 - 0.24 * cloud[:, 2]
            cloud[:, 7] = 1
            data = group.create_dataset(f"cloud_{event}", data=cloud)
            data.attrs.update({"orig_run": 1, "orig_event": event, "ic_amplitude": -1.0})
    return path


def filter_runs(runs: list[Path], out: Path) -> Path:
    """Filter runs with the bundle that ships, latents kept."""
    options = ["--keep-latents", "--streams", "none", "--no-picture"]
    subprocess.run([*PROGRAM, "run", *map(str, runs), "--out", str(out), *options], check=True)
    return out


class Server:
    """``attpc-filter label`` in a process of its own."""

    def __init__(self, folder: Path, labels: Path) -> None:
        arguments = ["label", str(folder), "--labels", str(labels), "--port", "0"]
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments, "--repeats", "0"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("open"):
                self.address = line.split()[1].rstrip("/")
                break

    def get(self, path: str) -> Any:
        """What a page would get."""
        with urllib.request.urlopen(self.address + path, timeout=60) as response:
            content = response.read()
        return json.loads(content) if "json" in response.headers["content-type"] else content

    def answer(self, row: int, label: str = "noise") -> Any:
        """Answer an event."""
        body = {"row": row, "label": label, "labeller": "a", "policy": "random", "seconds": 1}
        headers = {"content-type": "application/json", "x-attpc-filter": "1"}
        request = urllib.request.Request(
            f"{self.address}/api/answers", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it."""
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def serving(folder: Path, labels: Path) -> Iterator[Server]:
    """A server for a while."""
    server = Server(folder, labels)
    try:
        yield server
    finally:
        server.stop()


def latency(work: Path, presses: int = 100) -> None:
    """Press a key again and again, as soon as the event before is drawn."""
    from tests.plugins.web.browser import start_browser

    run = write_clouds(work / "run_0001.h5", presses + 20, 10_000)
    out = filter_runs([run], work / "out")
    # from the key press's own time stamp to the second frame after the event was drawn: the first
    # one shows it
    measure = """
        window.taken = [];
        let pressed = null;
        document.addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
        new MutationObserver(() => requestAnimationFrame(() => requestAnimationFrame(() => {
          if (pressed !== null) window.taken.push(performance.now() - pressed);
          pressed = null;
        }))).observe(document.body, { attributes: true, attributeFilter: ["data-row"] });
    """
    with serving(out, work / "l.sqlite") as server, start_browser() as browser:
        browser.open(f"{server.address}/?labeller=a&policy=random")
        row = browser.wait_row()
        browser.run(measure)
        for press in range(presses):
            time.sleep(0.3)  # nobody labels faster; the next event is fetched meanwhile
            browser.press("1")
            row = browser.wait_row(row)
            browser.wait(lambda done=press: browser.run("return taken.length") > done)
        taken = browser.run("return taken")
    _print_times("key press to the next event of 10,000 hits drawn", [t / 1000 for t in taken])


def pages(work: Path, n_events: int = 100_000, n_labels: int = 1000) -> None:
    """Ask for every page and everything that the pages ask for."""
    run = write_clouds(work / "run_0001.h5", n_events, 20)
    out = filter_runs([run], work / "out")
    with serving(out, work / "l.sqlite") as server:
        started = time.perf_counter()
        state = server.get("/api/next?labeller=a&policy=random")
        print(f"first event after the start: {time.perf_counter() - started:.2f} s")
        server.get("/api/events/0")  # the run is opened
        labels = ["proton", "carbon", "noise"]
        took = []
        for number in range(n_labels):
            started = time.perf_counter()
            state = server.answer(state["task"]["row"], labels[number % 3])
            took.append(time.perf_counter() - started)
        _print_times("an answer, synced, and the next event chosen", took)
        for path in (
            "/",
            "/gallery",
            "/agreement",
            "/trust",
            "/static/view.js",
            "/api/setup",
            "/api/pads",
            "/api/next?labeller=a&policy=random",
            "/api/next?labeller=a&policy=suggest",
            "/api/next?labeller=a&policy=margin",
            "/api/next?labeller=a&policy=filter&filter=tag=noise%20margin%3C0.5",
            "/api/history?labeller=a",
            "/api/list?filter=tag=noise%20score.noise%3E0.2%20label=none&limit=24",
            "/api/list?filter=reason~class&offset=5000&limit=24",
            "/api/events/77777",
            "/api/agreement",
            "/api/trust",
            "/api/labels.csv",
        ):
            took = []
            for _ in range(20):
                started = time.perf_counter()
                server.get(path)
                took.append(time.perf_counter() - started)
            _print_times(path, took)


def kills(work: Path, times: int = 100) -> None:
    """Kill the server while answers are given, start it again, and look for every answer."""
    run = write_clouds(work / "run_0001.h5", 3000, 50)
    out = filter_runs([run], work / "out")
    labels = work / "l.sqlite"
    acknowledged: set[int] = set()
    in_flight = kept = 0
    rng = random.Random(1)
    for _ in range(times):
        server = Server(out, labels)
        timer = threading.Timer(rng.uniform(0.02, 0.3), os.kill, (server.process.pid, 9))
        row = server.get("/api/next?labeller=a&policy=random")["task"]["row"]
        following = server.answer(row)["task"]["row"]  # the run is open now
        acknowledged.add(row)
        row, sent = following, -1
        timer.start()
        try:
            while True:
                sent = row
                row = server.answer(row)["task"]["row"]
                acknowledged.add(sent)
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            pass
        timer.join()
        server.process.wait()
        file = sqlite3.connect(labels)
        held = {event for (event,) in file.execute("SELECT event FROM answers")}
        (state,) = file.execute("PRAGMA integrity_check").fetchone()
        file.close()
        assert state == "ok", state
        lost = {row for row in acknowledged if row not in held}  # rows are event numbers here
        assert not lost, f"lost: {lost}"
        in_flight += sent not in acknowledged
        kept += sent not in acknowledged and sent in held
        acknowledged |= held
    print(
        f"{times} x kill -9: {len(acknowledged)} answers, 0 lost that were acknowledged;"
        f" {in_flight} were in flight, {kept} of these were kept"
    )


def suggestions(work: Path, runs: list[Path], table: Path, errors: float = 0.05) -> None:
    """Let a scripted labeller answer 100 suggested and 100 random events, with five seeds."""
    from attpc_export.heads.linear import fit_head
    from attpc_filter_web.command import add_arguments, make_session
    from sklearn.metrics import f1_score

    out = filter_runs(runs, work / "out")
    with table.open(newline="", encoding="utf-8") as file:
        truth_of = {(int(r["run"]), int(r["event"])): r["label"] for r in csv.DictReader(file)}
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    f1: dict[str, list[float]] = {"suggest": [], "random": []}
    alphas = []
    for seed in range(5):
        for policy in f1:
            labels = work / f"{policy}_{seed}.sqlite"
            options = parser.parse_args([str(out), "--labels", str(labels), "--repeats", "0"])
            session = make_session(options, seed)
            catalogue = session.catalogue
            keys = zip(catalogue.run.tolist(), catalogue.event.tolist(), strict=True)
            truth = np.array([catalogue.classes.index(truth_of[key]) for key in keys])
            given: dict[int, int] = {}
            rng = np.random.default_rng(seed)
            session.suggester.wait(120)
            state = session.next("a", policy, "")
            while len(given) < 100:
                row = state["task"]["row"]
                said = int(truth[row])
                if rng.random() < errors:
                    said = (said + int(rng.integers(1, 3))) % 3
                given[row] = said
                state = _say(session, row, catalogue.classes[said], "a", policy)
                if policy == "suggest":
                    session.suggester.wait(120)
                    state = session.next("a", policy, "")
            if policy == "random":  # a second labeller with errors of the same kind
                for row in given:
                    said = int(truth[row])
                    if rng.random() < errors:
                        said = (said + int(rng.integers(1, 3))) % 3
                    _say(session, row, catalogue.classes[said], "b", policy)
                alphas.append(session.agreement()["alpha"])
            rows = np.array(list(given))
            head = fit_head(catalogue.latent[rows], np.array(list(given.values())), 0.1)
            rest = np.setdiff1d(np.flatnonzero(catalogue.is_scored), rows)
            found = head.logits(catalogue.latent[rest]).argmax(axis=1)
            f1[policy].append(float(f1_score(truth[rest], found, average="macro")))
            print(f"seed {seed}, {policy}: macro f1 {f1[policy][-1]:.4f}", flush=True)
    means = {policy: statistics.mean(values) for policy, values in f1.items()}
    print(f"mean of five: suggested {means['suggest']:.4f}, random {means['random']:.4f}")
    same = (1 - errors) ** 2 + errors**2 / 2
    share = np.bincount(truth) / len(truth)
    by_chance = float((share**2).sum())
    print(
        f"alpha between two such labellers: {statistics.mean(alphas):.3f}; the errors imply about"
        f" {(same - by_chance) / (1 - by_chance):.3f}"
    )


def _say(session: Any, row: int, label: str, labeller: str, policy: str) -> Any:
    return session.answer(
        labeller=labeller,
        row=row,
        label=label,
        note="",
        seconds=1.0,
        scores_shown=False,
        policy=policy,
        filter_text="",
        corrects="",
        correction=False,
    )


def _print_times(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]
    print(
        f"{what}: median {1000 * statistics.median(ordered):.0f} ms, 95% {1000 * p95:.0f} ms,"
        f" most {1000 * ordered[-1]:.0f} ms ({len(ordered)} times)",
        flush=True,
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("what", choices=["latency", "pages", "kills", "suggestions"])
    parser.add_argument("paths", nargs="*", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start", flush=True)
    with tempfile.TemporaryDirectory(prefix="attpc-labelling-") as folder:
        work = Path(folder)
        if options.what == "suggestions":
            *runs, table = options.paths
            suggestions(work, runs, table)
        else:
            {"latency": latency, "pages": pages, "kills": kills}[options.what](work)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
