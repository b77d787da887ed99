"""Parts, done by whoever in whatever order and joined, are the output of one undisturbed job."""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import uproot

from attpc_filter.parts.parts_list import BATCH_EVENTS, Part
from tests import tiny_models
from tests.conftest import CAMPAIGN, Cli, Ended, command, environment, files_below, read_manifest
from tests.parts.conftest import N_PARTS, PART_SIZE

Plan = Callable[..., Ended]
OneJob = Callable[..., Path]
#: The contract of another model.
ANOTHER = json.dumps(tiny_models.contract(description="another"))
#: What a manifest says of the call and not of the results.
OF_THE_CALL = {
    *("command", "started", "finished", "executor", "config", "peak_memory_bytes"),
    *("seconds", "events_per_s", "mb_per_s", "device"),
}


def outputs(out: Path) -> dict[str, bytes]:
    """All files of an output but the books and the parts."""
    names = [n for n in files_below(out) if not n.startswith("parts/") and n != "manifest.json"]
    return {name: (out / name).read_bytes() for name in names}


def books(out: Path) -> dict[str, object]:
    """The books of an output, without what is of the call."""
    manifest = read_manifest(out)
    entries = [{k: v for k, v in run.items() if k not in OF_THE_CALL} for run in manifest["runs"]]
    for entry in entries:
        entry["made_of"].pop("place of the input", None)
        del entry["key"]
    return {k: v for k, v in manifest.items() if k not in OF_THE_CALL} | {"runs": entries}


def same_outputs(out: Path, expected: Path) -> None:
    """An output is that of one job, to the bit."""
    found, wanted = outputs(out), outputs(expected)
    assert found.keys() == wanted.keys()
    streams = {name for name in wanted if name.endswith(".h5") and not name.startswith("hits/")}
    for name in wanted.keys() - streams:
        assert found[name] == wanted[name], name
    for name in streams:
        assert stream_content(out / name) == stream_content(expected / name), name
    assert books(out) == books(expected)


def stream_content(path: Path) -> dict[str, bytes]:
    """All numbers of a stream, through its links."""
    content = {}

    def visit(group: h5py.Group, prefix: str) -> None:
        for name in group:
            item = group[name]
            if isinstance(item, h5py.Dataset):
                content[f"{prefix}/{name}"] = np.asarray(item[()]).tobytes()
            else:
                content[f"{prefix}/{name}"] = b""
                visit(item, f"{prefix}/{name}")

    with h5py.File(path) as file:
        visit(file, "")
    return content


