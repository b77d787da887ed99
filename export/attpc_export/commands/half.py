"""``attpc-export half``: make a bundle half precision."""

import argparse

from attpc_export.commands.arguments import add_bundle, add_bundle_out, add_runs, print_bundle

HELP = "make a bundle's convolutions and products float16, if its tags stay the same"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundle(parser)
    add_runs(parser)
    add_bundle_out(parser)
    parser.add_argument(
        "--most",
        type=float,
        default=0.001,
        help="share of the events whose tag may differ (default: 0.001)",
    )


def run(options: argparse.Namespace) -> None:
    """Make a bundle half precision."""
    from attpc_export.bundles.half import write_half

    flips = write_half(options.bundle, options.data, options.out, options.most)
    print(f"tags that differ: {flips.flipped} of {flips.events} events ({flips.share:.2%})")
    print_bundle(options.out)
