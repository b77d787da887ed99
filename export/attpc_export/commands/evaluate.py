"""``attpc-export evaluate``: judge bundles on labelled runs."""

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

HELP = "judge bundles on labelled runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_bundles(parser)
    add_runs(parser)
    add_labels(parser)
    add_reading(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write the numbers too")
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Judge bundles on labelled runs."""
    from attpc_export.judging.evaluate import describe, evaluate, write_results

    results = evaluate(
        options.bundle, options.data, options.labels, options.device, read_options(options)
    )
    print("\n\n".join(describe(result) for result in results))
    if options.out is not None:
        write_results(results, options.out)
        print(f"numbers: {options.out}")
