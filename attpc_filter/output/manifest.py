"""The manifest: the result of each run of an output folder, and the files that belong to it.

``manifest.json`` is the books of an output folder. Versions:

1. Written without ``version``. Options, model and thresholds stand once for all runs.
2. ``version``. Each run says what it was made of (``made_of``, and ``key``, a SHA-256 of it), with
   which thresholds (``thresholds``) and how its streams hold their events (``mode``), so that runs
   of several calls can lie in one folder; ``last_error`` if it was to be filtered again and that
   failed. ``fingerprint`` has the path and a SHA-256 over samples of the whole file in place of
   ``sha256_first_and_last_mib``. ``pictures`` lists the pictures.
"""

import contextlib
import importlib.metadata
import json
import platform
import types
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from attpc_filter import __version__
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.execute.memory import peak_memory_bytes
from attpc_filter.output.journal import is_inside
from attpc_filter.tag import PASSTHROUGH, UNREADABLE

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 2
#: Picture of a job, which ``attpc-filter run`` and ``retag`` draw.
SUMMARY_NAME = "summary.png"
_T = TypeVar("_T")


@dataclass(slots=True)
class RunOutcome:
    """The result of one run; an entry of the manifest.

    ``counts`` has the events of each tag, ``streams`` path and events of each stream file;
    ``error`` is the one line that says why the run failed, and nothing was written then.
    """

    input: str
    run: int = 0
    format: str = ""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    n_events: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    mode: str = ""
    notes: list[str] = field(default_factory=list)
    tag_table: str = ""
    hit_store: str = ""
    latents: str = ""
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    books_balance: bool = False
    seconds: float = 0.0
    events_per_s: float = 0.0
    mb_per_s: float = 0.0
    error: str = ""
    last_error: str = ""
    made_of: dict[str, str] = field(default_factory=dict)
    key: str = ""

    @property
    def stem(self) -> str:
        """The name that the run's files have, without their ending."""
        return Path(self.input).stem

    @property
    def is_all_unreadable(self) -> bool:
        """Whether not a single event could be read: its files are written, the job ends with 2."""
        return 0 < self.n_events == self.counts.get(UNREADABLE, 0)

    @property
    def files(self) -> list[str]:
        """Paths of the run's files in the output folder."""
        streams = [str(stream["path"]) for stream in self.streams.values()]
        return [p for p in (self.tag_table, self.hit_store, self.latents, *streams) if p]


@dataclass(slots=True)
class Manifest:
    """The books of an output folder.

    What stands beside ``runs`` and ``history`` is of the last call of ``attpc-filter run``;
    ``exit_status`` is None while runs are still to come. ``thresholds`` are those in effect: of the
    last call of ``run`` or ``retag``. ``history`` has an entry for each ``retag``.
    """

    version: int = MANIFEST_VERSION
    command: str = ""
    started: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    executor: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    finished: str = ""
    exit_status: int | None = None
    n_events: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    pictures: list[str] = field(default_factory=list)
    runs: list[RunOutcome] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def run_of(self, stem: str) -> RunOutcome | None:
        """The entry of the run whose files have this name."""
        return next((entry for entry in self.runs if entry.stem == stem), None)

    def put(self, entry: RunOutcome) -> None:
        """Enter a run, in place of the entry that it had."""
        for index, former in enumerate(self.runs):
            if former.stem == entry.stem:
                self.runs[index] = entry
                return
        self.runs.append(entry)

    def own_files(self) -> set[str]:
        """Paths in the folder of all files that are the folder's own."""
        of_runs = [path for entry in self.runs for path in entry.files]
        return {MANIFEST_NAME, *self.pictures, *of_runs}

    def to_json(self) -> str:
        """The manifest's text, with the sums over all runs as they are now."""
        self.version = MANIFEST_VERSION
        self.finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.peak_memory_bytes = peak_memory_bytes()
        complete = [entry for entry in self.runs if not entry.error]
        self.n_events = sum(entry.n_events for entry in complete)
        self.counts = dict(sum_counts(complete))
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a manifest's text.

        Raises
        ------
        ValueError
            If it is none, or of a later version; the text says what is wrong.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
            raise ValueError("no list of runs in it")
        version = content.get("version", 1)
        if version not in (1, MANIFEST_VERSION):
            raise ValueError(f"version {version}, this attpc-filter reads 1 and {MANIFEST_VERSION}")
        content["runs"] = [_build(RunOutcome, entry, "runs: ") for entry in content["runs"]]
        manifest = _build(cls, content, "")
        if version == 1:
            _fill_in(manifest)
        if outside := sorted(path for path in manifest.own_files() if not is_inside(path)):
            raise ValueError(f"the path {outside[0]!r} leads out of its folder")
        return manifest


