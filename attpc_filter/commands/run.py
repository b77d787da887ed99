"""``attpc-filter run``: read, rebuild, score and tag run files; write tags and streams."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from attpc_filter.commands import console
from attpc_filter.commands.options import add_options, given
from attpc_filter.config import make_config, options_by_group
from attpc_filter.errors import UsageError

if TYPE_CHECKING:
    from attpc_filter.output.manifest import RunOutcome
    from attpc_filter.pipeline import Job

USES_KERNELS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Read run files, tag every event, and write tag tables and streams. Or do parts of the list"
        " that attpc-filter plan wrote: attpc-filter run --part K DIR."
    )
    parser.usage = "%(prog)s [options] RUN_FILE ... --out DIR, or %(prog)s --part K DIR"
    parser.epilog = (
        "exit codes: 0 clean, 1 events unreadable under --strict, 2 bad usage or input,"
        " 130 interrupted"
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FILE", help="run files")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder")
    parser.add_argument(
        "--part",
        type=part_numbers,
        metavar="K",
        help="do part K of the list in DIR, or several as Slurm writes them: 3-7,9 or 0-99:10;"
        " only options of speed and --restart go with it, all others stand in the list",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options")
    add_options(parser)
    parser.add_argument("--overwrite", action="store_true", help=argparse.SUPPRESS)


def act(options: argparse.Namespace, command: str) -> int:
    """Tag the runs, or do parts; say where the results are."""
    if options.part is not None:
        return _do_parts(options)
    if options.out is None:
        raise UsageError("give the output folder: --out DIR (see attpc-filter run --help)")
    return _run(options, command)


def part_numbers(text: str) -> list[int]:
    """Numbers of parts from a text such as ``3``, ``3-7,9`` or ``0-99:10``.

    Raises
    ------
    ValueError
        If the text is none.
    """
    numbers: list[int] = []
    for word in text.split(","):
        span, _, step = word.partition(":")
        first, dash, last = span.partition("-")
        numbers += range(int(first), int(last if dash else first) + 1, int(step or 1))
    return numbers


def _do_parts(options: argparse.Namespace) -> int:
    """Do parts of the list in a folder."""
    from attpc_filter.execute.base import Executor
    from attpc_filter.interrupts import interrupts_noted
    from attpc_filter.parts.parts_list import read_parts_list
    from attpc_filter.parts.work import do_parts
    from attpc_filter.pipeline import suitable_executor
    from attpc_filter.progress import Display

    console.interrupt_in_order()
    if len(options.runs) != 1 or options.out or options.config:
        raise UsageError("--part takes one folder and no --out or --config: run --part K DIR")
    changes = given(options)
    allowed = {"restart", *(option.name for option in options_by_group()["Speed"])}
    if others := sorted(changes.keys() - allowed):
        name = others[0].replace("_", "-")
        raise UsageError(f"--{name}: stands in the list of parts; give it to attpc-filter plan")
    out = options.runs[0]
    parts = read_parts_list(out)
    if unknown := [number for number in options.part if number >= len(parts.parts)]:
        raise UsageError(f"--part {unknown[0]}: {out} has {len(parts.parts)} parts, from 0")
    # examples are kept even if no picture is asked for: whether there is one is up to the join
    config = replace(make_config(None, parts.config | changes), picture=True)
    display = Display(Console(stderr=True))
    most = max((parts.parts[number].n_bytes for number in options.part), default=0)
    executor: Executor = suitable_executor(config, most)
    try:
        with interrupts_noted(), executor:
            plan = parts.make_plan(config)
            executor.load(plan)
            executor.wait()
            n_failed = do_parts(
                parts, options.part, plan, executor, out, display, restart=config.restart
            )
    finally:
        display.stop()
    return 2 if n_failed else 0


def _run(options: argparse.Namespace, command: str) -> int:
    """Tag the runs; say where the results are."""
    from attpc_filter.compiled import is_compiled
    from attpc_filter.pipeline import run_job
    from attpc_filter.progress import Display

    console.interrupt_in_order()
    config = make_config(options.config, given(options))
    log = Console(stderr=True)
    if options.overwrite:  # its name until runs that are done already were left as they are
        log.print("--overwrite is called --restart now", highlight=False)
        config = replace(config, restart=True)
    if not is_compiled("hdf5-reading"):
        log.print("compiling for this processor, once: about 20 s", highlight=False)
    display = Display(log)
    try:
        status, job, outcomes = run_job(options.runs, options.out, config, display, command)
    finally:
        display.stop()
    return report(status, job, outcomes, options.out)


def report(status: int, job: "Job | None", outcomes: "list[RunOutcome]", folder: Path) -> int:
    """Print the outcome of a job and where its results are; gives its exit code."""
    from attpc_filter.output.manifest import MANIFEST_NAME
    from attpc_filter.progress import summary_table

    if job is None:
        return status
    config = job.plan.config
    out = console.output()
    if any(not outcome.error for outcome in outcomes):
        out.print(summary_table(outcomes))
        model = f"{job.plan.contract.name} on {job.executor.device}"
        out.print(f"model      {model}", highlight=False)
        console.say_where(out, "tags", folder / "tags")
        if streams := next((o.streams for o in outcomes if o.streams), None):
            more = f"  ({', '.join(streams)}; {config.streams})"
            console.say_where(out, "streams", folder, more)
        for what, kept in (("hits", config.keep_hits), ("latents", config.keep_latents)):
            if kept:
                console.say_where(out, what, folder / what)
        if config.picture and job.n_filtered:
            finished = job

            def draw() -> Path:
                from attpc_filter.pictures import draw_summary

                return draw_summary(finished, outcomes)

            console.draw_summary(out, draw)
    console.say_where(out, "manifest", folder / MANIFEST_NAME)
    if failed := sum(bool(outcome.error) for outcome in outcomes):
        console.say_where(
            out, "failed", f"{failed} of {len(outcomes)} runs; the reasons stand above"
        )
    return status
