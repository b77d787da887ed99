"""Cut the sample run out of a longer simulated run: a few events of each kind, as they stand.

    python sample/make_sample.py RAW_RUN.h5 LABELS.csv sample/run_0101.h5

Keeps attpc_merger's 2.0 layout, event numbers with their gaps, all attributes and the scalers. One
event with FRIB data becomes an ion-chamber downscale trigger, so that the sample shows one.
"""

import csv
import sys
from pathlib import Path

import h5py

EVENTS_A_KIND = {"proton": 5, "carbon": 3, "pileup": 1}
OTHERS = 2
MOST_TRACES = {"proton": 450, "carbon": 400}


def main(source: Path, labels: Path, target: Path) -> None:
    """Cut ``target`` out of ``source``, whose kinds of events ``labels`` tells."""
    run = int(source.stem.removeprefix("run_"))
    with open(labels, newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["run"]) == run]
    taken: dict[str, int] = {}
    with h5py.File(source) as raw, h5py.File(target, "w") as cut:
        for name in raw:
            if name != "events":
                raw.copy(name, cut)
        events = cut.create_group("events")
        for key, value in raw["events"].attrs.items():
            events.attrs.create(key, value)
        with_frib = [row for row in rows if "frib_physics" in raw[f"events/event_{row['event']}"]]
        trigger = min(with_frib, key=lambda row: int(row["n_traces"]))
        numbers = [int(trigger["event"])]
        for row in rows:
            kind, n_traces = row["kind"], int(row["n_traces"])
            enough = taken.get(kind, 0) >= EVENTS_A_KIND.get(kind, OTHERS)
            if enough or n_traces > MOST_TRACES.get(kind, 900) or row is trigger:
                continue
            if kind not in EVENTS_A_KIND and n_traces > 350:
                continue
            taken[kind] = taken.get(kind, 0) + 1
            numbers.append(int(row["event"]))
        for number in sorted(numbers):
            raw.copy(f"events/event_{number}", events)
        events[f"event_{trigger['event']}/frib_physics/977"][0] = 2
        events.attrs.modify("min_event", min(numbers))
        events.attrs.modify("max_event", max(numbers))
    print(f"{target}: {len(numbers)} events, {target.stat().st_size / 1e6:.1f} MB: {taken}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
