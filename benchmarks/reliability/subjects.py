"""The kinds of files that :mod:`mutations` damages: how one is made, and what is read of it."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attpc_filter.config import make_config
from attpc_filter.formats.graw import GrawRun
from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import Run
from attpc_filter.output.head_file import read_head
from attpc_filter.output.latents import read_latents
from attpc_filter.output.manifest import read_manifest
from attpc_filter.output.tag_table import read_tags
from attpc_filter.rebuild.detector_file import read_detector
from attpc_filter.records import N_TRACE_COLUMNS, Record
from attpc_filter.root_options import RootOptions
from attpc_filter.score.bundle import load_bundle
from tests import graw_files, miniatures, tiny_models
from tests.formats import graw_fuzz
from tests.formats.root import root_fuzz
from tests.formats.root.root_truth import miniature_truth

ROOT = Path(__file__).resolve().parents[2]
#: What was read: a digest by event, or by name; a text that begins so says why there is none.
Reading = dict[str, str]
REFUSED = "unreadable: "
#: A name that begins so is of what has no checksum in a file that has some.
UNCHECKED = "unchecked: "

_ROOT_NAMES = [
    name
    for name in (*root_fuzz.PROTECTED, *root_fuzz.UNPROTECTED)
    if miniature_truth(name)[0].exists()
]
#: HDF5's formats of files, and how the numbers are stored.
_STORED: dict[str, dict[str, Any]] = {
    "earliest": {},
    "latest": {"chunks": True, "compression": "gzip", "fletcher32": True},
}
_GRAW_FILE = "CoBo0_AsAd0_2026-01-02T03_04_05.000_0000.graw"


@dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes
    ----------
    name : str
        What it is.
    file : str
        The file that is damaged, in the subject's folder.
    read : callable
        Reads the folder.
    protected : bool
        Whether checksums cover all that is read.
    """

    name: str
    file: str
    read: Callable[[Path], Reading]
    protected: bool = False


# ------------------------------------------------------------------------------------- reading


def digest(*parts: Any) -> str:
    """A digest of arrays and texts."""
    made = hashlib.sha256()
    for part in parts:
        made.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return made.hexdigest()[:16]


def _describe(record: Record) -> str:
    if record.reason:
        return REFUSED + record.reason
    held = record.traces if record.traces is not None else record.points
    return digest(record.passthrough, "none" if held is None else np.ascontiguousarray(held))


def _records(run: Run) -> Reading:
    """Events in parts, as a job reads them, and again one by one; and a copy of all."""
    with run:
        buffer = np.empty((40, N_TRACE_COLUMNS), np.int16)
        found = {}
        for part in run.parts(run.events, buffer):
            found |= {f"event {record.event}": _describe(record) for record in part}
        for record in run.records():
            if found[f"event {record.event}"] != _describe(record):
                found[f"event {record.event}"] = "two readings differ"
        if run.has_streams and isinstance(run.path, Path) and run.path.suffix == ".h5":
            target = run.path.with_name("copy")
            stream = run.create_stream(target, "copy", "all")
            try:
                for event in run.events:
                    stream.add(Record(*event))
                stream.close()
            except BaseException:
                stream.abort()
                raise
            finally:
                target.unlink(missing_ok=True)
    return found


def _run_file(folder: Path) -> Reading:
    return _records(open_run(folder / "run_0001.h5"))


def _root_file(options: RootOptions | None) -> Callable[[Path], Reading]:
    return lambda folder: _records(open_run(folder / "run_0001.root", options))


def _graw_files(folder: Path) -> Reading:
    run = GrawRun(folder, graw_fuzz.channel_map())
    notes = run.notes[1:]
    found = _records(run)
    if notes:
        found["notes"] = REFUSED + "; ".join(notes)
    return found


def _tags(folder: Path) -> Reading:
    table, metadata = read_tags(folder / "run_0001.parquet")
    columns = {name: digest(table.column(name).to_pylist()) for name in table.column_names}
    # Parquet has checksums of its pages, and none of the footer, where the metadata are
    return columns | {UNCHECKED + "metadata": digest(sorted(metadata.items()))}


def _latents(folder: Path) -> Reading:
    events, latents = read_latents(folder / "run_0001.parquet")
    return {"events": digest(events), "latents": digest(latents)}


def _manifest(folder: Path) -> Reading:
    return {"manifest": digest(read_manifest(folder))}


def _head(folder: Path) -> Reading:
    head = read_head(folder / "head.json")
    return {"head": digest(head.weight, head.bias, head.classes)}


def _model(folder: Path) -> Reading:
    bundle = load_bundle(str(folder / "model.onnx"))
    return {"contract": digest(bundle.contract)}


def _options(folder: Path) -> Reading:
    return {"options": digest(make_config(folder / "options.yaml", {}))}


def _detector(folder: Path) -> Reading:
    return {"detector": digest(read_detector(folder / "square-1024.yaml").sha256)}


# -------------------------------------------------------------------------------------- making


