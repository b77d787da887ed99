"""A bundle that teaches another model what it thinks of events (distillation).

Hinton, Vinyals, Dean, arXiv 1503.02531: the scores of a large model say more about an event than
its label does, and they can be had for varied events and for events without a label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attpc_export.config import Config
from attpc_export.data.labelled import take_events
from attpc_filter.errors import UsageError
from attpc_filter.records import Hits
from attpc_filter.score.bundle import Contract, load_bundle
from attpc_filter.score.scorer import Scorer

#: Events whose inputs are made at a time.
_EVENTS_A_BATCH = 512


@dataclass(frozen=True, slots=True)
class Teacher:
    """A bundle that gives targets; made by :func:`load_teacher`.

    Attributes
    ----------
    contract : Contract
        What the bundle reads.
    scorer : Scorer
        Runs it.
    share : float
        Its share in the target of an event with a label.
    sha256 : str
        Fingerprint of its file.
    """

    contract: Contract
    scorer: Scorer
    share: float
    sha256: str

    def amend(self, targets: NDArray[np.float32], hits: Hits) -> NDArray[np.float32]:
        """Mix the teacher's scores into what events are to be scored as.

        Parameters
        ----------
        targets : ndarray of float32, shape (n_events, n_classes)
            By the labels; zeros without one.
        hits : Hits
            The events.

        Returns
        -------
        ndarray of float32, shape (n_events, n_classes)
            Events without a label have the teacher's scores. Events with fewer hits than the
            bundle scores stay as they are.
        """
        amended = targets.copy()
        enough = np.flatnonzero(hits.counts >= self.contract.hits.min_hits)
        for start in range(0, len(enough), _EVENTS_A_BATCH):
            rows = enough[start : start + _EVENTS_A_BATCH]
            scores = self.scorer.score(self.contract.make_inputs(take_events(hits, rows)))
            share = np.where(targets[rows].any(axis=1), self.share, 1.0)[:, None]
            amended[rows] = (1.0 - share) * targets[rows] + share * scores
        return amended


def load_teacher(config: Config) -> Teacher:
    """Load the bundle that ``config.fit.teacher`` names.

    Raises
    ------
    UsageError
        If it cannot be loaded or has other classes.
    """
    bundle = load_bundle(config.fit.teacher)
    classes = [event_class.name for event_class in bundle.contract.classes]
    if classes != config.class_names:
        raise UsageError(
            f"fit.teacher: {bundle.path} has the classes {', '.join(classes)}, the training"
            f" {', '.join(config.class_names)}; they must be the same, in the same order"
        )
    scorer = Scorer(bundle, "cpu")
    return Teacher(bundle.contract, scorer, config.fit.teacher_share, bundle.sha256)
