"""What a training is made of: events, their split, and the inputs of each epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_export.config import Config
from attpc_export.data.augment import Pools, augment, change, make_pools
from attpc_export.data.labelled import Events, load_events, split_events, take_events
from attpc_export.data.tracks import find_tracks
from attpc_export.training.fit import Inputs, targets_of
from attpc_export.training.teacher import Teacher
from attpc_filter.errors import UsageError
from attpc_filter.rebuild.clean import clean_hits
from attpc_filter.rebuild.detector import Detector
from attpc_filter.rebuild.point_set import PointSetSettings, gather_points
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.records import Hits

#: Events projected at a time where only a number is wanted.
_EVENTS_A_BATCH = 512


@dataclass(frozen=True, slots=True)
class Material:
    """What a training is made of: the events, the rows it may use, and what it projects them to."""

    config: Config
    events: Events
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    pools: Pools
    projection: ProjectionSettings | None
    is_track: NDArray[np.bool_] | None  # of all hits, where changes to tracks are learned
    features: NDArray[np.float32] | None  # of all events, by the model's frozen part
    teacher: Teacher | None

    def draw(self, epoch: int) -> tuple[Inputs, NDArray[np.int64]]:
        """Inputs and labels of an epoch; the same epoch always gives the same ones."""
        inputs, label, _ = self._draw(epoch)
        return inputs, label

    def lesson(self, epoch: int) -> tuple[Inputs, NDArray[np.float32]]:
        """Inputs of an epoch, and what its events are to be scored as."""
        if self.is_track is not None:
            return self.changed(self.train, epoch)
        inputs, label, hits = self._draw(epoch)
        targets = targets_of(label, len(self.config.classes))
        return inputs, targets if self.teacher is None else self.teacher.amend(targets, hits)

    def changed(self, rows: NDArray[np.int64], epoch: int) -> tuple[Inputs, NDArray[np.float32]]:
        """Events with changed tracks, and which change it was."""
        assert self.is_track is not None
        rng = np.random.default_rng((self.config.seed, epoch))
        settings = self.config.augment
        hits, made = change(self.events, rows, self.is_track, settings, self._view, rng)
        return self._inputs_of(hits), targets_of(made, self.config.n_answers)

    def _draw(self, epoch: int) -> tuple[Inputs, NDArray[np.int64], Hits]:
        if not self.config.augment.vary:
            hits = take_events(self.events.hits, self.train)
            return self.inputs(self.train), self.events.label[self.train], hits
        rng = np.random.default_rng((self.config.seed, epoch))
        hits, label = augment(
            self.events, self.train, self.pools, self.config.augment, self._view, rng
        )
        return self._inputs_of(hits), label, hits

    def inputs(self, rows: NDArray[np.int64]) -> Inputs:
        """What the model reads of events as they are, and what its frozen part gives for them."""
        inputs = self._inputs_of(take_events(self.events.hits, rows))
        return inputs if self.features is None else (*inputs, self.features[rows])

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images of events as they are."""
        assert self.projection is not None  # a frozen part reads images
        return project(take_events(self.events.hits, rows), self.projection)

    def _inputs_of(self, hits: Hits) -> Inputs:
        images = () if self.projection is None else (project(hits, self.projection),)
        points = self.config.points
        return images if points is None else (*images, gather_points(hits, points))

    @property
    def _view(self) -> ProjectionSettings | PointSetSettings:
        """Ranges of what the model reads."""
        view = self.projection or self.config.points
        assert view is not None  # a model reads one of them
        return view


def gather(
    config: Config,
    data: Sequence[Path],
    labels: Sequence[Path],
    label_map: Mapping[str, str] | None = None,
    detector: Detector | None = None,
) -> Material:
    """Read runs and labels, and split their events into training and validation.

    Raises
    ------
    UsageError
        If a class has no labelled event in a part, and labels are needed.
    """
    events = load_events(
        data,
        labels,
        config.class_names,
        config.hits,
        detector or config.detector,
        config.split.group_column,
        label_map,
    )
    taken = ~np.isin(events.kind, np.array(config.split.left_out_kinds, np.str_))
    events = events.take(np.flatnonzero(taken & (events.hits.counts >= config.hits.min_hits)))
    events = replace(events, hits=clean_hits(events.hits, config.clean))
    kept_back = split_events(events.group, config.split.validation, config.seed)
    rows, kept_rows = np.flatnonzero(~kept_back), np.flatnonzero(kept_back)
    needs_labels = config.fit.learn == "labels" or config.head.kind == "logistic"
    parts = ((rows, "training"), (kept_rows, "validation")) if needs_labels else ()
    for part, name in parts:
        for index, event_class in enumerate(config.classes):
            if not (events.label[part] == index).any():
                raise UsageError(
                    f"--labels: no {event_class.name} among the {len(part)} events for {name};"
                    " label more events of the runs given by --data"
                )
    projection = None
    if config.reads_images:
        # of all events, so that their images do not depend on the split
        scale = measure_scale(events.hits, config.projection.with_scale(1.0))
        projection = config.projection.with_scale(scale)
    pools = make_pools(events, rows, config.augment, config.class_names, config.pile_up_class)
    is_track = find_tracks(events.hits) if config.fit.learn == "changes" else None
    return Material(config, events, rows, kept_rows, pools, projection, is_track, None, None)


def measure_scale(hits: Hits, projection: ProjectionSettings) -> float:
    """Largest log(1 + charge) of any pixel.

    Parameters
    ----------
    hits : Hits
        Hits of the training events.
    projection : ProjectionSettings
        With scale 1.

    Returns
    -------
    float
        The scale that brings these events' pixels into [0, 1].
    """
    largest = 0.0
    for start in range(0, hits.n_events, _EVENTS_A_BATCH):
        rows = np.arange(start, min(start + _EVENTS_A_BATCH, hits.n_events))
        largest = max(largest, float(project(take_events(hits, rows), projection).max()))
    if largest <= 0.0:
        raise UsageError("--data: no hit of any event lies in the projections")
    return largest
