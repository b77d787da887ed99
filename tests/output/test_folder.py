"""An output folder: whose files it touches, what it keeps, who may work in it.

The truth is what lay in the folder before, and a job that nobody disturbed.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output import journal, lock
from attpc_filter.output.folder import OutputFolder
from attpc_filter.output.manifest import Manifest, RunOutcome, read_manifest
from tests import miniatures, tiny_models
from tests.conftest import Cli, Ended, command, environment, files_below, read_tag_table

TAGS = (*tiny_models.CLASSES, "uncertain", "unreadable")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of three layouts."""
    folder = tmp_path_factory.mktemp("raw")
    layouts = ("merger_2.0", "merger_legacy", "pytpc_get")
    return [
        miniatures.write_run(layout, folder / f"run_{index:04d}.h5")
        for index, layout in enumerate(layouts, start=1)
    ]


@pytest.fixture
def filtered(call: Cli, tmp_path: Path, counter_model: Path) -> Callable[..., Ended]:
    """Filter runs into ``out``."""

    def run(*arguments: object) -> Ended:
        options = ("--out", tmp_path / "out", "--model", counter_model, "--no-picture")
        return call("run", *options, *arguments)

    return run


def files_of(*runs: Path) -> set[str]:
    """The files of an output of these runs."""
    names = {"manifest.json"}
    for run in runs:
        names |= {f"tags/{run.stem}.parquet", *(f"{tag}/{run.name}" for tag in TAGS)}
    return names


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


