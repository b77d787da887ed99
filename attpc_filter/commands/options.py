"""Arguments made of the configuration's options, so that each option is declared once."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any, get_args

from attpc_filter.config import Config, default_of, is_table, option_type, options_by_group


def add_options(parser: argparse.ArgumentParser, *wanted: str) -> None:
    """Add an argument for each option of the configuration, absent unless given.

    Parameters
    ----------
    parser : ArgumentParser
        The command's parser; the arguments stand in groups.
    *wanted : str
        Names of options and of groups; all options if left out.
    """
    for group, options in options_by_group().items():
        chosen = [o for o in options if not wanted or o.name in wanted or group in wanted]
        if chosen:
            arguments = parser.add_argument_group(group)
            for option in chosen:
                arguments.add_argument(f"--{option.name.replace('_', '-')}", **_argument(option))


def _argument(option: Field[Any]) -> dict[str, Any]:
    """What argparse is told of an option."""
    kind, _ = option_type(option.name)
    unit = f" [{option.metadata['unit']}]" if option.metadata["unit"] else ""
    default = default_of(option)
    shown = "" if default is False or default in (None, "", {}) else f" (default: {default})"
    settings: dict[str, Any] = {
        "dest": option.name,
        "default": argparse.SUPPRESS,
        "help": f"{option.metadata['help']}{unit}{shown}".replace("%", "%%"),
    }
    if kind is bool:
        settings["action"] = argparse.BooleanOptionalAction if default else "store_true"
    elif is_table(kind):
        action = Scores if kind == dict[str, float] else Names
        settings |= {"nargs": "+", "action": action, "metavar": option.metadata["metavar"]}
    elif choices := get_args(kind):
        settings["choices"] = choices
    else:
        settings |= {"type": kind, "metavar": option.metadata["metavar"]}
    return settings


class Names(argparse.Action):
    """``x=hit_x event=event_number`` as a dict."""

    convert: Callable[[str], Any] = str

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Store the values as a dict."""
        table = {}
        for value in values or ():
            name, _, text = str(value).partition("=")
            try:
                if not name or not text:
                    raise ValueError
                table[name] = self.convert(text)
            except ValueError:
                parser.error(f"{option_string}: {value!r} is not {self.metavar}")
        setattr(namespace, self.dest, table)


class Scores(Names):
    """``proton=0.9 carbon=0.5`` as a dict."""

    convert = float


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the configuration that stand on the command line."""
    known = {option.name for option in fields(Config)}
    return {name: value for name, value in vars(options).items() if name in known}
