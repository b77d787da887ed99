"""Spyral 1.1.2 itself: its readers, its peak search, its PointcloudPhase.

Import it through the fixture ``spyral``, which skips a test where Spyral is not installed.
"""

from dataclasses import dataclass
from multiprocessing import SimpleQueue
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from spyral.core.config import (
    DEFAULT_MAP,
    DetectorParameters,
    FribParameters,
    GetParameters,
    PadParameters,
)
from spyral.core.legacy_beam_pads import LEGACY_BEAM_PADS
from spyral.core.pad_map import PadMap
from spyral.core.point_cloud import calibrate_point_cloud_z, point_cloud_from_get
from spyral.core.schema import PhaseResult
from spyral.phases.pointcloud_phase import PointcloudPhase
from spyral.trace.get_event import GetEvent, preprocess_traces
from spyral.trace.trace_reader import TraceReader, create_reader

__all__ = [
    "FRIB",
    "GET",
    "LEGACY_BEAM_PADS",
    "PAD_MAP",
    "Clouds",
    "GetParameters",
    "TraceReader",
    "create_reader",
    "point_cloud",
    "preprocess_traces",
    "run_pointcloud_phase",
]

GET = GetParameters(20.0, 50.0, 20.0, 50.0, 40.0)
FRIB = FribParameters(
    baseline_window_scale=100.0,
    peak_separation=50.0,
    peak_prominence=20.0,
    peak_max_width=500.0,
    peak_threshold=200.0,
    ic_delay_time_bucket=1100,
    ic_multiplicity=1,
)
DETECTOR = DetectorParameters(
    magnetic_field=1.68,
    electric_field=9500.0,
    detector_length=1000.0,
    beam_region_radius=25.0,
    micromegas_time_bucket=38.0,
    window_time_bucket=278.0,
    get_frequency=12.5,
    garfield_file_path=Path("none"),
    do_garfield_correction=False,
)
PADS = PadParameters(DEFAULT_MAP, DEFAULT_MAP, DEFAULT_MAP)
PAD_MAP = PadMap(PADS)


@dataclass(frozen=True)
class Clouds:
    """What PointcloudPhase wrote: clouds and their attributes by event, the gated IC count."""

    clouds: dict[int, NDArray[np.float64]]
    attributes: dict[int, dict[str, Any]]
    ic_count: int
    has_scalers: bool


def run_pointcloud_phase(path: Path, run: int, workspace: Path) -> Clouds:
    """Run the phase on a run file, as Spyral's pipeline does."""
    phase = PointcloudPhase(GET, FRIB, DETECTOR, PADS)
    for folder in (phase.get_artifact_path(workspace), phase.get_asset_storage_path(workspace)):
        folder.mkdir(parents=True)
    phase.create_assets(workspace)
    payload = PhaseResult({"trace": path}, True, run)
    queue: SimpleQueue[Any] = SimpleQueue()
    result = phase.run(payload, workspace, queue, np.random.default_rng(0))
    queue.close()
    assert result.successful, f"Spyral has no reader for {path}"
    clouds, attributes = {}, {}
    with h5py.File(result.artifacts["pointcloud"], "r") as file:
        for name, dataset in file["cloud"].items():
            number = int(name.removeprefix("cloud_"))
            clouds[number] = dataset[()]
            attributes[number] = dict(dataset.attrs)
    folder = phase.get_artifact_path(workspace)
    counts = (folder / f"run_{run:04d}_gated_ic_scaler.txt").read_text().split()
    return Clouds(
        clouds=clouds,
        attributes=attributes,
        ic_count=int(counts[-1]),
        has_scalers=(folder / f"run_{run:04d}_scaler.parquet").exists(),
    )


def point_cloud(traces: NDArray[np.int16]) -> NDArray[np.float64]:
    """Spyral's points of one trace matrix, in the order of its traces, z calibrated."""
    event = GetEvent(traces, 0, GET, np.random.default_rng(0))
    cloud = point_cloud_from_get(event, PAD_MAP)
    calibrate_point_cloud_z(cloud, DETECTOR, None)
    data: NDArray[np.float64] = cloud.data
    return data
