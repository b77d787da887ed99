"""What a latent is worth: folds of a classifier on it, few labels, scores for what is unusual."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from attpc_export.heads.linear import fit_head
from attpc_export.models.base import LatentModel
from attpc_export.models.latent import LatentLayer
from attpc_export.training.fit import Inputs, apply_in_batches


def fold_f1(
    latent: NDArray[np.float32], label: NDArray[np.int64], n_folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """f1 of each class in each fold of a cross-validated logistic regression.

    As the thesis quotes its numbers (section 9.1): the encoder is fixed, the classifier is not.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    label : ndarray of int64, shape (n_events,)
        Classes, 0 to n_classes - 1, each with ``n_folds`` events or more.
    n_folds : int
        Folds.
    seed : int
        Of the folds.

    Returns
    -------
    ndarray of float64, shape (n_folds, n_classes)
    """
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return np.array([_f1(latent, label, *rows) for rows in folds.split(latent, label)])


def few_label_f1(
    latent: NDArray[np.float32],
    label: NDArray[np.int64],
    n_labels: int,
    n_draws: int = 10,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Macro f1 of logistic regressions that see a few labels, on all other events.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    label : ndarray of int64, shape (n_events,)
        Classes, 0 to n_classes - 1.
    n_labels : int
        Labelled events of a regression, drawn without regard to their class but so that each class
        has one at least.
    n_draws : int
        Regressions, each with labels of its own.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of float64, shape (n_draws,)
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(label)
    found: list[float] = []
    while len(found) < n_draws:
        order = rng.permutation(len(label))
        seen, unseen = order[:n_labels], order[n_labels:]
        if len(np.unique(label[seen])) == len(classes):
            found.append(float(_f1(latent, label, seen, unseen).mean()))
    return np.array(found)


def anomaly_scores(
    model: LatentModel, inputs: Inputs, device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """Numbers that may tell unusual events: of the latent, and of how well it is redrawn.

    Parameters
    ----------
    model : LatentModel
        A model with a decoder.
    inputs : tuple of ndarray of float32
        What it reads, projections first.
    device : torch.device
        Where it is.

    Returns
    -------
    dict of str to ndarray of float32, shape (n_events,)
        ``latent_mean`` and ``latent_square``, averaged over the latent; ``log_sigma`` likewise, of
        a variational latent; ``reconstruction_error``, the binary cross-entropy of a pixel.
    """

    def score(*batch: torch.Tensor) -> dict[str, torch.Tensor]:
        latent = model.encode(*batch)
        wanted = batch[0].clamp(0.0, 1.0)
        drawn = model.reconstruct(latent).clamp(1e-6, 1.0 - 1e-6)
        error = F.binary_cross_entropy(drawn, wanted, reduction="none").flatten(1).mean(1)
        found = {
            "latent_mean": latent.mean(1),
            "latent_square": latent.square().mean(1),
            "reconstruction_error": error,
        }
        layer, encoder = getattr(model, "latent", None), getattr(model, "encoder", None)
        dense = layer.log_variance if isinstance(layer, LatentLayer) else None
        if dense is not None and isinstance(encoder, torch.nn.Sequential):
            found["log_sigma"] = 0.5 * dense(encoder(batch[0]).flatten(1)).mean(1)
        return found

    parts: list[dict[str, Any]] = apply_in_batches(score, inputs, device)
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


def anomaly_auc(
    scores: dict[str, NDArray[np.float32]], is_unusual: NDArray[np.bool_]
) -> dict[str, float]:
    """Area under the ROC curve of each score; 0.5 is chance, below it a low score is unusual."""
    return {name: float(roc_auc_score(is_unusual, score)) for name, score in scores.items()}


def _f1(
    latent: NDArray[np.float32],
    label: NDArray[np.int64],
    seen: NDArray[np.int64],
    unseen: NDArray[np.int64],
) -> NDArray[np.float64]:
    head = fit_head(latent[seen], label[seen], 1.0)
    tag = head.logits(latent[unseen]).argmax(axis=1)
    classes = np.unique(label)
    found: NDArray[np.float64] = f1_score(
        label[unseen], tag, labels=classes, average=None, zero_division=0.0
    )
    return found
