"""``attpc-filter retag``: new tags from the stored scores, without the raw data."""

import argparse
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from attpc_filter.commands import console
from attpc_filter.commands.options import Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Derive the tags of an output folder anew from its stored scores; tag tables,"
        " streams and manifest follow. What is not asked for is as the run was first tagged."
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="output folder of attpc-filter run")
    parser.add_argument(
        "--thresholds",
        nargs="+",
        action=Scores,
        default={},
        metavar="CLASS=SCORE",
        help="score, 0 to 1, that an event needs to be of a class",
    )
    parser.add_argument(
        "--purity",
        nargs="+",
        action=Scores,
        default={},
        metavar="CLASS=SHARE",
        help="lowest threshold whose expected purity reaches this: scores are calibrated"
        " probabilities, so of the events above a threshold their mean is the share that is"
        " expected to be of the class, on data like those the model was trained on",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="give only these classes; events of the others become uncertain",
    )
    parser.add_argument(
        "--head",
        type=Path,
        metavar="FILE",
        help="new scores from the stored latents (run --keep-latents) by this head",
    )


def act(options: argparse.Namespace, command: str) -> int:
    """Retag the folder; print the counts before and now."""
    from attpc_filter.output.manifest import SUMMARY_NAME, read_manifest
    from attpc_filter.retag import RetagRequest, retag

    console.interrupt_in_order()
    classes = None if options.classes is None else tuple(options.classes)
    request = RetagRequest(options.thresholds, options.purity, classes, options.head)
    done = retag(options.out, request, command)
    out = console.output()
    table = Table("", *done.counts, box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for title, counts in (("before", done.counts_before), ("now", done.counts)):
        table.add_row(title, *(str(counts.get(tag, 0)) for tag in done.counts))
    thresholds = [done.thresholds.get(tag) for tag in done.counts]
    table.add_row("threshold", *("" if t is None else f"{t:.4f}" for t in thresholds))
    out.print(table)
    out.print(f"changed    {done.changed} of {sum(done.counts.values())} events", highlight=False)
    if SUMMARY_NAME in read_manifest(options.out).pictures:

        def draw() -> Path:
            from attpc_filter.pictures import draw_retagged

            return draw_retagged(options.out, done.counts, done.thresholds)

        console.draw_summary(out, draw)
    return 0
