"""What is at fault: the event, the machine around it, or our own code. Each is told apart."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5z

from attpc_filter.errors import InputError
from attpc_filter.formats.hdf5.file import translated
from attpc_filter.formats.hdf5.merger import MergerRun
from attpc_filter.formats.hdf5.objects import copy_attributes
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import StreamMode, UnreadableEvent
from attpc_filter.records import N_TRACE_COLUMNS, Record
from tests import miniatures
from tests.conftest import Cli

#: Zstandard, which HDF5 libraries have as a plug-in only.
ZSTD = 32015


def reasons(path: Path) -> dict[int, str]:
    """Why each event cannot be read, read one by one and by compiled code."""
    with open_run(path) as run:
        singly = {record.event: record.reason for record in run.records()}
        buffer = np.empty((200, N_TRACE_COLUMNS), np.int16)
        parts = run.parts(run.events, buffer)
        assert {record.event: record.reason for part in parts for record in part} == singly
    return singly


def test_a_stream_whose_run_was_moved(tmp_path: Path) -> None:
    source = miniatures.write_run("merger_2.0_spyral_names", tmp_path / "raw" / "run_0046.h5")
    target = tmp_path / "out" / "run_0046.h5"
    target.parent.mkdir()
    with open_run(source) as run:
        stream = run.create_stream(target, "link", "proton")
        for event in run.events:
            stream.add(Record(*event))
        stream.close()
    source.rename(tmp_path / "elsewhere.h5")
    with open_run(target) as run, pytest.raises(InputError) as caught:
        run.read(*run.events[0])
    assert str(source) in str(caught.value)
    assert "not there" in str(caught.value)


def test_a_pipe_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run_0001.h5")
    with pytest.raises(InputError, match="a pipe or a device"):
        open_run(tmp_path / "run_0001.h5")


@pytest.mark.skipif(h5z.filter_avail(ZSTD), reason="needs an HDF5 without Zstandard")
def test_a_filter_that_is_missing_is_named(tmp_path: Path) -> None:
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        event = file["events/event_4"]
        traces = event["get_traces"][()]
        del event["get_traces"]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk(traces.shape)
        creation.set_filter(ZSTD, h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple(traces.shape)
        made = h5py.h5d.create(event.id, b"get_traces", h5py.h5t.NATIVE_INT16, space, creation)
        made.write_direct_chunk((0, 0), b"\x28\xb5\x2f\xfd" + bytes(100))
    with open_run(path) as run, pytest.raises(InputError, match=r"Zstandard.*32015.*hdf5plugin"):
        run.read(4, "event_4")


def test_objects_of_other_kinds_are_unreadable_events(tmp_path: Path) -> None:
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        events = file["events"]
        del events["event_3"], events["event_4/get/pads"], events["event_7/get"]
        events["event_3"] = np.dtype("i4")  # a committed type
        events.create_group("event_4/get/pads")
        events["event_7/get"] = np.zeros(3)
    found = reasons(path)
    assert {event for event, reason in found.items() if reason} == {3, 4, 7}


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_and_go_into_streams(mode: StreamMode, tmp_path: Path) -> None:
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        del file["events/event_3"]
        file["events/event_3"] = np.dtype("i4")
    target = tmp_path / "stream.h5"
    with open_run(path) as run:
        stream = run.create_stream(target, mode, "unreadable")
        stream.add(Record(3, "event_3", reason="damaged"))
        stream.close()
    with h5py.File(target) as file:
        assert isinstance(file["events/event_3"], h5py.Datatype)


def test_damage_in_the_type_of_an_attribute_does_not_crash(tmp_path: Path) -> None:
    """Bytes of the type's description, changed one by one; HDF5 crashes on some as they are."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        group = file.create_group("g")
        group.attrs["pair"] = np.zeros(2, [("alpha", "i4"), ("beta", "f8")])
    content = path.read_bytes()
    start = content.index(b"pair\0")
    refused = 0
    for at in range(start, start + 140):
        for flipped in (0x01, 0x10, 0x80):
            changed = bytearray(content)
            changed[at] ^= flipped
            path.write_bytes(changed)
            try:
                with h5py.File(path) as file, h5py.File(tmp_path / "b.h5", "w") as target:
                    copy_attributes(file["g"].id, target.create_group("g").id)
            except (OSError, KeyError, RuntimeError, ValueError, TypeError):
                refused += 1
    assert refused > 20


def test_an_error_of_the_disk_is_no_damage() -> None:
    def fail(number: int) -> None:
        with translated:
            raise OSError(f"Can't read data (filename = '/d/run.h5', errno = {number}, error ...)")

    for number in (5, 116):  # EIO, ESTALE
        with pytest.raises(InputError, match=r"/d/run\.h5: cannot be read now"):
            fail(number)
    with pytest.raises(UnreadableEvent):
        fail(22)


def _wrong(*_: Any) -> dict[str, Any]:
    raise TypeError("our own mistake")


def test_a_mistake_of_ours_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = miniatures.write_run("merger_2.0", tmp_path / "run_0046.h5")
    monkeypatch.setattr(MergerRun, "_read_traces", _wrong)
    with open_run(path) as run, pytest.raises(TypeError, match="our own mistake"):
        run.read(4, "event_4")


def test_a_run_without_one_readable_event_ends_with_2(
    tmp_path: Path, call: Cli, counter_model: Path
) -> None:
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0046.h5")
    with h5py.File(path, "a") as file:
        for name in file["events"]:
            del file[f"events/{name}/get_traces"]
            file[f"events/{name}/get_traces"] = np.zeros((3, 4), np.int16)
    good = miniatures.write_run("merger_1.0", tmp_path / "run_0047.h5")
    done = call("run", path, good, "--out", tmp_path / "out", "--model", counter_model)
    assert done.status == 2
    assert "all 7 events are unreadable, most often: trace matrix of shape" in done.err
    assert (tmp_path / "out" / "tags" / "run_0046.parquet").exists()
    assert (tmp_path / "out" / "tags" / "run_0047.parquet").exists()
