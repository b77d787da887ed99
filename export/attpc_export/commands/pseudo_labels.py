"""``attpc-export pseudo-labels``: write the labels that a bundle is sure of."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import (
    add_bundle,
    add_labels,
    add_reading,
    add_runs,
    read_options,
)

HELP = "write the labels that a bundle is sure of, to train with"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundle(parser)
    add_runs(parser)
    add_labels(parser, required=False)
    add_reading(parser)
    parser.add_argument(
        "--share",
        type=float,
        default=0.8,
        help="of the events scored as a class, so many get its label (default: 0.8)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv")


def run(options: argparse.Namespace) -> None:
    """Write the labels that a bundle is sure of."""
    from attpc_export.labels.suggest import write_pseudo_labels

    found = write_pseudo_labels(
        options.bundle,
        options.data,
        options.labels,
        options.out,
        options.share,
        read_options(options),
    )
    print("labels: " + ", ".join(f"{count} {name}" for name, count in found.items()))
    print(f"table: {options.out}")
