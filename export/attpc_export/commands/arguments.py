"""Arguments that several commands have."""

import argparse
from pathlib import Path

_BUNDLE_HELP = "name of a bundle that ships, or path of an ONNX file"


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the bundle that a command works on."""
    parser.add_argument("bundle", help=_BUNDLE_HELP)


def add_bundles(parser: argparse.ArgumentParser) -> None:
    """Add one or more bundles."""
    parser.add_argument("bundle", nargs="+", help=_BUNDLE_HELP)


def add_bundle_out(parser: argparse.ArgumentParser) -> None:
    """Add the bundle that a command writes."""
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add runs."""
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="RUN|FOLDER",
        help="run files and folders of run files, of any format that attpc-filter reads",
    )


def add_labels(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add tables of labels."""
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        required=required,
        default=[],
        metavar="CSV",
        help="tables with the columns run, event, label, and optionally kind",
    )


def add_group_column(parser: argparse.ArgumentParser) -> None:
    """Add the column that says which events are copies of one physics event."""
    parser.add_argument(
        "--group-column",
        default="",
        metavar="NAME",
        help="column of the labels whose equal numbers are copies of one physics event",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the weights of a frozen backbone."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE|FOLDER",
        help="of a frozen backbone, in place of the configuration's; a folder: file of that name",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add where the model runs."""
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="cuda insists, auto (the default) takes CUDA where there is one",
    )


def print_bundle(path: Path) -> None:
    """Say which bundle was written."""
    print(f"bundle: {path} ({path.stat().st_size / 1e6:.2f} MB)")
