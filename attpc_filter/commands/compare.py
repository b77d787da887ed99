"""``attpc-filter compare``: two taggings of the same events."""

import argparse
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from attpc_filter.commands import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Compare two taggings of the same runs, event by event."
    parser.add_argument("a", type=Path, metavar="A", help="output folder, or a tag table")
    parser.add_argument("b", type=Path, metavar="B", help="output folder, or a tag table")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="list the events that flipped")
    parser.add_argument("--png", type=Path, metavar="OUT", help="picture: scores against scores")


def act(options: argparse.Namespace, command: str) -> int:
    """Print which tags flipped."""
    from attpc_filter.compare import compare, files_of, write_flips
    from attpc_filter.output.inputs import refuse_overwriting

    for target in filter(None, (options.csv, options.png)):
        refuse_overwriting(target, [*files_of(options.a), *files_of(options.b)])

    compared = compare(options.a, options.b)
    out = console.output()
    table = Table(f"{options.a} (down), {options.b} (across)", *compared.tags_b, box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for tag, row in zip(compared.tags_a, compared.matrix, strict=True):
        table.add_row(tag, *map(str, row))
    out.print(table, markup=False)
    n_events = int(compared.matrix.sum())
    share = compared.n_flipped / n_events
    out.print(f"flipped    {compared.n_flipped} of {n_events} events ({share:.2%})", markup=False)
    if compared.only_a or compared.only_b:
        out.print(f"unpaired   {compared.only_a} only in A, {compared.only_b} only in B")
    if options.csv is not None:
        write_flips(compared, options.csv)
        console.say_where(out, "flips", options.csv)
    if options.png is not None:
        from attpc_filter.pictures import draw_compared

        draw_compared(compared, options.png)
        console.say_where(out, "picture", options.png)
    return 0
