"""The labels database: nothing is lost, undo and corrections stay visible."""

import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")

from attpc_filter_web.store import Answer, Context, Store
from attpc_filter_web.tables import decide, merge, to_csv

from attpc_filter.errors import UsageError

CONTEXT = Context("counter", "ab" * 32, "AT-TPC", "cd" * 32, ("proton", "noise"))


def answer(
    labeller: str, event: int, label: str, round_: str = "first", fingerprint: str = "f"
) -> Answer:
    return Answer(7, event, fingerprint, labeller, label, "", round_, "random", False, 1.5)  # type: ignore[arg-type]


def said(event: int, *labels: str) -> list[Answer]:
    """Answers of a, b, c, ... about an event."""
    return [answer(chr(ord("a") + index), event, label) for index, label in enumerate(labels)]


def fill(path: Path, *answers: Answer) -> Store:
    store = Store(path)
    context = store.context(CONTEXT)
    for each in answers:
        store.add(each, context)
    return store


def test_the_file_is_in_wal_mode_and_every_answer_is_synced(tmp_path: Path) -> None:
    store = fill(tmp_path / "l.sqlite")
    assert store._file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._file.execute("PRAGMA synchronous").fetchone() == (2,)


def test_undo_withdraws_and_keeps_the_row(tmp_path: Path) -> None:
    store = fill(tmp_path / "l.sqlite", answer("a", 1, "proton"), answer("b", 2, "noise"))
    undone = store.withdraw_last("a")
    assert undone is not None
    assert undone.event == 1
    assert [a.labeller for a in store.answers()] == ["b"]
    assert store.withdraw_last("a") is None
    with sqlite3.connect(tmp_path / "l.sqlite") as file:
        assert file.execute("SELECT count(*), count(withdrawn_at) FROM answers").fetchone() == (
            2,
            1,
        )
    file.close()


def test_an_answer_replaces_the_labellers_own_of_the_same_round_only(tmp_path: Path) -> None:
    store = fill(
        tmp_path / "l.sqlite",
        answer("a", 1, "proton"),
        answer("b", 1, "proton"),
        answer("a", 1, "noise", "repeat"),
        answer("a", 1, "noise"),
    )
    assert [(a.labeller, a.label, a.round) for a in store.answers()] == [
        ("b", "proton", "first"),
        ("a", "noise", "repeat"),
        ("a", "noise", "first"),
    ]


def test_another_sqlite_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE something (x)")
    file.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"other\.sqlite: a SQLite file of layout 0"):
        Store(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("run,event,label\n" * 100)
    with pytest.raises(UsageError, match="not a labels database"):
        Store(path)


def test_majority_settled_and_unsure(tmp_path: Path) -> None:
    store = fill(
        tmp_path / "l.sqlite",
        *said(1, "proton", "noise", "noise"),
        *said(2, "proton", "noise"),
        *said(3, "proton", "unsure"),
        *said(4, "unsure"),
        *said(5, "proton", "noise"),
        answer("c", 5, "proton", "settle"),
        answer("a", 1, "proton", "repeat"),
    )
    answers, contexts = merge([store])
    assert {row.event: row.label for row in decide(answers)} == {
        1: "noise",
        2: "",
        3: "proton",
        4: "",
        5: "proton",
    }
    assert {row.event: row.label for row in decide(answers, keep_unsure=True)} == {
        1: "noise",
        2: "",
        3: "",
        4: "unsure",
        5: "proton",
    }
    lines = to_csv(answers, contexts, by_labeller=True).splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert any("counter abababababababab" in line and "cdcdcd" in line for line in comments)
    table = lines[len(comments) :]
    assert table[0] == "run,event,label,by_a,by_b,by_c"
    assert table[1] == "7,1,noise,proton,noise,noise"
    assert table[4] == "7,4,,unsure,,"


def test_merged_databases_count_a_copied_answer_once(tmp_path: Path) -> None:
    first = fill(tmp_path / "a.sqlite", answer("a", 1, "proton"))
    first._file.execute("VACUUM INTO ?", (str(tmp_path / "copy.sqlite"),))
    copy = fill(tmp_path / "copy.sqlite", answer("b", 1, "noise"), answer("b", 2, "noise"))
    answers, contexts = merge([first, copy])
    assert sorted((a.labeller, a.event) for a in answers) == [("a", 1), ("b", 1), ("b", 2)]
    assert contexts == [CONTEXT]


def test_databases_of_different_events_are_not_merged(tmp_path: Path) -> None:
    first = fill(tmp_path / "a.sqlite", answer("a", 1, "proton"))
    other = fill(tmp_path / "b.sqlite", answer("b", 1, "noise", fingerprint="other"))
    with pytest.raises(UsageError, match=r"run 7 event 1 has other hits"):
        merge([first, other])
