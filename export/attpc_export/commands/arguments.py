"""Arguments that several commands have."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attpc_export.judging.run_bundle import ReadOptions

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


def add_reading(
    parser: argparse.ArgumentParser, labels: bool = True, classes: bool = False
) -> None:
    """Add how runs and labels are read, where that is not as the bundle says."""
    add_detector(parser, "in place of the bundle's")
    if labels:
        add_label_map(parser)
    if classes:
        add_classes(parser, "in place of the bundle's")


def add_detector(parser: argparse.ArgumentParser, what_for: str) -> None:
    """Add the detector of the runs."""
    parser.add_argument(
        "--detector",
        metavar="NAME|FILE.yaml",
        help=f"the runs' detector {what_for}: its pads, its z calibration, its beam"
        " (attpc-filter detector new writes a file)",
    )


def add_label_map(parser: argparse.ArgumentParser) -> None:
    """Add what labels of other names mean."""
    parser.add_argument(
        "--map",
        nargs="+",
        default=[],
        metavar="LABEL=CLASS",
        help="class of labels that have another name (alpha=proton); LABEL= leaves such events out",
    )


def add_classes(parser: argparse.ArgumentParser, what_for: str) -> None:
    """Add the names of the classes."""
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="NAME[=PDG]",
        help=f"classes {what_for}, two or more: alpha=1000020040 proton=2212 noise;"
        " NAME=noise for what is not wanted",
    )


def read_options(options: argparse.Namespace) -> "ReadOptions":
    """How runs and labels are read, from the arguments that a command has."""
    from attpc_export.data.classes import parse_classes, parse_label_map
    from attpc_export.judging.run_bundle import ReadOptions
    from attpc_filter import load_detector

    given = vars(options)
    return ReadOptions(
        detector=load_detector(options.detector) if given.get("detector") else None,
        classes=parse_classes(options.classes) if given.get("classes") else (),
        label_map=parse_label_map(given.get("map", [])),
        group_column=given.get("group_column", ""),
    )
