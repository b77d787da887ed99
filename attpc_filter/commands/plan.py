"""``attpc-filter plan``: list the parts of many runs, for many processes or a cluster."""

import argparse
import re
import sys
from pathlib import Path

from attpc_filter.commands import console
from attpc_filter.commands.options import add_options, given
from attpc_filter.config import make_config

USES_KERNELS = True
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Write DIR/parts/parts.json: the parts of the runs, and what each part's result depends on."
        " attpc-filter run --part K DIR does one, attpc-filter join DIR joins them. Written again"
        " with other options, exactly the parts that depend on them are to be done again."
    )
    parser.epilog = "exit codes: 0 clean, 2 bad usage, or a run that cannot be opened"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FILE", help="run files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options")
    parser.add_argument(
        "--part-size",
        type=size,
        default="4GB",
        metavar="SIZE",
        help="most of a run file that one part takes: 500MB, 4GB (default: 4GB)",
    )
    add_options(parser)


def act(options: argparse.Namespace, command: str) -> int:
    """Write the list; say how many parts there are."""
    from attpc_filter.parts.parts_list import LIST_NAME, parts_folder, write_parts_list

    console.interrupt_in_order()
    config = make_config(options.config, given(options))
    parts = write_parts_list(options.runs, options.out, config, options.part_size, command)
    bad = [run for run in parts.runs if run.error]
    for line in dict.fromkeys(run.error for run in bad):
        print(f"error: {line}", file=sys.stderr)
    out = console.output()
    n_bytes = sum(run.fingerprint["bytes"] for run in parts.runs if not run.error)
    n_runs = len(parts.runs) - len(bad)
    console.say(out, "parts", f"{len(parts.parts)}, of {n_runs} runs, {n_bytes / 1e9:.3g} GB")
    console.say(out, "list", str(parts_folder(options.out) / LIST_NAME))
    console.say(out, "do one", f"attpc-filter run --part 0 {options.out}")
    console.say(out, "then", f"attpc-filter join {options.out}")
    return 2 if bad else 0


def size(text: str) -> int:
    """Bytes from a text such as ``4GB``.

    Raises
    ------
    ValueError
        If it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise ValueError(text)
    return max(1, int(float(match[1]) * _UNITS[match[2].upper()]))
