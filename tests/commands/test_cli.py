"""The command line: what the commands say, and one clear line for each wrong use."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import onnxruntime
import pytest
import yaml

from tests import miniatures, tiny_models
from tests.conftest import Cli, files_below, read_manifest, read_tag_table
from tests.detector_files import write_attpc

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, miniature: Callable[[str], Path], call: Cli) -> Refused:
    """Run ``attpc-filter run`` so that it cannot start: the one line that says why."""

    def run(*options: object, out: Path | None = None, inputs: list[Path] | None = None) -> str:
        runs = inputs if inputs is not None else [miniature("merger_2.0")]
        folder = out or tmp_path / "out"
        held = files_below(folder) if folder.is_dir() else None
        ended = call("run", *runs, "--out", folder, *options)
        assert ended.status == 2
        assert ended.out == ""
        # the other line is there until the compiled code of this processor is
        line, *more = reversed(ended.err.splitlines())
        assert not more or "compiling for this processor" in more[0]
        assert len(more) <= 1
        assert line.startswith("attpc-filter: ")
        assert (files_below(folder) if folder.is_dir() else None) == held, "nothing was written"
        return line

    return run


class TestConfiguration:
    """What is wrong with a configuration is said before anything is read or written."""

    @pytest.mark.parametrize(
        ("key", "nearest"),
        [("thresold", "threads|thresholds"), ("stream", "streams"), ("Device", "device")],
    )
    def test_unknown_key_names_the_nearest(
        self, key: str, nearest: str, refused: Refused, tmp_path: Path
    ) -> None:
        file = tmp_path / "filter.yaml"
        file.write_text(f"strict: true\n{key}: 1\n")
        line = refused("--config", file)
        assert str(file) in line
        assert repr(key) in line
        assert re.search(f"nearest known one is '({nearest})'", line)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("strict: maybe\n", "strict"),
            ("threads: many\n", "threads"),
            ("threads: true\n", "threads"),
            ("threads: -1\n", "negative"),
            ("streams: hardlink\n", "none of link, copy, none"),
            ("thresholds: {proton: high}\n", "thresholds"),
            ("thresholds: {proton: 1.5}\n", "not between 0 and 1"),
            ("thresholds: {proton: .nan}\n", "not between 0 and 1"),
            ("thresholds: {neutron: 0.5}\n", "neutron"),
            ("model:\n", "model"),
            ("- strict\n", "option: value"),
            ("strict: [\n", "not YAML"),
            ("window_time_bucket: 38\n", "no drift time"),
            ("window_time_bucket: .nan\n", "window_time_bucket"),
            ("detector_length: .inf\n", "detector_length"),
            ("detector: nowhere.yaml\n", "nowhere.yaml"),
            ("detector: ATTPC\n", "there are AT-TPC"),
        ],
    )
    def test_wrong_value(self, text: str, said: str, refused: Refused, tmp_path: Path) -> None:
        file = tmp_path / "filter.yaml"
        file.write_text(text)
        assert said in refused("--config", file)

    def test_no_such_file(self, refused: Refused, tmp_path: Path) -> None:
        assert "absent.yaml" in refused("--config", tmp_path / "absent.yaml")

    def test_not_text(self, refused: Refused, tmp_path: Path) -> None:
        file = tmp_path / "filter.yaml"
        file.write_bytes(b"\xff\xfe\x00strict")
        assert "not YAML" in refused("--config", file)

    def test_a_detector_with_too_few_pads(self, refused: Refused, tmp_path: Path) -> None:
        file = write_attpc(tmp_path, pads=range(2000), n_pads=10240)
        assert "2000 rows, the detector has 10240 pads" in refused("--detector", file)


class TestUsage:
    """Wrong arguments."""

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["filter"],
            ["run"],
            ["run", "a.h5"],
            ["run", "--out", "x"],
            ["run", "a.h5", "--out", "x", "--fast"],
            ["run", "a.h5", "--out", "x", "--device", "tpu"],
            ["run", "a.h5", "--out", "x", "--threads", "many"],
            ["run", "a.h5", "--out", "x", "--thresholds", "proton"],
            ["inspect"],
            ["inspect", "a.h5", "--png", "x.png"],
            ["models", "absent"],
        ],
    )
    def test_one_line_and_status_2(self, arguments: list[str], call: Cli) -> None:
        ended = call(*arguments)
        assert ended.status == 2
        (line,) = ended.err.splitlines()
        assert line.startswith("attpc-filter: ")

    def test_two_inputs_of_one_name(
        self, refused: Refused, tmp_path: Path, miniature: Callable[[str], Path]
    ) -> None:
        first, second = tmp_path / "a" / "run_1.h5", tmp_path / "b" / "run_1.h5"
        for path in (first, second):
            path.parent.mkdir()
            shutil.copy(miniature("merger_1.0"), path)
        line = refused(inputs=[first, second])
        assert str(first) in line
        assert str(second) in line

    def test_the_same_input_twice(self, refused: Refused, miniature: Callable[[str], Path]) -> None:
        refused(inputs=[miniature("merger_1.0")] * 2)


class TestOutputFolder:
    """What may be an output folder; what happens in one: tests/output/test_folder.py."""

    @pytest.mark.parametrize("text", ['{"name": "mine"}', "[1]", "no JSON", '{"runs": 5}'])
    def test_a_manifest_of_another_program(
        self, text: str, refused: Refused, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "manifest.json").write_text(text)
        assert "manifest.json" in refused("--restart")
        assert (tmp_path / "out" / "manifest.json").read_text() == text

    def test_a_file(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        refused()
        refused("--restart")
        assert (tmp_path / "out").read_text() == "mine"

    def test_the_folder_of_the_input(self, refused: Refused, tmp_path: Path) -> None:
        path = miniatures.write_run("merger_2.0", tmp_path / "data" / "raw" / "run_0001.h5")
        for out in (tmp_path / "data", tmp_path / "data" / "raw"):
            assert str(path) in refused("--restart", inputs=[path], out=out)

    def test_where_no_folder_can_be(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        assert "--out" in refused(out=tmp_path / "file" / "out")


class TestModel:
    """A model that cannot be trusted is refused before anything is read."""

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"text": None}, "no contract"),
            ({"size": 128}, "128"),
            ({"channels": 3}, "3, 64, 64"),
            ({"n_scores": 2}, "3 numbers an event"),
            ({"outputs": ("scores",)}, "latent"),
            ({"outputs": ("clean_scores", "latent")}, "scores"),
            ({"text": "no json"}, "contract"),
            ({"text": "[]"}, "not a table"),
            ({"text": json.dumps(tiny_models.contract(version=9))}, "version 9"),
            ({"text": json.dumps(tiny_models.contract(colour="red"))}, "colour"),
            ({"text": json.dumps({"version": 1})}, "contract"),
            ({"text": json.dumps(tiny_models.contract(hits={"mode": "multi", "x": 1}))}, "x"),
            ({"text": json.dumps(tiny_models.contract(hits={"mode": "best"}))}, "best"),
            ({"text": json.dumps(tiny_models.contract(classes=[]))}, "two classes"),
            (
                {"text": json.dumps(tiny_models.contract(classes=[{"name": "a"}] * 3))},
                "its own name",
            ),
            (
                {
                    "text": json.dumps(
                        tiny_models.contract(
                            classes=[{"name": n} for n in ("proton", "uncertain", "noise")]
                        )
                    )
                },
                "uncertain",
            ),
            (
                {
                    "text": json.dumps(
                        tiny_models.contract(
                            classes=[{"name": n} for n in ("proton", "../../tmp", "noise")]
                        )
                    )
                },
                "../../tmp",
            ),
            (
                {
                    "text": json.dumps(
                        tiny_models.contract(
                            projection=tiny_models.contract()["projection"] | {"views": ["uv"]}
                        )
                    )
                },
                "uv",
            ),
        ],
    )
    def test_contract(
        self, settings: dict[str, Any], said: str, refused: Refused, tmp_path: Path
    ) -> None:
        model = tiny_models.write_model(tmp_path / "model.onnx", **settings)
        line = refused("--model", model)
        assert str(model) in line
        assert said in line

    def test_not_onnx(self, refused: Refused, tmp_path: Path) -> None:
        model = tmp_path / "model.onnx"
        model.write_bytes(b"pickle" * 100)
        assert str(model) in refused("--model", model)

    def test_truncated(self, refused: Refused, tmp_path: Path, counter_model: Path) -> None:
        model = tmp_path / "model.onnx"
        model.write_bytes(counter_model.read_bytes()[:-100])
        assert str(model) in refused("--model", model)

    def test_no_such_model_names_those_that_ship(self, refused: Refused) -> None:
        assert "default" in refused("--model", "defualt")

    def test_a_folder(self, refused: Refused, tmp_path: Path) -> None:
        assert str(tmp_path) in refused("--model", tmp_path)

    @pytest.mark.skipif(
        "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
        reason="this machine's ONNX Runtime has CUDA",
    )
    def test_cuda_that_is_not_there_fails_loudly(
        self, cli: Cli, tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
    ) -> None:
        ended = cli(
            "run", miniature("merger_2.0"), "--out", tmp_path / "out", "--model", counter_model,
            "--device", "cuda",
        )  # fmt: skip
        assert ended.status == 2
        assert ended.err.splitlines() == [ended.the_error()]
        assert "--device cuda" in ended.the_error()
        assert not (tmp_path / "out").exists()


class TestOptions:
    """Options reach what they are for, from the command line and from a file."""

    def test_thresholds_from_the_command_line_win_over_the_file(
        self, call: Cli, tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
    ) -> None:
        file = tmp_path / "filter.yaml"
        file.write_text(
            yaml.safe_dump(
                {
                    "model": str(counter_model),
                    "thresholds": {"proton": 1.0, "carbon": 1.0, "noise": 1.0},
                    "streams": "none",
                    "picture": False,
                }
            )
        )
        path = miniature("merger_2.0")
        assert call("run", path, "--out", tmp_path / "a", "--config", file).status == 0
        rows = read_tag_table(tmp_path / "a" / "tags" / "run_0046.parquet")
        # of the softmax of these scores only the carbon event's (60 pixels) is exactly 1
        assert {row["tag"] for row in rows.values()} <= {"uncertain", "passthrough", "carbon"}
        ended = call(
            "run", path, "--out", tmp_path / "b", "--config", file,
            "--thresholds", "proton=0.45", "noise=0.55",
        )  # fmt: skip
        assert ended.status == 0
        rows = read_tag_table(tmp_path / "b" / "tags" / "run_0046.parquet")
        assert rows[13]["tag"] == "proton", "half proton, half noise: only proton is reached now"
        assert read_manifest(tmp_path / "b")["thresholds"]["proton"] == 0.45

    def test_calibration_changes_what_is_projected(
        self, call: Cli, tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
    ) -> None:
        """Another drift time puts hits at another z; in a view along z they leave the picture."""
        contract = tiny_models.contract()
        contract["projection"] |= {"views": ["xz"], "z_high_mm": 1050.0}
        model = tiny_models.write_model(tmp_path / "xz.onnx", json.dumps(contract))
        options = ("--model", model, "--streams", "none", "--no-picture")
        path = miniature("merger_1.0")
        assert call("run", path, "--out", tmp_path / "a", *options).status == 0
        ended = call("run", path, "--out", tmp_path / "b", *options, "--detector-length", 100_000)
        assert ended.status == 0
        near, far = (read_tag_table(tmp_path / name / "tags" / "run_0046.parquet") for name in "ab")
        assert near[7]["n_hits"] == far[7]["n_hits"] == 60
        assert near[7]["score_carbon"] > 0.99
        assert far[7]["score_carbon"] < 0.01
        assert read_manifest(tmp_path / "b")["calibration"]["detector_length"] == 100_000


def _shown(text: str) -> dict[str, str]:
    """What ``inspect`` says, by the word that begins the line."""
    return {line[:12].strip(): line[12:].strip() for line in text.splitlines() if line.strip()}


class TestInspect:
    """``inspect``: what a file is."""

    @pytest.mark.parametrize("layout", list(miniatures.LAYOUTS))
    def test_says_what_a_file_holds(
        self,
        layout: str,
        miniature: Callable[[str], Path],
        call: Cli,
    ) -> None:
        captured = call("inspect", miniature(layout))
        assert captured.status == 0
        assert captured.err == ""
        shown = _shown(captured.out)
        assert shown["format"] == miniatures.FORMAT_NAMES[layout]
        assert shown["run"] == "46"
        assert shown["events"] == "7, numbers 3 to 20, 11 missing"
        assert shown["IC triggers"] == ("1" if layout in miniatures.WITH_FRIB else "0")
        assert shown["unreadable"] == "0"
        what = "traces" if layout in miniatures.RAW else "points"
        total = sum(
            len(e.traces if layout in miniatures.RAW else e.points) for e in miniatures.events()
        )
        assert shown[what].startswith(f"{total};")

    def test_counts_what_cannot_be_read_and_says_why(self, tmp_path: Path, call: Cli) -> None:
        path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
        with h5py.File(path, "a") as file:
            del file["events/event_13/get_traces"]
        out = call("inspect", path).out
        assert _shown(out)["unreadable"] == "1"
        assert "event 13: no trace matrix" in out

    @pytest.mark.parametrize("layout", ["merger_2.0", "spyral_cloud", "pytpc_clean"])
    def test_draws_an_event(
        self,
        layout: str,
        tmp_path: Path,
        miniature: Callable[[str], Path],
        call: Cli,
    ) -> None:
        png = tmp_path / "new folder" / "event.png"
        ended = call("inspect", miniature(layout), "--event", 20, "--png", png)
        assert ended.status == 0
        assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        hits = _shown(ended.out)["hits"]
        assert hits.startswith("31 " if layout == "merger_2.0" else "30 ")

    def test_an_empty_event_can_be_drawn(
        self, tmp_path: Path, miniature: Callable[[str], Path], call: Cli
    ) -> None:
        png = tmp_path / "event.png"
        ended = call("inspect", miniature("merger_1.0"), "--event", 15, "--png", png)
        assert ended.status == 0
        assert png.stat().st_size > 0

    def test_an_event_that_is_not_there(self, miniature: Callable[[str], Path], call: Cli) -> None:
        ended = call("inspect", miniature("merger_1.0"), "--event", 5)
        assert ended.status == 2
        (line,) = ended.err.splitlines()
        assert "no event 5" in line
        assert "nearest is 4" in line

    def test_a_file_that_is_none(self, tmp_path: Path, cli: Cli) -> None:
        path = tmp_path / "run_0001.h5"
        path.write_text("hello")
        ended = cli("inspect", path)
        assert ended.status == 2
        assert ended.err.splitlines() == [ended.the_error()]
        assert f"{path}: a text file, which is no event format" in ended.the_error()


def test_models_shows_contracts(counter_model: Path, call: Cli) -> None:
    shown = call("models", counter_model)
    assert shown.status == 0
    assert "counts lit pixels" in shown.out
    assert "PDG 1000060120" in shown.out
    assert "default" in call("models").out


def test_config_prints_a_file_that_is_taken_as_it_is(
    call: Cli, tmp_path: Path, counter_model: Path, miniature: Callable[[str], Path]
) -> None:
    printed = call("config")
    assert printed.status == 0
    assert yaml.safe_load(printed.out) is None, "every option is commented out"
    options = [line[1:] for line in printed.out.splitlines() if re.match(r"#\w+:", line)]
    values = yaml.safe_load("\n".join(options))
    assert values["streams"] == "link"
    values |= {"model": str(counter_model), "picture": False}
    file = tmp_path / "filter.yaml"
    file.write_text(yaml.safe_dump(values))
    ended = call("run", miniature("merger_2.0"), "--out", tmp_path / "out", "--config", file)
    assert ended.status == 0


def test_version_and_help(cli: Cli) -> None:
    version = cli("--version")
    assert version.status == 0
    assert re.fullmatch(r"attpc-filter \d+\.\d+\.\d+(\.dev\d+)?\n", version.out)
    shown = cli("run", "--help")
    assert shown.status == 0
    for word in ("--streams", "--strict", "130 interrupted"):
        assert word in shown.out
