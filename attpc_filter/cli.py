"""The command line: arguments and messages, nothing else."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from attpc_filter import __version__
from attpc_filter.config import Config, example_yaml, is_table, make_config, option_type
from attpc_filter.errors import AttpcFilterError, UsageError

if TYPE_CHECKING:
    from attpc_filter.formats.run import Run

_EXIT_CODES = (
    "exit codes: 0 clean, 1 events unreadable under --strict, 2 bad usage or input, 130 interrupted"
)
_MOST_REASONS = 10
#: Ctrl-C, and what Slurm sends before the end.
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
#: Width of what is printed where no terminal says its own.
_PLAIN_WIDTH = 110


class _Parser(argparse.ArgumentParser):
    """Errors in the shape of all others: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The arguments; those of the process if left out.

    Returns
    -------
    int
        0 clean; 1 events unreadable under ``--strict``; 2 bad usage or input; 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        options = _parser().parse_args(given)
        if arguments is None and options.act in (_run, _inspect, _bench):  # a process of our own
            from attpc_filter.execute.memory import leave_out_numba_extensions

            leave_out_numba_extensions()
        return int(options.act(options, shlex.join(["attpc-filter", *given])))
    except AttpcFilterError as error:
        errors.print(f"attpc-filter: {error}", markup=False, highlight=False)
        return 2
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        errors.print(
            "attpc-filter: no ONNX Runtime here; pip install 'attpc-filter[cpu]' (or [gpu])",
            markup=False,
        )
        return 2
    except KeyboardInterrupt:
        for number in _INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
        errors.print("attpc-filter: interrupted; runs that were complete are kept", markup=False)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="attpc-filter", description="Tag AT-TPC events before anyone fits them.")
    parser.add_argument("--version", action="version", version=f"attpc-filter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="read, rebuild, score and tag run files; write tags and streams",
        description="Read run files, tag every event, and write tag tables and streams.",
        epilog=_EXIT_CODES,
    )
    run.add_argument("runs", nargs="+", type=Path, metavar="RUN_FILE", help="run files")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    run.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options")
    _add_options(run)
    run.set_defaults(act=_run)

    inspect = commands.add_parser(
        "inspect",
        help="what kind of file, which events, sizes; a picture of an event",
        description="Say what a run file holds; with --event, look at one event.",
    )
    inspect.add_argument("run", type=Path, metavar="FILE", help="run file")
    inspect.add_argument("--event", type=int, metavar="N", help="event number")
    inspect.add_argument("--png", type=Path, metavar="OUT", help="picture of the event")
    inspect.add_argument("--model", default="default", metavar="NAME|FILE", help="whose hits")
    _add_options(inspect, "root_")
    inspect.set_defaults(act=_inspect)

    retag = commands.add_parser(
        "retag",
        help="new thresholds: tags anew from the stored scores, without the raw data",
        description="Derive the tags of an output folder anew from its stored scores; tag tables,"
        " streams and manifest follow. What is not asked for is as the run was first tagged.",
    )
    retag.add_argument("out", type=Path, metavar="DIR", help="output folder of attpc-filter run")
    retag.add_argument(
        "--thresholds",
        nargs="+",
        action=_Scores,
        default={},
        metavar="CLASS=SCORE",
        help="score, 0 to 1, that an event needs to be of a class",
    )
    retag.add_argument(
        "--purity",
        nargs="+",
        action=_Scores,
        default={},
        metavar="CLASS=SHARE",
        help="lowest threshold whose expected purity reaches this: scores are calibrated"
        " probabilities, so of the events above a threshold their mean is the share that is"
        " expected to be of the class, on data like those the model was trained on",
    )
    retag.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="give only these classes; events of the others become uncertain",
    )
    retag.add_argument(
        "--head",
        type=Path,
        metavar="FILE",
        help="new scores from the stored latents (run --keep-latents) by this head",
    )
    retag.set_defaults(act=_retag)

    compare = commands.add_parser(
        "compare",
        help="two taggings of the same events: which flipped, and their scores",
        description="Compare two taggings of the same runs, event by event.",
    )
    compare.add_argument("a", type=Path, metavar="A", help="output folder, or a tag table")
    compare.add_argument("b", type=Path, metavar="B", help="output folder, or a tag table")
    compare.add_argument("--csv", type=Path, metavar="OUT", help="list the events that flipped")
    compare.add_argument("--png", type=Path, metavar="OUT", help="picture: scores against scores")
    compare.set_defaults(act=_compare)

    tags = commands.add_parser(
        "tags",
        help="a tag table as a ROOT friend tree, or the reverse",
        description="Convert a tag table: Parquet to a ROOT file with the friend tree `tags`, a row"
        " for every entry, or such a file to Parquet. The ending .root says which.",
    )
    tags.add_argument("source", type=Path, metavar="IN", help="tag table or friend tree")
    tags.add_argument("target", type=Path, metavar="OUT", help="file to write")
    tags.set_defaults(act=_tags)

    bench = commands.add_parser(
        "bench",
        help="how fast a run is filtered here, step by step, and what limits it",
        description="Measure reading, rebuilding, scoring and the whole job on the first events of"
        " a run, each by itself; nothing of it is kept but the numbers.",
    )
    bench.add_argument("run", type=Path, metavar="FILE", help="run file")
    bench.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options")
    bench.add_argument(
        "--events", type=int, default=1000, metavar="N", help="first events (default: 1000)"
    )
    bench.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="of each step (default: 5)"
    )
    bench.add_argument("--csv", type=Path, metavar="OUT", help="write the numbers")
    bench.add_argument("--png", type=Path, metavar="OUT", help="picture of the times")
    for name in ("model", "device", "streams", "threads", "root_"):
        _add_options(bench, name)
    bench.set_defaults(act=_bench)

    models = commands.add_parser("models", help="the bundles at hand and their contracts")
    models.add_argument("model", nargs="*", metavar="NAME|FILE", help="bundles; all that ship")
    models.set_defaults(act=_models)

    config = commands.add_parser("config", help="write a commented example of a configuration")
    config.set_defaults(act=_config)
    return parser


