"""Hits as files hold them: the checks that all formats share."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from attpc_filter.formats.run import UnreadableEvent

#: For what reads points: what is no number is looked for, not warned of.
without_warnings = np.errstate(all="ignore")


def require_finite(points: NDArray[np.float64], columns: Iterable[int]) -> None:
    """Raise UnreadableEvent if a value in one of the columns is not finite as a float32."""
    finite = (np.abs(points[:, list(columns)]) <= np.finfo(np.float32).max).all(axis=1)
    if not finite.all():
        raise UnreadableEvent(f"{int((~finite).sum())} of {len(points)} points are not finite")


def pad_numbers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pad numbers as they are; -1 for what is no number of a pad."""
    return np.where((values >= -1) & (values <= np.iinfo(np.int16).max), values, -1.0)
