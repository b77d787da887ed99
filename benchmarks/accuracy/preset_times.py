"""How long one core takes to train each preset, at its own size.

    python benchmarks/accuracy/preset_times.py --data AR46 --weights FOLDER_OF_BACKBONES \
        --out benchmarks/accuracy/preset_times.csv

Each preset takes a few steps on events of one run. The median of a step, the validation, the
variation of the events and, once, the features of a frozen backbone are scaled to all events that
it is meant for; reading them and fitting the head come on top, seconds each. Presets that the table
has already are not measured again; their epochs are looked up.
"""

import argparse
import csv
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attpc_export.config import load_config
from attpc_export.models.backbone import with_weights
from attpc_export.models.registry import build_model
from attpc_export.training.fit import TrainingModel
from attpc_export.training.material import gather

PRESETS = Path(__file__).parents[2] / "export" / "configs"
RUN = "train/full/run_0101.h5"
LABELS = ("train/labels_full.csv", "train/labels_clean.csv")
#: Presets that are trained on full and clean events together; the thesis' for simulated events are
#: trained on the clean ones, the others on the full ones.
ON_BOTH = ("default", "accurate")


#: Presets that no CPU can train.
FOR_A_GPU = ("vgg16-tuned",)
STEPS = 5
#: As many as the features of a backbone are computed for at a time.
EVENTS_A_BATCH = 16


def measure(preset: Path, data: Path, weights: Path) -> dict[str, object]:
    """Take some steps; return the line of the table."""
    config = load_config(preset)
    config = replace(
        config,
        model=with_weights(config.model, weights),
        split=replace(config.split, group_column="source_event"),
    )
    material = gather(config, [data / RUN], [data / LABELS[0]])
    model = build_model(config.model, material.projection.shape)
    training_model = TrainingModel(model, len(config.classes), config.fit)
    training_model.to(memory_format=torch.channels_last)
    labels = LABELS if preset.stem in ON_BOTH else LABELS[:1]
    if "simulated" in preset.stem:
        labels = LABELS[1:]
    events = sum(len((data / name).read_text().splitlines()) - 1 for name in labels)
    n_training = events * (1.0 - config.split.validation)
    once, epoch, step, steps = 0.0, 0.0, 0.0, 0

    seconds, (arrays, targets) = timed(lambda: material.lesson(0))
    if config.augment.vary:
        epoch += seconds / len(targets) * n_training
    batch = np.resize(np.arange(len(targets)), config.fit.batch_size)
    inputs = tuple(torch.from_numpy(part[batch]) for part in arrays)
    if (part := model.frozen_part()) is not None:
        some = inputs[0][:EVENTS_A_BATCH]
        with torch.no_grad():
            part(some)
            seconds, features = timed(lambda: part(some))
        once = seconds / len(some) * events
        inputs = (*inputs, features[torch.arange(len(batch)) % len(some)])
    if any(parameter.requires_grad for parameter in model.parameters()):
        optimizer = torch.optim.AdamW(p for p in training_model.parameters() if p.requires_grad)
        target = torch.from_numpy(targets[batch])

        def take_step() -> None:
            optimizer.zero_grad()
            training_model.loss(inputs, target)[0].backward()
            optimizer.step()

        def validate() -> None:
            with torch.no_grad():
                training_model.loss(inputs, target)

        take_step()
        step = statistics.median(timed(take_step)[0] for _ in range(STEPS))
        steps = math.ceil(n_training / config.fit.batch_size)
        training_model.eval()
        epoch += steps * step + timed(validate)[0] / len(batch) * (events - n_training)
    return {
        "preset": preset.stem,
        "size": config.projection.size,
        "events": events,
        "steps_an_epoch": steps,
        "seconds_a_step": f"{step:.3f}",
        "minutes_once": f"{once / 60:.2f}",
        "minutes_an_epoch": f"{epoch / 60:.3f}",
    }


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds that a call took, and what it gave."""
    started = time.process_time()
    found = function()
    return time.process_time() - started, found


def with_total(row: dict[str, object], preset: Path) -> dict[str, object]:
    """Add the time of all epochs of a preset."""
    epochs = load_config(preset).fit.epochs if float(str(row["minutes_an_epoch"])) else 0
    minutes = float(str(row["minutes_once"])) + epochs * float(str(row["minutes_an_epoch"]))
    return row | {"epochs": epochs, "minutes": f"{minutes:.1f}"}


def main() -> None:
    """Measure all presets that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=1000, help="presets to measure in this call")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that nothing waits for another thread
    rows: list[dict[str, object]] = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    presets = {path.stem: path for path in sorted(PRESETS.rglob("*.yaml"))}
    presets = {name: path for name, path in presets.items() if name not in FOR_A_GPU}
    missing = [path for name, path in presets.items() if name not in {r["preset"] for r in rows}]
    for preset in [*missing[: options.most], None]:
        if preset is not None:
            rows.append(measure(preset, options.data, options.weights))
            print(rows[-1], flush=True)
        table = [with_total(row, presets[str(row["preset"])]) for row in rows]
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