def _events() -> list[miniatures.SimEvent]:
    """Few pads, so that much of a file is metadata."""
    return [
        miniatures.simulate(1, 8, trigger=miniatures.MESH_TRIGGER),
        miniatures.simulate(2, 10),
        miniatures.simulate(5, 8, trigger=miniatures.IC_TRIGGER, digitizer=False),
        miniatures.simulate(11, 8),
    ]


def list_subjects() -> list[Subject]:
    """All kinds of files."""
    subjects = []
    for layout in miniatures.LAYOUTS:
        for libver in _STORED:
            name = f"{layout} {libver}"
            subjects.append(Subject(name, "run_0001.h5", _run_file, libver == "latest"))
    for name in _ROOT_NAMES:
        options = miniature_truth(name)[1]
        protected = name in root_fuzz.PROTECTED
        reads = _root_file(options)
        subjects.append(Subject(f"ROOT {name}", "run_0001.root", reads, protected))
    for index in range(len(graw_fuzz.STYLES)):
        subjects.append(Subject(f"GET {index}", _GRAW_FILE, _graw_files))
    return [
        *subjects,
        Subject("hit store", "run_0001.h5", _run_file),
        Subject("tags", "run_0001.parquet", _tags, protected=True),
        Subject("latents", "run_0001.parquet", _latents),
        Subject("manifest", "manifest.json", _manifest),
        Subject("head", "head.json", _head),
        Subject("model", "model.onnx", _model),
        Subject("options", "options.yaml", _options),
        Subject("detector", "square-1024.yaml", _detector),
        Subject("detector's pads", "square-1024.csv", _detector),
    ]


def make_corpus(folder: Path) -> None:
    """Write an example of each kind, each into a folder of its name."""
    for layout in miniatures.LAYOUTS:
        for libver, options in _STORED.items():
            storage = miniatures.Storage(libver=libver, options=options)
            path = folder / f"{layout} {libver}" / "run_0001.h5"
            miniatures.write_run(layout, path, _events(), storage)
            if options:
                _check_all(path)
    for name in _ROOT_NAMES:
        target = _new(folder / f"ROOT {name}") / "run_0001.root"
        shutil.copyfile(miniature_truth(name)[0], target)
    for index, style in enumerate(graw_fuzz.STYLES):
        events = {number: graw_fuzz.simulate(number) for number in range(graw_fuzz.N_EVENTS)}
        written = graw_files.write_run(folder / f"GET {index}", events, style)
        min(written.iterdir()).rename(written / _GRAW_FILE)
    _make_outputs(folder)


def _check_all(path: Path) -> None:
    """Give every dataset a checksum."""
    with h5py.File(path, "r+", libver="latest") as file:
        found: dict[str, Any] = {}

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset) and item.size and item.dtype.kind != "O":
                found[name] = item[()], dict(item.attrs)

        file.visititems(visit)
        for name, (values, attributes) in found.items():
            if file[name].fletcher32 or not file[name].shape:
                continue
            del file[name]
            flat = np.asarray(values)
            made = file.create_dataset(name, data=flat, chunks=flat.shape, fletcher32=True)
            made.attrs.update(attributes)


def _make_outputs(folder: Path) -> None:
    """What a job writes and what it is given: by the real command line."""
    model = tiny_models.write_model(_new(folder / "model") / "model.onnx")
    run = folder / "merger_2.0 earliest" / "run_0001.h5"
    out = folder / "output"
    command = [sys.executable, "-m", "attpc_filter.cli", "run", str(run), "--out", str(out)]
    more = ["--model", str(model), "--keep-hits", "--keep-latents", "--no-picture"]
    subprocess.run([*command, *more], check=True, cwd=ROOT, capture_output=True)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    (entry,) = manifest["runs"]
    for name, part, ending in (
        ("hit store", entry["hit_store"], ".h5"),
        ("tags", entry["tag_table"], ".parquet"),
        ("latents", entry["latents"], ".parquet"),
    ):
        shutil.copyfile(out / part, _new(folder / name) / f"run_0001{ending}")
    shutil.copyfile(out / "manifest.json", _new(folder / "manifest") / "manifest.json")
    head = {
        "head_version": 1,
        "weight": [[0.5, -1.25], [2.0, 0.125]],
        "bias": [0.0, 1.0],
        "classes": ["proton", "carbon"],
        "model_sha256": "0" * 64,
    }
    (_new(folder / "head") / "head.json").write_text(json.dumps(head))
    options = "model: default\nstreams: copy\nthreads: 2\nthresholds: {proton: 0.9, carbon: 0.5}\n"
    (_new(folder / "options") / "options.yaml").write_text(options)
    for name in ("detector", "detector's pads"):
        for ending in ("yaml", "csv"):
            source = ROOT / "attpc_filter" / "detectors" / f"square-1024.{ending}"
            shutil.copyfile(source, _new(folder / name) / source.name)
    shutil.rmtree(out)


def _new(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
