"""``attpc-export traces``: let a bundle read raw traces."""

import argparse

from attpc_export.commands.arguments import add_bundle, add_bundle_out, print_bundle

HELP = "put the making of hits and projections into a bundle's graph, for a GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundle(parser)
    add_bundle_out(parser)
    parser.add_argument(
        "--events", type=int, default=64, metavar="N", help="that it reads at a time (default: 64)"
    )
    parser.add_argument(
        "--traces",
        type=int,
        default=16_384,
        metavar="N",
        help="of these events together, and so of the largest one (default: 16384)",
    )


def run(options: argparse.Namespace) -> None:
    """Let a bundle read raw traces."""
    from attpc_export.bundles.traces import write_traces

    write_traces(options.bundle, options.out, options.events, options.traces)
    print_bundle(options.out)
