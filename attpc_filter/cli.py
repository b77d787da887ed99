"""The command line: which commands there are, and how a command ends."""

import argparse
import importlib
import keyword
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn, cast

from attpc_filter import __version__
from attpc_filter.commands import Command
from attpc_filter.errors import AttpcFilterError, UsageError, debugging
from attpc_filter.terminal import forgive_terminal
from attpc_filter.texts import shown

#: Each command's word and help. The module ``attpc_filter.commands.WORD``, with ``_`` for ``-``,
#: holds the rest; it is imported only if the command is called, so that ``--help`` is quick.
COMMANDS = {
    "run": "read, rebuild, score and tag run files; write tags and streams",
    "plan": "list the parts of many runs, for many processes or a cluster",
    "join": "join parts into the tables, streams and books of one run",
    "slurm": "scripts that do the parts on a cluster with Slurm, and join them",
    "status": "how far an output folder is: parts or runs done, running, failed",
    "inspect": "what kind of file, which events, sizes; a picture of an event",
    "retag": "new thresholds: tags anew from the stored scores, without the raw data",
    "compare": "two taggings of the same events: which flipped, and their scores",
    "trust": "purity and efficiency on these runs, from a random sample that you label",
    "tags": "a tag table as a ROOT friend tree, or the reverse",
    "bench": "how fast a run is filtered here, step by step, and what limits it",
    "models": "the bundles at hand and their contracts",
    "detectors": "the detectors that ship",
    "detector": "a detector file to begin with; what is wrong with one",
    "import": "clouds of another program's, as text or .npy, made a run",
    "config": "write a commented example of a configuration",
    "warm-up": "compile all kernels now, for an image or a cluster",
}
#: Other distributions add commands under this name, see :mod:`attpc_filter.commands`.
ENTRY_POINTS = "attpc_filter.commands"


class _Parser(argparse.ArgumentParser):
    """Reports its errors as all others are reported: one line, exit code 2."""

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
    if arguments is None:
        forgive_terminal()
    try:
        word = next((text for text in given if not text.startswith("-")), "")
        command = _load(word)
        options = _parser(word, command).parse_args(given)
        line = shlex.join(["attpc-filter", *given])
        _start_log(options, line)
        assert command is not None  # the parser refuses a line without a command
        if arguments is None and getattr(command, "USES_KERNELS", False):  # a process of our own
            from attpc_filter.execute.memory import leave_out_numba_extensions

            leave_out_numba_extensions()
        return command.act(options, line)
    except AttpcFilterError as error:
        if debugging():
            raise
        _complain(str(error))
        return 2
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        _complain("no ONNX Runtime here; pip install 'attpc-filter[cpu]' (or [gpu])")
        return 2
    except KeyboardInterrupt:
        from attpc_filter.commands.console import ignore_interrupts

        ignore_interrupts()
        _complain("interrupted; runs that were complete are kept")
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _start_log(options: argparse.Namespace, line: str) -> None:
    if verbosity := options.verbosity_before + options.verbosity_after:
        from attpc_filter.log import log_program, log_to_stderr

        log_to_stderr(verbosity)
        log_program(line)


def _complain(text: str) -> None:
    print(f"attpc-filter: {shown(text)}", file=sys.stderr)


def _load(word: str) -> Command | None:
    """The module of a command; None if there is no such command."""
    if word in COMMANDS:
        module = f"{word}_" if keyword.iskeyword(word) else word.replace("-", "_")
        return cast(Command, importlib.import_module(f"attpc_filter.commands.{module}"))
    point = _installed().get(word) if word else None
    if point is None:
        return None
    try:
        return cast(Command, point.load())
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{word}: from {_origin(point)}, cannot be loaded: {error}") from error


def _installed() -> dict[str, EntryPoint]:
    """The commands that other distributions add, by their words; ours win."""
    points = entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in points if point.name not in COMMANDS}


def _parser(word: str, command: Command | None) -> argparse.ArgumentParser:
    """The parser; of the commands' arguments it knows those of ``command``."""
    parser = _Parser(prog="attpc-filter", description="Tag AT-TPC events before anyone fits them.")
    parser.add_argument("--version", action="version", version=f"attpc-filter {__version__}")
    _add_verbosity(parser, "verbosity_before")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in _words(word).items():
        added = commands.add_parser(name, help=text)
        _add_verbosity(added, "verbosity_after")
        if name == word and command is not None:
            command.add_arguments(added)
    return parser


def _add_verbosity(parser: argparse.ArgumentParser, name: str) -> None:
    """Add ``-v``, before or after the command's word."""
    text = "log to stderr: versions, device, formats, runs; -vv: batches, causes of errors"
    parser.add_argument("-v", dest=name, action="count", default=0, help=text)


def _words(word: str) -> dict[str, str]:
    """Each command's word and help. Looking for others' commands takes time: only if needed."""
    if word in COMMANDS:
        return COMMANDS
    others = {name: f"from the distribution {_origin(p)}" for name, p in _installed().items()}
    return COMMANDS | others


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


if __name__ == "__main__":
    sys.exit(main())
