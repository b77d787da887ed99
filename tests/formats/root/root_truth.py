"""What stands in the ROOT files of the tests, from the files beside them and from the rule."""

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from attpc_filter.records import Record
from attpc_filter.root_options import RootOptions

DATA = Path(__file__).parents[2] / "data" / "attpcroot"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "attpcroot"


def _load_rule() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attpcroot_rule", DATA / "truth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rule = _load_rule()


@dataclass(frozen=True)
class Event:
    """What an entry truly holds: traces, as pad numbers and samples, or points (NaN: not known)."""

    pads: NDArray[np.int64] | None = None
    raw: NDArray[np.int64] | None = None
    points: NDArray[np.float64] | None = None

    def matches(self, record: Record) -> bool:
        """Whether a record holds exactly that."""
        if self.points is not None:
            known = ~np.isnan(self.points)
            return (
                record.points is not None
                and record.points.shape == self.points.shape
                and np.array_equal(record.points[known], self.points[known])
            )
        traces = record.traces
        return (
            traces is not None
            and np.array_equal(traces[:, 4], self.pads)
            and np.array_equal(traces[:, 5:], self.raw)
            and not traces[:, :4].any()
        )


Truth = Sequence[Event]
Named = tuple[Path, RootOptions | None, Truth]

#: Miniatures with zero to three events an entry.
SEVERAL = {
    "several",
    "several_unsplit",
    "several_whole",
    "by_value",
    "by_value_unsplit",
    "by_value_whole",
}
#: Miniatures whose hits have no integral.
NO_INTEGRAL = {"by_value", "by_value_unsplit", "by_value_whole"}


def traces_of(entry: int, several: bool = False) -> Event:
    """The pads of an entry of a miniature; null pointers are none."""
    pads = [
        pad
        for index in range(rule.n_objects(entry, several))
        for pad in rule.pads(entry, index)
        if not pad["null"]
    ]
    raw = np.array([pad["raw"] for pad in pads], np.int64).reshape(-1, 512)
    return Event(pads=np.array([pad["num"] for pad in pads], np.int64), raw=raw)


def hits_of(entry: int, several: bool = False, integral: bool = True) -> Event:
    """The hits of an entry of a miniature."""
    hits = [
        hit for index in range(rule.n_objects(entry, several)) for hit in rule.hits(entry, index)
    ]
    names = ("x", "y", "z", "time", "charge", "integral", "pad")
    points = np.array([[hit[name] for name in names] for hit in hits], float).reshape(-1, 7)
    if not integral:
        points[:, 5] = 0
    return Event(points=points)


def miniature_truth(name: str) -> Named:
    """A miniature, how to open it, and its truth."""
    path = DATA / f"{name}.root"
    if name == "columns":
        columns = {"pad": "pads", "adc": "adc", "event": "event"}
        options = RootOptions(tree="traces", columns=columns)
        return path, options, [traces_of(entry) for entry in range(rule.N_ENTRIES)]
    if name == "ntuple":
        columns = {role: f"hit_{role}" for role in ("x", "y", "z", "time", "charge", "pad")}
        options = RootOptions(columns=columns | {"event": "event", "integral": "hit_integral"})
        return path, options, [hits_of(entry) for entry in range(rule.N_ENTRIES)]
    n_entries = {"keys": 2, "now_plain": 2}.get(name, rule.N_ENTRIES)
    return path, None, [traces_of(entry, name in SEVERAL) for entry in range(n_entries)]


def shared_truth(name: str) -> Named:
    """A shared file, how to open it, and its truth from the arrays beside it."""
    path = SHARED / f"{name}.root"
    table = np.load(path.with_suffix(".npz"))
    counts = table["npads"] if "npads" in table else table["nhits"]
    edges = np.concatenate([[0], np.cumsum(counts)])
    spans = [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    if "npads" in table:
        return path, None, [Event(pads=table["num"][s], raw=table["raw"][s]) for s in spans]
    xyzq, pad, time = table["xyzq"], table["pad"], table["tb"]
    integral = np.full(len(pad), np.nan)  # is not in the arrays
    points = np.column_stack([xyzq[:, :3], time, xyzq[:, 3], integral, pad])
    return path, None, [Event(points=points[s]) for s in spans]
