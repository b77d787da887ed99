"""Traces to tags in one graph: a bundle's graph behind one that makes its projections."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import compose

from attpc_export.bundles.export import OPSET, export_module
from attpc_export.bundles.trace_graph import TraceGraph
from attpc_export.bundles.write import write_bundle
from attpc_filter.errors import OutputError, UsageError
from attpc_filter.rebuild.hits import rebuild_hits
from attpc_filter.rebuild.traces import TraceBatch, gather_traces, pad_features
from attpc_filter.records import N_TIME_BUCKETS, N_TRACE_COLUMNS, PAD_COLUMN, Record
from attpc_filter.score.bundle import Bundle, Contract, load_bundle
from attpc_filter.score.scorer import Scorer

#: Largest share of hits that the graph may miss or add, and difference of half of all scores:
#: sums are rounded otherwise than the compiled loops round them, and then cut to integers.
HITS_TOLERANCE = 0.002
SCORES_TOLERANCE = 1e-4
_N_MADE_UP = 2_000


def write_traces(model: str, out: Path, n_events: int, n_traces: int) -> None:
    """Write a copy of a bundle whose graph reads raw traces.

    The graph is compared with the runtime's rebuilding and the bundle on made-up traces: one that
    differs is not written.

    Parameters
    ----------
    model : str
        Name of a bundle that ships, or path of an ONNX file.
    out : Path
        File to write.
    n_events, n_traces : int
        Events, and traces of all of them, that the graph reads at a time.

    Raises
    ------
    UsageError
        If the bundle cannot be loaded, or reads what the graph cannot make.
    OutputError
        If the graph gives something else, or cannot be written.
    """
    try:
        batch = TraceBatch(n_events, n_traces)
    except ValueError as error:
        raise UsageError(f"--events, --traces: {error}") from error
    bundle = load_bundle(model)
    contract = _require_able(bundle)
    tail = onnx.load_model_from_string(bundle.graph)
    opsets = {entry.domain: entry.version for entry in tail.opset_import}
    if opsets != {"": OPSET}:
        raise UsageError(
            f"model {bundle.path}: its operations are {opsets}, not version {OPSET}; export it anew"
        )
    assert contract.projection is not None
    head = export_module(
        TraceGraph(contract.hits, contract.projection, batch.n_events),
        {
            name: torch.from_numpy(np.zeros(shape, kind))
            for name, (shape, kind) in batch.inputs(contract.detector.n_samples).items()
        },
        ["projection", "n_hits"],
    )
    head = compose.add_prefix(head, "traces_", rename_inputs=False, rename_outputs=False)
    head.ir_version = tail.ir_version
    merged = compose.merge_models(head, tail, [("projection", "projection")])
    contract = replace(contract, traces=batch)
    write_bundle(merged, contract, out, lambda written: _require_same(written, bundle, out))


def _require_able(bundle: Bundle) -> Contract:
    contract = bundle.contract
    reasons = {
        "reads traces already": contract.traces is not None,
        "reads point sets, which only the compiled rebuilding makes": contract.points is not None,
        "leaves out hits (clean), which only the compiled rebuilding does": (
            contract.clean.mode != "none"
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UsageError(f"model {bundle.path}: {reason}")
    return contract


def _require_same(graph: Bundle, bundle: Bundle, out: Path) -> None:
    """Compare hits and scores of made-up events by the graph with those of the runtime."""
    contract = bundle.contract
    assert graph.contract.traces is not None
    detector = contract.detector.load()
    records = make_up_records(graph.contract.traces, len(detector.plane.x))
    hits = rebuild_hits(records, detector, contract.hits)
    expected = Scorer(bundle, "cpu").score(contract.make_inputs(hits))
    scorer = Scorer(graph, "cpu")
    dropped = contract.hits.drop_beam_pads
    features = pad_features(detector.plane)
    gather_traces(records, detector, features, dropped, scorer.buffers)
    found = scorer.run_buffers()
    n_hits = found["n_hits"][: len(records)]
    of_hits = np.abs(n_hits - hits.counts).sum() / max(int(hits.counts.sum()), 1)
    of_scores = float(np.median(np.abs(found["scores"][: len(records)] - expected)))
    if not (of_hits <= HITS_TOLERANCE and of_scores <= SCORES_TOLERANCE):
        raise OutputError(
            f"{out}: not written: of made-up traces it makes {of_hits:.2%} other hits than the"
            f" runtime (at most {HITS_TOLERANCE:.2%}), and scores differ by {of_scores:.2g} (at"
            f" most {SCORES_TOLERANCE:g})"
        )


def make_up_records(batch: TraceBatch, n_pads: int) -> list[Record]:
    """Make up events: noise on a pedestal, with none to three pulses a trace, some saturated."""
    rng = np.random.default_rng(0)
    n_events = min(batch.n_events, 16)
    n_traces = min(batch.n_traces, _N_MADE_UP) // n_events
    return [Record(event, "", _make_up(n_traces, n_pads, rng)) for event in range(n_events)]


def _make_up(n_traces: int, n_pads: int, rng: np.random.Generator) -> NDArray[np.int16]:
    samples = rng.normal(rng.uniform(200, 500, (n_traces, 1)), 4.0, (n_traces, N_TIME_BUCKETS))
    bucket = np.arange(N_TIME_BUCKETS)
    for _ in range(3):
        height = rng.exponential(400.0, (n_traces, 1)) * (rng.random((n_traces, 1)) < 0.5)
        from_peak = (bucket - rng.uniform(0, N_TIME_BUCKETS, (n_traces, 1))) / 4.0
        samples += height * np.exp(-0.5 * from_peak**2)
    traces = np.zeros((n_traces, N_TRACE_COLUMNS), np.int16)
    traces[:, -N_TIME_BUCKETS:] = np.clip(samples, 0, 1500)
    traces[:, PAD_COLUMN] = rng.permutation(n_pads)[:n_traces]
    return traces
