"""Configurations as YAML with a comment for every key, taken from the settings' docstrings."""

import re
import textwrap
from dataclasses import is_dataclass
from typing import Any

import yaml

from attpc_export.config import Config, dump_config

_WIDTH = 96


def commented_yaml(config: Config, title: str) -> str:
    """Give a configuration as YAML that explains itself.

    Parameters
    ----------
    config : Config
        The configuration.
    title : str
        What stands above it, as lines.
    """
    entries: dict[str, Any] = yaml.safe_load(dump_config(config))
    lines = [f"# {line}".rstrip() for line in title.splitlines()]
    for key, value in entries.items():
        part = getattr(config, key)
        lines.append("")
        if not isinstance(value, dict) or not is_dataclass(part):
            if key == "classes":
                lines.append("# in the order of the scores; labels in the tables are their names")
                value = [{k: v for k, v in entry.items() if v != ""} for entry in value]
            lines.append(_text({key: value}))
            continue
        lines.append(f"{key}:")
        helps = read_attributes(type(part).__doc__ or "")
        last = ""
        for name, entry in value.items():
            if name in helps and helps[name] != last:
                last = helps[name]
                lines += [f"  # {line}" for line in textwrap.wrap(helps[name], _WIDTH)]
            lines.append(textwrap.indent(_text({name: entry}), "  "))
    return "\n".join(lines) + "\n"


def read_attributes(docstring: str) -> dict[str, str]:
    """Read what a numpydoc section ``Attributes`` says of each name, on one line each."""
    _, _, section = docstring.partition("Attributes\n")
    section = re.split(r"\n\s*\w+\n\s*---+\n", section)[0]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(section).splitlines()[1:]:
        if match := re.match(r"    (\w[\w, ]*?) : ", line) or re.match(r"(\w[\w, ]*?) : ", line):
            names = [name.strip() for name in match[1].split(",")]
        elif line.strip():
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return {name: text.replace("``", "") for name, text in found.items()}


def _text(entries: dict[str, Any]) -> str:
    """One entry as YAML; a list of plain values on one line."""
    ((name, value),) = entries.items()
    if isinstance(value, list) and not any(isinstance(entry, dict) for entry in value):
        return f"{name}: {yaml.safe_dump(value, default_flow_style=True, width=_WIDTH).strip()}"
    if isinstance(value, list):
        lines = [yaml.safe_dump(entry, sort_keys=False, default_flow_style=True) for entry in value]
        return "\n".join([f"{name}:", *(f"  - {line.strip()}" for line in lines)])
    return yaml.safe_dump(entries, sort_keys=False, width=_WIDTH).strip()
