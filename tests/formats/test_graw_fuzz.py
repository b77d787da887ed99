"""Damaged GET files end in a clear error or in events that are reported; see graw_fuzz.py."""

import pytest

from tests.conftest import CAMPAIGN
from tests.formats.graw_fuzz import fuzz


def check(n_files: int, seed: int) -> None:
    report = fuzz(n_files, seed)
    assert report["wrong"] == []
    assert set(report["counts"]) == {"error", "unreadable events", "other samples", "as it was"}


def test_damaged_files_never_give_wrong_numbers() -> None:
    check(150, 3)


@pytest.mark.campaign
def test_many_damaged_files() -> None:
    check(round(6000 * CAMPAIGN), 5)
