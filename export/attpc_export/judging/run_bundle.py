"""Runs a bundle over the events of runs, through the same steps as filtering takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import trange

from attpc_export.data.labelled import Events, load_events, take_events
from attpc_export.metrics import index_tags, tag_scores
from attpc_filter.errors import UsageError
from attpc_filter.rebuild.detector import Detector
from attpc_filter.records import Hits
from attpc_filter.score.bundle import Bundle, Contract, EventClass
from attpc_filter.score.contract import ModelDetector
from attpc_filter.score.scorer import Scorer


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How runs and labels are read, where that is not as the bundle's contract says.

    Attributes
    ----------
    detector : Detector or None
        The runs' detector; None: that of the contract.
    classes : tuple of EventClass
        Classes of the labels; empty: those of the contract.
    label_map : dict of str to str
        Class of labels that have another name.
    skip_unknown : bool
        Whether events whose label is no class are left without one; otherwise that is an error.
    group_column : str
        Column of the labels with the number of the physics event; empty: none.
    """

    detector: Detector | None = None
    classes: tuple[EventClass, ...] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    skip_unknown: bool = False
    group_column: str = ""

    def apply(self, contract: Contract) -> Contract:
        """The contract of a bundle that is made for these runs and classes."""
        detector = contract.detector
        if self.detector is not None:
            detector = ModelDetector.of(self.detector)
        return replace(
            contract,
            detector=detector,
            classes=self.classes or contract.classes,
        )


@dataclass(frozen=True, slots=True)
class ScoredEvents:
    """What a bundle makes of events; one row an event.

    Attributes
    ----------
    bundle : Bundle
        The bundle.
    events : Events
        The events.
    scores : ndarray of float32, shape (n_events, n_classes)
        Scores.
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    novelty : ndarray of float32, shape (n_events,), or None
        How unlike the training events an event is, if the bundle says so.
    """

    bundle: Bundle
    events: Events
    scores: NDArray[np.float32]
    latent: NDArray[np.float32]
    novelty: NDArray[np.float32] | None

    @property
    def classes(self) -> list[str]:
        """Names of the bundle's classes."""
        return [event_class.name for event_class in self.bundle.contract.classes]

    def take(self, rows: NDArray[np.int64]) -> "ScoredEvents":
        """Copy some events, in any order."""
        return replace(
            self,
            events=self.events.take(rows),
            scores=self.scores[rows],
            latent=self.latent[rows],
            novelty=None if self.novelty is None else self.novelty[rows],
        )

    def tag_names(self) -> list[str]:
        """Tags as filtering gives them with the bundle's own thresholds."""
        contract = self.bundle.contract
        return tag_scores(
            self.scores,
            self.events.hits.counts,
            contract.classes,
            contract.hits,
            self.novelty,
            contract.novelty_threshold,
        )

    def tags(self) -> NDArray[np.int64]:
        """Tags as indices of classes; :data:`~attpc_export.metrics.NO_CLASS` for none."""
        return index_tags(self.tag_names(), self.classes)

    def class_scores(self) -> NDArray[np.float32]:
        """Scores, but 0 of events whose scores do not count: too few hits, or too novel."""
        contract = self.bundle.contract
        counts = self.events.hits.counts >= contract.hits.min_hits
        if self.novelty is not None and contract.novelty_threshold is not None:
            counts &= self.novelty <= contract.novelty_threshold
        return np.where(counts[:, None], self.scores, np.float32(0.0))

    def labelled(self, data_set: int) -> NDArray[np.int64]:
        """Events of a data set that have a label, by their number."""
        return np.flatnonzero((self.events.data_set == data_set) & (self.events.label >= 0))


def run_bundle(
    bundle: Bundle, hits: Hits, names: Sequence[str], device: str = "cpu"
) -> dict[str, NDArray[np.float32]]:
    """Run a bundle's graph on events.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    hits : Hits
        The events.
    names : sequence of str
        Outputs that are wanted: ``scores``, ``latent``, ``novelty``.
    device : {"auto", "cpu", "cuda"}
        Where it runs.

    Returns
    -------
    dict of str to ndarray of float32
        The outputs by name, a row an event.
    """
    scorer = Scorer(bundle, device)
    size = scorer.batch_size
    parts = []
    # disable=None: a bar on a terminal, nothing elsewhere
    for start in trange(0, hits.n_events, size, desc="scores", leave=False, disable=None):
        rows = np.arange(start, min(start + size, hits.n_events))
        parts.append(scorer.run(bundle.contract.make_inputs(take_events(hits, rows)), names))
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def score_events(bundle: Bundle, events: Events, device: str = "cpu") -> ScoredEvents:
    """Run a bundle on events that are loaded already."""
    has_novelty = bundle.contract.novelty_threshold is not None
    names = ["scores", "latent", *(["novelty"] if has_novelty else [])]
    found = run_bundle(bundle, events.hits, names, device)
    return ScoredEvents(bundle, events, found["scores"], found["latent"], found.get("novelty"))


def score_runs(
    bundle: Bundle,
    data: Sequence[Path],
    labels: Sequence[Path] = (),
    options: ReadOptions | None = None,
    device: str = "cpu",
    *,
    with_enough_hits: bool = True,
) -> ScoredEvents:
    """Read runs as filtering reads them, and run a bundle on their events.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    data : sequence of Path
        Run files, and folders of run files; each path is a data set of its own.
    labels : sequence of Path
        Tables of labels.
    options : ReadOptions, optional
        How they are read, where that is not as the contract says.
    device : {"auto", "cpu", "cuda"}
        Where the bundle runs.
    with_enough_hits : bool
        Leave out events that filtering would not score.

    Returns
    -------
    ScoredEvents
        In the order of the paths, the files' names and the event numbers.

    Raises
    ------
    UsageError
        If no event is left.
    """
    options = options or ReadOptions()
    contract = options.apply(bundle.contract)
    names = [event_class.name for event_class in contract.classes]
    events = load_events(
        data,
        labels,
        names,
        contract.hits,
        options.detector or contract.detector.load(),
        options.group_column,
        options.label_map,
        options.skip_unknown,
    )
    if with_enough_hits:
        events = events.take(np.flatnonzero(events.hits.counts >= contract.hits.min_hits))
    if not len(events):
        raise UsageError(f"--data: no event has {contract.hits.min_hits} hits or more")
    return score_events(bundle, events, device)
