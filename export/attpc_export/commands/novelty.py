"""``attpc-export novelty``: give a bundle a novelty: how unlike its training events an event is."""

import argparse

from attpc_export.commands.arguments import (
    add_bundle,
    add_bundle_out,
    add_labels,
    add_runs,
    print_bundle,
)

HELP = "give a bundle a sense of events unlike those that it was trained on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundle(parser)
    add_runs(parser)
    add_labels(parser, required=False)
    add_bundle_out(parser)
    parser.add_argument(
        "--share",
        type=float,
        default=0.005,
        help="of the events kept back from training that may be called unlike (default: 0.005)",
    )


def run(options: argparse.Namespace) -> None:
    """Give a bundle a novelty: how unlike its training events an event is."""
    from attpc_export.bundles.novelty import add_novelty

    add_novelty(options.bundle, options.data, options.labels, options.out, options.share)
    print_bundle(options.out)
