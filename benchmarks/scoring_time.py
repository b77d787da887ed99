"""Time of one core that a bundle takes an event: making what it reads, and scoring.

    python benchmarks/scoring_time.py RUN [--models default accurate]

RUN is of any format that attpc-filter reads. Medians over repeats, one thread, the machine
otherwise idle.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.rebuild.hits import rebuild_hits
from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.tagging.stages import BATCH_EVENTS

_REPEATS = 15


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--models", nargs="+", default=["default", "accurate"])
    options = parser.parse_args()
    for name in options.models:
        bundle = load_bundle(name)
        contract = bundle.contract
        with open_run(options.run) as run:
            records = [run.read(*event) for event in run.events[:BATCH_EVENTS]]
        hits = rebuild_hits(
            records,
            replace(load_detector(), calibration=contract.detector.calibration),
            contract.hits,
        )
        scorer = Scorer(bundle, "cpu", 1, len(records))
        inputs = contract.make_inputs(hits)
        outputs = ["scores"] if contract.novelty_threshold is None else ["scores", "novelty"]
        made = median_ms(lambda c=contract, h=hits: c.make_inputs(h)) / len(records)
        scored = median_ms(lambda s=scorer, i=inputs, o=outputs: s.run(i, o)) / len(records)
        print(
            f"{name}: {len(records)} events a batch: inputs {made:.3f} ms, scoring {scored:.3f} ms"
            " an event"
        )


def median_ms(work: Callable[[], object]) -> float:
    """Median processor time of a call [ms]."""
    work()
    times = []
    for _ in range(_REPEATS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1e3 * float(np.median(times))


if __name__ == "__main__":
    main()