def _fill_in(manifest: Manifest) -> None:
    """What version 1 said once for all runs, said of each."""
    history = manifest.history
    thresholds = history[0]["thresholds_before"] if history else manifest.thresholds
    for entry in manifest.runs:
        entry.thresholds = dict(thresholds)
        entry.mode = str(manifest.config.get("streams", ""))
    manifest.pictures = [SUMMARY_NAME]


def _build(kind: type[_T], content: Any, place: str) -> _T:
    """A dataclass from a JSON object; ValueError names the entry that is wrong."""
    if not isinstance(content, dict):
        raise ValueError(f"{place}{content!r:.40} is no table")
    hints = get_type_hints(kind)
    for name, value in content.items():
        if name not in hints:
            raise ValueError(f"{place}unknown entry {name!r}")
        if not _is_a(value, hints[name]):
            raise ValueError(f"{place}{name}: {value!r:.40} is not of type {hints[name]}")
    needed = [f.name for f in fields(kind) if f.name == "input"]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in content]:
        raise ValueError(f"{place}no entry {missing[0]!r}")
    return kind(**content)


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of the type of a field."""
    if kind is Any:
        return True
    origin, parts = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return any(_is_a(value, part) for part in parts)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(item, parts[1]) for item in value.values())
    if origin is list:
        return isinstance(value, list) and all(_is_a(item, parts[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def read_manifest(out: Path) -> Manifest:
    """Read the manifest of an output folder.

    Raises
    ------
    UsageError
        If the folder is no output of ``attpc-filter run``.
    """
    path = out / MANIFEST_NAME
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; give an output folder of attpc-filter run"
        ) from error
    except (ValueError, KeyError, RecursionError) as error:
        raise UsageError(f"{path}: not a manifest of attpc-filter: {error}") from error


def sum_counts(entries: Iterable[RunOutcome]) -> Counter[str]:
    """Events by tag of all runs together."""
    totals: Counter[str] = Counter()
    for entry in entries:
        totals.update(entry.counts)
    return totals


def package_versions() -> dict[str, str]:
    """Look up the versions of what makes the results."""
    packages = ["numpy", "h5py", "numba", "pyarrow", "onnxruntime", "onnxruntime-gpu"]
    versions = {"attpc-filter": __version__, "python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def balance(outcome: RunOutcome, classes: list[str], n_rows: int) -> None:
    """Check that every event read is in the tag table once, and in the stream of its tag.

    Raises
    ------
    OutputError
        If the books do not balance.
    """
    counts, passthrough = outcome.counts, outcome.counts[PASSTHROUGH]
    problems = []
    if not outcome.n_events == n_rows == sum(counts.values()):
        problems.append(f"{outcome.n_events} events, {n_rows} rows, {sum(counts.values())} tags")
    for name, stream in outcome.streams.items():
        expected = counts[name] + (passthrough if name in classes else 0)
        if stream["events"] != expected:
            problems.append(f"stream {name}: {stream['events']} events, {expected} tags")
    if problems:
        raise OutputError(f"{outcome.input}: the books do not balance: {'; '.join(problems)}")
    outcome.books_balance = True
