"""Data from a stranger's JSON become dataclasses: every entry known, of its type, and finite."""

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin


def parse_json(text: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ValueError
        If the text is no JSON object, or is nested too deeply.
    """
    try:
        entries = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(entries, dict):
        raise ValueError("not a table of entries")
    return entries


def build(kind: type[Any], entries: object, where: str = "") -> Any:
    """Make a dataclass of a JSON object, and those that it holds.

    Parameters
    ----------
    kind : type
        The dataclass.
    entries : object
        What the JSON says.
    where : str
        What messages call it.

    Raises
    ------
    ValueError
        If an entry is unknown, missing, of another type or not finite, or the dataclass refuses it.
    """
    where = where or kind.__name__
    if not isinstance(entries, Mapping):
        raise ValueError(f"{where}: {_short(entries)} is not a table of entries")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(entries) - set(known)):
        raise ValueError(f"unknown entries for {where}: {', '.join(unknown)}")
    for name, one in known.items():
        has_default = one.default is not MISSING or one.default_factory is not MISSING
        if name not in entries and not has_default:
            raise ValueError(f"{where} lacks {name}")
    values = {name: _checked(hints[name], v, f"{where}.{name}") for name, v in entries.items()}
    return kind(**values)


def _checked(hint: Any, value: object, where: str) -> Any:
    """The value as its type wants it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = (argument for argument in arguments if argument is not types.NoneType)
        return _checked(hint, value, where)
    if is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise ValueError(f"{where}: {_short(value)} is none of {', '.join(map(str, arguments))}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: {_short(value)} is not a list")
        return tuple(_checked(arguments[0], each, where) for each in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: {_short(value)} is not a table of entries")
        return {k: _checked(arguments[1], each, f"{where}.{k}") for k, each in value.items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and is_number:
        if not math.isfinite(typing.cast(float, value)):
            raise ValueError(f"{where}: {value} is not finite")
        return value
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError(f"{where}: {_short(value)} is not of type {hint.__name__}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
