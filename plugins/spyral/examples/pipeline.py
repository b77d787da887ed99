"""Spyral's example pipeline with attpc-filter in it: the lines marked "attpc-filter" are added.

Set the paths and the parameters to your experiment; those below are of the simulated 46Ar runs.
"""

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import spyral.phases.estimation_phase
from spyral import (
    DEFAULT_MAP,
    ClusterParameters,
    ClusterPhase,
    ContinuityJoinParameters,
    DetectorParameters,
    EstimateParameters,
    EstimationPhase,
    FribParameters,
    GetParameters,
    HdbscanParameters,
    PadParameters,
    Pipeline,
    PointcloudPhase,
    start_pipeline,
)

from attpc_filter_spyral import TraceFilterPhase  # attpc-filter

# Spyral 1.1.2 leaves an enum in the table of estimates, which polars refuses to write: here it
# becomes the number that Spyral's schema promises. Leave it out where your Spyral does without.
estimate_physics = spyral.phases.estimation_phase.estimate_physics


def estimate_with_number(*arguments: Any) -> Any:
    """Estimate, with the direction as a number."""
    result = estimate_physics(*arguments)
    if result is not None:
        result.direction = result.direction.value
    return result


spyral.phases.estimation_phase.estimate_physics = estimate_with_number

workspace_path = Path(sys.argv[1])
trace_path = Path(sys.argv[2])
run_min, run_max, n_processes = (int(number) for number in sys.argv[3:6])

pad_params = PadParameters(
    pad_geometry_path=DEFAULT_MAP,
    pad_time_path=DEFAULT_MAP,
    pad_scale_path=DEFAULT_MAP,
)

get_params = GetParameters(
    baseline_window_scale=20.0,
    peak_separation=50.0,
    peak_prominence=20.0,
    peak_max_width=50.0,
    peak_threshold=40.0,
)

frib_params = FribParameters(
    baseline_window_scale=100.0,
    peak_separation=50.0,
    peak_prominence=20.0,
    peak_max_width=500.0,
    peak_threshold=100.0,
    ic_delay_time_bucket=1100,
    ic_multiplicity=1,
)

det_params = DetectorParameters(
    magnetic_field=1.68,
    electric_field=9500.0,
    detector_length=1000.0,
    beam_region_radius=25.0,
    micromegas_time_bucket=38.0,
    window_time_bucket=278.0,
    get_frequency=12.5,
    garfield_file_path=Path("/set/this/path.txt"),
    do_garfield_correction=False,
)

cluster_params = ClusterParameters(
    min_cloud_size=50,
    hdbscan_parameters=HdbscanParameters(
        min_points=3,
        min_size_scale_factor=0.05,
        min_size_lower_cutoff=10,
        cluster_selection_epsilon=10.0,
    ),
    tripclust_parameters=None,
    overlap_join=None,
    continuity_join=ContinuityJoinParameters(join_radius_fraction=0.4, join_z_fraction=0.2),
    direction_threshold=0.5,
    outlier_scale_factor=0.05,
)

estimate_params = EstimateParameters(min_total_trajectory_points=30, smoothing_factor=100.0)

pipe = Pipeline(
    [
        TraceFilterPhase(["proton", "carbon"], det_params),  # attpc-filter
        PointcloudPhase(get_params, frib_params, det_params, pad_params),
        ClusterPhase(cluster_params, det_params),
        EstimationPhase(estimate_params, det_params),
    ],
    [True, True, True, True],
    workspace_path,
    trace_path,
)


def main() -> None:
    """Run the pipeline."""
    start_pipeline(pipe, run_min, run_max, n_processes)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
