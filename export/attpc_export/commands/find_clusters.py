"""``attpc-export find-clusters``: find clusters in a bundle's latent."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import add_bundle, add_reading, add_runs, read_options

HELP = "find clusters in a bundle's latent, and show them so that you name them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundle(parser)
    add_runs(parser)
    add_reading(parser, labels=False, classes=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--clusters", type=int, default=0, metavar="N", help="(default: as many as are stable)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (default: 1)")


def run(options: argparse.Namespace) -> None:
    """Find clusters in a bundle's latent."""
    from attpc_export.labels.name_clusters import NAMES_NAME, SHEET_NAME, write_clusters

    found = write_clusters(
        options.bundle,
        options.data,
        options.out,
        options.clusters,
        options.seed,
        read_options(options),
    )
    print(found.describe())
    print(f"look at {options.out / SHEET_NAME}, then name them in {options.out / NAMES_NAME}")
