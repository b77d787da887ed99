"""The labels database: every answer of every labeller, in one SQLite file.

Layout of version 1 (``PRAGMA user_version``):

``contexts``: with which model, detector and classes answers were given. ``answers``: a row an
answer; none is ever changed but for ``withdrawn_at``, so undo and corrections stay visible.
``sample``: the events of the trust sample with the tag that each was drawn from.

The file is in WAL mode with ``synchronous=FULL``: an answer is on the disk before
:meth:`Store.add` returns. WAL needs all processes on one machine; do not open the file from two
machines at once.
"""

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from attpc_filter import UsageError

#: Version of the layout.
STORE_VERSION = 1
#: Label of an event that the labeller cannot decide.
UNSURE = "unsure"

#: Why an event was shown: for the first time, once more to see whether the answer is the same, or
#: to settle a disagreement.
Round = Literal["first", "repeat", "settle"]

_TABLES = """
CREATE TABLE IF NOT EXISTS contexts (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, model_sha256 TEXT NOT NULL,
    detector TEXT NOT NULL, detector_sha256 TEXT NOT NULL, classes TEXT NOT NULL,
    made_at TEXT NOT NULL,
    UNIQUE (model, model_sha256, detector, detector_sha256, classes));
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
    run INTEGER NOT NULL, event INTEGER NOT NULL, fingerprint TEXT NOT NULL,
    labeller TEXT NOT NULL, label TEXT NOT NULL, note TEXT NOT NULL,
    round TEXT NOT NULL, policy TEXT NOT NULL, scores_shown INTEGER NOT NULL,
    seconds REAL NOT NULL, answered_at TEXT NOT NULL, withdrawn_at TEXT,
    context INTEGER NOT NULL REFERENCES contexts (id));
CREATE INDEX IF NOT EXISTS answers_by_labeller ON answers (labeller, id);
CREATE TABLE IF NOT EXISTS sample (
    run INTEGER NOT NULL, event INTEGER NOT NULL, tag TEXT NOT NULL, place INTEGER NOT NULL,
    PRIMARY KEY (run, event));
"""


