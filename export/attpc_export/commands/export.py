"""``attpc-export export``: write the bundle of a run folder."""

import argparse
from pathlib import Path

from attpc_export.commands.arguments import add_bundle_out, print_bundle

HELP = "write the bundle of a run folder, compared with PyTorch first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    add_bundle_out(parser)


def run(options: argparse.Namespace) -> None:
    """Write the bundle of a run folder."""
    from attpc_export.bundles.export import export_bundle

    print_bundle(export_bundle(options.run_folder, options.out))
