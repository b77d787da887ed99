"""``attpc-filter status``: how far an output folder is."""

import argparse
from datetime import timedelta
from pathlib import Path

from attpc_filter.commands import console

#: Errors that are shown.
_MOST_ERRORS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Say how many parts of an output folder are done, running, failed and waiting, how fast it"
        " goes and what went wrong; of a folder without a list of parts, the same of its runs."
        " Nothing in the folder is changed."
    )
    parser.epilog = "exit codes: 0 all is done, 1 not yet, 2 something failed, or no such folder"
    parser.add_argument("out", type=Path, metavar="DIR", help="output folder")


def act(options: argparse.Namespace, command: str) -> int:
    """Say how far it is."""
    from attpc_filter.parts.status import DONE, FAILED, RUNNING, WAITING, joined, status_of

    status = status_of(options.out)
    out = console.output()
    states = (f"{status.states[name]} {name}" for name in (DONE, RUNNING, FAILED, WAITING))
    console.say(out, status.what, ", ".join(states))
    console.say(out, "events", f"{status.n_events}")
    if status.seconds:
        n_bytes = f"{status.n_bytes / status.seconds / 1e6:.0f} MB/s"
        console.say(out, "rate", f"{n_bytes} a process, of those that are done")
    if status.seconds_left is not None:
        left = timedelta(seconds=round(status.seconds_left))
        console.say(out, "time left", f"{left}, with {status.states[RUNNING]} processes")
    for line in status.unfinished:
        console.say(out, RUNNING, line)
    for line in status.errors[:_MOST_ERRORS]:
        console.say(out, FAILED, line)
    if len(status.errors) > _MOST_ERRORS:
        console.say(out, FAILED, f"{len(status.errors) - _MOST_ERRORS} more")
    if status.what == "parts" and status.exit_code == 0 and not joined(options.out):
        console.say(out, "next", f"attpc-filter join {options.out}")
    return status.exit_code
