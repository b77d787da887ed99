"""Arguments made of the configuration's options, so that each option is declared once."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_args

from attpc_filter.config import Config, is_table, option_type


def add_options(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """An argument for each option of the configuration that begins so, absent unless given."""
    for option in fields(Config):
        if not option.name.startswith(prefix):
            continue
        kind, _ = option_type(option.name)
        unit = f" [{option.metadata['unit']}]" if option.metadata["unit"] else ""
        default = option.default
        shown = "" if default in (None, "", MISSING) else f" (default: {default})"
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
        parser.add_argument(f"--{option.name.replace('_', '-')}", **settings)


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
