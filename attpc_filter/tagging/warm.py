"""The compiled kernels that a plan needs, called ahead of its runs."""

from collections.abc import Callable

import numpy as np

from attpc_filter.compiled import compile_together
from attpc_filter.formats.hdf5 import warm
from attpc_filter.rebuild.detector import DEFAULT_SAMPLES
from attpc_filter.rebuild.hits import rebuild_hits
from attpc_filter.records import N_HARDWARE_COLUMNS, Record
from attpc_filter.tagging.plan import Plan

#: Name of the kernels that write links of HDF5 runs; only the process that writes needs them.
LINKING = "hdf5-linking"


def kernels_of(plan: Plan) -> dict[str, Callable[[], object]]:
    """What calls the kernels that tag events by a plan, by a name for them."""
    contract, detector = plan.contract, plan.detector
    if contract.traces is not None:  # its graph makes hits and projections
        return {"hdf5-reading": warm.call_reading}
    length = "usual" if detector.n_samples == DEFAULT_SAMPLES else "any"
    trace = np.zeros((1, N_HARDWARE_COLUMNS + detector.n_samples), np.int16)
    no_hits = rebuild_hits([Record(0, "", points=np.empty((0, 7)))], detector, contract.hits)
    inputs = "-".join(sorted(contract.input_shapes))
    return {
        f"hits-{contract.hits.mode}-{length}": lambda: rebuild_hits(
            [Record(0, "", traces=trace)], detector, contract.hits
        ),
        "hdf5-reading": warm.call_reading,
        f"inputs-{inputs}-{contract.clean.mode}": lambda: contract.make_inputs(no_hits),
    }


def compile_for_tagging(plan: Plan) -> None:
    """Have the kernels that tag by a plan compiled, or loaded from the cache."""
    compile_together(kernels_of(plan))


def compile_for_writing() -> None:
    """Have the kernels that write streams compiled, or loaded from the cache."""
    compile_together({LINKING: warm.call_linking})
