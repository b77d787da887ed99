"""``attpc-filter bench``: how fast a run is filtered here, step by step."""

import argparse
from pathlib import Path

from rich.console import Console

from attpc_filter.commands import console
from attpc_filter.commands.options import add_options, given
from attpc_filter.config import make_config
from attpc_filter.errors import UsageError

USES_KERNELS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Measure reading, rebuilding, scoring and the whole job on the first events of"
        " a run, each by itself; nothing of it is kept but the numbers."
    )
    parser.add_argument("run", type=Path, metavar="FILE", help="run file")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options")
    parser.add_argument(
        "--events", type=int, default=1000, metavar="N", help="first events (default: 1000)"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="of each step (default: 5)"
    )
    parser.add_argument("--csv", type=Path, metavar="OUT", help="write the numbers")
    parser.add_argument("--png", type=Path, metavar="OUT", help="picture of the times")
    add_options(parser, "model", "device", "streams", "threads", "ROOT files")


def act(options: argparse.Namespace, command: str) -> int:
    """Measure, and print the table of steps."""
    from attpc_filter.bench import bench, what_limits, write_csv
    from attpc_filter.output.inputs import refuse_overwriting
    from attpc_filter.progress import steps_table

    for target in filter(None, (options.csv, options.png)):
        refuse_overwriting(target, filter(None, [options.run, options.config]))

    for name in ("events", "repeats"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: {getattr(options, name)} is less than 1")
    config = make_config(options.config, given(options))
    errors = Console(stderr=True)
    with errors.status("") as status:

        def told(step: str) -> None:
            status.update(step)

        steps = bench(options.run, config, options.events, options.repeats, told)
    out = console.output()
    sample = steps[-1].sample
    title = (
        f"{options.run.name}: {sample.n_events} events of {sample.n_traces / sample.n_events:.0f}"
        f" traces, {config.n_threads} thread{'s'[: config.n_threads != 1]},"
        f" medians of {options.repeats}"
    )
    out.print(title, markup=False, highlight=False)
    out.print(steps_table(steps))
    out.print(what_limits(steps, config.n_threads), markup=False, highlight=False)
    if options.csv is not None:
        write_csv(steps, options.csv, options.run, config)
        console.say_where(out, "numbers", options.csv)
    if options.png is not None:
        from attpc_filter.pictures import draw_steps

        draw_steps(steps, title, options.png)
        console.say_where(out, "picture", options.png)
    return 0
