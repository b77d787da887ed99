"""``attpc-export report``: judge bundles on labelled runs: a page with pictures, and tables."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import (
    add_bundles,
    add_device,
    add_labels,
    add_reading,
    add_runs,
    read_options,
)

HELP = "judge bundles on labelled runs: a page with pictures, and tables"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundles(parser)
    add_runs(parser)
    add_labels(parser)
    add_reading(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--run-folder",
        type=Path,
        metavar="RUN_FOLDER",
        help="a finished training whose reconstructions are shown too: bundles have no decoder",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Judge bundles on labelled runs: a page with pictures, and tables."""
    from attpc_export.judging.report import write_report

    page = write_report(
        options.bundle,
        options.data,
        options.labels,
        options.out,
        options.device,
        options.run_folder,
        read_options(options),
    )
    print(f"report: {page}")
