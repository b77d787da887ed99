"""Bad input: one clear line each, the right exit code, nothing lost, and the others go on."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import miniatures, tiny_models
from tests.conftest import Cli, Ended, files_below, read_manifest, read_tag_table

EVENTS = miniatures.events()
NUMBERS = [event.number for event in EVENTS]


def zero_header(path: Path, name: str) -> None:
    """Zero the first bytes of an object's header, as a lost disk block would."""
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file[name].id).addr
    content = bytearray(path.read_bytes())
    content[address : address + 16] = bytes(16)
    path.write_bytes(content)


#: What is wrong with a file, and what the line about it must say.
BAD = {
    "run_0001.h5": "a text file",
    "run_0002.h5": "truncated",
    "run_0003.h5": "without a single event",
    "run_0004.h5": "no such file",
    "run_0005.h5": "a folder",
    "run_0006.h5": "no known event format",
    "run_0007.h5": "libattpc_merger:3.0",
    "run_0008.h5": "an empty file",
    "run_0009.root": "not closed properly",
}
GOOD = ("run_0101.h5", "run_0104.h5", "run_0999.h5")


@pytest.fixture(scope="module")
def file_job(
    tmp_path_factory: pytest.TempPathFactory, cli: Cli, counter_model: Path
) -> tuple[Path, Ended]:
    folder = tmp_path_factory.mktemp("bad files")
    for name in GOOD:
        miniatures.write_run("merger_2.0", folder / name)
    whole = (folder / "run_0101.h5").read_bytes()
    (folder / "run_0001.h5").write_bytes(b"GRAW" * 5000)
    (folder / "run_0002.h5").write_bytes(whole[: len(whole) * 2 // 3])
    with h5py.File(folder / "run_0003.h5", "w") as file:
        file.create_group("events").attrs["version"] = "libattpc_merger:2.0"
    (folder / "run_0005.h5").mkdir()
    with h5py.File(folder / "run_0006.h5", "w") as file:
        file["spectra/energy"] = np.arange(5)
    with h5py.File(folder / "run_0007.h5", "w") as file:
        file.create_group("events/event_0")
        file["events"].attrs["version"] = "libattpc_merger:3.0"
    (folder / "run_0008.h5").touch()
    (folder / "run_0009.root").write_bytes(b"root" + bytes(3000))
    order = sorted([*BAD, *GOOD])
    ended = cli(
        "run", *(folder / name for name in order), "--out", folder / "out",
        "--model", counter_model, "--strict",
    )  # fmt: skip
    return folder, ended


class TestFiles:
    """Files that are no runs, between files that are."""

    def test_status(self, file_job: tuple[Path, Ended]) -> None:
        assert file_job[1].status == 2

    @pytest.mark.parametrize("name", BAD)
    def test_one_line_names_the_file_and_what_is_wrong(
        self, name: str, file_job: tuple[Path, Ended]
    ) -> None:
        folder, ended = file_job
        lines = [line for line in ended.errors if f"{folder / name}:" in line]
        assert len(lines) == 1, ended.err
        assert BAD[name] in lines[0]

    def test_no_other_errors(self, file_job: tuple[Path, Ended]) -> None:
        assert len(file_job[1].errors) == len(BAD)

    def test_the_others_are_complete(self, file_job: tuple[Path, Ended]) -> None:
        folder, _ = file_job
        for name in GOOD:
            rows = read_tag_table(folder / "out" / "tags" / f"{Path(name).stem}.parquet")
            assert {n: row["tag"] for n, row in rows.items()} == {e.number: e.tag for e in EVENTS}
        expected = {"manifest.json", "summary.png"}
        for name in GOOD:
            expected.add(f"tags/{Path(name).stem}.parquet")
            tags = (*tiny_models.CLASSES, "uncertain", "unreadable")
            expected |= {f"{tag}/{name}" for tag in tags}
        assert files_below(folder / "out") == expected

    def test_the_manifest_says_which_failed_and_why(self, file_job: tuple[Path, Ended]) -> None:
        folder, ended = file_job
        manifest = read_manifest(folder / "out")
        assert manifest["exit_status"] == 2
        failed = {Path(r["input"]).name: r["error"] for r in manifest["runs"] if r["error"]}
        assert set(failed) == set(BAD)
        for name, said in BAD.items():
            assert said in failed[name]
            assert f"error: {failed[name]}" in ended.errors
        assert manifest["n_events"] == len(EVENTS) * len(GOOD)

    def test_only_bad_files(self, call: Cli, counter_model: Path, tmp_path: Path) -> None:
        ended = call(
            "run", tmp_path / "run_0001.h5", "--out", tmp_path / "out", "--model", counter_model
        )
        assert ended.status == 2
        assert "no such file" in ended.the_error()
        assert not (tmp_path / "out").exists(), "a typo makes no folder"


def _spoil(layout: str, path: Path) -> dict[int, str]:
    """Spoil events of a raw run each in another way; what the reason of each must say."""
    traces = {number: miniatures.traces_path(layout, number) for number in NUMBERS}
    with h5py.File(path, "a") as file:
        del file[traces[3]]
        file[traces[3]] = np.zeros((10, 516), np.int16)
        values = file[traces[4]][()].astype(np.float32)
        values[7, 99] = np.nan
        del file[traces[4]]
        file[traces[4]] = values
        del file[traces[7]]
        file[traces[7]] = h5py.SoftLink("/lost")
    zero_header(path, traces[13])
    return {3: "(10, 516)", 4: "not finite", 7: "no trace matrix", 13: ""}


LAYOUTS = list(miniatures.RAW)


@pytest.fixture(scope="module", params=["link", "copy"])
def event_job(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    cli: Cli,
    counter_model: Path,
) -> tuple[Path, Ended]:
    folder = tmp_path_factory.mktemp("bad events")
    for index, layout in enumerate(LAYOUTS):
        _spoil(layout, miniatures.write_run(layout, folder / f"run_{index:04d}.h5"))
    ended = cli(
        "run", *sorted(folder.glob("*.h5")), "--out", folder / "out", "--model", counter_model,
        "--strict", "--no-picture", "--streams", request.param,
    )  # fmt: skip
    return folder, ended


class TestEvents:
    """Events that cannot be read, between events that can."""

    def test_status_is_1_under_strict(self, event_job: tuple[Path, Ended]) -> None:
        folder, ended = event_job
        assert ended.status == 1
        assert read_manifest(folder / "out")["exit_status"] == 1

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_unreadable_with_a_reason_and_the_others_right(
        self, layout: str, event_job: tuple[Path, Ended], tmp_path: Path
    ) -> None:
        folder, _ = event_job
        said = _spoil(layout, miniatures.write_run(layout, tmp_path / "run.h5"))
        stem = f"run_{LAYOUTS.index(layout):04d}"
        rows = read_tag_table(folder / "out" / "tags" / f"{stem}.parquet")
        assert list(rows) == NUMBERS
        for event in EVENTS:
            row = rows[event.number]
            if event.number in said:
                assert row["tag"] == "unreadable"
                assert row["n_hits"] == 0
                assert row["score_proton"] is None
                assert row["reason"]
                assert said[event.number] in row["reason"]
                assert "\n" not in row["reason"]
            else:
                assert row["tag"] == miniatures.expected_tag(layout, event)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_nothing_is_lost(self, layout: str, event_job: tuple[Path, Ended]) -> None:
        """The stream of unreadable events has each of them, as far as it can be had."""
        folder, _ = event_job
        index = LAYOUTS.index(layout)
        with h5py.File(folder / "out" / "unreadable" / f"run_{index:04d}.h5") as file:
            for number in (3, 4, 7, 13):
                parent, _, name = miniatures.event_paths(layout, number)[0].rpartition("/")
                assert name in list(file[parent])
            assert file[miniatures.traces_path(layout, 3)].shape == (10, 516)
            assert np.isnan(file[miniatures.traces_path(layout, 4)][()]).sum() == 1

    def test_the_manifest_counts_the_reasons(self, event_job: tuple[Path, Ended]) -> None:
        folder, _ = event_job
        for entry in read_manifest(folder / "out")["runs"]:
            assert entry["counts"]["unreadable"] == 4
            assert entry["books_balance"] is True
            unreadable = [r for r in entry["reasons"] if "trace" in r or "read" in r]
            assert len(unreadable) >= 3

    def test_one_line_on_stderr_names_each(self, event_job: tuple[Path, Ended]) -> None:
        _, ended = event_job
        for index in range(len(LAYOUTS)):
            for number in (3, 4, 7, 13):
                named = [
                    line
                    for line in ended.err.splitlines()
                    if f"run_{index:04d}.h5" in line and f"event {number}:" in line
                ]
                assert len(named) == 1

    def test_without_strict_the_status_is_0(
        self, call: Cli, counter_model: Path, tmp_path: Path
    ) -> None:
        path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
        _spoil("merger_1.0", path)
        out = tmp_path / "out"
        ended = call("run", path, "--out", out, "--model", counter_model, "--no-picture")
        assert ended.status == 0
        assert read_manifest(out)["counts"]["unreadable"] == 4

    @pytest.mark.parametrize("layout", ["merger_1.0", "merger_2.0", "harmonizer_0.1.0"])
    @pytest.mark.parametrize("mode", ["link", "copy"])
    def test_an_event_group_that_cannot_be_opened(
        self, layout: str, mode: str, call: Cli, counter_model: Path, tmp_path: Path
    ) -> None:
        path = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5")
        zero_header(path, "events/event_7")
        zero_header(path, "events/event_13")
        out = tmp_path / "out"
        options = ("--model", counter_model, "--no-picture", "--strict", "--streams", mode)
        assert call("run", path, "--out", out, *options).status == 1
        rows = read_tag_table(out / "tags" / "run_0046.parquet")
        assert [n for n, row in rows.items() if row["tag"] == "unreadable"] == [7, 13]
        assert [row["tag"] for n, row in rows.items() if n not in (7, 13)] == [
            e.tag for e in EVENTS if e.number not in (7, 13)
        ]
        with h5py.File(out / "unreadable" / "run_0046.h5") as file:
            assert set(file["events"]) == {"event_7", "event_13"}

    def test_a_damaged_ion_chamber_event_is_told_apart(
        self, call: Cli, counter_model: Path, tmp_path: Path
    ) -> None:
        """It cannot be read, and is not passed on as if it could."""
        path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
        zero_header(path, "events/event_12")
        out = tmp_path / "out"
        call("run", path, "--out", out, "--model", counter_model, "--no-picture")
        assert read_tag_table(out / "tags" / "run_0046.parquet")[12]["tag"] == "unreadable"


def test_scores_that_are_no_numbers_make_events_unreadable(
    call: Cli, tmp_path: Path, miniature: Callable[[str], Path]
) -> None:
    model = tiny_models.write_model(tmp_path / "nan.onnx", nan_above=50)
    out = tmp_path / "out"
    ended = call(
        "run", miniature("merger_2.0"), "--out", out, "--model", model, "--strict", "--no-picture"
    )
    assert ended.status == 1
    rows = read_tag_table(out / "tags" / "run_0046.parquet")
    assert rows[7]["tag"] == "unreadable"
    assert "not finite" in rows[7]["reason"]
    for event in EVENTS:
        if event.number != 7:
            assert rows[event.number]["tag"] == event.tag
    with h5py.File(out / "unreadable" / "run_0046.h5") as file:
        assert set(file["events"]) == {"event_7"}


def test_a_cloud_of_absurd_numbers_stops_nothing(
    call: Cli, counter_model: Path, tmp_path: Path
) -> None:
    """Finite, but far outside of any detector: a hit that leaves no mark."""
    path = miniatures.write_run("spyral_cloud", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        cloud = file["cloud/cloud_4"]
        cloud[3] = [1e30, -1e30, 1e30, 1e30, 0, 1e9, -1e30, 1]
        file["cloud/cloud_13"][2, 0] = 1e300
    ended = call("run", path, "--out", tmp_path / "out", "--model", counter_model, "--no-picture")
    assert ended.status == 0
    rows = read_tag_table(tmp_path / "out" / "tags" / "run_0046.parquet")
    assert rows[4]["tag"] == "proton", "29 pixels in place of 30"
    assert rows[13]["tag"] == "unreadable"


def _run_of(layout: str, path: Path, traces: np.ndarray) -> Path:  # type: ignore[type-arg]
    first = miniatures.with_traces(miniatures.simulate(1, 30), traces.astype(np.int16))
    return miniatures.write_run(layout, path, [first, miniatures.simulate(2, 30)])


@pytest.mark.parametrize(
    "kind",
    ["zeros", "flat", "saturated", "lowest", "highest", "pads outside", "twice", "square waves"],
)
def test_strange_traces_are_rebuilt_without_harm(
    kind: str, call: Cli, counter_model: Path, tmp_path: Path
) -> None:
    """No hits or hits, but a tag, and none of the next event's."""
    rng = np.random.default_rng(8)
    traces = miniatures.simulate(1, 30).traces.copy()
    if kind == "zeros":
        traces[:, 5:] = 0
    elif kind == "flat":
        traces[:, 5:] = 300
    elif kind == "saturated":
        traces[:, 5:] = 4095
    elif kind == "lowest":
        traces[:, 5:] = -32768
    elif kind == "highest":
        traces[:, 5:] = rng.choice([-32768, 32767], (len(traces), 512))
    elif kind == "pads outside":
        traces[:, 4] = rng.choice([-1, -32768, 10240, 32767], len(traces))
    elif kind == "twice":
        traces = np.concatenate([traces, traces])
    else:
        traces[:, 5:] = np.where(np.arange(512) // 40 % 2, 4095, 0)
    path = _run_of("merger_1.0", tmp_path / "run_0001.h5", traces)
    out = tmp_path / "out"
    ended = call("run", path, "--out", out, "--model", counter_model, "--no-picture")
    assert ended.status == 0
    rows = read_tag_table(out / "tags" / "run_0001.parquet")
    assert rows[2]["tag"] == "proton"
    if kind in ("zeros", "flat", "saturated", "lowest", "pads outside"):
        assert rows[1]["n_hits"] == 0
        assert rows[1]["tag"] == "uncertain"
    if kind == "twice":
        assert (rows[1]["n_hits"], rows[1]["tag"]) == (60, "proton")
