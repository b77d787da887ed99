"""Numbers wider than their place, and small files that stand for much."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import StreamMode
from attpc_filter.records import Record
from tests import miniatures


@pytest.mark.parametrize("kind", ["i1", "u1", "<u8", ">i4", "f8", "S5"])
def test_the_event_range_of_any_type(kind: str, tmp_path: Path) -> None:
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        events = file["events"]
        events.move("event_4", "event_1000")
        for name in ("min_event", "max_event"):
            del events.attrs[name]
            events.attrs.create(name, 3, dtype=kind)
    with open_run(path) as run:
        stream = run.create_stream(tmp_path / "out.h5", "link", "proton")
        for event in run.events:
            stream.add(Record(*event))
        stream.close()
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["events"].attrs["max_event"] == 1001
        assert file["events"].attrs["min_event"] == 3


def test_an_event_beyond_63_bits(tmp_path: Path) -> None:
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        file["events"].move("event_4", f"event_{2**63}")
    with pytest.raises(InputError, match=rf"{path}: event_{2**63}: .* 2\^63 - 1"):
        open_run(path)


def _copy_all(path: Path, target: Path) -> None:
    with open_run(path) as run:
        stream = run.create_stream(target, "copy", "proton")
        try:
            for event in run.events:
                stream.add(Record(*event))
            stream.close()
        except BaseException:
            stream.abort()
            raise


@pytest.mark.parametrize("options", [{}, {"chunks": (1 << 20,), "compression": "gzip"}])
def test_a_table_of_nothing_is_not_copied(options: dict[str, Any], tmp_path: Path) -> None:
    """What claims a thousand times what is stored becomes a link in a copy."""
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        file.create_dataset("counters", (1 << 40,), "i8", **options)
    _copy_all(path, tmp_path / "out.h5")
    assert (tmp_path / "out.h5").stat().st_size < 2 * path.stat().st_size + 100_000
    with h5py.File(tmp_path / "out.h5") as file:
        assert isinstance(file.get("counters", getlink=True), h5py.ExternalLink)


def test_a_small_file_that_expands(tmp_path: Path) -> None:
    """Many events that are one dataset."""
    path = tmp_path / "run_0046.h5"
    traces = np.zeros((8000, 517), np.int16)
    with h5py.File(path, "w", libver="latest") as file:
        get = file.create_group("get")
        get.create_dataset("1", data=traces, compression="gzip")
        for event in range(2, 60):
            get[str(event)] = get["1"]
    with pytest.raises(InputError, match="a thousand times what the file holds"):
        _copy_all(path, tmp_path / "out.h5")


@pytest.mark.parametrize("layout", ["merger_2.0", "merger_legacy", "pytpc_get", "attpcroot_hits"])
@pytest.mark.parametrize("mode", ["link", "copy"])
def test_names_that_are_no_text_go_along(layout: str, mode: StreamMode, tmp_path: Path) -> None:
    path = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        h5py.h5g.create(file.id, b"\xff\xfe")
        h5py.h5g.create(next(iter(file.values())).id, b"\xfd")
    with open_run(path) as run:
        events = run.events
        stream = run.create_stream(tmp_path / "out.h5", mode, "proton")
        for event in run.events:
            stream.add(Record(*event))
        stream.close()
    with open_run(tmp_path / "out.h5") as run:
        assert run.events == events
        assert run.file.id.links.exists(b"\xff\xfe")


def test_a_reason_is_text(tmp_path: Path) -> None:
    path = tmp_path / "run_0001.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("Event_[3]")
        h5py.h5g.create(group.id, b"\xff\x1b")
    with open_run(path) as run:
        assert run.read(*run.events[0]).reason == r"no HitArray; it holds \xff\x1b"
