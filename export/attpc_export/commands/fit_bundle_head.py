"""``attpc-export fit-bundle-head``: give a bundle a head that a few labels make."""

import argparse

from attpc_export.commands.arguments import (
    add_bundle,
    add_bundle_out,
    add_group_column,
    add_labels,
    add_reading,
    add_runs,
    print_bundle,
    read_options,
)

HELP = "write a copy of a bundle with a head that your labels make; its encoder stays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundle(parser)
    add_runs(parser)
    add_labels(parser)
    add_bundle_out(parser)
    parser.add_argument(
        "--kind",
        choices=["kernel", "logistic"],
        default="kernel",
        help="kernel machine (the default), or logistic regression",
    )
    parser.add_argument(
        "--inverse-regularisation",
        type=float,
        metavar="C",
        help="(default: 20 for a kernel machine, 1 for a logistic regression)",
    )
    add_group_column(parser)
    add_reading(parser, classes=True)


def run(options: argparse.Namespace) -> None:
    """Give a bundle a head that a few labels make."""
    from attpc_export.bundles.bundle_head import fit_bundle_head

    fit = fit_bundle_head(
        options.bundle,
        options.data,
        options.labels,
        options.out,
        options.kind,
        options.inverse_regularisation,
        read_options(options),
    )
    print(fit.describe())
    print_bundle(options.out)
