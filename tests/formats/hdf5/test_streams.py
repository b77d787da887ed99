"""Streams: the same to a reader as the input, linked or copied, and in its layout."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest

from attpc_filter.formats.hdf5 import link_kernels
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import StreamMode
from attpc_filter.records import Record
from tests import compare, miniatures
from tests.conftest import shared

LAYOUTS = list(miniatures.LAYOUTS)
MODES: tuple[StreamMode, ...] = ("link", "copy")
CHOSEN = (4, 12, 20)

#: What a stream has beyond its run, so that Spyral opens it: see formats/merger.py.
ADDED_ATTRIBUTES = {
    "/": {"attpc_filter", "attpc_filter_stream", "attpc_filter_source"},
    "/events": {"attpc_filter_last_event"},
}
CHANGED_ATTRIBUTES = {"/events": {"min_event", "max_event"}}


def write_stream(
    source: Path, target: Path, mode: StreamMode, numbers: Iterable[int] = CHOSEN
) -> Path:
    """A stream of some events of a run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_run(source) as run:
        names = dict(run.events)
        stream = run.create_stream(target, mode, "proton")
        for number in numbers:
            stream.add(Record(number, names[number]))
        stream.close()
    return target


@pytest.fixture(scope="module")
def streams(
    tmp_path_factory: pytest.TempPathFactory, miniature: Callable[[str], Path]
) -> Callable[[str, StreamMode], Path]:
    """A stream of each layout and mode, written once."""
    folder = tmp_path_factory.mktemp("streams")

    def path_of(layout: str, mode: StreamMode) -> Path:
        path = folder / mode / layout / "run_0046.h5"
        return path if path.exists() else write_stream(miniature(layout), path, mode)

    return path_of


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_is_a_run_of_the_same_format_with_just_these_events(
    layout: str, mode: StreamMode, streams: Callable[[str, StreamMode], Path]
) -> None:
    with open_run(streams(layout, mode)) as run:
        assert run.format_name == miniatures.FORMAT_NAMES[layout]
        assert [number for number, _ in run.events] == list(CHOSEN)
        assert not any(record.reason for record in run.records())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_that_belongs_to_an_event_is_there_byte_for_byte(
    layout: str,
    mode: StreamMode,
    streams: Callable[[str, StreamMode], Path],
    miniature: Callable[[str], Path],
) -> None:
    compared = 0
    with h5py.File(miniature(layout)) as source, h5py.File(streams(layout, mode)) as stream:
        for number in CHOSEN:
            for part in miniatures.event_paths(layout, number):
                assert (part in stream) == (part in source), part
                if part not in source:
                    continue
                expected = compare.object_content(source[part])
                found = compare.object_content(stream[part])
                assert expected.items() <= found.items()
                beyond = set(found) - set(expected)
                assert all("/silicon_" in path or path.endswith("/1903") for path in beyond)
                compared += len(expected)
    assert compared >= len(CHOSEN)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_link_and_copy_are_the_same_to_a_reader(
    layout: str, streams: Callable[[str, StreamMode], Path]
) -> None:
    def same(attribute: str) -> bool:
        return attribute == "attpc_filter_source"  # a path, relative to where the stream lies

    contents = []
    for mode in MODES:
        with h5py.File(streams(layout, mode)) as file:
            content = compare.file_content(file, lambda _: False)
        content["/"]["attributes"] = {
            name: value for name, value in content["/"]["attributes"].items() if not same(name)
        }
        contents.append(content)
    linked, copied = contents
    assert linked == copied


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_that_belongs_to_the_run_is_there_byte_for_byte(
    layout: str,
    mode: StreamMode,
    streams: Callable[[str, StreamMode], Path],
    miniature: Callable[[str], Path],
) -> None:
    """Scalers, run information and every attribute go into every stream."""
    numbers = [event.number for event in miniatures.events()]
    of_events = {part for n in numbers for part in miniatures.event_paths(layout, n)}

    with h5py.File(miniature(layout)) as source, h5py.File(streams(layout, mode)) as stream:
        expected = compare.file_content(source, lambda path: path in of_events)
        found = compare.file_content(stream, lambda path: path in of_events)
    assert set(found) == set(expected)
    for path, item in expected.items():
        added = ADDED_ATTRIBUTES.get(path, set())
        changed = CHANGED_ATTRIBUTES.get(path, set()) & set(item["attributes"])
        attributes = found[path]["attributes"]
        assert set(attributes) - added == set(item["attributes"]), path
        for name in set(item["attributes"]) - changed:
            assert attributes[name] == item["attributes"][name], f"{path}@{name}"
        for name in changed:  # another value, in the type that the layout has
            assert attributes[name]["dtype"] == item["attributes"][name]["dtype"], name
        kept = {key: value for key, value in item.items() if key != "attributes"}
        assert {key: found[path][key] for key in kept} == kept
    if layout in miniatures.VERSIONED and not layout.startswith("harmonizer"):
        assert "/scalers/event_1" in expected
    if layout == "merger_legacy":
        assert {"/frib/scaler/scaler1_data", "/frib/title", "/meta/cobo0asad0_files"} <= set(found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_links_survive_a_move_of_the_whole_tree(layout: str, tmp_path: Path) -> None:
    here = tmp_path / "här 46" / "campaign"
    source = miniatures.write_run(layout, here / "raw" / "run_0046.h5")
    write_stream(source, here / "out" / "proton" / "run_0046.h5", "link")
    there = tmp_path / "elsewhere" / "deeper" / "campaign"
    there.parent.mkdir(parents=True)
    shutil.move(here, there)
    with open_run(there / "out" / "proton" / "run_0046.h5") as run:
        assert [record.event for record in run.records() if not record.reason] == list(CHOSEN)


@pytest.mark.parametrize("layout", ["pytpc_get", "merger_2.0"])
def test_links_through_symbolic_links(layout: str, tmp_path: Path) -> None:
    """Runs are often linked from where they lie, and the output folder is on another disk."""
    source = miniatures.write_run(layout, tmp_path / "disk 1" / "deep" / "run_0046.h5")
    shown = tmp_path / "runs" / "run_0046.h5"
    shown.parent.mkdir()
    shown.symlink_to(source)
    real_out = tmp_path / "disk 2" / "a" / "b" / "out"
    real_out.mkdir(parents=True)
    (tmp_path / "out").symlink_to(real_out)
    stream = write_stream(shown, tmp_path / "out" / "proton" / "run_0046.h5", "link")
    for path in (stream, real_out / "proton" / "run_0046.h5"):
        with open_run(path) as run:
            assert [record.event for record in run.records() if not record.reason] == list(CHOSEN)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_stand_alone(layout: str, tmp_path: Path) -> None:
    source = miniatures.write_run(layout, tmp_path / "raw" / "run_0046.h5")
    stream = write_stream(source, tmp_path / "out" / "run_0046.h5", "copy")
    source.unlink()
    with open_run(stream) as run:
        assert [record.event for record in run.records() if not record.reason] == list(CHOSEN)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_of_numbers_have_checksums(
    layout: str, streams: Callable[[str, StreamMode], Path]
) -> None:
    seen = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        of_event = any(
            f"/{name}".startswith(f"/{part}")
            for number in CHOSEN
            for part in miniatures.event_paths(layout, number)
        )
        if isinstance(item, h5py.Dataset) and of_event and item.size and item.id.get_storage_size():
            assert item.fletcher32, name
            assert item.chunks is not None
            seen.append(name)

    with h5py.File(streams(layout, "copy")) as file:
        file.visititems(visit)
    assert len(seen) >= len(CHOSEN)


def test_a_flipped_bit_in_a_copy_is_seen(tmp_path: Path, miniature: Callable[[str], Path]) -> None:
    path = write_stream(miniature("merger_2.0"), tmp_path / "run_0046.h5", "copy")
    with h5py.File(path) as file:
        chunk = file["events/event_4/get/pads"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 3000] ^= 4
    path.write_bytes(content)
    with open_run(path) as run:
        reasons = {record.event: record.reason for record in run.records()}
    assert reasons[4] != ""
    assert reasons[12] == reasons[20] == ""


def test_links_take_no_room(tmp_path: Path, miniature: Callable[[str], Path]) -> None:
    source = miniature("merger_1.0")
    stream = write_stream(source, tmp_path / "run_0046.h5", "link")
    assert stream.stat().st_size < source.stat().st_size / 5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stream_can_be_filtered_again(
    layout: str,
    mode: StreamMode,
    tmp_path: Path,
    streams: Callable[[str, StreamMode], Path],
    miniature: Callable[[str], Path],
) -> None:
    """A stream of a stream holds what the run held, links through links included."""
    again = write_stream(streams(layout, mode), tmp_path / "run_0046.h5", "link", (20,))
    with open_run(miniature(layout)) as run, open_run(again) as second:
        (record,) = list(second.records())
        expected = run.read(20, dict(run.events)[20])
        for name in ("traces", "points"):
            np.testing.assert_array_equal(getattr(record, name), getattr(expected, name))


def _write_with_strange_members(path: Path) -> None:
    """A run whose groups hold what merger files do not, but HDF5 files may."""
    miniatures.write_run("merger_1.0", path)
    with h5py.File(path, "a") as file:
        event = file["events/event_4"]
        event["note"] = "by hand"
        event["nothing"] = h5py.Empty("i2")
        event["scalar"] = np.float64(2.5)
        event["big_endian"] = np.arange(6, dtype=">i4").reshape(2, 3)
        event["table"] = np.zeros(3, [("a", "i2"), ("b", "f8")])
        event.create_dataset("squeezed", data=np.arange(5000), compression="gzip", shuffle=True)
        event.create_dataset("words", data=["a", "bc"], dtype=h5py.string_dtype())
        event["same"] = event["get_traces"]
        event["soft"] = h5py.SoftLink("/events/event_4/scalar")
        event["kind"] = np.dtype([("a", "i2"), ("b", "f8")])  # a committed type
        event.attrs["empty"] = h5py.Empty("f4")
        event.attrs["words"] = np.array(["x", "yz"], dtype=object)
        event.attrs["matrix"] = np.arange(6, dtype=">u2").reshape(2, 3)
        event.attrs["yes"] = True
        event.attrs["fixed"] = np.bytes_(b"abc")
        file["notes/shift"] = np.arange(3)
        file["kinds"] = np.dtype("i4")
        file["lost"] = h5py.SoftLink("/nowhere")
        file["elsewhere"] = h5py.ExternalLink("absent.h5", "/data")


@pytest.mark.parametrize("mode", MODES)
def test_whatever_stands_there_goes_along(mode: StreamMode, tmp_path: Path) -> None:
    source = tmp_path / "raw" / "run_0046.h5"
    source.parent.mkdir()
    _write_with_strange_members(source)
    stream = write_stream(source, tmp_path / "out" / "run_0046.h5", mode)
    with h5py.File(source) as held, h5py.File(stream) as file:
        for part in ("events/event_4", "notes"):
            expected, found = (compare.object_content(f[part]) for f in (held, file))
            assert found.items() >= expected.items()
        assert isinstance(file["kinds"], h5py.Datatype)
        assert {"lost", "elsewhere"} <= set(file), "a link that leads nowhere is a link still"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "folder",
    [
        "merger_legacy",
        "merger_1.0",
        "merger_2.0",
        "merger_2.0_spyral_names",
        "harmonizer_0.1.0",
        "spyral_cloud",
    ],
)
def test_simulated_runs_of_the_field(folder: str, mode: StreamMode, tmp_path: Path) -> None:
    source = shared(f"layouts/{folder}/run_0101.h5")
    stream = write_stream(source, tmp_path / "run_0101.h5", mode, (2, 7))
    with h5py.File(source) as held, h5py.File(stream) as file:
        for number in (2, 7):
            for part in miniatures.event_paths(folder, number):
                if part in held:
                    expected, found = (compare.object_content(f[part]) for f in (held, file))
                    assert found.items() >= expected.items()


