"""The public face: every name is there, the import is cheap, and host programs use nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import attpc_filter

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", attpc_filter.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(attpc_filter, name) is not None


def test_names_that_are_not_there_say_so() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = attpc_filter.nonsense


def test_the_import_loads_nothing_heavy() -> None:
    code = "import sys, attpc_filter; print({'numpy', 'h5py', 'onnxruntime'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins/spyral").rglob("*.py")), ids=str)
def test_the_spyral_phases_use_the_face_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        assert not [name for name in names if name.startswith("attpc_filter.")]
