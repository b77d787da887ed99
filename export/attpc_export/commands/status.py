"""``attpc-export status``: which step of an experiment comes next."""

import argparse
from pathlib import Path

HELP = "say which step of an experiment comes next, and its command"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="that init made")


def run(options: argparse.Namespace) -> None:
    """Say which step comes next."""
    from attpc_export.experiment.folder import describe_steps, list_steps

    print(describe_steps(list_steps(options.folder)))
