"""``attpc-filter import``: clouds of another program's as a run."""

import argparse
from pathlib import Path

from attpc_filter.commands import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Make a run of clouds in text (rows x y z bucket charge, an event below each line"
        " 'Event ID : N') or in .npy arrays (n, 5) or (events, n, 5): x, y, z in mm."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="text or .npy")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN.h5", help="run to write")


def act(options: argparse.Namespace, command: str) -> int:
    """Read the clouds and write the run."""
    from attpc_filter.errors import InputError, UsageError
    from attpc_filter.formats.hdf5.cloud_writer import read_foreign_clouds, write_clouds
    from attpc_filter.output.staging import Staging

    if options.out.exists():
        raise UsageError(f"--out {options.out}: it is there already; give another name")
    events = [event for file in options.files for event in read_foreign_clouds(file)]
    given = [number for number, _ in events if number is not None]
    keep = len(set(given)) == len(events)
    clouds = [
        (number if keep and number is not None else index, points)
        for index, (number, points) in enumerate(events)
    ]
    out = console.output()
    with Staging() as staging:
        try:
            n_events = write_clouds(staging.path(options.out), clouds)
        except InputError as error:
            raise InputError(f"{options.files[0]}: {error}") from error
        staging.commit()
    console.say_where(out, "run", options.out, f"  ({n_events} events)")
    if given and not keep:
        console.say(out, "numbers", "from 0 in the order of the files: not every event has its own")
    return 0
