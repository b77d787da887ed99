"""``attpc-export train``: train a model and its head into a run folder."""

import argparse
from dataclasses import replace
from pathlib import Path

from attpc_export.commands.arguments import (
    add_classes,
    add_detector,
    add_device,
    add_label_map,
    add_labels,
    add_runs,
    add_weights,
)

HELP = "train a model and its head into a run folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    add_runs(parser)
    add_labels(parser, required=False)
    add_label_map(parser)
    add_classes(parser, "in place of the configuration's")
    add_detector(parser, "in place of the configuration's")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN_FOLDER")
    add_weights(parser)
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keeps a frozen backbone's features"
    )
    parser.add_argument("--seed", type=int, help="in place of the configuration's")
    parser.add_argument(
        "--start",
        metavar="NAME|FILE.onnx|RUN_FOLDER",
        help="bundle or training whose encoder the training starts from",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the run folder's last checkpoint"
    )
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Train a model and its head into a run folder."""
    from attpc_export.config import load_config
    from attpc_export.data.classes import parse_classes, parse_label_map
    from attpc_export.models.backbone import with_weights
    from attpc_export.training.train import train
    from attpc_filter import load_detector

    config = load_config(options.config)
    if options.classes:
        config = replace(config, classes=parse_classes(options.classes))
    detector = None
    if options.detector:
        detector = load_detector(options.detector)
        config = replace(config, detector=detector.calibration)
    if options.seed is not None:
        config = replace(config, seed=options.seed)
    if options.start:
        config = replace(config, fit=replace(config.fit, start=options.start))
    if options.weights:
        config = replace(config, model=with_weights(config.model, options.weights))
    train(
        config,
        options.data,
        options.labels,
        options.out,
        options.device,
        options.resume,
        options.cache,
        parse_label_map(options.map),
        detector,
    )
    print(f"run folder: {options.out}")
