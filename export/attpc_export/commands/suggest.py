"""``attpc-export suggest``: list the events whose labels would help most."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import (
    add_bundle,
    add_labels,
    add_reading,
    add_runs,
    read_options,
)

HELP = "list the events whose labels would help a bundle most, with pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundle(parser)
    add_runs(parser)
    add_labels(parser, required=False)
    add_reading(parser, classes=True)
    parser.add_argument(
        "--events", type=int, default=48, metavar="N", help="to suggest (default: 48)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.csv", help="a picture stands beside it"
    )


def run(options: argparse.Namespace) -> None:
    """List the events whose labels would help most."""
    from attpc_export.labels.suggest import suggest

    picture = suggest(
        options.bundle,
        options.data,
        options.labels,
        options.events,
        options.out,
        read_options(options),
    )
    print(f"table: {options.out}\npicture: {picture}")
