"""``attpc-filter config``: a commented example of a configuration."""

import argparse
import sys

from attpc_filter.config import example_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""


def act(options: argparse.Namespace, command: str) -> int:
    """Print the example."""
    sys.stdout.write(example_yaml())
    return 0
