"""What the commands share: where they print, how they say where a file is, how they end early."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from attpc_filter.errors import AttpcFilterError
from attpc_filter.interrupts import INTERRUPTS
from attpc_filter.texts import shown

#: Width of what is printed if the output is not a terminal.
_PLAIN_WIDTH = 110


def output() -> Console:
    """The console for results, on stdout."""
    return Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH)


def say_where(out: Console, what: str, path: Path | str, more: str = "") -> None:
    """Print where a file or folder was written."""
    out.print(f"{what:<10} {shown(str(path))}{more}", soft_wrap=True, highlight=False, markup=False)


def say(out: Console, what: str, text: str) -> None:
    """Print one fact: its name in the first column, its text in the second."""
    out.print(f"{what:<12} {shown(text)}", soft_wrap=True, highlight=False, markup=False)


def draw_summary(out: Console, draw: Callable[[], Path]) -> None:
    """Draw the picture that goes with results; if that fails, the results count all the same."""
    try:
        say_where(out, "picture", draw())
    except AttpcFilterError as error:
        _warn(f"the picture was not drawn: {error}")
    except Exception as error:  # noqa: BLE001  matplotlib's trouble with fonts, settings, memory
        _warn(f"the picture was not drawn: {type(error).__name__}: {' '.join(str(error).split())}")


def _warn(text: str) -> None:
    print(f"warning: {shown(text)}", file=sys.stderr)


def interrupt_in_order() -> None:
    """Let Ctrl-C, a lost terminal, and what Slurm sends before the end, end a command tidily."""

    def interrupt(*_: Any) -> None:
        # A second interrupt during the clean-up would leave the clean-up half done.
        if not isinstance(sys.exception(), KeyboardInterrupt):
            raise KeyboardInterrupt

    for number in INTERRUPTS:
        # nohup has a lost terminal ignored
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """Ignore every later interrupt: this process is about to end."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
