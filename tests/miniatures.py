"""Small runs in every layout, written from one simulated list of events.

The events are simulated here and the layouts are written with plain h5py, after the field's own
writers (attpc_merger, harmonizer, pytpc, Spyral, ATTPCROOT); nothing of ``attpc_filter`` takes
part. Each event lights a known number of pixels of a 64 x 64 x-y projection, so that a model that
counts lit pixels (:mod:`tests.tiny_models`) has tags that are known beforehand.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

#: What the detector of the miniatures is.
MICROMEGAS_TB, WINDOW_TB, LENGTH_MM = 38.0, 278.0, 1000.0
#: The projection that the pixels are counted in.
IMAGE_SIZE, IMAGE_RADIUS_MM = 64, 280.0

MESH_TRIGGER, IC_TRIGGER = 1, 2
SILICON = ("upstream_front", "upstream_back", "downstream_front", "downstream_back")
START_OF_RUN = 1_700_000_000


@dataclass(frozen=True)
class SimEvent:
    """One simulated event.

    ``n_lit`` pixels are lit; ``trigger`` is the first value of FRIB dataset 977 (None: the event
    has no FRIB data), ``frib_traces`` dataset 1903 (None: the digitizer had no data).
    """

    number: int
    n_lit: int
    traces: NDArray[np.int16]
    #: The hits, a row a pulse: x, y, z [mm], amplitude, integral, pad, time bucket, scale.
    points: NDArray[np.float64]
    trigger: int | None = None
    frib_traces: NDArray[np.uint16] | None = None
    silicon: NDArray[np.int16] = field(
        default_factory=lambda: np.zeros((0, 517), np.int16), repr=False
    )

    @property
    def tag(self) -> str:
        """The tag that the counting model must give, where the layout has FRIB data."""
        return "passthrough" if self.trigger == IC_TRIGGER else self.tag_without_frib

    @property
    def tag_without_frib(self) -> str:
        """The tag that the counting model must give, where the layout has no FRIB data."""
        if self.n_lit == 20:
            return "uncertain"  # half way between noise (10) and proton (30)
        if self.n_lit < 5:
            return "uncertain"  # fewer hits than the model needs
        return {8: "noise", 10: "noise", 30: "proton", 60: "carbon"}[self.n_lit]


@cache
def pad_table() -> dict[str, NDArray[np.float64]]:
    """The shipped pad table, read with csv alone (its truth is tested against Spyral's)."""
    text = resources.files("attpc_filter.detectors").joinpath("at-tpc.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@cache
def _pads_of_distinct_pixels() -> NDArray[np.int64]:
    """Pads outside the beam region, no two of them in the same pixel nor near a pixel's edge."""
    table = pad_table()
    pitch = 2 * IMAGE_RADIUS_MM / IMAGE_SIZE
    across = (table["x"] + IMAGE_RADIUS_MM) / pitch
    up = (table["y"] + IMAGE_RADIUS_MM) / pitch
    order = np.random.default_rng(1).permutation(len(across))
    seen: set[tuple[int, int]] = set()
    pads = []
    for pad in order:
        inside = all(0.1 < value % 1 < 0.9 for value in (across[pad], up[pad]))
        radius = np.hypot(table["x"][pad], table["y"][pad])
        pixel = (int(across[pad]), int(up[pad]))
        if inside and not table["beam"][pad] and 60 < radius < 260 and pixel not in seen:
            seen.add(pixel)
            pads.append(pad)
    return np.array(pads)


def pulse(centre: float, amplitude: float, width: float = 6.0) -> NDArray[np.float64]:
    """512 samples with one bell-shaped pulse."""
    return amplitude * np.exp(-0.5 * ((np.arange(512) - centre) / width) ** 2)


def trace_row(
    rng: np.random.Generator, pad: int, centre: float | None, amplitude: float = 0.0
) -> NDArray[np.int16]:
    """A row of a trace matrix: five hardware columns, then noise around 300 ADC and a pulse."""
    samples = 300 + rng.normal(0, 2, 512)
    if centre is not None:
        samples = samples + pulse(centre, amplitude)
    hardware = [pad % 10, pad % 4, pad % 3, pad % 68, pad]
    return np.concatenate([hardware, np.clip(samples, 0, 4095).round()]).astype(np.int16)


def frib_traces(rng: np.random.Generator, ion_chamber_pulse: bool) -> NDArray[np.uint16]:
    """Dataset 1903: 2048 samples of 8 channels, the ion chamber in the first."""
    traces = 500 + rng.normal(0, 3, (2048, 8))
    if ion_chamber_pulse:
        traces[:, 0] += 800 * np.exp(-0.5 * ((np.arange(2048) - 1200) / 8) ** 2)
    return traces.round().astype(np.uint16)


def simulate(
    number: int,
    n_lit: int,
    *,
    trigger: int | None = None,
    digitizer: bool = True,
    strange_rows: bool = False,
) -> SimEvent:
    """Simulate an event that lights so many pixels; the event number is the seed.

    ``strange_rows`` adds what real matrices hold: pads outside the plane, a trace of zeros, a
    trace that saturates (on a pad that is lit anyway), a pad of the beam region.
    """
    rng = np.random.default_rng([46, number])
    table = pad_table()
    pads = rng.choice(_pads_of_distinct_pixels(), n_lit, replace=False)
    centres = np.sort(rng.integers(60, 260, n_lit))
    amplitudes = rng.integers(300, 2000, n_lit)
    rows = [
        trace_row(rng, int(pad), float(centre), float(amplitude))
        for pad, centre, amplitude in zip(pads, centres, amplitudes, strict=True)
    ]
    if strange_rows:
        beam_pad = int(np.flatnonzero(table["beam"])[0])
        rows += [trace_row(rng, pad, 150.0, 900.0) for pad in (-1, 10240, 20000, beam_pad)]
        zeros = np.zeros(517, np.int16)
        zeros[4] = int(pads[0])
        saturated = trace_row(rng, int(pads[1]), 120.0, 9000.0)
        rows += [zeros, saturated]
    traces = np.array(rows, np.int16).reshape(-1, 517)
    traces = traces[rng.permutation(len(traces))]  # the merger's rows come in no order
    time_bucket = centres + table["time_offset"][pads]
    z = (WINDOW_TB - time_bucket) / (WINDOW_TB - MICROMEGAS_TB) * LENGTH_MM
    integral = amplitudes * 6.0 * np.sqrt(2 * np.pi)
    points = np.column_stack(
        [
            table["x"][pads],
            table["y"][pads],
            z,
            amplitudes,
            integral,
            pads,
            time_bucket,
            table["size"][pads],
        ]
    ).astype(np.float64)
    has_digitizer = trigger is not None and digitizer
    return SimEvent(
        number=number,
        n_lit=n_lit,
        traces=traces,
        points=points[np.argsort(points[:, 2])],
        trigger=trigger,
        frib_traces=frib_traces(rng, trigger == IC_TRIGGER) if has_digitizer else None,
        silicon=np.array([trace_row(rng, s, 100.0 + s, 500.0) for s in range(number % 3)])
        .reshape(-1, 517)
        .astype(np.int16),
    )


@cache
def events() -> tuple[SimEvent, ...]:
    """The events of every miniature: gaps in the numbers, an IC trigger, an empty matrix."""
    return (
        simulate(3, 10),
        simulate(4, 30, trigger=MESH_TRIGGER),
        simulate(7, 60, trigger=MESH_TRIGGER, digitizer=False),  # FRIB event without 1903
        simulate(12, 8, trigger=IC_TRIGGER),
        simulate(13, 20),
        simulate(15, 0, trigger=MESH_TRIGGER),
        simulate(20, 30, strange_rows=True),
    )


@dataclass(frozen=True)
class Storage:
    """How datasets of events are stored: what other tools than the merger do with them."""

    traces_dtype: Any = np.int16
    options: dict[str, Any] = field(default_factory=dict)
    #: ``latest`` has checksums of all metadata, ``earliest`` (what the merger writes) has none.
    libver: str = "earliest"

    def write(self, group: h5py.Group, name: str, data: NDArray[Any]) -> h5py.Dataset:
        """Write a dataset; compression and chunks only where there is something to store."""
        data = data.astype(self.traces_dtype) if data.dtype == np.int16 else data
        return group.create_dataset(name, data=data, **(self.options if data.size else {}))


CONTIGUOUS = Storage()


def _trace_attributes(target: h5py.Group | h5py.Dataset, number: int) -> None:
    target.attrs["id"] = np.uint32(number)
    target.attrs["timestamp"] = np.uint64(1_000_000 * number)
    target.attrs["timestamp_other"] = np.uint64(1_000_000 * number + 3)


def _write_scalers(file: h5py.File, version: str) -> None:
    scalers = file.create_group("scalers")
    scalers.attrs["version"] = version
    scalers.attrs["min_event"] = np.uint32(0)
    scalers.attrs["max_event"] = np.uint32(1)
    for index in range(2):
        dataset = scalers.create_dataset(
            f"event_{index}", data=np.arange(12, dtype=np.uint32) * 100 + index
        )
        dataset.attrs["start_offset"] = np.uint32(10 * index)
        dataset.attrs["stop_offset"] = np.uint32(10 * index + 10)
        dataset.attrs["timestamp"] = np.uint32(START_OF_RUN + 10 * index)
        dataset.attrs["incremental"] = np.uint32(1)


def _write_frib_physics(group: h5py.Group, event: SimEvent, storage: Storage) -> None:
    if event.trigger is None:
        return
    frib = group.create_group("frib_physics")
    frib.attrs["id"] = np.uint32(event.number)
    frib.attrs["timestamp"] = np.uint32(START_OF_RUN + event.number)
    frib.create_dataset("977", data=np.array([event.trigger], np.uint16))
    if event.frib_traces is not None:
        storage.write(frib, "1903", event.frib_traces)


def _versioned_events(
    file: h5py.File, version: str, chosen: Sequence[SimEvent], crashed: bool
) -> h5py.Group:
    events_group = file.create_group("events")
    events_group.attrs["version"] = version
    # attpc_merger fills the range in when it closes; until then it is 0
    last = 0 if crashed else max(event.number for event in chosen)
    events_group.attrs["min_event"] = np.uint64(0)
    events_group.attrs["max_event"] = np.uint64(last)
    events_group.attrs["min_get_ts"] = np.uint64(0 if crashed else 1_000_000)
    events_group.attrs["max_get_ts"] = np.uint64(last * 1_000_000)
    if not version.startswith("harmonizer"):
        events_group.attrs["frib_run"] = np.uint32(46)
        events_group.attrs["frib_start"] = np.uint32(START_OF_RUN)
        events_group.attrs["frib_stop"] = np.uint32(0 if crashed else START_OF_RUN + 600)
        events_group.attrs["frib_time"] = np.uint32(0 if crashed else 600)
    return events_group


def write_pytpc_get(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """``get/N``, and nothing else."""
    with h5py.File(path, "w", libver=storage.libver) as file:
        group = file.create_group("get")
        for event in chosen:
            storage.write(group, str(event.number), event.traces)


def write_merger_legacy(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """attpc_merger before it had versions; a crashed one leaves no ``meta/meta``."""
    with h5py.File(path, "w", libver=storage.libver) as file:
        get, meta = file.create_group("get"), file.create_group("meta")
        evt, scaler = file.create_group("frib/evt"), file.create_group("frib/scaler")
        meta["cobo0asad0_length"] = np.array([1_000_000, 2], np.uint64)
        meta.create_dataset(
            "cobo0asad0_files",
            data=np.array(["CoBo_0000.graw", "CoBo_0001.graw"], object),
            dtype=h5py.string_dtype("ascii"),
        )
        file["frib/runinfo"] = np.array([46, START_OF_RUN, START_OF_RUN + 600, 600], np.uint32)
        file["frib/title"] = "miniature"
        if not crashed:
            first, last = chosen[0].number, chosen[-1].number
            meta["meta"] = np.array([first, 1_000_000, last, 2_000_000], np.uint64)
        for index in range(2):
            scaler[f"scaler{index}_header"] = np.array([0, 10, START_OF_RUN, 1], np.uint32)
            scaler[f"scaler{index}_data"] = np.arange(12, dtype=np.uint32) * 100 + index
        for event in chosen:
            stem = f"evt{event.number}"
            header = np.array([event.number, 1e6 * event.number, 1e6 * event.number + 3])
            storage.write(get, f"{stem}_header", header)
            storage.write(get, f"{stem}_data", event.traces)
            if event.trigger is not None:
                evt[f"{stem}_header"] = np.array([event.number, START_OF_RUN], np.uint32)
                evt[f"{stem}_977"] = np.array([event.trigger], np.uint16)
                if event.frib_traces is not None:
                    storage.write(evt, f"{stem}_1903", event.frib_traces)


def write_merger_1(path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool) -> None:
    """attpc_merger 1.0."""
    version = "libattpc_merger:1.0"
    with h5py.File(path, "w", libver=storage.libver) as file:
        group = _versioned_events(file, version, chosen, crashed)
        _write_scalers(file, version)
        for event in chosen:
            made = group.create_group(f"event_{event.number}")
            traces = storage.write(made, "get_traces", event.traces)
            _trace_attributes(traces, event.number)
            _write_frib_physics(made, event, storage)


def write_merger_2(path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool) -> None:
    """attpc_merger 2.0, exactly as it writes."""
    version = "libattpc_merger:2.0"
    with h5py.File(path, "w", libver=storage.libver) as file:
        group = _versioned_events(file, version, chosen, crashed)
        _write_scalers(file, version)
        for event in chosen:
            made = group.create_group(f"event_{event.number}")
            get = made.create_group("get")
            _trace_attributes(get, event.number)
            storage.write(get, "pads", event.traces)
            for part in SILICON:
                rows = event.silicon if part == "upstream_front" else event.silicon[:0]
                storage.write(get, f"si_{part}", rows)
            _write_frib_physics(made, event, storage)


def write_merger_2_spyral_names(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """attpc_merger 2.0 with hard links that have the names Spyral expects."""
    write_merger_2(path, chosen, storage, crashed)
    with h5py.File(path, "a") as file:
        for event in chosen:
            get = file[f"events/event_{event.number}/get"]
            for part in SILICON:
                get[f"silicon_{part}"] = get[f"si_{part}"]


def write_harmonizer(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """harmonizer 0.1.0."""
    with h5py.File(path, "w", libver=storage.libver) as file:
        group = _versioned_events(file, "harmonizer:0.1.0", chosen, crashed)
        for event in chosen:
            made = group.create_group(f"event_{event.number}")
            made.attrs["orig_run"] = np.int64(46)
            made.attrs["orig_event"] = np.int64(event.number + 1000)
            traces = storage.write(made, "get_traces", event.traces)
            _trace_attributes(traces, event.number)
            _write_frib_physics(made, event, storage)


def write_spyral_cloud(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """Spyral's point clouds, with attpc_engine's labels."""
    with h5py.File(path, "w", libver=storage.libver) as file:
        cloud = file.create_group("cloud")
        cloud.attrs["min_event"] = chosen[0].number
        cloud.attrs["max_event"] = chosen[-1].number
        for event in chosen:
            dataset = storage.write(cloud, f"cloud_{event.number}", event.points)
            dataset.attrs["orig_run"] = 46
            dataset.attrs["orig_event"] = event.number
            for name in ("ic_amplitude", "ic_integral", "ic_centroid", "ic_multiplicity"):
                dataset.attrs[name] = -1.0
            labels = np.full(len(event.points), 3, np.int64)
            storage.write(cloud, f"labels_{event.number}", labels)


def write_pytpc_clean(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """pytpc's cleaned hits: x, y, time bucket, charge, pad, neighbours, distance to the line."""
    with h5py.File(path, "w", libver=storage.libver) as file:
        group = file.create_group("clean")
        for event in chosen:
            x, y, _, charge, _, pad, time_bucket, _ = event.points.T
            extra = np.zeros(len(x))
            table = np.column_stack([x, y, time_bucket, charge, pad, extra, extra])
            storage.write(group, str(event.number), table)


HIT = np.dtype([("x", "f8"), ("y", "f8"), ("z", "f8"), ("t", "i4"), ("A", "f8"), ("trackID", "i4")])


def hit_table(event: SimEvent) -> NDArray[Any]:
    """ATTPCROOT's table of hits: one row a hit."""
    x, y, z, charge, _, _, time_bucket, _ = event.points.T
    table = np.zeros(len(x), HIT)
    for name, values in zip("xyztA", (x, y, z, time_bucket, charge), strict=True):
        table[name] = values
    return table


def write_attpcroot_hits(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """ATTPCROOT's hits: ``Event_[N]/HitArray``."""
    with h5py.File(path, "w", libver=storage.libver) as file:
        for event in chosen:
            storage.write(
                file.create_group(f"Event_[{event.number}]"), "HitArray", hit_table(event)
            )


def write_attpcroot_hits_old(
    path: Path, chosen: Sequence[SimEvent], storage: Storage, crashed: bool
) -> None:
    """Older files: the table ``Event_[N]`` itself."""
    with h5py.File(path, "w", libver=storage.libver) as file:
        for event in chosen:
            storage.write(file, f"Event_[{event.number}]", hit_table(event))


Writer = Callable[[Path, Sequence[SimEvent], Storage, bool], None]

#: Raw traces: the five layouts, 2.0 with either set of silicon names.
RAW: dict[str, Writer] = {
    "pytpc_get": write_pytpc_get,
    "merger_legacy": write_merger_legacy,
    "merger_1.0": write_merger_1,
    "merger_2.0": write_merger_2,
    "merger_2.0_spyral_names": write_merger_2_spyral_names,
    "harmonizer_0.1.0": write_harmonizer,
}
#: Hits.
HITS: dict[str, Writer] = {
    "spyral_cloud": write_spyral_cloud,
    "pytpc_clean": write_pytpc_clean,
    "attpcroot_hits": write_attpcroot_hits,
    "attpcroot_hits_old": write_attpcroot_hits_old,
}
LAYOUTS = RAW | HITS
VERSIONED = ("merger_1.0", "merger_2.0", "merger_2.0_spyral_names", "harmonizer_0.1.0")
#: Those that have FRIB data, and so tell an ion-chamber trigger.
WITH_FRIB = ("merger_legacy", *VERSIONED)
#: Those that Spyral 1.1.2 has a reader for.
OPENED_BY_SPYRAL = WITH_FRIB

FORMAT_NAMES = {
    "pytpc_get": "pytpc get",
    "merger_legacy": "attpc_merger legacy",
    "merger_1.0": "attpc_merger 1.0",
    "merger_2.0": "attpc_merger 2.0",
    "merger_2.0_spyral_names": "attpc_merger 2.0",
    "harmonizer_0.1.0": "harmonizer 0.1.0",
    "spyral_cloud": "Spyral point clouds",
    "pytpc_clean": "pytpc clean",
    "attpcroot_hits": "ATTPCROOT hits (HDF5)",
    "attpcroot_hits_old": "ATTPCROOT hits (HDF5)",
}


def write_run(
    layout: str,
    path: Path,
    chosen: Sequence[SimEvent] | None = None,
    storage: Storage = CONTIGUOUS,
    crashed: bool = False,
) -> Path:
    """Write a run in a layout; the miniatures' events unless others are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout](path, events() if chosen is None else chosen, storage, crashed)
    return path


def event_paths(layout: str, number: int) -> list[str]:
    """Paths of what belongs to an event in a layout, whether it is there or not."""
    if layout == "pytpc_get":
        return [f"get/{number}"]
    if layout == "merger_legacy":
        return [f"get/evt{number}_{part}" for part in ("data", "header")] + [
            f"frib/evt/evt{number}_{part}" for part in ("header", "977", "1903")
        ]
    if layout == "spyral_cloud":
        return [f"cloud/cloud_{number}", f"cloud/labels_{number}"]
    if layout == "pytpc_clean":
        return [f"clean/{number}"]
    if layout.startswith("attpcroot"):
        return [f"Event_[{number}]"]
    return [f"events/event_{number}"]


def traces_path(layout: str, number: int) -> str:
    """Path of an event's trace matrix in a raw layout."""
    if layout.startswith("merger_2.0"):
        return f"events/event_{number}/get/pads"
    if layout in VERSIONED:
        return f"events/event_{number}/get_traces"
    return event_paths(layout, number)[0]


def with_traces(event: SimEvent, traces: NDArray[np.int16]) -> SimEvent:
    """The event with another trace matrix."""
    return replace(event, traces=traces)


def expected_tag(layout: str, event: SimEvent) -> str:
    """The tag that the counting model must give an event in a layout."""
    return event.tag if layout in WITH_FRIB else event.tag_without_frib


def write_long_run(path: Path, n_events: int, n_lit: int = 60) -> Path:
    """A run of many events that are all one: hard links to the same group, in the 2.0 layout."""
    write_run("merger_2.0", path, [simulate(0, n_lit)])
    with h5py.File(path, "a") as file:
        events_group = file["events"]
        first = events_group["event_0"]
        for number in range(1, n_events):
            events_group[f"event_{number}"] = first
        events_group.attrs.modify("max_event", n_events - 1)
    return path
