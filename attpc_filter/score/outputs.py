"""What a model may give for an event: a row for each output of its graph.

Every number an event that is no row here, such as an energy with its interval, is declared by the
contract's entry ``outputs`` and becomes columns of the tag table. Other distributions may add rows
for such entries by the entry point group ``attpc_filter.outputs``: the name of the entry point is
that of the graph's output, its object an :class:`Output`.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from attpc_filter.errors import UsageError

if TYPE_CHECKING:
    from attpc_filter.score.contract import Contract

#: Entry points of other distributions' outputs.
GROUP = "attpc_filter.outputs"
#: Shape of one event's part; None: any number.
Shape = tuple[int | None, ...]
Shapes = Mapping[str, Shape]


def _no_columns(_: "Contract") -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a graph.

    Attributes
    ----------
    name : str
        Name of the graph's output.
    shape : callable
        Shape of one event's part by the contract.
    is_declared : callable
        Whether the contract says that the graph gives it.
    columns : callable
        The tag table's columns for it by the contract, one a number of an event.
    kept : {"table", "latents", "inside"}
        Kept in the tag table; in the latents' file, if that is asked for; or only used on the way.
    dtype : dtype
        Type of its numbers.
    """

    name: str
    shape: Callable[["Contract"], Shape]
    is_declared: Callable[["Contract"], bool]
    columns: Callable[["Contract"], tuple[str, ...]] = _no_columns
    kept: Literal["table", "latents", "inside"] = "table"
    dtype: DTypeLike = np.float32


_OUTPUTS = (
    Output(
        "scores",
        shape=lambda contract: (len(contract.classes),),
        is_declared=lambda _: True,
        columns=lambda contract: tuple(f"score_{c.name}" for c in contract.classes),
    ),
    Output("latent", shape=lambda _: (None,), is_declared=lambda _: True, kept="latents"),
    Output(
        "novelty",
        shape=lambda _: (),
        is_declared=lambda contract: contract.novelty_threshold is not None,
        columns=lambda _: ("novelty",),
    ),
    Output(
        "n_hits",
        shape=lambda _: (),
        is_declared=lambda contract: contract.traces is not None,
        kept="inside",
        dtype=np.int64,
    ),
)


def outputs_of(contract: "Contract") -> tuple[Output, ...]:
    """The outputs that a contract declares, in the order of their columns.

    Raises
    ------
    UsageError
        If another distribution's row for one of them cannot be loaded.
    """
    fixed = tuple(row for row in _OUTPUTS if row.is_declared(contract))
    return fixed + tuple(_row(name, contract) for name in contract.outputs)


def _row(name: str, contract: "Contract") -> Output:
    installed = _installed(name)
    if installed is not None:
        return installed
    columns = contract.outputs[name].columns or (name,)
    is_single = len(columns) == 1

    def shape(_: "Contract") -> Shape:
        return () if is_single else (len(columns),)

    return Output(name, shape, lambda _: True, lambda _: columns)


@functools.cache
def _installed(name: str) -> Output | None:
    for point in entry_points(group=GROUP, name=name):
        try:
            row: Any = point.load()
        except Exception as error:
            raise UsageError(f"output {name}: {point.value} cannot be loaded: {error}") from error
        if not isinstance(row, Output) or row.name != name:
            raise UsageError(f"output {name}: {point.value} is no Output of that name")
        return row
    return None


def further_columns(contract: "Contract") -> tuple[str, ...]:
    """Columns that the tag table has at its end, after those that every table has."""
    rows = [row for row in outputs_of(contract) if row.kept == "table" and row.name != "scores"]
    return tuple(column for row in rows for column in row.columns(contract))


def wanted_outputs(contract: "Contract", keep_latents: bool) -> list[str]:
    """Names of the outputs that tagging keeps."""
    kept = ("table", "latents") if keep_latents else ("table",)
    return [row.name for row in outputs_of(contract) if row.kept in kept]


def fill_columns(
    contract: "Contract", outputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The further columns of a batch by their names, shape (n_events,) each.

    Parameters
    ----------
    contract : Contract
        The model's.
    outputs : mapping of str to ndarray
        What the model gave, by output, a row an event.
    """
    filled: dict[str, NDArray[Any]] = {}
    for row in outputs_of(contract):
        if row.kept == "table" and row.name != "scores":
            names = row.columns(contract)
            values = outputs[row.name].reshape(-1, len(names))
            filled |= dict(zip(names, values.T, strict=True))
    return filled


def reserved_names() -> set[str]:
    """Names that a contract's ``outputs`` may not use."""
    return {row.name for row in _OUTPUTS}


def check_outputs(contract: "Contract", found: Shapes) -> None:
    """Compare what a graph gives with what its contract declares.

    Raises
    ------
    ValueError
        If an output is not there or has another shape.
    """
    for row in outputs_of(contract):
        wanted = row.shape(contract)
        shape = found.get(row.name)
        fits = shape is not None and len(shape) == len(wanted)
        if not fits or any(
            w is not None and w != s for w, s in zip(wanted, shape or (), strict=False)
        ):
            numbers = " x ".join("any" if n is None else str(n) for n in wanted) or "one"
            raise ValueError(
                f"the graph gives {dict(found)}, its contract needs {row.name!r}, {numbers}"
                " numbers an event"
            )