@dataclass(frozen=True, slots=True)
class Context:
    """What the answers of a session were given with.

    Attributes
    ----------
    model, model_sha256 : str
        Name and SHA-256 of the bundle whose hits and scores are shown.
    detector, detector_sha256 : str
        Name and SHA-256 of the detector.
    classes : tuple of str
        Labels that could be given, besides ``unsure``.
    """

    model: str
    model_sha256: str
    detector: str
    detector_sha256: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a labeller about an event.

    Attributes
    ----------
    run, event : int
        Run and event number.
    fingerprint : str
        Of the hits that were shown.
    labeller, label, note : str
        Who said what.
    round : {"first", "repeat", "settle"}
        Why the event was shown.
    policy : str
        How the event was chosen.
    scores_shown : bool
        The model's scores were in sight.
    seconds : float
        From the event's appearance to the answer.
    answered_at : str
        Time (UTC).
    uuid : str
        Tells one answer from another, in all databases.
    """

    run: int
    event: int
    fingerprint: str
    labeller: str
    label: str
    note: str
    round: Round
    policy: str
    scores_shown: bool
    seconds: float
    answered_at: str = ""
    uuid: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """Run and event number."""
        return self.run, self.event


_NAMES = tuple(f.name for f in fields(Answer))
_COLUMNS = ", ".join(_NAMES)


class Store:
    """An open labels database.

    Parameters
    ----------
    path : Path
        The SQLite file; made if it does not exist.
    create : bool
        Pass False to refuse a file that does not exist.

    Raises
    ------
    UsageError
        If the file cannot be opened, or is not a labels database of this version.
    """

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        self._lock = threading.Lock()
        if not create and not path.exists():
            raise UsageError(f"{path}: no such labels database")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=10, check_same_thread=False)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise UsageError(
                f"{path}: not a labels database that can be used: {error}; give another file"
            ) from error

    def _prepare(self) -> None:
        version = self._file.execute("PRAGMA user_version").fetchone()[0]
        others = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version not in (0, STORE_VERSION) or (version == 0 and others):
            self._file.close()
            raise UsageError(
                f"{self.path}: a SQLite file of layout {version}, not a labels database of layout"
                f" {STORE_VERSION}; give another file"
            )
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=FULL")
        with self._file:
            self._file.executescript(_TABLES)
            self._file.execute(f"PRAGMA user_version={STORE_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def context(self, context: Context) -> int:
        """Number of a context in this file; it is added if it is new."""
        row = (*astuple(context)[:-1], json.dumps(context.classes))
        with self._lock, self._file:
            self._file.execute(
                "INSERT OR IGNORE INTO contexts"
                " (model, model_sha256, detector, detector_sha256, classes, made_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*row, _now()),
            )
            found = self._file.execute(
                "SELECT id FROM contexts WHERE model = ? AND model_sha256 = ? AND detector = ?"
                " AND detector_sha256 = ? AND classes = ?",
                row,
            ).fetchone()
        return int(found[0])

    def contexts(self) -> list[Context]:
        """All contexts that answers were given in."""
        with self._lock:
            rows = self._file.execute(
                "SELECT model, model_sha256, detector, detector_sha256, classes FROM contexts"
                " WHERE id IN (SELECT context FROM answers WHERE withdrawn_at IS NULL) ORDER BY id"
            ).fetchall()
        return [
            Context(model, sha256, detector, detector_sha256, tuple(json.loads(classes)))
            for model, sha256, detector, detector_sha256, classes in rows
        ]

    def add(self, answer: Answer, context: int) -> Answer:
        """Write an answer to the disk.

        An answer of the same labeller about the same event in the same round is withdrawn by it.

        Parameters
        ----------
        answer : Answer
            The answer; it gets a time and a uuid here if it has none.
        context : int
            From :meth:`context`.

        Returns
        -------
        Answer
            As it was written.
        """
        entries = asdict(answer)
        entries["answered_at"] = answer.answered_at or _now()
        entries["uuid"] = answer.uuid or uuid.uuid4().hex
        written = Answer(**entries)
        marks = ", ".join("?" * (len(entries) + 1))
        with self._lock, self._file:
            self._file.execute(
                "UPDATE answers SET withdrawn_at = ? WHERE run = ? AND event = ? AND labeller = ?"
                " AND round = ? AND withdrawn_at IS NULL",
                (_now(), *answer.key, answer.labeller, answer.round),
            )
            self._file.execute(
                f"INSERT INTO answers ({_COLUMNS}, context) VALUES ({marks})",
                (*astuple(written), context),
            )
        return written

    def withdraw_last(self, labeller: str) -> Answer | None:
        """Withdraw the labeller's last answer; gives that answer, None if there is none."""
        with self._lock, self._file:
            row = self._file.execute(
                f"SELECT id, {_COLUMNS} FROM answers WHERE labeller = ? AND withdrawn_at IS NULL"
                " ORDER BY id DESC LIMIT 1",
                (labeller,),
            ).fetchone()
            if row is not None:
                self._file.execute(
                    "UPDATE answers SET withdrawn_at = ? WHERE id = ?", (_now(), row[0])
                )
        return None if row is None else _answer(row[1:])

    def answers(self, labeller: str | None = None) -> list[Answer]:
        """All answers that were not withdrawn, in the order in which they were given."""
        where = "" if labeller is None else " AND labeller = ?"
        with self._lock:
            rows = self._file.execute(
                f"SELECT {_COLUMNS} FROM answers WHERE withdrawn_at IS NULL{where} ORDER BY id",
                () if labeller is None else (labeller,),
            ).fetchall()
        return [_answer(row) for row in rows]

    def count(self) -> int:
        """Number of answers that were not withdrawn."""
        with self._lock:
            row = self._file.execute(
                "SELECT count(*) FROM answers WHERE withdrawn_at IS NULL"
            ).fetchone()
        return int(row[0])

    def labellers(self) -> list[str]:
        """Names of all labellers."""
        with self._lock:
            rows = self._file.execute(
                "SELECT DISTINCT labeller FROM answers WHERE withdrawn_at IS NULL ORDER BY labeller"
            ).fetchall()
        return [row[0] for row in rows]

    def set_sample(self, rows: Iterable[tuple[int, int, str]]) -> None:
        """Replace the trust sample: run, event and tag of each event, in the order to show."""
        with self._lock, self._file:
            self._file.execute("DELETE FROM sample")
            self._file.executemany(
                "INSERT INTO sample (run, event, tag, place) VALUES (?, ?, ?, ?)",
                [(*row, place) for place, row in enumerate(rows)],
            )

    def sample(self) -> list[tuple[int, int, str]]:
        """The trust sample: run, event and the tag that the event was drawn from."""
        with self._lock:
            rows = self._file.execute(
                "SELECT run, event, tag FROM sample ORDER BY place"
            ).fetchall()
        return [(int(run), int(event), str(tag)) for run, event, tag in rows]


def _answer(row: tuple[Any, ...]) -> Answer:
    entries = dict(zip(_NAMES, row, strict=True))
    return Answer(**entries | {"scores_shown": bool(entries["scores_shown"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
