"""``attpc-filter inspect``: what a run file holds; a picture of an event."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from attpc_filter.commands import console
from attpc_filter.commands.options import add_options, given
from attpc_filter.config import make_config
from attpc_filter.errors import UsageError

if TYPE_CHECKING:
    from attpc_filter.formats.run import Run

USES_KERNELS = True
#: Unreadable events whose reason is printed.
_MOST_REASONS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Say what a run file holds; with --event, look at one event."
    parser.add_argument("run", type=Path, metavar="FILE", help="run file")
    parser.add_argument("--event", type=int, metavar="N", help="event number")
    parser.add_argument("--png", type=Path, metavar="OUT", help="picture of the event")
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help="whose hits")
    add_options(parser, "detector", "Input", "ROOT files")


def act(options: argparse.Namespace, command: str) -> int:
    """Print what the file holds."""
    from attpc_filter.formats.registry import list_contents, open_run
    from attpc_filter.output.inputs import refuse_overwriting
    from attpc_filter.rebuild.hits import rebuild_hits
    from attpc_filter.score.bundle import load_bundle
    from attpc_filter.tagging.plan import choose_detector

    if options.png is not None:
        refuse_overwriting(options.png, [options.run])

    if options.png is not None and options.event is None:
        raise UsageError("--png needs --event N")
    config = make_config(None, given(options))
    out = console.output()
    contents = list_contents(options.run)
    if contents:
        _say_what_file(options.run, options.run.stat().st_size, out)
        for title, text in contents:
            console.say(out, title, text)
    contract = load_bundle(options.model).contract
    detector = choose_detector(config, contract)
    with open_run(
        options.run,
        config.root_options,
        channels=detector.channels,
        follow_links=config.follow_links,
    ) as run:
        numbers = [event for event, _ in run.events]
        gaps = numbers[-1] - numbers[0] + 1 - len(set(numbers))
        if not contents:
            _say_what_file(options.run, run.n_bytes, out)
        console.say(out, "format", run.format_name)
        for title, text in run.details:
            console.say(out, title, text)
        console.say(out, "run", str(run.number))
        console.say(
            out, "events", f"{len(numbers)}, numbers {numbers[0]} to {numbers[-1]}, {gaps} missing"
        )
        if options.event is None:
            _inspect_all(run, out)
            return 0
        names = [name for event, name in run.events if event == options.event]
        if not names:
            nearest = min(numbers, key=lambda number: abs(number - options.event))
            raise UsageError(f"{options.run}: no event {options.event}; the nearest is {nearest}")
        record = run.read(options.event, names[0])
        if record.reason:
            raise UsageError(f"{options.run}: event {options.event}: {record.reason}")
        hits = rebuild_hits([record], detector, contract.hits)
        title = f"{options.run.name}, event {options.event}"
        if record.traces is not None:
            console.say(out, "traces", str(len(record.traces)))
        console.say(
            out, "hits", f"{len(hits.x)} ({contract.hits.mode}), charge {hits.charge.sum():.0f} ADC"
        )
        if options.png is not None:
            from attpc_filter.pictures import draw_event

            draw_event(record, hits, detector.plane, contract.radius_mm, title, options.png)
            console.say(out, "picture", str(options.png))
    return 0


def _say_what_file(path: Path, n_bytes: int, out: Console) -> None:
    console.say(out, "file", f"{path} ({n_bytes / 1e6:.1f} MB)")


def _inspect_all(run: "Run", out: Console) -> None:
    import numpy as np

    sizes, what, triggers, unreadable = [], "traces", 0, []
    for record in run.records():
        triggers += record.passthrough
        if record.traces is not None:
            sizes.append(len(record.traces))
        elif record.points is not None:
            what = "points"
            sizes.append(len(record.points))
        else:
            unreadable.append(f"event {record.event}: {record.reason}")
    if sizes:
        low, middle, high = np.percentile(sizes, [0, 50, 100]).astype(int)
        console.say(out, what, f"{sum(sizes)}; an event: {low} to {high}, median {middle}")
    console.say(out, "IC triggers", str(triggers))
    console.say(out, "unreadable", str(len(unreadable)))
    for text in unreadable[:_MOST_REASONS]:
        console.say(out, "", text)
