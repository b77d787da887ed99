"""What a model may read of an event: a row for each input.

A new input is a row here, a field of that name in :class:`attpc_filter.score.contract.Contract`
for its settings, and the module of ``rebuild`` that makes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attpc_filter.rebuild.point_set import PointSetSettings, gather_points
from attpc_filter.rebuild.projection import ProjectionSettings, project
from attpc_filter.records import Hits


class InputSettings(Protocol):
    """What the settings of an input made of hits say about it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one event's part of the input."""

    @property
    def radius_mm(self) -> float:
        """Distance from the beam axis up to which the graph sees hits [mm]."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input that is made of hits, float32.

    Attributes
    ----------
    name : str
        Name of the graph's input, and of the contract's entry with its settings.
    settings : type
        The dataclass of those settings; it has a ``shape`` and a ``radius_mm``.
    make : callable
        Makes it of a batch of hits: ``make(hits, settings, events, buffer)``.
    """

    name: str
    settings: type[Any]
    make: Callable[
        [Hits, Any, NDArray[np.int64] | None, NDArray[np.float32] | None], NDArray[np.float32]
    ]


#: All inputs that are made of hits. A graph that reads raw traces has those of
#: :class:`attpc_filter.rebuild.traces.TraceBatch` instead.
INPUTS = (
    Input("projection", ProjectionSettings, project),
    Input("points", PointSetSettings, gather_points),
)
