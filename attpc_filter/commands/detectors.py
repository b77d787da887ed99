"""``attpc-filter detectors``: the detectors that ship."""

import argparse

from attpc_filter.commands import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("detector", nargs="*", metavar="NAME|FILE", help="detectors; all that ship")


def act(options: argparse.Namespace, command: str) -> int:
    """Print what each detector is."""
    from attpc_filter.commands.detector import describe
    from attpc_filter.rebuild.detector_file import load_detector, shipped_detectors

    out = console.output()
    for name in options.detector or shipped_detectors():
        describe(load_detector(name), out)
        out.print()
    return 0
