"""``attpc-filter tags``: a tag table as a ROOT friend tree, or the reverse."""

import argparse
from pathlib import Path

from attpc_filter.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Convert a tag table: Parquet to a ROOT file with the friend tree `tags`, a row"
        " for every entry, or such a file to Parquet. The ending .root says which."
    )
    parser.add_argument("source", type=Path, metavar="IN", help="tag table or friend tree")
    parser.add_argument("target", type=Path, metavar="OUT", help="file to write")


def act(options: argparse.Namespace, command: str) -> int:
    """Convert the table."""
    from attpc_filter.output.friend import friend_from_table, table_from_friend
    from attpc_filter.output.inputs import refuse_overwriting

    refuse_overwriting(options.target, [options.source])

    is_root = [path.suffix == ".root" for path in (options.source, options.target)]
    if is_root[0] == is_root[1]:
        raise UsageError("tags: one of the two files must end in .root, the other must not")
    (friend_from_table if is_root[1] else table_from_friend)(options.source, options.target)
    return 0
