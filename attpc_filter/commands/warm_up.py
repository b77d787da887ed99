"""``attpc-filter warm-up``: compile all kernels now, for an image or a cluster."""

import argparse
import time

from attpc_filter.commands import console
from attpc_filter.config import Config

USES_KERNELS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Compile what the models at hand need, so that no job has to: when a container image is"
        " made, or once on each kind of node before an array of jobs. The compiled code lies in"
        " NUMBA_CACHE_DIR, if that is set, else beside the package or in your own cache."
    )
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="NAME|FILE",
        help="bundles whose kernels are wanted; all that ship if left out",
    )


def act(options: argparse.Namespace, command: str) -> int:
    """Compile, and say where the result lies."""
    from attpc_filter.compiled import folder
    from attpc_filter.score.bundle import shipped_bundles
    from attpc_filter.tagging.plan import make_plan
    from attpc_filter.tagging.warm import compile_for_tagging, compile_for_writing

    began = time.monotonic()
    out = console.output()
    for model in options.model or shipped_bundles():
        compile_for_tagging(make_plan(Config(model=model)))
        console.say_where(out, "compiled", f"for {model}, {time.monotonic() - began:.0f} s")
    compile_for_writing()
    console.say_where(out, "kept in", folder() or "no folder: none can be written")
    return 0
