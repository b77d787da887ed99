"""``attpc-export name-clusters``: make a bundle of clusters that have names."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import (
    add_bundle_out,
    add_reading,
    add_runs,
    print_bundle,
    read_options,
)

HELP = "write a copy of a bundle whose head is its clusters, once you have named them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", help="the one whose latent was clustered")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output of find-clusters")
    add_runs(parser)
    add_reading(parser, labels=False, classes=True)
    add_bundle_out(parser)


def run(options: argparse.Namespace) -> None:
    """Make a bundle of clusters that have names."""
    from attpc_export.labels.name_clusters import name_and_write

    name_and_write(options.bundle, options.folder, options.data, options.out, read_options(options))
    print_bundle(options.out)
