"""A disk that fills up: one clear line, nothing half written, the runs that fit are complete."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attpc_filter.errors import OutputError
from attpc_filter.formats.registry import open_run
from attpc_filter.records import Record
from tests import miniatures, tiny_models
from tests.conftest import Cli, Ended, files_below, read_manifest, read_tag_table

TAGS = (*tiny_models.CLASSES, "uncertain", "unreadable")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given size; skips the test where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip("a small file system cannot be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small, large when copied (but a small file: its events are all one), small."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        miniatures.write_run("merger_2.0", folder / "run_0001.h5"),
        miniatures.write_long_run(folder / "run_0002.h5", 400),
        miniatures.write_run("merger_legacy", folder / "run_0003.h5"),
    ]


def check_what_is_left(ended: Ended, out: Path, runs: list[Path]) -> None:
    """The large run is not there and its error is; the small ones are complete."""
    assert ended.status == 2
    assert str(out) in ended.the_error()
    assert "HDF5-DIAG" not in ended.err
    expected = {"manifest.json"}
    for path in (runs[0], runs[2]):
        expected |= {f"tags/{path.stem}.parquet", *(f"{tag}/{path.name}" for tag in TAGS)}
        rows = read_tag_table(out / "tags" / f"{path.stem}.parquet")
        tags = {e.number: e.tag for e in miniatures.events()}
        assert {number: row["tag"] for number, row in rows.items()} == tags
    assert files_below(out) == expected
    manifest = read_manifest(out)
    assert manifest["exit_status"] == 2
    assert [bool(run["error"]) for run in manifest["runs"]] == [False, True, False]


def test_copies_that_do_not_fit(
    small_disk: Callable[[str], Path], runs: list[Path], cli: Cli, counter_model: Path
) -> None:
    out = small_disk("8m") / "out"
    ended = cli(
        "run", *runs, "--out", out, "--model", counter_model, "--streams", "copy", "--no-picture"
    )
    check_what_is_left(ended, out, runs)


def test_a_copy_stream_never_falls_back_to_links(
    small_disk: Callable[[str], Path], runs: list[Path]
) -> None:
    """An event that cannot be written is an error at once, not a link in place of its data."""
    with open_run(runs[1]) as run:
        stream = run.create_stream(small_disk("4m") / "run_0002.h5", "copy", "proton")

        def add_all() -> None:
            for event, name in run.events:
                stream.add(Record(event, name))

        with pytest.raises(OutputError, match="No space left on device"):
            add_all()
        stream.abort()


def test_copies_that_cannot_fit_are_not_begun(
    small_disk: Callable[[str], Path], tmp_path: Path, call: Cli, counter_model: Path
) -> None:
    out = small_disk("256k") / "out"
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0001.h5")
    ended = call(
        "run", path, "--out", out, "--model", counter_model, "--streams", "copy", "--no-picture"
    )
    assert ended.status == 2
    assert "--streams link" in ended.the_error(), "the remedy"
    assert files_below(out) == {"manifest.json"}


@pytest.mark.parametrize("size", ["4k", "32k", "96k"])
def test_not_even_room_for_links(
    size: str,
    small_disk: Callable[[str], Path],
    cli: Cli,
    counter_model: Path,
    miniature: Callable[[str], Path],
) -> None:
    out = small_disk(size) / "out"
    ended = cli(
        "run", miniature("merger_2.0"), "--out", out, "--model", counter_model, "--no-picture"
    )
    assert ended.status == 2
    assert 1 <= len(ended.errors) <= 2, "the run's error, and the manifest's if it has no room"
    assert "HDF5-DIAG" not in ended.err
    assert files_below(out) <= {"manifest.json"}


def test_files_that_may_not_grow(
    runs: list[Path], tmp_path: Path, cli: Cli, counter_model: Path
) -> None:
    """A limit on the size of a file, as a quota or a batch system sets it."""
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit (util-linux)")
    out = tmp_path / "out"
    ended = cli(
        "run", *runs, "--out", out, "--model", counter_model, "--streams", "copy", "--no-picture",
        prefix=["prlimit", "--fsize=2000000"],
    )  # fmt: skip
    check_what_is_left(ended, out, runs)


def test_no_room_for_the_picture(
    tmp_path: Path, cli: Cli, counter_model: Path, miniature: Callable[[str], Path]
) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit (util-linux)")
    out = tmp_path / "out"
    ended = cli(
        "run", miniature("merger_1.0"), "--out", out, "--model", counter_model,
        prefix=["prlimit", "--fsize=60000"],
    )  # fmt: skip
    assert ended.status == 0, "the results count, not their picture"
    (line,) = [line for line in ended.err.splitlines() if line.startswith("warning:")]
    assert "summary.png" in line
    assert not [name for name in files_below(out) if "summary" in name]
