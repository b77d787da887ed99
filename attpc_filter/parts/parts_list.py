"""The list of parts: which shares of which runs there are to filter, and of what they are made.

``parts/parts.json`` in the output folder, version 1: ``command`` (that wrote it),
``config`` (the options), ``model_sha256``, ``detector_sha256``, ``runs`` (``path`` and
``fingerprint`` of each; ``error``, one line, if it cannot be filtered), ``parts`` (``run``, an
index of ``runs``; ``share`` and ``of``: the part is share number ``share``, from 0, of ``of`` equal
shares of the run's batches; ``n_bytes``, about so much of the file; ``key``, a SHA-256 of all that
decides its result).

The list names shares and not event numbers: to count the events of a run, it has to be opened, and
a thousand runs on a slow disk take long to open.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py

from attpc_filter.config import Config, make_config
from attpc_filter.errors import InputError, UsageError
from attpc_filter.formats.graw_files import one_path_a_run
from attpc_filter.formats.run import Events
from attpc_filter.output.folder import check_folder
from attpc_filter.output.inputs import check_inputs, fingerprint
from attpc_filter.output.resume import made_of
from attpc_filter.output.staging import write_json
from attpc_filter.tagging.plan import Plan, make_plan
from attpc_filter.tagging.stages import BATCH_EVENTS

#: Folder of all that belongs to parts, in the output folder.
PARTS_NAME = "parts"
LIST_NAME = "parts.json"
LIST_VERSION = 1
#: Version of what a part's result holds: it is part of each key.
RESULT_VERSION = 1
#: Fingerprints taken at the same time: a slow disk answers several requests at once.
_READERS = 8


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run of the list.

    Attributes
    ----------
    path : str
        Its file, absolute.
    fingerprint : dict
        See :func:`attpc_filter.output.inputs.fingerprint`; empty if there is an ``error``.
    error : str
        Why it cannot be filtered, one line; it has no parts then.
    """

    path: str
    fingerprint: dict[str, Any]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A share of a run; see the module."""

    run: int
    share: int
    of: int
    n_bytes: int
    key: str

    def events(self, events: Events) -> Events:
        """Its events, of all those of its run. Batches of the model are never cut.

        Each event is then scored in the batch in which it would be in an undivided run: scores are
        the same to the last bit.
        """
        n_batches = -(-len(events) // BATCH_EVENTS)
        first = n_batches * self.share // self.of
        last = n_batches * (self.share + 1) // self.of
        return events[first * BATCH_EVENTS : last * BATCH_EVENTS]


@dataclass(frozen=True, slots=True)
class PartsList:
    """The list of parts of an output folder; see the module."""

    command: str
    config: dict[str, Any]
    model_sha256: str
    detector_sha256: str
    runs: list[ListedRun]
    parts: list[Part]
    version: int = LIST_VERSION

    def make_config(self) -> Config:
        """The options."""
        return make_config(None, self.config)

    def make_plan(self, config: Config) -> Plan:
        """Load the model and the detector.

        Raises
        ------
        UsageError
            If they cannot be loaded, or are others than when the list was written.
        """
        plan = make_plan(config)
        self.require_same(plan)
        return plan

    def require_same(self, plan: Plan) -> None:
        """Refuse a plan whose model or detector is another one than when the list was written.

        Raises
        ------
        UsageError
            If it is.
        """
        for what, now, then in (
            (f"model {plan.bundle.path}", plan.bundle.sha256, self.model_sha256),
            (f"detector {plan.detector.name}", plan.detector.sha256, self.detector_sha256),
        ):
            if now != then:
                raise UsageError(f"{what}: changed since the parts were listed; {self.again}")

    @property
    def again(self) -> str:
        """What to do if something has changed since the list was written."""
        return f"list them again: {self.command}"

    def parts_of(self, run: int) -> list[int]:
        """Numbers of the parts of a run, in the order of its events."""
        return [number for number, part in enumerate(self.parts) if part.run == run]

    def path_of(self, part: Part) -> Path:
        """The run file of a part."""
        return Path(self.runs[part.run].path)

    def title(self, number: int) -> str:
        """What a part is, in words."""
        part = self.parts[number]
        return f"{self.path_of(part).name}, part {part.share + 1} of {part.of}"


def parts_folder(out: Path) -> Path:
    """The folder of all that belongs to parts."""
    return out / PARTS_NAME


def part_folder(out: Path, parts: PartsList, number: int) -> Path:
    """The folder of one part: its result, or why there is none."""
    part = parts.parts[number]
    stem = parts.path_of(part).stem
    return parts_folder(out) / f"{stem}.{part.share + 1}-of-{part.of}"


def write_parts_list(
    paths: Sequence[Path], out: Path, config: Config, part_size: int, command: str
) -> PartsList:
    """Write the list of the parts of runs.

    Parameters
    ----------
    paths : sequence of Path
        Run files.
    out : Path
        Output folder.
    config : Config
        Options.
    part_size : int
        Most of a run file that one part takes [bytes].
    command : str
        The command line that writes the list again.

    Raises
    ------
    UsageError
        If the options do not fit each other, or no input can be opened.
    OutputError
        If the list cannot be written.
    """
    check_folder(out)
    paths = [path.absolute() for path in one_path_a_run(paths)]
    _, bad = check_inputs(paths, out, config.root_options)
    if len(bad) == len(set(paths)):
        raise UsageError(next(iter(bad.values())))
    config = replace(config, model=_absolute(config.model), detector=_absolute(config.detector))
    plan = make_plan(config)

    def look(path: Path) -> ListedRun:
        try:
            found = {} if path in bad else fingerprint(path)
        except InputError as error:
            return ListedRun(str(path), {}, str(error))
        return ListedRun(str(path), found, bad.get(path, ""))

    with ThreadPoolExecutor(_READERS) as pool:
        runs = list(pool.map(look, paths))
    listed = [
        part
        for index, run in enumerate(runs)
        if not run.error
        for part in _divide(index, run, out, plan, part_size)
    ]
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    parts = PartsList(command, options, plan.bundle.sha256, plan.detector.sha256, runs, listed)
    write_json(parts_folder(out) / LIST_NAME, asdict(parts))
    return parts


def read_parts_list(out: Path) -> PartsList:
    """Read the list of parts of an output folder.

    Raises
    ------
    UsageError
        If there is none, or it cannot be read.
    """
    path = parts_folder(out) / LIST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != LIST_VERSION:
            raise ValueError(f"version {content['version']}, this program reads {LIST_VERSION}")
        content["runs"] = [ListedRun(**run) for run in content["runs"]]
        content["parts"] = [Part(**part) for part in content["parts"]]
        return PartsList(**content)
    except FileNotFoundError:
        raise UsageError(
            f"{out}: no list of parts; write one: attpc-filter plan RUN_FILE ... --out {out}"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: not a list of parts: {error}") from error


def key_of_part(run: Path, made: dict[str, str], share: int, of: int) -> str:
    """SHA-256 of all that decides the result of a part.

    Parameters
    ----------
    run : Path
        The run's file.
    made : dict of str to str
        What the run's outputs are made of, see :func:`attpc_filter.output.resume.made_of`.
    share, of : int
        Which share of the run.
    """
    of_part = {name: text for name, text in made.items() if name != "place of the input"}
    if of_part["streams"] != "copy" or h5py.is_hdf5(run):  # else the streams take hits
        del of_part["streams"]
    text = json.dumps([RESULT_VERSION, BATCH_EVENTS, of_part, share, of], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _divide(index: int, run: ListedRun, out: Path, plan: Plan, part_size: int) -> list[Part]:
    path, size = Path(run.path), run.fingerprint["bytes"]
    of = max(1, -(-size // part_size))
    made = made_of(path, out, run.fingerprint, plan)
    return [Part(index, i, of, size // of, key_of_part(path, made, i, of)) for i in range(of)]


def _absolute(name: str) -> str:
    """The absolute path if this is a file; else the name of something that ships."""
    return str(Path(name).absolute()) if name and Path(name).is_file() else name
