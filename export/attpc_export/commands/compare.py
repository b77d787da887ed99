"""``attpc-export compare``: train and judge the models of a plan."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import add_device, add_weights

HELP = "train and judge the models of a plan, and make one table of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("plan", type=Path, metavar="PLAN.yaml")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="what the plan's paths start at"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="run folders; resumes what is there",
    )
    parser.add_argument(
        "--tables", type=Path, required=True, metavar="FOLDER", help="accuracy.csv and accuracy.md"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="rows to train, of the table's"
    )
    add_weights(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Train and judge the models of a plan."""
    from attpc_export.judging.compare import TABLE_NAME, compare

    compare(
        options.plan,
        options.data,
        options.out,
        options.tables,
        options.weights,
        options.device,
        options.only,
    )
    print(f"table: {options.tables / TABLE_NAME}")
