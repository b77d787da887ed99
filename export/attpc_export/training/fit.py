"""Finds the weights of a latent model: the loop over epochs, its checkpoints and its curves."""

import csv
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor, nn
from tqdm import tqdm

from attpc_export.config import FitSettings
from attpc_export.models.base import LatentModel
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging

CHECKPOINT_NAME = "last.pt"
BEST_NAME = "best.pt"
CURVES_NAME = "curves.csv"
PICTURE_NAME = "curves.png"

#: What :meth:`LatentModel.loss` takes: projections and, if it has a frozen part, what that gives.
Inputs = tuple[NDArray[np.float32], ...]
#: Inputs of an epoch and what its events are to be scored as, by the epoch's number.
Draw = Callable[[int], tuple[Inputs, NDArray[np.float32]]]

_BATCH_WITHOUT_GRADIENT = 256
_AVERAGE_WARM_UP = 10  # steps after which the running average is slow enough to be one


class TrainingModel(nn.Module):
    """A latent model with the linear head that its encoder is tuned through.

    Parameters
    ----------
    model : LatentModel
        The model.
    n_classes : int
        Classes of the head.
    settings : FitSettings
        How the parts of the loss are weighted.
    """

    def __init__(self, model: LatentModel, n_classes: int, settings: FitSettings) -> None:
        super().__init__()
        self.model = model
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(model.latent_size, n_classes)
        self.settings = settings

    def loss(self, inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and the logits of its events.

        Parameters
        ----------
        inputs : tuple of Tensor, the first axis of each n_events long
            What :meth:`LatentModel.loss` takes.
        target : Tensor, shape (n_events, n_classes)
            What they are to be scored as; events with a row of zeros count for the model's own
            loss only.
        """
        own_loss, latent = self.model.loss(*inputs)
        weight = self.settings.label_weight
        if self.training:  # the encoder gets a share of the gradient, the training head all of it
            latent, weight = weight * latent + (1.0 - weight) * latent.detach(), 1.0
        logits = self.head(self.dropout(latent))
        share = self.settings.label_smoothing if self.training else 0.0
        smooth = (1.0 - share) * target + share * target.mean(1, keepdim=True)
        cross_entropy = -(smooth * F.log_softmax(logits, 1)).sum()
        n_events = target.sum().clamp(min=1.0)
        total = self.settings.reconstruction_weight * own_loss + weight * cross_entropy / n_events
        return total, logits


def targets_of(label: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """What events are to be scored as by their labels: 1 for the class; zeros without a label."""
    found: NDArray[np.float32] = np.equal.outer(label, np.arange(n_classes)).astype(np.float32)
    return found


def fit(
    training_model: TrainingModel,
    draw: Draw,
    validation: tuple[Inputs, NDArray[np.float32]],
    seed: int,
    device: torch.device,
    folder: Path,
) -> None:
    """Train until the epochs or the patience are used up; ``training_model`` gets the best weights.

    After each epoch the folder holds all that is needed to go on: if it holds a checkpoint already,
    training continues from there, with the results that an undisturbed training would have.

    Parameters
    ----------
    training_model : TrainingModel
        On ``device``.
    draw : callable
        Gives the inputs of an epoch and what they are to be scored as.
    validation : tuple
        The same of the events that decide which weights are the best.
    seed : int
        Seed of what is random besides ``draw``.
    device : torch.device
        Where to train.
    folder : Path
        Run folder.
    """
    settings = training_model.settings
    # convolutions on a CPU are faster so
    training_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = _Loop(training_model, device)
    if (folder / CHECKPOINT_NAME).exists():
        loop.resume(folder)
        tqdm.write(f"resumed after epoch {len(loop.curves)}")
    with ThreadPoolExecutor(1) as ahead:  # the next epoch's inputs are made during this one
        inputs = ahead.submit(draw, len(loop.curves))
        for epoch in range(len(loop.curves), settings.epochs):
            if epoch - loop.best_epoch >= settings.patience:
                tqdm.write(f"stopped: no better validation loss for {settings.patience} epochs")
                break
            started = time.monotonic()
            current = inputs.result()
            if epoch + 1 < settings.epochs:
                inputs = ahead.submit(draw, epoch + 1)
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
            train_loss = loop.run_epoch(epoch, *current)
            validation_loss, macro_f1 = loop.validate(*validation)
            if not math.isfinite(validation_loss):
                raise UsageError(
                    f"epoch {epoch + 1}: the loss is no longer finite; lower fit.learning_rate"
                )
            loop.curves.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": train_loss,
                    "validation_loss": validation_loss,
                    "validation_macro_f1": macro_f1,
                    "seconds": time.monotonic() - started,
                }
            )
            loop.save(folder, validation_loss)
            tqdm.write(_describe(loop.curves[-1], settings.epochs))
    draw_curves(folder)
    training_model.load_state_dict(
        torch.load(folder / BEST_NAME, map_location=device, weights_only=True)
    )
    training_model.eval()


def learning_rate(step: int, n_steps: int, settings: FitSettings) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(settings.warm_up * n_steps))
    if step < rise:
        return settings.learning_rate * (step + 1) / rise
    done = (step - rise) / max(1, n_steps - rise)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def apply_in_batches(
    function: Callable[..., Any], inputs: Inputs, device: torch.device
) -> list[Any]:
    """Call a function on batches of the inputs, without gradients."""
    with torch.no_grad():
        return [
            function(
                *(torch.from_numpy(x[i : i + _BATCH_WITHOUT_GRADIENT]).to(device) for x in inputs)
            )
            for i in range(0, len(inputs[0]), _BATCH_WITHOUT_GRADIENT)
        ]


def draw_curves(folder: Path) -> None:
    """Draw the learning curves of a run folder."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with (folder / CURVES_NAME).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    for name in ("train_loss", "validation_loss"):
        upper.plot(epochs, [float(row[name]) for row in rows], label=name.replace("_", " "))
    upper.set(ylabel="loss", yscale="log")
    upper.legend(loc="upper right")  # "best" looks for a place for long
    lower.plot(epochs, [float(row["validation_macro_f1"]) for row in rows])
    lower.set(xlabel="epoch", ylabel="macro f1, validation")
    with Staging() as staging:
        figure.savefig(staging.path(folder / PICTURE_NAME), dpi=100, format="png")
        staging.commit()
    plt.close(figure)


class _Loop:
    """The state of a training between two epochs."""

    def __init__(self, training_model: TrainingModel, device: torch.device) -> None:
        self.training_model = training_model
        self.device = device
        self.settings = training_model.settings
        self.optimizer = torch.optim.AdamW(
            training_model.parameters(),
            betas=(self.settings.beta1, self.settings.beta2),
            weight_decay=self.settings.weight_decay,
        )
        self.average = {k: v.detach().clone() for k, v in training_model.state_dict().items()}
        self.best_epoch = 0
        self.best_loss = math.inf
        self.curves: list[dict[str, float]] = []

    def run_epoch(self, epoch: int, inputs: Inputs, target: NDArray[np.float32]) -> float:
        """Take one step a batch; return the mean loss."""
        self.training_model.eval()
        if self.training_model.model.start_epoch(epoch, inputs, self.device):
            # the loss is another one now, and weights were set that the average does not know
            self.best_loss, self.best_epoch = math.inf, epoch
            self.average = {
                k: v.detach().clone() for k, v in self.training_model.state_dict().items()
            }
        self.training_model.train()
        # parts of nearly equal size: a last batch of one event has no variance to normalise with
        n_batches = math.ceil(len(target) / self.settings.batch_size)
        order = torch.randperm(len(target)).numpy()
        total = 0.0
        # disable=None: a bar on a terminal, nothing elsewhere
        bar = tqdm(
            np.array_split(order, n_batches), desc=f"epoch {epoch + 1}", leave=False, disable=None
        )
        for step, rows in enumerate(bar, epoch * n_batches):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(step, self.settings.epochs * n_batches, self.settings)
            self.optimizer.zero_grad(set_to_none=True)
            loss, _ = self.training_model.loss(*self._batch(inputs, target, rows))
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._update_average(step)
            total += loss.item() * len(rows)
        return total / len(target)

    def validate(self, inputs: Inputs, target: NDArray[np.float32]) -> tuple[float, float]:
        """Loss and macro f1 of the averaged weights."""
        trained = {k: v.clone() for k, v in self.training_model.state_dict().items()}
        self.training_model.load_state_dict(self.average)
        self.training_model.eval()
        total, logits = 0.0, []
        with torch.no_grad():
            for start in range(0, len(target), _BATCH_WITHOUT_GRADIENT):
                rows = slice(start, start + _BATCH_WITHOUT_GRADIENT)
                batch, wanted = self._batch(inputs, target, rows)
                loss, batch_logits = self.training_model.loss(batch, wanted)
                total += loss.item() * len(wanted)
                logits.append(batch_logits.cpu().numpy())
        self.training_model.load_state_dict(trained)
        labelled = target.any(axis=1)
        found, label = np.concatenate(logits).argmax(axis=1), target.argmax(axis=1)
        macro_f1 = f1_score(label[labelled], found[labelled], average="macro", zero_division=0.0)
        return total / len(target), float(macro_f1)

    def save(self, folder: Path, validation_loss: float) -> None:
        """Write the checkpoint and the curves, and the averaged weights if they are the best."""
        with Staging() as staging:
            if validation_loss < self.best_loss:
                self.best_loss, self.best_epoch = validation_loss, len(self.curves)
                torch.save(self.average, staging.path(folder / BEST_NAME))
            state = {
                "training_model": self.training_model.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "best_epoch": self.best_epoch,
                "best_loss": self.best_loss,
                "curves": self.curves,
            }
            torch.save(state, staging.path(folder / CHECKPOINT_NAME))
            with staging.path(folder / CURVES_NAME).open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(self.curves[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in self.curves)
            staging.commit()

    def resume(self, folder: Path) -> None:
        """Take the state from the folder's checkpoint."""
        state = torch.load(folder / CHECKPOINT_NAME, map_location=self.device, weights_only=True)
        self.training_model.load_state_dict(state["training_model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]
        self.curves = state["curves"]

    def _batch(
        self, inputs: Inputs, target: NDArray[np.float32], rows: slice | NDArray[np.int64]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        batch = tuple(torch.from_numpy(part[rows]).to(self.device) for part in inputs)
        return batch, torch.from_numpy(target[rows]).to(self.device)

    def _update_average(self, step: int) -> None:
        keep = min(self.settings.average_decay, (1 + step) / (_AVERAGE_WARM_UP + step))
        with torch.no_grad():
            for name, value in self.training_model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1.0 - keep)
                else:
                    self.average[name].copy_(value)


def _describe(row: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:.0f} of {epochs}: loss {row['train_loss']:.4f},"
        f" validation {row['validation_loss']:.4f}, macro f1 {row['validation_macro_f1']:.4f},"
        f" {row['seconds']:.1f} s"
    )
