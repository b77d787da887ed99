"""``attpc-export search``: train with many settings of a model."""

import argparse
from dataclasses import replace
from pathlib import Path

from attpc_export.commands.arguments import add_device, add_labels, add_runs, add_weights

HELP = "train with many settings of a model; more trials go on from those there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    add_runs(parser)
    add_labels(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--trials", type=int, required=True, metavar="N", help="that the folder shall hold"
    )
    parser.add_argument(
        "--sampler", choices=["tpe", "random"], default="tpe", help="how settings are proposed"
    )
    add_weights(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Train with many settings of a model."""
    from attpc_export.config import load_config
    from attpc_export.models.backbone import with_weights
    from attpc_export.training.search import TABLE_NAME, search

    config = load_config(options.config)
    if options.weights:
        config = replace(config, model=with_weights(config.model, options.weights))
    best = search(
        config,
        options.data,
        options.labels,
        options.out,
        options.trials,
        options.sampler,
        options.device,
    )
    print(f"best: trial {best['trial']}, macro f1 {best['macro_f1']:.4f}: {best['settings']}")
    print(f"table: {options.out / TABLE_NAME}")