def _links_and_attributes(path: Path) -> dict[str, object]:
    """All that a file holds, its groups' attributes with their types; links are not followed."""
    found: dict[str, object] = {}

    def walk(group: h5py.Group, prefix: str) -> None:
        for name, value in group.attrs.items():
            kind = group.attrs.get_id(name).get_type()
            found[f"{prefix}@{name}"] = (str(value), kind.get_class(), kind.get_size())
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                found[f"{prefix}/{name}"] = (link.filename, link.path)
            elif isinstance(group[name], h5py.Group):
                walk(group[name], f"{prefix}/{name}")
            else:
                found[f"{prefix}/{name}"] = (group[name].shape, group[name].dtype)

    with h5py.File(path) as file:
        walk(file, "")
    return found


#: What makes an event of attpc_merger 2.0 other than those that compiled code links.
UNUSUAL = {
    "as written": lambda get: None,
    "something else in the group": lambda get: get.create_dataset("more", data=[1]),
    "one matrix fewer": lambda get: get.__delitem__("si_upstream_back"),
    "one name there already": lambda get: get.__setitem__(
        "silicon_upstream_back", get["si_upstream_back"]
    ),
    "an attribute that is a text": lambda get: get.attrs.__setitem__("note", "late"),
    "an attribute of many numbers": lambda get: get.attrs.__setitem__("more", np.arange(99)),
    "an attribute of the event": lambda get: get.parent.attrs.__setitem__("spill", np.float32(2)),
    "something else in the event": lambda get: get.parent.create_dataset("more", data=[1]),
}


