"""The exported table is one that attpc-export reads."""

from pathlib import Path

import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")
pytest.importorskip("attpc_export", reason="needs export")

from attpc_export.data.labelled import UNLABELLED, read_labels
from attpc_filter_web.tables import merge, to_csv

from attpc_filter.errors import UsageError
from tests.plugins.web.test_store import answer, fill, said


def test_attpc_export_reads_the_table(tmp_path: Path) -> None:
    store = fill(
        tmp_path / "l.sqlite", *said(3, "proton", "proton", "noise"), answer("a", 4, "noise")
    )
    path = tmp_path / "labels.csv"
    for by_labeller in (False, True):
        path.write_text(to_csv(*merge([store]), by_labeller=by_labeller))
        assert path.read_text().startswith("# labellers: 3, answers: 4")
        table = read_labels([path], ["noise", "proton"], "")
        assert {key: row.label for key, row in table.items()} == {(7, 3): 1, (7, 4): 0}


def test_events_without_a_decided_label_are_unlabelled(tmp_path: Path) -> None:
    store = fill(tmp_path / "l.sqlite", *said(3, "proton", "noise"))
    path = tmp_path / "labels.csv"
    path.write_text(to_csv(*merge([store]), by_labeller=True))
    (label,) = read_labels([path], ["noise", "proton"], "").values()
    assert label.label == UNLABELLED


def test_errors_name_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("# one\n# two\nrun,event,label\n7,1,proton\n7,2,deuteron\n")
    with pytest.raises(UsageError, match=r"labels\.csv: line 5: label 'deuteron'"):
        read_labels([path], ["noise", "proton"], "")
