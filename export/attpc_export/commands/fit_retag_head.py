"""``attpc-export fit-retag-head``: fit a head on stored latents."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import add_group_column, add_label_map, add_labels

HELP = "fit a head on stored latents, for attpc-filter retag --head"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "folder", type=Path, nargs="+", metavar="DIR", help="outputs of run --keep-latents"
    )
    add_labels(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument(
        "--inverse-regularisation",
        type=float,
        default=1.0,
        metavar="C",
        help="of the logistic regression; smaller for few labels (default: 1)",
    )
    add_group_column(parser)
    add_label_map(parser)


def run(options: argparse.Namespace) -> None:
    """Fit a head on stored latents."""
    from attpc_export.data.classes import parse_label_map
    from attpc_export.labels.retag_head import fit_retag_head

    fit = fit_retag_head(
        options.folder,
        options.labels,
        options.out,
        options.inverse_regularisation,
        options.group_column,
        parse_label_map(options.map),
    )
    print(fit.describe())
    print(f"head: {options.out}")
