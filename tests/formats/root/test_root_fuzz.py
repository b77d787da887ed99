"""Damaged ROOT files end in a clear error or in events that are reported; see root_fuzz.py."""

import pytest

from tests.conftest import CAMPAIGN
from tests.formats.root.root_fuzz import MOST_BYTES, PROTECTED, UNPROTECTED, fuzz
from tests.formats.root.root_truth import SHARED


def at_hand(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are there: users do not have the shared ones."""
    return tuple(
        n for n in names if (SHARED / f"{n}.root").exists() or not n.startswith(("raw_", "hits_"))
    )


def check_protected(n_files: int, seed: int) -> None:
    report = fuzz(n_files, seed, at_hand(PROTECTED))
    assert report["wrong"] == []
    assert report["peak_bytes"] < MOST_BYTES
    assert {came for counts in report["counts"].values() for came in counts} == {
        "error",
        "unreadable events",
        "as it was",
    }


def check_unprotected(n_files: int, seed: int) -> None:
    report = fuzz(n_files, seed, at_hand(UNPROTECTED))
    seen = {came for counts in report["counts"].values() for came in counts}
    assert not {came for came in seen if came.startswith(("CRASH", "UNCLEAR", "SPOILT"))}, report[
        "wrong"
    ]
    assert report["peak_bytes"] < MOST_BYTES


def test_damaged_files_give_an_error_or_unreadable_events_but_never_wrong_numbers() -> None:
    check_protected(77, 7)


def test_what_root_stores_without_checksum_neither_crashes_nor_hangs() -> None:
    check_unprotected(15, 8)


@pytest.mark.campaign
def test_many_damaged_files() -> None:
    check_protected(round(242 * CAMPAIGN), 5)


@pytest.mark.campaign
def test_many_files_without_checksum() -> None:
    check_unprotected(round(45 * CAMPAIGN), 6)
