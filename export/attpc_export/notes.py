"""Notes for the person at the console: what a command did that was not asked for."""

import sys


def note(text: str) -> None:
    """Print a line on stderr; results go to stdout."""
    print(f"note: {text}", file=sys.stderr)
