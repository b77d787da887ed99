"""The batch: events on their way through the stages, and what each stage adds to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.records import Hits, Origin, Record, join_hits


@dataclass(slots=True)
class Example:
    """An event to show in a picture: its x, y [mm] and charge [ADC]."""

    title: str
    tag: str
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    charge: NDArray[np.float32]


@dataclass(slots=True)
class Batch:
    """Events on their way through the stages; each stage fills in what it makes.

    Attributes
    ----------
    records : list of Record
        The events; their traces and points are gone once the hits are made.
    hits : Hits or None
        Their hits; None if they are not written, or the graph makes them and does not give them.
    n_hits : ndarray of int64, shape (n_events,)
        How many each has.
    origins : ndarray of uint8, shape (n_events,)
        Where the hits come from, an :class:`attpc_filter.records.Origin` each.
    scored : ndarray of bool, shape (n_events,)
        Which of them the model scored.
    outputs : dict of str to ndarray
        What the model gave, by the name of its output (``scores`` always, ``latent`` if latents are
        to be kept, and all others that the contract declares), a row an event: NaN for events that
        were not scored.
    tags, reasons : list of str
        Their tags, and why an event has no class.
    examples : list of Example
        The first of each tag, if there is to be a picture.
    """

    records: list[Record]
    hits: Hits | None
    n_hits: NDArray[np.int64]
    origins: NDArray[np.uint8]
    scored: NDArray[np.bool_] = field(init=False)
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    tags: list[str] = field(init=False)
    reasons: list[str] = field(init=False)
    examples: list[Example] = field(default_factory=list)

    @property
    def events(self) -> NDArray[np.int64]:
        """Event numbers, shape (n_events,)."""
        return np.array([record.event for record in self.records], np.int64)

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores, shape (n_events, n_classes); NaN for events that were not scored."""
        return self.outputs["scores"]


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Join tagged batches of a run into one, in their order."""
    first = batches[0]
    parts = [batch.hits for batch in batches if batch.hits is not None]
    joined = Batch(
        records=list(chain.from_iterable(batch.records for batch in batches)),
        hits=join_hits(parts) if len(parts) == len(batches) else None,
        n_hits=np.concatenate([batch.n_hits for batch in batches]),
        origins=np.concatenate([batch.origins for batch in batches]),
    )
    joined.scored = np.concatenate([batch.scored for batch in batches])
    joined.outputs = {
        name: np.concatenate([batch.outputs[name] for batch in batches]) for name in first.outputs
    }
    joined.tags = list(chain.from_iterable(batch.tags for batch in batches))
    joined.reasons = list(chain.from_iterable(batch.reasons for batch in batches))
    joined.examples = list(chain.from_iterable(batch.examples for batch in batches))
    return joined


def no_hits(n_events: int) -> Hits:
    """The hits of events that have none."""
    columns = [np.empty(0, np.float32) for _ in range(6)]
    return Hits(np.zeros(n_events + 1, np.int64), np.empty(0, np.int32), *columns)


def origins_of(records: Sequence[Record]) -> list[Origin]:
    """Where the hits of each event come from."""
    return [record.origin for record in records]