def results(out: Path) -> dict[str, bytes]:
    """The results of the parts."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.glob("parts/*/result.parquet")}


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


class TestJoined:
    @pytest.mark.parametrize("options", [(), ("--keep-hits", "--streams", "copy")])
    def test_is_the_output_of_one_job(
        self, options: tuple[str, ...], call: Cli, plan: Plan, one_job: OneJob, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        assert plan(out, *options).status == 0
        assert len(json.loads((out / "parts/parts.json").read_text())["parts"]) == N_PARTS
        for numbers in ("4", "0-3:2", "1,3"):
            assert call("run", "--part", numbers, out).status == 0
        ended = call("join", out)
        assert (ended.status, ended.errors) == (0, [])
        same_outputs(out, one_job(*options))

    def test_again_is_done_already(self, call: Cli, plan: Plan, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert plan(out, "--no-picture").status == 0
        call("run", "--part", "0-4", out)
        assert call("join", out).status == 0
        before = outputs(out)
        ended = call("join", out)
        assert ended.err.count("done already") == 2
        assert outputs(out) == before

    def test_root_streams_take_the_hits_of_the_parts(
        self, call: Cli, counter_model: Path, tmp_path: Path
    ) -> None:
        run = Path(__file__).parents[1] / "data" / "attpcroot" / "now_plain.root"
        options = ("--model", counter_model, "--streams", "copy", "--no-picture")
        assert call("run", run, "--out", tmp_path / "one", *options).status == 0
        assert call("plan", run, "--out", tmp_path / "out", *options).status == 0
        assert call("run", "--part", "0", tmp_path / "out").status == 0
        assert call("join", tmp_path / "out").status == 0
        n_events = 0
        for expected in sorted((tmp_path / "one").glob("*/now_plain.root")):
            found = tmp_path / "out" / expected.parent.name / expected.name
            with uproot.open(expected)["events"] as a, uproot.open(found)["events"] as b:
                assert a.keys() == b.keys()
                for name in a.keys():  # noqa: SIM118  a tree is no dict
                    assert a[name].array().to_list() == b[name].array().to_list()
                assert "hits_x" in a  # a stream that is given no hits has no such columns
                n_events += a.num_entries
        assert n_events == 2


class TestPart:
    def test_done_twice_is_the_same_to_the_byte(
        self, call: Cli, plan: Plan, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        plan(out, "--keep-hits")
        call("run", "--part", "1", out)
        before = results(out)
        assert "done already" in call("run", "--part", "1", out).err
        assert results(out) == before
        assert "done already" not in call("run", "--part", "1", "--restart", out).err
        assert results(out) == before
        assert len(before) == 1

    def test_at_the_same_time_one_wins(
        self, call: Cli, plan: Plan, one_job: OneJob, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        plan(out)
        ended = [start("run", "--part", "0-4", out) for _ in range(2)]
        for process in ended:
            _, err = process.communicate(timeout=120)
            assert process.returncode in (0, 2), err
            refused = [line for line in err.splitlines() if line.startswith("error")]
            assert all("another command works in this folder" in line for line in refused)
            assert (process.returncode == 2) == bool(refused)
        call("run", "--part", "0-4", out)
        assert call("join", out).status == 0
        same_outputs(out, one_job())

    def test_a_run_that_cannot_be_tagged_fails_its_parts_alone(
        self, call: Cli, runs: list[Path], counter_model: Path, tmp_path: Path
    ) -> None:
        bad = tmp_path / "run_0009.h5"
        shutil.copy(runs[1], bad)
        out = tmp_path / "out"
        options = ("--model", counter_model, "--no-picture")
        assert call("plan", bad, runs[1], "--out", out, *options).status == 0
        with h5py.File(bad, "a") as file:
            del file["get"]
        ended = call("run", "--part", "0-1", out)
        assert ended.status == 2
        assert "part 0, run_0009.h5" in ended.the_error()
        ended = call("join", out)
        assert ended.status == 2
        assert "part 0, run_0009.h5, part 1 of 1: failed: " in ended.the_error()
        assert f"attpc-filter run --part 0 {out}" in ended.err
        assert [Path(run["input"]).name for run in read_manifest(out)["runs"]] == ["run_0002.h5"]


class TestStale:
    """Exactly the parts that depend on what was changed are to be done again."""

    @pytest.fixture
    def done(self, call: Cli, plan: Plan, tmp_path: Path) -> Path:
        out = tmp_path / "out"
        plan(out)
        assert call("run", "--part", "0-4", out).status == 0
        return out

    @pytest.mark.parametrize(
        ("options", "stale"),
        [
            (("--no-picture",), False),
            (("--streams", "none"), False),
            (("--streams", "copy"), False),
            (("--strict", "--threads", "2"), False),
            (("--thresholds", "proton=0.9"), True),
            (("--keep-hits",), True),
            (("--detector-length", "999"), True),
        ],
    )
    def test_options(
        self, options: tuple[str, ...], stale: bool, plan: Plan, tmp_path: Path
    ) -> None:
        keys = []
        for more in ((), options):
            assert plan(tmp_path, *more).status == 0
            listed = json.loads((tmp_path / "parts/parts.json").read_text())["parts"]
            keys.append([part["key"] for part in listed])
        assert len(set(keys[0])) == N_PARTS
        assert all((a != b) == stale for a, b in zip(*keys, strict=True))

    def test_a_model(self, done: Path, call: Cli, runs: list[Path], tmp_path: Path) -> None:
        model = tiny_models.write_model(tmp_path / "other.onnx", ANOTHER)
        call("plan", *runs, "--out", done, "--model", model, "--part-size", PART_SIZE)
        ended = call("join", done)
        assert ended.status == 2
        assert ended.err.count("stale") == N_PARTS

    def test_an_input(
        self, call: Cli, runs: list[Path], counter_model: Path, tmp_path: Path
    ) -> None:
        copies = [Path(shutil.copy(run, tmp_path / run.name)) for run in runs]
        out = tmp_path / "out"
        again = ("plan", *copies, "--out", out, "--model", counter_model, "--part-size", PART_SIZE)
        call(*again)
        call("run", "--part", "0-4", out)
        with h5py.File(copies[1], "a") as file:
            file.attrs["changed"] = 1
        ended = call("run", "--part", "4", "--restart", out)
        assert ended.status == 2
        assert "changed since the parts were listed" in ended.the_error()
        call(*again)
        ended = call("join", out)
        assert ended.status == 2
        assert [line.split(",")[0] for line in ended.errors] == ["error: part 3", "error: part 4"]
        assert f"attpc-filter run --part 3-4 {out}" in ended.err
        assert call("run", "--part", "3-4", out).status == 0
        assert call("join", out).status == 0
        assert len(read_manifest(out)["runs"]) == 2

    def test_a_model_changed_behind_the_list(
        self, call: Cli, runs: list[Path], tmp_path: Path
    ) -> None:
        model = tiny_models.write_model(tmp_path / "model.onnx")
        call("plan", *runs, "--out", tmp_path / "out", "--model", model)
        tiny_models.write_model(model, ANOTHER)
        ended = call("run", "--part", "0", tmp_path / "out")
        assert ended.status == 2
        assert "changed since the parts were listed" in ended.the_error()

    def test_a_damaged_result_is_not_joined(self, done: Path, call: Cli) -> None:
        result = sorted(done.glob("parts/*/result.parquet"))[0]
        content = bytearray(result.read_bytes())
        content[len(content) // 2] ^= 1
        result.write_bytes(content)
        ended = call("join", done)
        assert ended.status == 2
        assert "damaged" in ended.the_error()


def kill_at_random(
    seed: int, n_kills: int, plan: Plan, call: Cli, out: Path, expected: Path
) -> None:
    """Kill tasks at random moments, then do what is left and join."""
    rng = random.Random(seed)
    plan(out)
    began = time.monotonic()
    start("run", "--part", "0", "--restart", out).communicate()
    seconds = time.monotonic() - began
    for kill in range(n_kills):
        done = results(out)
        process = start("run", "--part", "0-4", *(["--restart"] if kill % 2 else []), out)
        time.sleep(rng.uniform(0.3, 1.3) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after = results(out)
        assert done.items() <= after.items()  # the same bytes, whoever writes them
    ended = call("run", "--part", "0-4", out)
    assert ended.status == 0
    assert call("join", out).status == 0
    same_outputs(out, expected)
    # the file of a lock may stay where a task was killed: what locks is the system's lock on it
    assert [name for name in files_below(out / "parts") if ".partial" in name] == []


def test_killed_tasks_lose_and_double_nothing(
    plan: Plan, call: Cli, one_job: OneJob, tmp_path: Path
) -> None:
    kill_at_random(1, 2, plan, call, tmp_path / "out", one_job())


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(max(1, round(5 * CAMPAIGN))))
def test_tasks_killed_at_many_moments(
    seed: int, plan: Plan, call: Cli, one_job: OneJob, tmp_path: Path
) -> None:
    kill_at_random(seed, 10, plan, call, tmp_path / "out", one_job())


@pytest.mark.parametrize("n_events", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("of", [1, 2, 7, 40])
def test_shares_hold_every_event_once_and_cut_no_batch(n_events: int, of: int) -> None:
    events = [(number, "") for number in range(n_events)]
    shares = [Part(0, share, of, 0, "").events(events) for share in range(of)]
    assert [event for share in shares for event in share] == events
    assert all(share[0][0] % BATCH_EVENTS == 0 for share in shares if share)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "a.h5"), "give the output folder"),
        (("run", "--part", "0", "{out}", "--out", "x"), "--part takes one folder"),
        (("run", "--part", "9", "{out}"), "has 5 parts"),
        (("run", "--part", "x", "{out}"), "--part"),
        (("run", "--part", "0", "{out}", "--keep-hits"), "--keep-hits: stands in the list"),
        (("run", "--part", "0", "{empty}"), "no list of parts"),
        (("join", "{empty}"), "no list of parts"),
        (("plan", "gone.h5", "--out", "{empty}"), "gone.h5"),
        (("plan", "gone.h5", "--out", "{empty}", "--part-size", "0"), "--part-size"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: tuple[str, ...], text: str, call: Cli, plan: Plan, tmp_path: Path
) -> None:
    plan(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    ended = call(*(a.format(out=tmp_path / "out", empty=tmp_path / "empty") for a in arguments))
    assert ended.status == 2
    assert text in ended.the_error()
