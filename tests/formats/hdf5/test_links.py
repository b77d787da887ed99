"""What a run file from a stranger may make us read: only what lies in its own folder."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.errors import InputError
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import StreamMode
from attpc_filter.records import N_TRACE_COLUMNS, Record
from tests import miniatures
from tests.conftest import Cli

LAYOUT = "merger_2.0_spyral_names"
TRACES = "events/event_4/get/pads"


def read_all(path: Path, follow_links: bool) -> list[Record]:
    """Read a run by compiled code, then event by event; both must give the same traces."""
    with open_run(path, follow_links=follow_links) as run:
        buffer = np.empty((2000, N_TRACE_COLUMNS), np.int16)
        compiled = [
            None if record.traces is None else record.traces.copy()
            for part in run.parts(run.events, buffer)
            for record in part
        ]
        singly = list(run.records())
    for one, record in zip(compiled, singly, strict=True):
        assert np.array_equal(one, record.traces) if one is not None else record.traces is None
    return singly


def by_external_link(file: h5py.File, secret: Path) -> None:
    del file[TRACES]
    file[TRACES] = h5py.ExternalLink(secret, "/numbers")


def by_relative_link(file: h5py.File, secret: Path) -> None:
    del file[TRACES]
    folder = Path(file.filename).parent
    file[TRACES] = h5py.ExternalLink(os.path.relpath(secret, folder), "/numbers")


def by_soft_links(file: h5py.File, secret: Path) -> None:
    del file[TRACES]
    file["a/b/c"] = h5py.ExternalLink(secret, "/")
    file["d"] = h5py.SoftLink("/a/b/c")
    file[TRACES] = h5py.SoftLink("/d/numbers")


def by_a_file_between(file: h5py.File, secret: Path) -> None:
    del file[TRACES]
    between = Path(file.filename).with_name("between.h5")
    with h5py.File(between, "w") as other:
        other["on"] = h5py.ExternalLink(secret, "/numbers")
    file[TRACES] = h5py.ExternalLink("between.h5", "/on")


def by_a_symbolic_link(file: h5py.File, secret: Path) -> None:
    del file[TRACES]
    Path(file.filename).with_name("here.h5").symlink_to(secret)
    file[TRACES] = h5py.ExternalLink("here.h5", "/numbers")


def by_the_whole_event(file: h5py.File, secret: Path) -> None:
    del file["events/event_4"]
    file["events/event_4"] = h5py.ExternalLink(secret, "/event")


def by_external_storage(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret) as other:
        shape, offset = other["numbers"].shape, other["numbers"].id.get_offset()
    del file[TRACES]
    size = 2 * shape[0] * shape[1]
    file.create_dataset(TRACES, shape, "i2", external=[(str(secret), offset, size)])


def by_a_virtual_dataset(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret) as other:
        shape = other["numbers"].shape
    del file[TRACES]
    virtual = h5py.VirtualLayout(shape, "i2")
    virtual[:] = h5py.VirtualSource(secret, "numbers", shape)
    file.create_virtual_dataset(TRACES, virtual)


WAYS: list[Callable[[h5py.File, Path], None]] = [
    by_external_link,
    by_relative_link,
    by_soft_links,
    by_a_file_between,
    by_a_symbolic_link,
    by_the_whole_event,
    by_external_storage,
    by_a_virtual_dataset,
]


def write_trap(folder: Path, way: Callable[[h5py.File, Path], None]) -> tuple[Path, np.ndarray]:
    """A run of whose events one leads to numbers in another folder, and these numbers."""
    path = miniatures.write_run(LAYOUT, folder / "raw" / "run_0046.h5")
    secret = folder / "private" / "secret.h5"
    secret.parent.mkdir()
    with h5py.File(path, "a") as file:
        numbers = file[TRACES][()] + 1
        with h5py.File(secret, "w") as other:
            other["numbers"] = numbers
            other["event/get/pads"] = numbers
        way(file, secret)
    return path, numbers


@pytest.mark.parametrize("way", WAYS)
def test_no_run_leads_out_of_its_folder(
    way: Callable[[h5py.File, Path], None], tmp_path: Path
) -> None:
    path, numbers = write_trap(tmp_path, way)
    with pytest.raises(InputError) as caught:
        read_all(path, follow_links=False)
    assert str(path.parent) in str(caught.value)
    assert "--follow-links" in str(caught.value)
    event = {record.event: record for record in read_all(path, follow_links=True)}[4]
    assert np.array_equal(event.traces, numbers)


@pytest.mark.parametrize("name", ["get", "frib/evt", "meta"])
def test_no_group_of_a_run_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    path = miniatures.write_run("merger_legacy", tmp_path / "raw" / "run_0046.h5")
    other = miniatures.write_run("merger_legacy", tmp_path / "private" / "run_0047.h5")
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink(other, name)
    with pytest.raises(InputError, match="outside of its own folder"):
        open_run(path)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    path = miniatures.write_run(LAYOUT, tmp_path / "run_0046.h5")
    below = tmp_path / "below" / "run.h5"
    below.parent.mkdir()
    with h5py.File(path, "a") as file:
        numbers = file[TRACES][()]
        with h5py.File(below, "w") as other:
            other["numbers"] = numbers
        del file[TRACES]
        file[TRACES] = h5py.ExternalLink("below/run.h5", "/numbers")
    event = {record.event: record for record in read_all(path, follow_links=False)}[4]
    assert np.array_equal(event.traces, numbers)


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_link_to_a_pipe_does_not_wait_for_a_writer(follow_links: bool, tmp_path: Path) -> None:
    path = miniatures.write_run(LAYOUT, tmp_path / "run_0046.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(path, "a") as file:
        del file[TRACES]
        file[TRACES] = h5py.ExternalLink("pipe.h5", "/numbers")
    with pytest.raises(InputError, match="no regular file"):
        read_all(path, follow_links)


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_streams_of_streams_lead_to_their_run(mode: StreamMode, tmp_path: Path) -> None:
    path = miniatures.write_run(LAYOUT, tmp_path / "raw" / "run_0046.h5")
    truth = read_all(path, follow_links=False)
    for number in range(3):
        target = tmp_path / f"out{number}" / "run_0046.h5"
        target.parent.mkdir()
        with open_run(path) as run:
            stream = run.create_stream(target, "link" if number < 2 else mode, "proton")
            for event in run.events:
                stream.add(Record(*event))
            stream.close()
        path = target
        for record, true in zip(read_all(path, follow_links=False), truth, strict=True):
            assert record.event == true.event
            assert record.traces is None or np.array_equal(record.traces, true.traces)


def test_a_stream_leads_to_no_other_run_than_its_own(tmp_path: Path) -> None:
    path = miniatures.write_run(LAYOUT, tmp_path / "raw" / "run_0046.h5")
    other = miniatures.write_run(LAYOUT, tmp_path / "raw" / "run_0047.h5")
    target = tmp_path / "out" / "run_0046.h5"
    target.parent.mkdir()
    with open_run(path) as run:
        stream = run.create_stream(target, "link", "proton")
        for event in run.events:
            stream.add(Record(*event))
        stream.close()
    with h5py.File(target, "a") as file:
        del file["events/event_4"]
        file["events/event_4"] = h5py.ExternalLink(other, "events/event_4")
    with pytest.raises(InputError, match="outside of its own folder"):
        read_all(target, follow_links=False)


def test_what_a_copy_would_take_along_is_refused(tmp_path: Path) -> None:
    """An object of an event that only a copy reads."""
    path = miniatures.write_run(LAYOUT, tmp_path / "raw" / "run_0046.h5")
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as other:
        other["numbers"] = np.arange(5)
    with h5py.File(path, "a") as file:
        file["events/event_4/more"] = h5py.ExternalLink(secret, "/numbers")
    with open_run(path) as run:
        stream = run.create_stream(tmp_path / "copy.h5", "copy", "proton")
        event = {number: Record(number, name) for number, name in run.events}[4]
        with pytest.raises(InputError, match="outside of its own folder"):
            stream.add(event)
        stream.abort()


def by_the_group_of_events(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret, "a") as other:
        file.copy("events", other)
    del file["events"]
    file["events"] = h5py.ExternalLink(secret, "/events")


@pytest.mark.parametrize("way", [by_external_link, by_the_group_of_events])
def test_the_option(
    way: Callable[[h5py.File, Path], None], tmp_path: Path, counter_model: Path, cli: Cli
) -> None:
    path, _ = write_trap(tmp_path, way)
    arguments = ["run", path, "--model", counter_model, "--threads", 1]
    refused = cli(*arguments, "--out", tmp_path / "refused")
    assert refused.status == 2
    assert "outside of its own folder" in refused.the_error()
    followed = cli(*arguments, "--out", tmp_path / "followed", "--follow-links")
    assert followed.status == 0, followed.err
