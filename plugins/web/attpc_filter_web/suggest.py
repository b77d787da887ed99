"""Suggestions, made anew in the background every so many answers."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter_web.catalogue import Catalogue

#: Rows that are ranked at a time; more than are answered until the next time.
_N_RANKED = 40


class Suggester:
    """Ranks events in the background.

    Parameters
    ----------
    catalogue : Catalogue
        The events, with latents or at least scores.
    every : int
        The ranking is made anew after so many more labels.
    classes : sequence of str, optional
        Labels that can be given; the model's classes if left out.

    Attributes
    ----------
    ranking : list of int
        Rows, the best one first; as it was last made.
    n_made : int
        How often it was made.
    error : str
        Why it could not be made last time; empty if it could.
    """

    def __init__(self, catalogue: Catalogue, every: int, classes: Sequence[str] = ()) -> None:
        self.ranking: list[int] = []
        self.n_made = 0
        self.error = ""
        self._catalogue = catalogue
        self._every = every
        self._classes = list(classes) or catalogue.classes
        self._n_labels = -every
        self._thread: threading.Thread | None = None
        self._rows = np.flatnonzero(catalogue.is_scored & catalogue.can_label)

    @property
    def can_suggest(self) -> bool:
        """Whether there are scores to go by."""
        return len(self._rows) > 0

    def consider(self, labels: Mapping[int, str]) -> None:
        """Start to rank anew if enough labels have come; returns at once.

        Parameters
        ----------
        labels : mapping of int to str
            Label of each labelled row, ``unsure`` included.
        """
        busy = self._thread is not None and self._thread.is_alive()
        if busy or not self.can_suggest or len(labels) - self._n_labels < self._every:
            return
        self._n_labels = len(labels)
        self._thread = threading.Thread(target=self._rank, args=(self._label(labels),), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for a ranking that is under way."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _label(self, labels: Mapping[int, str]) -> NDArray[np.int64]:
        classes = self._classes
        label = np.full(len(self._catalogue), -1, np.int64)
        for row, name in labels.items():
            label[row] = classes.index(name) if name in classes else -2
        return label[self._rows]

    def _rank(self, label: NDArray[np.int64]) -> None:
        scores = self._catalogue.scores[self._rows]
        latent = scores if self._catalogue.latent is None else self._catalogue.latent[self._rows]
        with tempfile.TemporaryDirectory(prefix="attpc-filter-") as folder:
            source, target = Path(folder) / "in.npz", Path(folder) / "out.npy"
            # with the model's own classes its scores are better than a head that lacks some
            needed = len(self._classes) if self._classes == self._catalogue.classes else 2
            columns: dict[str, Any] = {"latent": latent, "scores": scores, "label": label}
            np.savez(source, **columns, n_wanted=_N_RANKED, n_needed=needed)
            command = [
                *(sys.executable, "-m", "attpc_filter_web.refit"),
                *(str(source), str(target), str(os.getpid())),
            ]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                preexec_fn=_yield_cores,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            if done.returncode:
                self.error = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
                return
            self.ranking = self._rows[np.load(target)].tolist()
        self.error = ""
        self.n_made += 1


def _yield_cores() -> None:
    os.nice(10)
