"""What a model makes of a kind of event that it has never seen.

    python benchmarks/accuracy/unknown_kinds.py export/configs/accurate.yaml --shared ar46 \
        --out FOLDER --kinds straight crosstalk [--epochs 6]

For each kind: trains without it, exports, adds the novelty, and counts what becomes of the kind's
events in the test part. Writes ``unknown_kinds.csv``.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from attpc_export.bundles.export import export_bundle
from attpc_export.bundles.novelty import add_novelty
from attpc_export.config import load_config
from attpc_export.data.labelled import load_events, take_events
from attpc_export.training.train import train

from attpc_filter.score.bundle import load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.tag import assign_tags

#: A score from which one speaks of confidence.
CONFIDENT = 0.9


def main() -> None:
    """Train, export, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--shared", type=Path, required=True, help="folder with train and test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=["straight", "crosstalk"])
    parser.add_argument("--epochs", type=int, help="in place of the preset's")
    parser.add_argument("--seed", type=int, help="in place of the preset's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = [options.shared / "train" / part for part in ("full", "clean")]
    labels = [options.shared / "train" / f"labels_{part}.csv" for part in ("full", "clean")]
    rows = []
    for kind in options.kinds:
        config = load_config(options.config)
        config = replace(
            config,
            seed=config.seed if options.seed is None else options.seed,
            split=replace(config.split, left_out_kinds=(kind,)),
            fit=replace(config.fit, epochs=options.epochs or config.fit.epochs),
        )
        folder = options.out / f"{config.name}_without_{kind}_{config.seed}"
        bundle, novel = folder / "bundle.onnx", folder / "novel.onnx"
        if not bundle.exists():
            train(config, data, labels, folder, "cpu", resume=(folder / "last.pt").exists())
            export_bundle(folder, bundle)
        add_novelty(str(bundle), data, labels, novel)
        rows.append({"preset": config.name, "seed": config.seed, **count(novel, kind, options)})
        print(rows[-1], flush=True)
    with (options.out / "unknown_kinds.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def count(path: Path, kind: str, options: argparse.Namespace) -> dict[str, object]:
    """Tags of the kind's test events, as shares."""
    bundle = load_bundle(str(path))
    contract = bundle.contract
    names = [event_class.name for event_class in contract.classes]
    test = options.shared / "test"
    events = load_events(
        [test / "full"],
        [test / "labels_full.csv"],
        names,
        contract.hits,
        contract.detector.calibration,
    )
    rows = np.flatnonzero(events.kind == kind)
    hits = take_events(events.hits, rows)
    found = Scorer(bundle, "cpu").run(contract.make_inputs(hits), ["scores", "novelty"])
    tags, reasons = assign_tags(
        found["scores"],
        hits.counts,
        np.zeros(len(rows), bool),
        [""] * len(rows),
        names,
        [event_class.threshold for event_class in contract.classes],
        contract.hits.min_hits,
        novelty=found["novelty"],
        novelty_threshold=contract.novelty_threshold,
    )
    share = {f"tagged_{name}": f"{tags.count(name) / len(rows):.3f}" for name in names}
    proton = names.index("proton")
    sure = (found["scores"][:, proton] >= CONFIDENT) & (np.array(tags) == "proton")
    return {
        "kind": kind,
        "events": len(rows),
        **share,
        "uncertain": f"{tags.count('uncertain') / len(rows):.3f}",
        "unlike_training": f"{reasons.count('unlike the training events') / len(rows):.3f}",
        "confidently_proton": f"{sure.mean():.3f}",
    }


if __name__ == "__main__":
    main()