class TestOwnership:
    """Files that the books do not list are neither written nor removed."""

    FOREIGN = ("labels.csv", "fits/run_0001.h5", "tags/notes.txt", "proton/run_0009.h5", ".hidden")

    def test_files_of_others_stay(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        for name in self.FOREIGN:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(name)
        for options in ((), ("--restart", "--streams", "none"), ("--streams", "copy")):
            assert filtered(raw[0], *options).status == 0
            for name in self.FOREIGN:
                assert (out / name).read_text() == name
        assert files_below(out) == {*files_of(raw[0]), *self.FOREIGN}

    @pytest.mark.parametrize("name", ["tags/run_0001.parquet", "uncertain/run_0001.h5"])
    def test_a_name_that_is_taken_fails_that_run_alone(
        self, name: str, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        taken = tmp_path / "out" / name
        taken.parent.mkdir(parents=True)
        taken.write_text("mine")
        ended = filtered(*raw[:2], "--restart")
        assert ended.status == 2
        assert str(taken) in ended.the_error()
        assert taken.read_text() == "mine"
        assert files_below(tmp_path / "out") == {*files_of(raw[1]), name}

    def test_runs_that_a_call_does_not_name_stay(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        assert filtered(*raw[:2]).status == 0
        before = content(out)
        assert filtered(raw[2], "--restart").status == 0
        after = content(out)
        del before["manifest.json"]
        assert before.items() <= after.items()
        assert set(after) == files_of(*raw)
        entries = read_manifest(out).runs
        assert [Path(entry.input).name for entry in entries] == [run.name for run in raw]
        assert read_manifest(out).n_events == sum(
            len(read_tag_table(out / "tags" / f"{run.stem}.parquet")) for run in raw
        )

    def test_what_a_new_call_does_not_write_goes(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        assert filtered(raw[0], "--keep-hits").status == 0
        assert filtered(raw[0], "--streams", "none").status == 0
        assert files_below(tmp_path / "out") == {"manifest.json", "tags/run_0001.parquet"}
        assert not (tmp_path / "out" / "proton").exists()

    def test_a_run_that_fails_later_keeps_its_outputs(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        run = tmp_path / "run_0005.h5"
        shutil.copy(raw[0], run)
        assert filtered(run).status == 0
        before = content(tmp_path / "out")
        run.write_bytes(run.read_bytes()[:5000])
        assert filtered(run, raw[1]).status == 2
        after = content(tmp_path / "out")
        entry = read_manifest(tmp_path / "out").run_of("run_0005")
        assert entry is not None
        assert entry.last_error
        assert not entry.error
        for name in before.keys() - {"manifest.json"}:
            assert before[name] == after[name]

    def test_a_folder_of_another_run_of_that_name(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        other = tmp_path / "elsewhere" / raw[0].name
        other.parent.mkdir()
        shutil.copy(raw[1], other)
        assert filtered(raw[0]).status == 0
        before = content(tmp_path / "out")
        ended = filtered(other)
        assert ended.status == 2
        assert str(raw[0]) in ended.the_error()
        after = content(tmp_path / "out")
        for name in before.keys() - {"manifest.json"}:
            assert before[name] == after[name]
        assert filtered(other, "--restart").status == 0
        assert read_manifest(tmp_path / "out").runs[0].input == str(other)

    def test_no_link_is_followed_out_of_the_folder(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out" / "proton").symlink_to(tmp_path / "elsewhere")
        ended = filtered(raw[0])
        assert ended.status == 2
        assert "leads out" in ended.the_error()
        assert files_below(tmp_path / "elsewhere") == set()

    @pytest.mark.parametrize("path", ["../mine.parquet", "/etc/passwd", "tags/../../mine.parquet"])
    def test_no_path_of_the_books_is_obeyed_that_leads_out(
        self, path: str, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path, call: Cli
    ) -> None:
        assert filtered(raw[0]).status == 0
        shutil.copy(tmp_path / "out" / "tags" / "run_0001.parquet", tmp_path / "mine.parquet")
        books = json.loads((tmp_path / "out" / "manifest.json").read_text())
        books["runs"][0]["tag_table"] = path
        (tmp_path / "out" / "manifest.json").write_text(json.dumps(books))
        before = (tmp_path / "mine.parquet").read_bytes()
        for arguments in (("retag", tmp_path / "out", "--thresholds", "proton=1"),):
            ended = call(*arguments)
            assert ended.status == 2
            assert path in ended.the_error()
        assert filtered(raw[0]).status == 2
        assert (tmp_path / "mine.parquet").read_bytes() == before


class TestResume:
    """The same command again does what is missing, and says what is done."""

    def test_done_already(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        assert filtered(*raw[:2]).status == 0
        before = {n: (tmp_path / "out" / n).stat().st_ino for n in files_of(*raw[:2])}
        ended = filtered(*raw)
        assert ended.status == 0
        assert [line for line in ended.err.splitlines() if "done already" in line] == [
            "run_0001.h5: done already",
            "run_0002.h5: done already",
        ]
        for name in before.keys() - {"manifest.json"}:
            assert (tmp_path / "out" / name).stat().st_ino == before[name]
        assert files_below(tmp_path / "out") == files_of(*raw)
        assert filtered(raw[0], "--restart").err.count("done already") == 0

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (("--thresholds", "proton=0.9"), "thresholds"),
            (("--streams", "copy"), "streams"),
            (("--keep-hits",), "kept"),
            (("--window-time-bucket", "300"), "detector"),
        ],
    )
    def test_other_options(
        self, options: tuple[str, ...], why: str, filtered: Callable[..., Ended], raw: list[Path]
    ) -> None:
        assert filtered(raw[0]).status == 0
        ended = filtered(raw[0], *options)
        assert ended.status == 0
        (line,) = [line for line in ended.err.splitlines() if "filtered again" in line]
        assert why in line
        assert "done already" in filtered(raw[0], *options).err

    @pytest.mark.parametrize("options", [("--threads", "1"), ("--strict",), ("--device", "cpu")])
    def test_options_that_change_no_result(
        self, options: tuple[str, ...], filtered: Callable[..., Ended], raw: list[Path]
    ) -> None:
        assert filtered(raw[0]).status == 0
        assert "done already" in filtered(raw[0], *options).err

    def test_another_model(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        assert filtered(raw[0]).status == 0
        other = tiny_models.write_model(
            tmp_path / "other.onnx", text=json.dumps(tiny_models.contract(name="other"))
        )
        ended = filtered(raw[0], "--model", other)
        assert "other than before: model" in ended.err

    def test_an_input_that_grew(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        run = tmp_path / "run_0005.h5"
        shutil.copy(raw[0], run)
        assert filtered(run).status == 0
        shutil.copy(raw[1], run)
        assert "other than before: input" in filtered(run).err
        rows = read_tag_table(tmp_path / "out" / "tags" / "run_0005.parquet")
        assert {n: row["tag"] for n, row in rows.items()} == {
            e.number: miniatures.expected_tag("merger_legacy", e) for e in miniatures.events()
        }

    def test_a_file_that_is_gone(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        assert filtered(raw[0]).status == 0
        (tmp_path / "out" / "noise" / "run_0001.h5").unlink()
        assert "noise/run_0001.h5 is gone" in filtered(raw[0]).err
        assert files_below(tmp_path / "out") == files_of(raw[0])

    def test_after_retag_the_tags_are_those_of_the_call(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path, call: Cli
    ) -> None:
        assert filtered(raw[0]).status == 0
        table = tmp_path / "out" / "tags" / "run_0001.parquet"
        before = pq.read_table(table).to_pylist()
        assert call("retag", tmp_path / "out", "--thresholds", "noise=1").status == 0
        assert pq.read_table(table).to_pylist() != before
        assert "thresholds" in filtered(raw[0]).err
        assert pq.read_table(table).to_pylist() == before

    def test_a_folder_of_an_earlier_version(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path, call: Cli
    ) -> None:
        """A manifest without a version, as versions before 2 wrote it."""
        assert filtered(raw[0]).status == 0
        path = tmp_path / "out" / "manifest.json"
        books = json.loads(path.read_text())
        for name in ("version", "pictures", "history", "detector"):
            del books[name]
        for entry in books["runs"]:
            for name in ("made_of", "key", "last_error", "thresholds", "mode"):
                del entry[name]
            entry["fingerprint"] = {"bytes": 5, "sha256_first_and_last_mib": "0"}
        path.write_text(json.dumps(books))
        assert call("retag", tmp_path / "out", "--thresholds", "noise=1").status == 0
        ended = filtered(raw[0])
        assert ended.status == 0
        assert "earlier version" in ended.err
        assert read_manifest(tmp_path / "out").version == 2


class TestInputs:
    """All inputs are looked at before the model is loaded, and again when a run is done."""

    def test_six_bad_ones_of_twenty(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        folder = tmp_path / "inputs"
        folder.mkdir()
        good = [folder / f"run_{index:04d}.h5" for index in range(14)]
        for path in good:
            shutil.copy(raw[0], path)
        absent, pipe, loop = folder / "absent.h5", folder / "pipe.h5", folder / "loop.h5"
        text, empty, inner = folder / "text.h5", folder / "empty.h5", folder / "folder.h5"
        os.mkfifo(pipe)
        loop.symlink_to(loop)
        text.write_text("no events here")
        empty.touch()
        inner.mkdir()
        bad = [absent, pipe, loop, text, empty, inner]
        ended = filtered(*bad[:3], *good, *bad[3:])
        assert ended.status == 2
        assert len(ended.errors) == 6
        for path in bad:
            assert sum(str(path) in line for line in ended.errors) == 1
        assert files_below(tmp_path / "out") == files_of(*good)

    def test_a_typo_makes_no_folder(self, filtered: Callable[..., Ended], tmp_path: Path) -> None:
        assert filtered(tmp_path / "run_001.h5").status == 2
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("how", ["truncated", "replaced", "rewritten"])
    def test_changed_while_it_is_read(
        self, how: str, tmp_path: Path, counter_model: Path, raw: list[Path]
    ) -> None:
        run = miniatures.write_long_run(tmp_path / "run_0003.h5", 20_000)
        out = tmp_path / "out"
        process = subprocess.Popen(
            command("run", run, "--out", out, "--model", counter_model, "--no-picture"),
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            end = time.monotonic() + 60
            while len(list((out / journal.HIDDEN_NAME).glob("*.partial"))) < len(TAGS):
                assert time.monotonic() < end  # until all streams are being written
                time.sleep(0.01)
            if how == "truncated":
                os.truncate(run, run.stat().st_size - 1)
            elif how == "replaced":
                shutil.copy(run, tmp_path / "copy.h5")
                (tmp_path / "copy.h5").replace(run)
            else:
                with open(run, "r+b") as file:
                    file.seek(-1, os.SEEK_END)
                    last = file.read(1)
                    file.seek(-1, os.SEEK_END)
                    file.write(last)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 2
        assert sum("changed while it was read" in line for line in err.splitlines()) == 1, err
        assert files_below(out) == {"manifest.json"}

    def test_two_events_of_one_number(self, filtered: Callable[..., Ended], tmp_path: Path) -> None:
        import h5py

        run = miniatures.write_run("merger_2.0", tmp_path / "run_0001.h5")
        with h5py.File(run, "a") as file:
            file.copy("events/event_3", file["events"], "event_0003")
        ended = filtered(run)
        assert ended.status == 2
        assert "event_0003" in ended.the_error()
        assert "event_3" in ended.the_error()


class TestLock:
    """One command at a time works in a folder."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Iterator[Path]:
        """A folder that another process works in."""
        out = tmp_path / "out"
        out.mkdir()
        with OutputFolder(out, create=True):
            yield out

    def test_the_second_is_refused_and_told_who_works(
        self, other: Path, filtered: Callable[..., Ended], raw: list[Path], call: Cli
    ) -> None:
        for ended in (filtered(raw[0]),):
            assert ended.status == 2
            assert f"process {os.getpid()} on {socket.gethostname()}" in ended.the_error()
        assert files_below(other) == {".attpc_filter/lock"}

    def test_retag_too(
        self, filtered: Callable[..., Ended], raw: list[Path], call: Cli, tmp_path: Path
    ) -> None:
        assert filtered(raw[0]).status == 0
        before = content(tmp_path / "out")
        with OutputFolder(tmp_path / "out"):
            ended = call("retag", tmp_path / "out", "--thresholds", "noise=1")
        assert ended.status == 2
        assert "another command works in this folder" in ended.the_error()
        assert content(tmp_path / "out") == before

    def test_a_lock_that_was_left_behind_is_none(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        left = tmp_path / "out" / ".attpc_filter" / "lock"
        left.parent.mkdir(parents=True)
        left.write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "since": "now"}))
        assert filtered(raw[0]).status == 0
        assert files_below(tmp_path / "out") == files_of(raw[0])

    def test_without_flock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file system without locks: a file that only one can make."""

        def refuse(*_: Any) -> None:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
        owner = tmp_path / journal.HIDDEN_NAME / lock.OWNER_NAME
        ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
        gone = {"host": socket.gethostname(), "pid": int(ended.stdout), "since": "now"}
        with OutputFolder(tmp_path, create=True):
            assert json.loads(owner.read_text())["pid"] == os.getpid()
            owner.write_text(json.dumps(gone | {"host": "another-node"}))
            with pytest.raises(UsageError, match=f"another-node.*remove {owner}"):
                OutputFolder(tmp_path, create=True)
            owner.write_text(json.dumps(gone))
            OutputFolder(tmp_path, create=True).close()  # its process is gone
        assert files_below(tmp_path) == set()


class TestJournal:
    """A commit that has begun is finished; one that has not leaves nothing."""

    def test_finished_by_the_next_command(self, tmp_path: Path) -> None:
        hidden = tmp_path / journal.HIDDEN_NAME
        hidden.mkdir()
        (tmp_path / "tags").mkdir()
        (tmp_path / "tags" / "old").write_text("old")
        (hidden / ".1.partial").write_text("new")
        (hidden / ".2.partial").write_text("of a commit that never was")
        renames = [[".1.partial", "tags/new"], [".0.partial", "tags/made before"]]
        (tmp_path / "tags" / "made before").write_text("made")
        entries = {"version": 1, "renames": renames, "removals": ["tags/old", "tags/gone"]}
        (hidden / journal.JOURNAL_NAME).write_text(json.dumps(entries))
        OutputFolder(tmp_path, create=True).close()
        assert files_below(tmp_path) == {"tags/new", "tags/made before"}

    @pytest.mark.parametrize(
        "entries",
        [
            {"version": 1, "renames": [["../x", "tags/new"]], "removals": []},
            {"version": 1, "renames": [[".1.partial", "../new"]], "removals": []},
            {"version": 1, "renames": [], "removals": ["/etc/passwd"]},
            {"version": 9, "renames": [], "removals": []},
            [],
        ],
    )
    def test_one_that_leads_out_or_is_none_is_not_obeyed(
        self, entries: Any, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        hidden = out / journal.HIDDEN_NAME
        hidden.mkdir(parents=True)
        (tmp_path / "x").write_text("mine")
        (hidden / ".1.partial").write_text("new")
        (hidden / journal.JOURNAL_NAME).write_text(json.dumps(entries))
        with pytest.raises(OutputError, match=r"leads out|no journal"):
            OutputFolder(out, create=True)
        assert (tmp_path / "x").read_text() == "mine"
        assert not (tmp_path / "new").exists()

    def test_names_of_250_characters(
        self, filtered: Callable[..., Ended], raw: list[Path], tmp_path: Path
    ) -> None:
        run = tmp_path / ("run_0007" + "x" * (247 - len("run_0007")) + ".h5")
        shutil.copy(raw[0], run)
        assert len(run.name) == 250
        ended = filtered(run, "--streams", "none")
        assert ended.status in (0, 2)
        if ended.status == 2:  # .parquet makes the name too long for the file system
            assert "File name too long" in ended.the_error()
        longest = tmp_path / ("run_0007" + "x" * (247 - len("run_0007.parquet")) + ".h5")
        shutil.copy(raw[0], longest)
        assert filtered(longest).status == 0


class TestManifest:
    """Books that are none are refused with one line."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"version": 3}, "version 3"),
            ({"colour": "red"}, "colour"),
            ({"runs": [5]}, "runs"),
            ({"runs": [{}]}, "input"),
            ({"runs": [{"input": "a", "weight": 5}]}, "weight"),
            ({"runs": [{"input": "a", "counts": {"proton": "many"}}]}, "counts"),
            ({"counts": []}, "counts"),
            ({"exit_status": "good"}, "exit_status"),
        ],
    )
    def test_one_line(self, change: dict[str, Any], said: str, tmp_path: Path) -> None:
        books = json.loads(Manifest(runs=[RunOutcome("a.h5")]).to_json())
        (tmp_path / "manifest.json").write_text(json.dumps(books))
        assert read_manifest(tmp_path).runs[0].input == "a.h5"
        (tmp_path / "manifest.json").write_text(json.dumps(books | change))
        with pytest.raises(UsageError, match=said):
            read_manifest(tmp_path)

    def test_deeply_nested(self, tmp_path: Path) -> None:
        (tmp_path / "manifest.json").write_text('{"runs":' + "[" * 100_000)
        with pytest.raises(UsageError, match="not a manifest"):
            read_manifest(tmp_path)
