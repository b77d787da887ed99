"""``attpc-export init``: make the folder of an experiment."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import add_classes, add_detector

HELP = "look at an experiment's runs and write the configurations of every step to a bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to make")
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        required=True,
        metavar="RUN|FOLDER",
        help="run files and folders of run files, of any format that attpc-filter reads",
    )
    add_detector(parser, "(default: AT-TPC)")
    add_classes(parser, "that events are to be told into")


def run(options: argparse.Namespace) -> None:
    """Make the folder of an experiment."""
    from attpc_export.data.classes import parse_classes
    from attpc_export.experiment.folder import describe_steps, init_experiment, list_steps
    from attpc_filter import UsageError

    if not options.classes:
        raise UsageError("--classes: name two or more: alpha=1000020040 proton=2212 noise")
    classes = parse_classes(options.classes)
    detector = options.detector or "AT-TPC"
    look = init_experiment(options.folder, options.runs, detector, classes)
    print("\n".join(look.describe()))
    print(f"experiment: {options.folder}\n")
    print(describe_steps(list_steps(options.folder)))
