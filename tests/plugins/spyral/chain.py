"""Spyral's own phases as a chain, and what they leave.

Two things are done to them, neither to what they compute:

* PointcloudPhase adds up to a thousandth of a time bucket to each peak, from one generator a
  process, so that a cloud depends on how many peaks were found before it, and no two runs of Spyral
  give the same. Here each event has a generator of its own.
* EstimationPhase 1.1.2 leaves an enum in its table, which no polars since 1.0 writes. Here it
  becomes its number, as the phase's schema says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import SimpleQueue
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import spyral.phases.estimation_phase
import spyral.phases.pointcloud_phase
from numpy.random import SeedSequence
from spyral import (
    ClusterParameters,
    ClusterPhase,
    ContinuityJoinParameters,
    EstimateParameters,
    EstimationPhase,
    HdbscanParameters,
    PhaseLike,
    PhaseResult,
    Pipeline,
    PointcloudPhase,
    create_reader,
)

from tests.compare import object_content
from tests.spyral_tools import DETECTOR, FRIB, GET, PADS

CLUSTER = ClusterParameters(
    min_cloud_size=50,
    hdbscan_parameters=HdbscanParameters(3, 0.05, 10, 10.0),
    tripclust_parameters=None,
    overlap_join=None,
    continuity_join=ContinuityJoinParameters(0.4, 0.2),
    direction_threshold=0.5,
    outlier_scale_factor=0.05,
)
ESTIMATE = EstimateParameters(min_total_trajectory_points=30, smoothing_factor=100.0)

_estimate_physics = spyral.phases.estimation_phase.estimate_physics


def _estimate_with_number(*arguments: Any) -> Any:
    result = _estimate_physics(*arguments)
    if result is not None:
        result.direction = result.direction.value
    return result


def _create_reader(path: Path, run: int) -> Any:
    reader = create_reader(path, run)
    if reader is not None:
        read = reader.read_event
        reader.read_event = lambda event, get, frib, _: read(
            event, get, frib, np.random.default_rng([run, event])
        )
    return reader


def spyral_phases() -> list[PhaseLike]:
    """From point clouds to estimates."""
    spyral.phases.estimation_phase.estimate_physics = _estimate_with_number
    spyral.phases.pointcloud_phase.create_reader = _create_reader
    return [
        PointcloudPhase(GET, FRIB, DETECTOR, PADS),
        ClusterPhase(CLUSTER, DETECTOR),
        EstimationPhase(ESTIMATE, DETECTOR),
    ]


class Queue:
    """Takes the messages of a pipeline that runs in this process."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def put(self, message: Any) -> None:
        self.messages.append(message)


@dataclass(frozen=True)
class Ran:
    """What a pipeline left, and the messages that it sent."""

    workspace: Path
    messages: list[Any]

    def clusters(self, run: int) -> dict[int, Any]:
        """All that the cluster file holds, by event."""
        with h5py.File(self.workspace / "Cluster" / f"run_{run:04d}.h5") as file:
            return {
                int(name.removeprefix("event_")): object_content(group)
                for name, group in file["cluster"].items()
            }

    def clouds(self, run: int, phase: str = "Pointcloud") -> dict[int, Any]:
        """All clouds with their attributes, by event."""
        with h5py.File(self.workspace / phase / f"run_{run:04d}.h5") as file:
            return {
                int(name.removeprefix("cloud_")): object_content(cloud)
                for name, cloud in file["cloud"].items()
                if name.startswith("cloud_")
            }

    def estimates(self, run: int) -> list[dict[str, Any]]:
        """The rows of the table of estimates."""
        path = self.workspace / "Estimation" / f"run_{run:04d}.parquet"
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows

    def ion_chamber(self, run: int) -> str:
        """The text that holds the ion-chamber count."""
        name = f"run_{run:04d}_gated_ic_scaler.txt"
        return (self.workspace / "Pointcloud" / name).read_text()

    def scalers(self, run: int) -> list[dict[str, Any]]:
        """The rows of the table of scalers."""
        path = self.workspace / "Pointcloud" / f"run_{run:04d}_scaler.parquet"
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows


def run_pipeline(
    phases: Sequence[PhaseLike],
    workspace: Path,
    traces: Path,
    runs: Sequence[int],
    active: Sequence[bool] | None = None,
) -> Ran:
    """Run a pipeline in this process, as Spyral does in each of its own."""
    pipeline = Pipeline(list(phases), list(active or [True] * len(phases)), workspace, traces)
    pipeline.create_workspace()
    pipeline.create_assets()
    assert all(pipeline.validate().values())
    queue: SimpleQueue[Any] | Queue = Queue()
    pipeline.run(list(runs), queue, SeedSequence(1))
    return Ran(workspace, queue.messages)


def run_phase(
    phase: PhaseLike, artifacts: dict[str, Path], workspace: Path, run: int
) -> tuple[PhaseResult, list[Any]]:
    """Run one phase on an artifact."""
    Pipeline([phase], [True], workspace, workspace).create_workspace()
    phase.create_assets(workspace)
    queue = Queue()
    return phase.run(PhaseResult(artifacts, True, run), workspace, queue, None), queue.messages
