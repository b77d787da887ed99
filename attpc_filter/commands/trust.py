"""``attpc-filter trust``: what the tags are worth on these runs."""

import argparse
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from attpc_filter.commands import console
from attpc_filter.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Draw a random sample of each tag to label; then purity and efficiency of each class on"
        " these runs, from the labels, with 95% intervals."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of attpc-filter run")
    parser.add_argument("--draw", type=Path, metavar="CSV", help="write the events to label")
    parser.add_argument(
        "--events", type=int, default=50, metavar="N", help="of each tag (default: 50)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the draw (default: 1)")
    parser.add_argument(
        "--labels", type=Path, nargs="+", metavar="CSV", help="samples with their labels filled in"
    )
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME|FILE",
        help="the bundle that tagged, if it no longer lies where it was",
    )
    parser.add_argument("--csv", type=Path, metavar="CSV", help="write the numbers too")


def act(options: argparse.Namespace, command: str) -> int:
    """Draw a sample, or judge one."""
    from attpc_filter.trust import judge_sample, write_sample, write_trust

    out = console.output()
    if (options.draw is None) == (options.labels is None):
        raise UsageError("trust: give --draw CSV to draw a sample, or --labels CSV to judge one")
    if options.draw is not None:
        count = write_sample(options.out, options.draw, options.events, options.seed)
        console.say_where(out, "sample", options.draw)
        out.print(
            f"label as many of its {count} events as you like, in their order, then run"
            f" attpc-filter trust {options.out} --labels {options.draw}",
            markup=False,
        )
        return 0
    found = judge_sample(options.out, options.labels, options.model)
    table = Table("runs", "tag", "events", "labelled", "purity", "efficiency", box=SIMPLE)
    for row in found:
        table.add_row(
            row.runs,
            row.tag,
            str(row.events),
            str(row.labelled),
            str(row.purity),
            str(row.efficiency),
        )
    out.print(table, markup=False)
    out.print("95% intervals; unreadable events and ion-chamber triggers are left out")
    if options.csv is not None:
        write_trust(found, options.csv)
        console.say_where(out, "numbers", options.csv)
    return 0
