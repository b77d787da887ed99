"""The filter language of lists and of the gallery: terms with blanks between; all must hold.

``tag=proton,carbon  run=101..104  event=17  hits>=100  score.proton>0.5  margin<0.2  novelty>1
reason~hits  label=proton  label=none  cluster=3``
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter import UsageError
from attpc_filter_web.catalogue import Catalogue

_TERM = re.compile(r'([\w.+-]+?)(!=|<=|>=|=|<|>|~)("[^"]*"|\S+)')
_COMPARE: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.bool_]]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
#: Label of events without one.
NO_LABEL = "none"


def select(
    text: str,
    catalogue: Catalogue,
    labels: Mapping[int, str],
    clusters: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Rows of the events that a filter keeps, in the order of the catalogue.

    Parameters
    ----------
    text : str
        The filter; empty keeps all.
    catalogue : Catalogue
        The events.
    labels : mapping of int to str
        Label of each labelled row.
    clusters : ndarray of int64, shape (n_events,), optional
        Cluster of each event; -1 for none.

    Raises
    ------
    UsageError
        If the filter cannot be understood.
    """
    keep = np.ones(len(catalogue), np.bool_)
    rest = text.strip()
    while rest:
        match = _TERM.match(rest)
        if match is None:
            raise UsageError(
                f"filter {rest.split()[0]!r}: write NAME=VALUE, with one of = != < <= > >= ~"
                " between, and blanks between the terms"
            )
        name, operator, value = match.groups()
        keep &= _holds(name, operator, value.strip('"'), catalogue, labels, clusters)
        rest = rest[match.end() :].strip()
    return np.flatnonzero(keep)


def _holds(
    name: str,
    operator: str,
    value: str,
    catalogue: Catalogue,
    labels: Mapping[int, str],
    clusters: NDArray[np.int64] | None,
) -> NDArray[np.bool_]:
    if name == "label":
        texts = np.full(len(catalogue), NO_LABEL, object)
        for row, label in labels.items():
            texts[row] = label
        return _text_holds(name, operator, value, texts)
    if name in ("tag", "reason"):
        return _text_holds(name, operator, value, getattr(catalogue, name))
    numbers = _numbers(catalogue, clusters)
    if name not in numbers:
        known = ", ".join(["tag", "reason", "label", *numbers])
        raise UsageError(f"filter {name}{operator}{value}: no {name!r} here; there are {known}")
    return _number_holds(name, operator, value, numbers[name])


def _numbers(catalogue: Catalogue, clusters: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {
        "run": catalogue.run,
        "event": catalogue.event,
        "hits": catalogue.n_hits,
        "margin": catalogue.margin,
        "novelty": catalogue.novelty,
    }
    for index, name in enumerate(catalogue.classes):
        columns[f"score.{name}"] = catalogue.scores[:, index]
    if clusters is not None:
        columns["cluster"] = clusters
    return columns


def _text_holds(
    name: str, operator: str, value: str, texts: NDArray[np.object_]
) -> NDArray[np.bool_]:
    if operator in ("=", "!="):
        equal = np.zeros(len(texts), np.bool_)
        for part in value.split(","):
            equal |= texts == part
        return equal if operator == "=" else ~equal
    if operator == "~":
        return np.array([value.lower() in text.lower() for text in texts], np.bool_)
    raise UsageError(f"filter {name}{operator}{value}: a text takes =, != or ~ (contains)")


def _number_holds(
    name: str, operator: str, value: str, numbers: NDArray[np.float64]
) -> NDArray[np.bool_]:
    try:
        if operator in _COMPARE:
            return _COMPARE[operator](numbers, float(value))
        keep = np.zeros(len(numbers), np.bool_)
        for part in value.split(","):
            low, dots, high = part.partition("..")
            keep |= (numbers >= float(low)) & (numbers <= float(high if dots else low))
    except ValueError:
        keep = None
    if keep is None or operator not in ("=", "!="):
        raise UsageError(
            f"filter {name}{operator}{value}: write a number, a list 1,2,3 or a range 1..9"
        )
    return keep if operator == "=" else ~keep
