"""``attpc-filter slurm``: scripts that do the parts of a list on a cluster, and join them."""

import argparse
from datetime import timedelta
from pathlib import Path

from attpc_filter.commands import console

USES_KERNELS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Write DIR/parts/array.sh, a job array for Slurm that does the parts, DIR/parts/join.sh,"
        " which joins them, and DIR/parts/submit.sh, which submits both."
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="folder that attpc-filter plan wrote")
    parser.add_argument(
        "--time", required=True, metavar="TIME", help="time limit of a task: 90, 1:30:00, 2-12:00"
    )
    parser.add_argument("--account", default="", metavar="NAME", help="account to charge")
    parser.add_argument("--partition", default="", metavar="NAME", help="partition to run in")
    parser.add_argument("--mem", default="", metavar="SIZE", help="memory of a task: 4G")
    parser.add_argument(
        "--cpus", type=int, default=1, metavar="N", help="cores of a task (default: 1)"
    )
    parser.add_argument("--gpu", action="store_true", help="a GPU for each task")
    parser.add_argument(
        "--at-once", type=int, default=0, metavar="N", help="most tasks at the same time"
    )
    parser.add_argument(
        "--max-array-size",
        type=int,
        metavar="N",
        help="the cluster's MaxArraySize; left out: as scontrol says. With more parts than that,"
        " each task does several",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing; filter for a second on one core of this machine, and say how long all"
        " will take",
    )


def act(options: argparse.Namespace, command: str) -> int:
    """Write the scripts, or say how long it will take."""
    from attpc_filter.errors import UsageError
    from attpc_filter.parts import slurm
    from attpc_filter.parts.parts_list import read_parts_list

    console.interrupt_in_order()
    limit = slurm.seconds_of(options.time)
    parts = read_parts_list(options.out)
    if not parts.parts:
        raise UsageError(f"{options.out}: the list holds no parts")
    if options.cpus < 1 or options.at_once < 0 or (options.max_array_size or 1) < 1:
        raise UsageError("--cpus and --max-array-size are at least 1, --at-once at least 0")
    size = options.max_array_size or slurm.ask_max_array_size()
    names = ("time", "account", "partition", "mem", "cpus", "gpu", "at_once")
    chosen = {name: getattr(options, name) for name in names}
    wishes = slurm.Wishes(**chosen, max_array_size=size)
    out = console.output()
    n_parts, tasks = len(parts.parts), slurm.n_tasks(parts, wishes)
    console.say(
        out, "array", f"{tasks} tasks, {n_parts} parts, at most {-(-n_parts // tasks)} each"
    )
    if not options.dry_run:
        console.say(out, "submit", f"sh {slurm.write_scripts(parts, options.out, wishes)}")
        return 0
    rate = slurm.measure(parts)
    all_s = sum(part.n_bytes for part in parts.parts) / rate
    longest_s = max(
        sum(part.n_bytes for part in parts.parts[task::tasks]) for task in range(tasks)
    ) / (rate * options.cpus)
    console.say(out, "measured", f"{rate / 1e6:.0f} MB/s on one core of this machine")
    console.say(out, "all parts", f"{_span(all_s)} of one core")
    console.say(out, "a task", f"at most {_span(longest_s)}, the limit is {_span(limit)}")
    at_once = options.at_once or tasks
    console.say(
        out, "in total", f"{_span(longest_s * -(-tasks // at_once))} with {at_once} tasks at once"
    )
    if longest_s > limit:
        console.say(
            out, "too long", "take more --time or --cpus, or parts of a smaller --part-size"
        )
    return 0


def _span(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))
