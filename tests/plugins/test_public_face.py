"""Plugins and examples import the public face, `attpc_filter`, and no module behind it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))

#: Modules behind the face that a plugin still imports. Take a module out once nobody needs it.
STILL_PRIVATE = {
    "spyral": {
        "attpc_filter.config",
        "attpc_filter.errors",
        "attpc_filter.execute.processes",
        "attpc_filter.formats.registry",
        "attpc_filter.formats.run",
        "attpc_filter.output.staging",
        "attpc_filter.output.tag_table",
        "attpc_filter.score.bundle",
        "attpc_filter.tag",
        "attpc_filter.tagging.stages",
    },
}


def imported(text: str) -> set[str]:
    """Modules of ``attpc_filter`` that a source imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name for name in names if name.split(".")[0] == "attpc_filter"}


def test_imports_are_found() -> None:
    text = "import attpc_filter.tag as t\ndef f():\n    from attpc_filter.score import bundle\n"
    assert imported(text + "import attpc_filter\nimport attpc_filter_web\n") == {
        "attpc_filter",
        "attpc_filter.tag",
        "attpc_filter.score",
    }


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_the_face_alone(plugin: Path) -> None:
    found = set()
    for source in plugin.rglob("*.py"):
        found |= imported(source.read_text(encoding="utf-8"))
    more = found - {"attpc_filter"} - STILL_PRIVATE.get(plugin.name, set())
    assert not more, f"behind the public face: {sorted(more)}"
