"""``attpc-filter detectors``, ``detector new`` and ``check``, ``import``."""

import csv
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.detector_file import load_detector
from tests.conftest import Cli
from tests.detector_files import write_attpc


def test_detectors_names_those_that_ship(call: Cli) -> None:
    ended = call("detectors")
    assert ended.status == 0
    assert "AT-TPC" in ended.out
    assert "square-1024" in ended.out
    assert "10,240" in ended.out


def test_a_new_one_is_sound_and_names_every_column(call: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert call("detector", "new", file).status == 0
    assert load_detector(file).name == "mine"
    text = file.read_text()
    for column in ("pad", "x", "y", "size", "cobo", "gain", "time_offset", "beam"):
        assert f"#   {column} " in text
    again = call("detector", "new", file)
    assert again.status == 2
    assert "it is there already" in again.the_error()


def test_check_says_what_is_wrong_with_the_file(call: Cli, tmp_path: Path) -> None:
    file = write_attpc(tmp_path, pads=range(2000), n_pads=10240)
    ended = call("detector", "check", file)
    assert ended.status == 2
    assert "2000 rows, the detector has 10240 pads" in ended.the_error()


def test_check_names_absent_columns_and_draws(call: Cli, tmp_path: Path) -> None:
    ended = call("detector", "check", "square-1024", "--png", tmp_path / "p.png")
    assert ended.status == 0, ended.err
    assert "no columns   size, cobo, asad, aget, channel, gain, time_offset, beam" in ended.out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def attpc_run(path: Path, n_samples: int = 512) -> Path:
    """A run of two events with all their channels as the AT-TPC's map has them."""
    text = resources.files("attpc_filter.detectors").joinpath("at-tpc.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        for event in range(2):
            chosen = rng.choice(len(rows), 50, replace=False)
            names = ("cobo", "asad", "aget", "channel", "pad")
            hardware = [[int(rows[pad][name]) for name in names] for pad in chosen]
            samples = rng.normal(300, 5, (50, n_samples)).round()
            file[f"get/{event}"] = np.column_stack([hardware, samples]).astype(np.int16)
    return path


class TestCheckWithARun:
    def test_a_run_that_fits(self, call: Cli, tmp_path: Path) -> None:
        run = attpc_run(tmp_path / "run_0001.h5")
        ended = call("detector", "check", write_attpc(tmp_path / "d", noise_adc=5), run)
        assert ended.status == 0, ended.out + ended.err
        assert "0.0% find no pad" in ended.out
        assert "fits the detector" in ended.out

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            ({"n_samples": 256}, "traces of 512 samples, the detector has 256"),
            ({"pads": range(5000)}, "of the traces find no pad"),
            ({"pads": range(10239, -1, -1)}, "of the traces have another pad than their channel"),
            ({"noise_adc": 20}, "the detector says 20"),
        ],
    )
    def test_a_run_that_does_not(
        self, entries: dict[str, object], said: str, call: Cli, tmp_path: Path
    ) -> None:
        run = attpc_run(tmp_path / "run_0001.h5")
        detector = write_attpc(tmp_path / "d", **entries)  # type: ignore[arg-type]
        ended = call("detector", "check", detector, run)
        assert ended.status == 2
        assert said in ended.out
        assert "does not fit detector another" in ended.the_error()


class TestImport:
    TEXT = " Event ID : 65\n33 21 288 199 3687.3\n13 -13 334 222 147.25\n-9999 -9999 1 2 3\n"

    def test_text_events(self, call: Cli, tmp_path: Path) -> None:
        (tmp_path / "a.dat").write_text(self.TEXT)
        (tmp_path / "b.dat").write_text(
            self.TEXT.replace("65", "70") + "Event ID : 71\n1 2 3 4 5\n"
        )
        out = tmp_path / "run_0001.h5"
        ended = call("import", tmp_path / "a.dat", tmp_path / "b.dat", "--out", out)
        assert ended.status == 0, ended.err
        with open_run(out) as run:
            records = list(run.records())
        assert [record.event for record in records] == [65, 70, 71]
        assert records[0].points is not None
        np.testing.assert_array_equal(
            records[0].points[:, :5], [[33, 21, 288, 199, 3687.3], [13, -13, 334, 222, 147.25]]
        )

    def test_numbers_that_are_there_twice_are_counted_anew(self, call: Cli, tmp_path: Path) -> None:
        (tmp_path / "a.dat").write_text(self.TEXT + self.TEXT)
        ended = call("import", tmp_path / "a.dat", "--out", tmp_path / "r.h5")
        assert "not every event has its own" in ended.out
        with open_run(tmp_path / "r.h5") as run:
            assert [event for event, _ in run.events] == [0, 1]

    def test_arrays(self, call: Cli, tmp_path: Path) -> None:
        clouds = np.arange(30.0).reshape(2, 3, 5)
        clouds[1, 2] = np.nan
        np.save(tmp_path / "c.npy", clouds)
        assert call("import", tmp_path / "c.npy", "--out", tmp_path / "r.h5").status == 0
        with open_run(tmp_path / "r.h5") as run:
            counts = [len(r.points) for r in run.records() if r.points is not None]
        assert counts == [3, 2]

    def test_the_run_is_tagged(
        self, call: Cli, tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
    ) -> None:
        (tmp_path / "a.dat").write_text(self.TEXT)
        call("import", tmp_path / "a.dat", "--out", tmp_path / "r.h5")
        ended = call(
            *("run", tmp_path / "r.h5", "--out", tmp_path / "out", "--model", counter_model),
            "--no-picture",
        )
        assert ended.status == 0, ended.err

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("1 2 3 4\n", "row 1: '1 2 3 4' is not x, y, z, time bucket, charge"),
            ("Event ID : 3\n1 2 3 4 nan\n", "row 2"),
            ("Event ID : x\n", "names no event number"),
            ("", "no event"),
        ],
    )
    def test_what_is_no_cloud(self, text: str, said: str, call: Cli, tmp_path: Path) -> None:
        (tmp_path / "a.dat").write_text(text)
        ended = call("import", tmp_path / "a.dat", "--out", tmp_path / "r.h5")
        assert ended.status == 2
        assert said in ended.the_error()
        assert not (tmp_path / "r.h5").exists()
