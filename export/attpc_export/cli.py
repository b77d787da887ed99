"""The command line ``attpc-export``: which command it is, and how it ends."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from attpc_export import __version__
from attpc_filter.errors import AttpcFilterError

_EXIT_ERROR = 2
_EXIT_INTERRUPTED = 130

#: The commands, in the order of the help; each is a module of :mod:`attpc_export.commands`.
COMMANDS = (
    "init",
    "status",
    "train",
    "export",
    "evaluate",
    "report",
    "search",
    "compare",
    "novelty",
    "half",
    "traces",
    "fit-bundle-head",
    "fit-retag-head",
    "suggest",
    "pseudo-labels",
    "find-clusters",
    "name-clusters",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 2 on an error, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except AttpcFilterError as error:
        print(f"attpc-export: error: {error}", file=sys.stderr)
        return _EXIT_ERROR
    except KeyboardInterrupt:
        print("attpc-export: interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attpc-export", description="Train, judge and export the models of attpc-filter."
    )
    parser.add_argument("--version", action="version", version=f"attpc-export {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        # a command's module imports PyTorch only when it runs: --help takes no seconds
        module = importlib.import_module(f"attpc_export.commands.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
