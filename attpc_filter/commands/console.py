"""What the commands share: where they print, how they say where a file is, how they end early."""

import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

#: Ctrl-C, and what Slurm sends before the end.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
#: Width of what is printed if the output is not a terminal.
_PLAIN_WIDTH = 110


def output() -> Console:
    """The console for results, on stdout."""
    return Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH)


def say_where(out: Console, what: str, path: Path | str, more: str = "") -> None:
    """Print where a file or folder was written."""
    out.print(f"{what:<10} {path}{more}", soft_wrap=True, highlight=False, markup=False)


def say(out: Console, what: str, text: str) -> None:
    """Print one fact: its name in the first column, its text in the second."""
    out.print(f"{what:<12} {text}", soft_wrap=True, highlight=False, markup=False)


def interrupt_in_order() -> None:
    """Let Ctrl-C, and the SIGTERM that Slurm sends before the end, end a command tidily."""

    def interrupt(*_: Any) -> None:
        # A second interrupt during the clean-up would leave the clean-up half done.
        if not isinstance(sys.exception(), KeyboardInterrupt):
            raise KeyboardInterrupt

    for number in INTERRUPTS:
        signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """Ignore every later Ctrl-C and SIGTERM: this process is about to end."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
