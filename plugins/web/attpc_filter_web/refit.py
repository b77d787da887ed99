"""Ranks the events whose labels would help most, in a process of its own.

``python -m attpc_filter_web.refit IN.npz OUT.npy PARENT``: the page stays quick while a head is
fitted, and nothing of it outlives the server. With ``attpc-export`` installed, its head is fitted
anew on the labels that are there and its rule chooses; without it the stored scores stay, and
events with a small margin that are unlike each other are chosen.
"""

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Labels that a class needs to be known to the head.
_FEWEST_LABELS = 3
_INVERSE_REGULARISATION = 0.1
#: Of so many times as many uncertain events as are wanted, those most unlike each other are taken.
_POOL = 10


def rank_events(
    latent: NDArray[np.float32],
    scores: NDArray[np.float32],
    label: NDArray[np.int64],
    n_wanted: int,
    n_needed: int,
) -> NDArray[np.int64]:
    """Rows of the events whose labels would help most, the best one first.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents, all finite.
    scores : ndarray of float32, shape (n_events, n_classes)
        Stored scores.
    label : ndarray of int64, shape (n_events,)
        Class of each labelled event; -1: no label yet; -2: not to be chosen either.
    n_wanted : int
        How many rows.
    n_needed : int
        Classes that need labels before a head is fitted on them.
    """
    try:
        from attpc_export.heads.linear import fit_head
        from attpc_export.labels.suggest import choose_events
    except ImportError:
        return choose_diverse(latent, scores, label != -1, n_wanted)
    labelled = np.flatnonzero(label >= 0)
    known = np.flatnonzero(np.bincount(label[labelled]) >= _FEWEST_LABELS)
    if len(known) >= n_needed:
        labelled = labelled[np.isin(label[labelled], known)]
        target = np.searchsorted(known, label[labelled])
        head = fit_head(latent[labelled], target, _INVERSE_REGULARISATION)
        scores = _softmax(head.logits(latent)).astype(np.float32)
    chosen = choose_events(latent, scores, label != -1, n_wanted)
    return np.array([suggestion.row for suggestion in chosen], np.int64)


def choose_diverse(
    latent: NDArray[np.float32],
    scores: NDArray[np.float32],
    is_taken: NDArray[np.bool_],
    n_wanted: int,
) -> NDArray[np.int64]:
    """Rows of events with small margins, each the farthest from all that are taken or before it.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores.
    is_taken : ndarray of bool, shape (n_events,)
        Which have a label already.
    n_wanted : int
        How many rows.
    """
    two = np.sort(scores, axis=1)[:, -2:]
    free = np.flatnonzero(~is_taken)
    pool = free[np.argsort((two[:, 1] - two[:, 0])[free], kind="stable")[: _POOL * n_wanted]]
    place = (latent - latent.mean(0)) / (latent.std(0) + 1e-6)
    nearest = np.full(len(pool), np.inf)
    for row in np.flatnonzero(is_taken):
        nearest = np.minimum(nearest, np.linalg.norm(place[pool] - place[row], axis=1))
    chosen: list[int] = []
    while len(chosen) < min(n_wanted, len(pool)):
        best = int(nearest.argmax())
        chosen.append(int(pool[best]))
        nearest = np.minimum(nearest, np.linalg.norm(place[pool] - place[chosen[-1]], axis=1))
        nearest[best] = -1.0
    return np.array(chosen, np.int64)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return softmax


def main(source: Path, target: Path) -> None:
    """Read what there is, rank, and write the rows."""
    with np.load(source) as held:
        rows = rank_events(
            held["latent"],
            held["scores"],
            held["label"],
            int(held["n_wanted"]),
            int(held["n_needed"]),
        )
    np.save(target, rows)


def end_with_parent(parent: int) -> None:
    """End this process within a second of its parent, whatever ended that."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
