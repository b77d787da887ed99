"""Files damaged at random places: an error, a reason, or the right data; never a crash or a hang.

The raw samples are left alone: contiguous data have no checksums.
Metadata have checksums in HDF5's latest file format, and there nothing wrong may pass. In the
earliest, which the merger writes, they have none: an address or a name changed to another valid one
is one that no reader can tell from the truth. That may happen to one file in fifty at most.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests import miniatures
from tests.conftest import CAMPAIGN, environment
from tests.formats.damage_worker import outcome

#: Damaged files a layout and kind of damage.
N_FILES = 16


def small_events() -> list[miniatures.SimEvent]:
    """Few pads, so that much of a file is metadata; an IC trigger, an event without FRIB data."""
    return [
        miniatures.simulate(1, 8, trigger=miniatures.MESH_TRIGGER),
        miniatures.simulate(2, 10),
        miniatures.simulate(5, 8, trigger=miniatures.IC_TRIGGER, digitizer=False),
        miniatures.simulate(10, 10, trigger=miniatures.MESH_TRIGGER, digitizer=False),
        miniatures.simulate(11, 8),
    ]


def whole_file(layout: str, folder: Path, libver: str) -> tuple[bytes, list[range]]:
    """A run's bytes, and where its metadata lie: all that is not raw data of a dataset."""
    path = folder / f"{layout} {libver}.h5"
    miniatures.write_run(layout, path, small_events(), miniatures.Storage(libver=libver))
    content = path.read_bytes()
    raw: list[range] = []

    def visit(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            start = item.id.get_offset()
            raw.append(range(start, start + item.id.get_storage_size()))

    with h5py.File(path) as file:
        file.visititems(visit)
    metadata, at = [], 0
    for part in sorted(raw, key=lambda part: part.start):
        if part.start > at:
            metadata.append(range(at, part.start))
        at = max(at, part.stop)
    metadata.append(range(at, len(content)))
    return content, metadata


def truncated(content: bytes, _: list[range], chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def zeroed(content: bytes, metadata: list[range], chance: random.Random) -> bytes:
    """Up to 64 bytes of metadata zeroed, or set, or changed at random."""
    (part,) = chance.choices(metadata, weights=[len(part) for part in metadata])
    start = chance.choice(part)
    stop = min(start + chance.choice([1, 2, 8, 64]), part.stop)
    new = {
        "zero": bytes(stop - start),
        "set": b"\xff" * (stop - start),
        "random": chance.randbytes(stop - start),
    }[chance.choices(["zero", "set", "random"], [6, 1, 3])[0]]
    return content[:start] + new + content[stop:]


DAMAGES: dict[str, Callable[[bytes, list[range], random.Random], bytes]] = {
    "truncated": truncated,
    "metadata": zeroed,
}


def read_in_another_process(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """What comes of each file; a crash or a hang of the process is said by its absence."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.formats.damage_worker"],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        timeout=100 + 2 * len(paths),
        check=False,
        cwd=Path(__file__).parents[2],
        env=environment(),
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), f"{paths[len(lines)]}: {done.returncode}, {done.stderr}"
    yield from map(json.loads, lines)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("layout", list(miniatures.LAYOUTS))
def test_damaged_files(layout: str, libver: str, damage: str, tmp_path: Path) -> None:
    check_damaged_files(layout, libver, damage, N_FILES, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("layout", list(miniatures.LAYOUTS))
def test_many_damaged_files(layout: str, libver: str, damage: str, tmp_path: Path) -> None:
    check_damaged_files(layout, libver, damage, round(60 * CAMPAIGN), tmp_path)


def check_damaged_files(
    layout: str, libver: str, damage: str, n_files: int, tmp_path: Path
) -> None:
    content, metadata = whole_file(layout, tmp_path, libver)
    whole = tmp_path / "whole.h5"
    whole.write_bytes(content)
    truth = {record["event"]: record for record in outcome(str(whole))["records"]}
    assert sorted(truth) == [1, 2, 5, 10, 11]
    assert not any(record["reason"] for record in truth.values())
    paths = []
    for index in range(n_files):
        chance = random.Random(f"{layout} {libver} {damage} {index}")
        path = tmp_path / f"run_{index:04d}.h5"
        path.write_bytes(DAMAGES[damage](content, metadata, chance))
        paths.append(path)
    wrong, n_errors, n_reasons, n_missing = [], 0, 0, 0
    for came in read_in_another_process(paths):
        if "error" in came:
            n_errors += 1
            assert "\n" not in came["error"]
            assert came["path"] in came["error"]
            continue
        assert came["parts"] == came["records"]
        n_missing += len(truth) - len(came["records"])
        for record in came["records"]:
            if record["reason"]:
                n_reasons += 1
                assert "\n" not in record["reason"]
            elif record != truth.get(record["event"]):
                wrong.append((came["path"], record["event"]))
    if damage == "truncated":
        assert n_errors == n_files
        return
    # a few files may all be damaged where nothing is
    assert n_errors + n_reasons >= n_files // 20, "the damage was felt"
    undetectable = max(1, n_files // 50) if libver == "earliest" else 0
    assert len(wrong) <= undetectable, wrong
    assert n_missing <= undetectable