def _add_options(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """An argument for each option of the configuration that begins so, absent unless given."""
    for option in fields(Config):
        if not option.name.startswith(prefix):
            continue
        kind, _ = option_type(option.name)
        unit = f" [{option.metadata['unit']}]" if option.metadata["unit"] else ""
        default = option.default
        shown = "" if default in (None, "", MISSING) else f" (default: {default})"
        settings: dict[str, Any] = {
            "dest": option.name,
            "default": argparse.SUPPRESS,
            "help": f"{option.metadata['help']}{unit}{shown}".replace("%", "%%"),
        }
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction if default else "store_true"
        elif is_table(kind):
            action = _Scores if kind == dict[str, float] else _Names
            settings |= {"nargs": "+", "action": action, "metavar": option.metadata["metavar"]}
        elif choices := get_args(kind):
            settings["choices"] = choices
        else:
            settings |= {"type": kind, "metavar": option.metadata["metavar"]}
        parser.add_argument(f"--{option.name.replace('_', '-')}", **settings)


class _Names(argparse.Action):
    """``x=hit_x event=event_number`` as a dict."""

    convert: Callable[[str], Any] = str

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        table = {}
        for value in values or ():
            name, _, text = str(value).partition("=")
            try:
                if not name or not text:
                    raise ValueError
                table[name] = self.convert(text)
            except ValueError:
                parser.error(f"{option_string}: {value!r} is not {self.metavar}")
        setattr(namespace, self.dest, table)


class _Scores(_Names):
    """``proton=0.9 carbon=0.5`` as a dict."""

    convert = float


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the configuration that stand on the command line."""
    known = {option.name for option in fields(Config)}
    return {name: value for name, value in vars(options).items() if name in known}


def _run(options: argparse.Namespace, command: str) -> int:
    from attpc_filter.output.manifest import MANIFEST_NAME
    from attpc_filter.pipeline import run_job
    from attpc_filter.progress import Display, summary_table

    _interrupt_in_order()
    config = make_config(options.config, _given(options))
    log = Console(stderr=True)
    display = Display(log)
    try:
        status, job, outcomes = run_job(options.runs, options.out, config, display, command)
    finally:
        display.stop()
    out = _console()
    if any(not outcome.error for outcome in outcomes):
        out.print(summary_table(outcomes))
        model = f"{job.tagger.contract.name} on {job.device}"
        out.print(f"model      {model}", highlight=False)
        _say_where(out, "tags", options.out / "tags")
        if streams := next((o.streams for o in outcomes if o.streams), None):
            more = f"  ({', '.join(streams)}; {config.streams})"
            _say_where(out, "streams", options.out, more)
        for what, kept in (("hits", config.keep_hits), ("latents", config.keep_latents)):
            if kept:
                _say_where(out, what, options.out / what)
        if config.picture:
            from attpc_filter.pictures import SUMMARY_NAME, draw_summary

            draw_summary(job, outcomes, options.out / SUMMARY_NAME)
            _say_where(out, "picture", options.out / SUMMARY_NAME)
    _say_where(out, "manifest", options.out / MANIFEST_NAME)
    if failed := sum(bool(outcome.error) for outcome in outcomes):
        _say_where(out, "failed", f"{failed} of {len(outcomes)} runs; the reasons stand above")
    return status


def _interrupt_in_order() -> None:
    """Let Ctrl-C, and the SIGTERM that Slurm sends before the end, end a command tidily."""

    def interrupt(*_: Any) -> None:
        # while one interrupt is obeyed, another would leave the clean-up half done
        if not isinstance(sys.exception(), KeyboardInterrupt):
            raise KeyboardInterrupt

    for number in _INTERRUPTS:
        signal.signal(number, interrupt)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH)


def _say_where(out: Console, what: str, path: Path | str, more: str = "") -> None:
    out.print(f"{what:<10} {path}{more}", soft_wrap=True, highlight=False, markup=False)


def _inspect(options: argparse.Namespace, _: str) -> int:
    from attpc_filter.formats.registry import list_contents, open_run
    from attpc_filter.rebuild.hits import rebuild_hits
    from attpc_filter.rebuild.padplane import load_padplane
    from attpc_filter.score.bundle import load_bundle

    if options.png is not None and options.event is None:
        raise UsageError("--png needs --event N")
    root = make_config(None, _given(options)).root_options
    out = _console()
    contents = list_contents(options.run)
    if contents:
        _say_what_file(options.run, out)
        for title, text in contents:
            _line(out, title, text)
    with open_run(options.run, root) as run:
        numbers = [event for event, _ in run.events]
        gaps = numbers[-1] - numbers[0] + 1 - len(set(numbers))
        if not contents:
            _say_what_file(options.run, out)
        _line(out, "format", run.format_name)
        for title, text in run.details:
            _line(out, title, text)
        _line(out, "run", str(run.number))
        _line(
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
        contract = load_bundle(options.model).contract
        plane = load_padplane()
        hits = rebuild_hits([record], plane, contract.hits, contract.detector)
        title = f"{options.run.name}, event {options.event}"
        if record.traces is not None:
            _line(out, "traces", str(len(record.traces)))
        _line(
            out, "hits", f"{len(hits.x)} ({contract.hits.mode}), charge {hits.charge.sum():.0f} ADC"
        )
        if options.png is not None:
            from attpc_filter.pictures import draw_event

            draw_event(record, hits, plane, contract.radius_mm, title, options.png)
            _line(out, "picture", str(options.png))
    return 0


def _say_what_file(path: Path, out: Console) -> None:
    _line(out, "file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


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
        _line(out, what, f"{sum(sizes)}; an event: {low} to {high}, median {middle}")
    _line(out, "IC triggers", str(triggers))
    _line(out, "unreadable", str(len(unreadable)))
    for text in unreadable[:_MOST_REASONS]:
        _line(out, "", text)


def _line(out: Console, what: str, text: str) -> None:
    out.print(f"{what:<12} {text}", soft_wrap=True, highlight=False, markup=False)


def _retag(options: argparse.Namespace, command: str) -> int:
    from attpc_filter.retag import Wishes, retag

    _interrupt_in_order()
    classes = None if options.classes is None else tuple(options.classes)
    wishes = Wishes(options.thresholds, options.purity, classes, options.head)
    done = retag(options.out, wishes, command)
    out = _console()
    table = Table("", *done.counts, box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for title, counts in (("before", done.counts_before), ("now", done.counts)):
        table.add_row(title, *(str(counts.get(tag, 0)) for tag in done.counts))
    thresholds = [done.thresholds.get(tag) for tag in done.counts]
    table.add_row("threshold", *("" if t is None else f"{t:.4f}" for t in thresholds))
    out.print(table)
    out.print(f"changed    {done.changed} of {sum(done.counts.values())} events", highlight=False)
    if (options.out / "summary.png").exists():
        from attpc_filter.pictures import draw_retagged

        _say_where(out, "picture", draw_retagged(options.out, done.counts, done.thresholds))
    return 0


def _compare(options: argparse.Namespace, _: str) -> int:
    from attpc_filter.compare import compare, write_flips

    compared = compare(options.a, options.b)
    out = _console()
    table = Table(f"{options.a} (down), {options.b} (across)", *compared.tags_b, box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for tag, row in zip(compared.tags_a, compared.matrix, strict=True):
        table.add_row(tag, *map(str, row))
    out.print(table, markup=False)
    n_events = int(compared.matrix.sum())
    share = compared.n_flipped / n_events
    out.print(f"flipped    {compared.n_flipped} of {n_events} events ({share:.2%})", markup=False)
    if compared.only_a or compared.only_b:
        out.print(f"unpaired   {compared.only_a} only in A, {compared.only_b} only in B")
    if options.csv is not None:
        write_flips(compared, options.csv)
        _say_where(out, "flips", options.csv)
    if options.png is not None:
        from attpc_filter.pictures import draw_compared

        draw_compared(compared, options.png)
        _say_where(out, "picture", options.png)
    return 0


def _tags(options: argparse.Namespace, _: str) -> int:
    from attpc_filter.formats.root.stream import friend_from_table, table_from_friend

    is_root = [path.suffix == ".root" for path in (options.source, options.target)]
    if is_root[0] == is_root[1]:
        raise UsageError("tags: one of the two files must end in .root, the other must not")
    (friend_from_table if is_root[1] else table_from_friend)(options.source, options.target)
    return 0


def _bench(options: argparse.Namespace, command: str) -> int:
    from attpc_filter.bench import bench, what_limits, write_csv
    from attpc_filter.progress import steps_table

    for name in ("events", "repeats"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: {getattr(options, name)} is less than 1")
    config = make_config(options.config, _given(options))
    errors = Console(stderr=True)
    with errors.status("") as status:

        def told(step: str) -> None:
            status.update(step)

        steps = bench(options.run, config, options.events, options.repeats, told)
    out = _console()
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
        _say_where(out, "numbers", options.csv)
    if options.png is not None:
        from attpc_filter.pictures import draw_steps

        draw_steps(steps, title, options.png)
        _say_where(out, "picture", options.png)
    return 0


def _models(options: argparse.Namespace, _: str) -> int:
    from attpc_filter.score.bundle import load_bundle, shipped_bundles

    out = _console()
    for name in options.model or shipped_bundles():
        bundle = load_bundle(name)
        contract = bundle.contract
        table = Table(title=f"{contract.name}: {contract.description}", title_justify="left")
        table.add_column("contract")
        table.add_column(f"version {contract.version}")
        table.add_row("file", f"{bundle.path} ({len(bundle.graph) / 1e6:.2f} MB)")
        table.add_row("sha256", bundle.sha256)
        for event_class in contract.classes:
            table.add_row(
                f"class {event_class.name}",
                f"PDG {event_class.pdg}, threshold {event_class.threshold:g}",
            )
        for part in ("projection", "points", "hits", "detector", "training", "versions"):
            value = getattr(contract, part)
            if value is None:
                continue
            entries = value if isinstance(value, dict) else asdict(value)
            for key, entry in entries.items():
                table.add_row(f"{part} {key}", str(entry))
        out.print(table, markup=False)
    return 0


def _config(_: argparse.Namespace, __: str) -> int:
    sys.stdout.write(example_yaml())
    return 0


if __name__ == "__main__":
    sys.exit(main())
