"""``attpc-filter join``: join parts into the tables, streams and books of one run."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from attpc_filter.commands import console

USES_KERNELS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Check the result of every part of the list in DIR, and write what one attpc-filter run"
        " over all runs would write. A run that lacks a part is left out, and the command that does"
        " what is missing is printed; join again after that."
    )
    parser.epilog = (
        "exit codes: 0 all is joined, 1 events unreadable under --strict, 2 a part is missing, or a"
        " run failed, 130 interrupted"
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="folder that attpc-filter plan wrote")


def act(options: argparse.Namespace, command: str) -> int:
    """Join what is there; list what is missing."""
    from attpc_filter.commands.run import report
    from attpc_filter.parts.join import command_for, find_lacks, join
    from attpc_filter.parts.parts_list import read_parts_list
    from attpc_filter.progress import Display

    console.interrupt_in_order()
    parts = read_parts_list(options.out)
    lacks = find_lacks(parts, options.out)
    for lack in lacks:
        text = f"error: part {lack.number}, {parts.title(lack.number)}: {lack.reason}"
        print(text, file=sys.stderr)
    if lacks:
        again = command_for([lack.number for lack in lacks], options.out)
        print(f"{len(lacks)} of {len(parts.parts)} parts are not done: {again}", file=sys.stderr)
    display = Display(Console(stderr=True))
    try:
        status, job, outcomes = join(parts, options.out, lacks, display, command)
    finally:
        display.stop()
    status = report(status, job, outcomes, options.out)
    return 2 if lacks else status
