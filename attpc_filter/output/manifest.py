"""The books: what became of each run, and the manifest that says so."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attpc_filter import __version__
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.execute.memory import peak_memory_bytes
from attpc_filter.output.staging import write_json
from attpc_filter.tag import PASSTHROUGH

MANIFEST_NAME = "manifest.json"


@dataclass(slots=True)
class RunOutcome:
    """What became of one run; an entry of the manifest.

    ``counts`` has the events of each tag, ``streams`` the events of each stream file; ``error`` is
    the one line that says why the run failed, and nothing was written then.
    """

    input: str
    run: int = 0
    format: str = ""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    n_events: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    tag_table: str = ""
    hit_store: str = ""
    latents: str = ""
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    books_balance: bool = False
    seconds: float = 0.0
    events_per_s: float = 0.0
    mb_per_s: float = 0.0
    error: str = ""


def package_versions() -> dict[str, str]:
    """Look up the versions of what makes the results."""
    packages = ["numpy", "h5py", "numba", "pyarrow", "onnxruntime", "onnxruntime-gpu"]
    versions = {"attpc-filter": __version__, "python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def write_manifest(
    path: Path, description: dict[str, Any], outcomes: list[RunOutcome], status: int | None
) -> None:
    """Write the manifest; ``status`` is None while runs are still to come."""
    totals: Counter[str] = Counter()
    for outcome in outcomes:
        totals.update(outcome.counts)
    write_json(
        path,
        description
        | {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "exit_status": status,
            "n_events": sum(outcome.n_events for outcome in outcomes if not outcome.error),
            "counts": dict(totals),
            "peak_memory_bytes": peak_memory_bytes(),
            "runs": [asdict(outcome) for outcome in outcomes],
        },
    )


def read_manifest(out: Path) -> dict[str, Any]:
    """Read the manifest of an output folder.

    Raises
    ------
    UsageError
        If the folder is no output of ``attpc-filter run``.
    """
    path = out / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or "runs" not in manifest:
            raise ValueError("no list of runs in it")
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; give an output folder of attpc-filter run"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: not a manifest of attpc-filter: {error}") from error
    return manifest


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


def fingerprint(path: Path) -> dict[str, Any]:
    """Take size, time and a SHA-256 of the first and last MiB: quick for any size of run."""
    stat = path.stat()
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, stat.st_size - (1 << 20)))
        digest.update(file.read(1 << 20))
    return {
        "bytes": stat.st_size,
        "modified": datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds"),
        "sha256_first_and_last_mib": digest.hexdigest(),
    }
