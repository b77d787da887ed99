"""Events of all sizes through the stream: more traces than a buffer holds, and next to none."""

from pathlib import Path

import numpy as np
import pytest

from attpc_filter.config import Config
from attpc_filter.execute.base import InProcess, tag_events
from attpc_filter.formats.registry import open_run
from attpc_filter.tagging.plan import make_plan
from attpc_filter.tagging.stages import BATCH_EVENTS
from tests import miniatures

#: Lit pixels of an event, and how often each of its traces is there: up to 4,500 traces.
SIZES = [(10, 1), (30, 150), (60, 20), (10, 1), (10, 300), (60, 1), (30, 1)]
N_EVENTS = 70


@pytest.mark.parametrize("threads", [1, 3])
def test_events_of_any_size(threads: int, tmp_path: Path, counter_model: Path) -> None:
    events, copies = [], []
    for number in range(N_EVENTS):
        n_lit, n_copies = SIZES[number % len(SIZES)]
        event = miniatures.simulate(number, n_lit)
        traces = np.concatenate([event.traces] * n_copies)
        events.append(miniatures.with_traces(event, traces))
        copies.append(n_copies)
    path = miniatures.write_run("merger_1.0", tmp_path / "run_0001.h5", events)
    plan = make_plan(Config(model=str(counter_model), threads=threads))
    executor = InProcess(plan.config)
    executor.load(plan)
    with open_run(path) as run, tag_events(run, plan, executor) as stream:
        batches = list(stream)
    assert [len(batch.records) for batch in batches] == [BATCH_EVENTS, N_EVENTS - BATCH_EVENTS]
    assert np.concatenate([batch.events for batch in batches]).tolist() == list(range(N_EVENTS))
    assert [tag for batch in batches for tag in batch.tags] == [event.tag for event in events]
    counts = np.concatenate([batch.n_hits for batch in batches])
    expected = [event.n_lit * n for event, n in zip(events, copies, strict=True)]
    assert counts.tolist() == expected