@pytest.mark.parametrize(
    ("layout", "change"),
    [("merger_legacy", "as written"), *(("merger_2.0", change) for change in UNUSUAL)],
)
def test_compiled_code_makes_the_links_that_h5py_makes(
    layout: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = miniatures.write_run(layout, tmp_path / "run_0046.h5")
    if layout == "merger_2.0":
        with h5py.File(run_file, "r+") as file:
            for event in list(file["events"].values())[::2]:
                if "get" in event:
                    UNUSUAL[change](event["get"])
    assert link_kernels.AVAILABLE
    made = []
    for compiled in (True, False):
        monkeypatch.setattr(link_kernels, "AVAILABLE", compiled)
        with open_run(run_file) as run:
            # without what reading confirmed, so that each event goes the longest way
            stream = run.create_stream(tmp_path / "stream.h5", "link", "proton")
            for event, name in run.events:
                stream.add(Record(event, name))
            stream.close()
        made.append(_links_and_attributes(tmp_path / "stream.h5"))
    ours, truth = made
    # a group that needs nothing more is one link in place of a group of links
    for path, link in list(ours.items()):
        if path.endswith("/frib_physics") and path not in truth:
            assert isinstance(link, tuple)
            with h5py.File(tmp_path / "stream.h5") as file, h5py.File(run_file) as run:
                assert set(file[path]) == set(run[str(link[1])])
            del ours[path]
            for inner in [p for p in truth if p.startswith((path + "/", path + "@"))]:
                del truth[inner]
    assert ours == truth
