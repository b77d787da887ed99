"""``attpc-filter run``: read, rebuild, score and tag run files; write tags and streams."""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from attpc_filter.commands import console
from attpc_filter.commands.options import add_options, given
from attpc_filter.config import make_config

USES_KERNELS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Read run files, tag every event, and write tag tables and streams."
    parser.epilog = (
        "exit codes: 0 clean, 1 events unreadable under --strict, 2 bad usage or input,"
        " 130 interrupted"
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FILE", help="run files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options")
    add_options(parser)
    parser.add_argument("--overwrite", action="store_true", help=argparse.SUPPRESS)


def act(options: argparse.Namespace, command: str) -> int:
    """Tag the runs; say where the results are."""
    from attpc_filter.compiled import is_compiled
    from attpc_filter.output.manifest import MANIFEST_NAME
    from attpc_filter.pipeline import run_job
    from attpc_filter.progress import Display, summary_table

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
    if job is None:
        return status
    out = console.output()
    if any(not outcome.error for outcome in outcomes):
        out.print(summary_table(outcomes))
        model = f"{job.plan.contract.name} on {job.executor.device}"
        out.print(f"model      {model}", highlight=False)
        console.say_where(out, "tags", options.out / "tags")
        if streams := next((o.streams for o in outcomes if o.streams), None):
            more = f"  ({', '.join(streams)}; {config.streams})"
            console.say_where(out, "streams", options.out, more)
        for what, kept in (("hits", config.keep_hits), ("latents", config.keep_latents)):
            if kept:
                console.say_where(out, what, options.out / what)
        if config.picture and job.n_filtered:

            def draw() -> Path:
                from attpc_filter.pictures import draw_summary

                return draw_summary(job, outcomes)

            console.draw_summary(out, draw)
    console.say_where(out, "manifest", options.out / MANIFEST_NAME)
    if failed := sum(bool(outcome.error) for outcome in outcomes):
        console.say_where(
            out, "failed", f"{failed} of {len(outcomes)} runs; the reasons stand above"
        )
    return status
