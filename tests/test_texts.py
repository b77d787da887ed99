"""Texts from strangers: what is printed of them, and what is read of them."""

import json
import os
from pathlib import Path

import h5py
import pytest

from attpc_filter.config import make_config
from attpc_filter.errors import UsageError
from attpc_filter.rebuild.detector_file import read_detector
from attpc_filter.texts import read_json, shown
from tests import miniatures
from tests.conftest import Cli


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run_0046.h5, Härte, 陽子", "run_0046.h5, Härte, 陽子"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\rc", r"a\x0ab\x0dc"),
        (b"run\xff.h5".decode("utf-8", "surrogateescape"), r"run\xff.h5"),
        ("abc\u202etxt.5h", r"abc\u202etxt.5h"),
    ],
)
def test_what_is_shown(text: str, expected: str) -> None:
    assert shown(text) == expected
    shown(text).encode("utf-8")


@pytest.mark.parametrize("name", ["\x1b]0;title\x07", "[bold red]x", "\udcff"])
def test_names_have_no_power_over_a_terminal(name: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "run_0001.h5"
    with h5py.File(path, "w") as file:
        h5py.h5g.create(file.id, name.encode("utf-8", "surrogateescape"))
    ended = cli("inspect", path)
    assert ended.status == 2
    assert shown(name) in ended.the_error()
    assert "\x1b" not in ended.err


def test_names_of_files(tmp_path: Path, cli: Cli, counter_model: Path) -> None:
    strange = tmp_path / "run_0002_\x1b[31mx[bold]\n.h5"
    for path in (strange, tmp_path / os.fsdecode(b"run_0001_\xff.h5")):
        miniatures.write_run("merger_1.0", path)
    found = sorted(tmp_path.glob("run_*.h5"))
    ended = cli("run", *found, "--out", tmp_path / "out", "--model", counter_model, "--threads", 1)
    assert ended.status == 2
    assert ended.the_error().endswith(
        r"run_0001_\xff.h5: a name in its path is no UTF-8 text; rename it"
    )
    assert "\x1b" not in ended.err + ended.out
    assert (tmp_path / "out" / "tags" / strange.with_suffix(".parquet").name).exists()


def _bomb(n: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, n)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_bomb(12), "aliases"),
        ("a: " + "[" * 50_000, "nested too deeply"),
        ("#" * (5 << 20), "more than 4 MiB"),
        ("a: \x00", "not YAML"),
        ("a: 2024-99-99", "not YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=reason):
        make_config(path, {})
    with pytest.raises(UsageError, match=reason):
        read_detector(path)


def test_json_that_is_refused() -> None:
    assert read_json(json.dumps({"a": [1.5]})) == {"a": [1.5]}
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json("[" * 100_000)
