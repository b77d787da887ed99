"""Writes bundles: one way for all commands, so that every bundle is checked before it exists."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx

from attpc_filter.errors import OutputError, UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import METADATA_KEY, Bundle, Contract, load_bundle

#: Raises OutputError if a bundle does not give what it should.
Check = Callable[[Bundle], None]


def require_bundle_name(out: Path) -> None:
    """Refuse a name that is not a bundle's, before any work is done for it.

    Raises
    ------
    UsageError
        If the name does not end in ``.onnx``.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out}: a bundle's name ends in .onnx")


def assemble(model: onnx.ModelProto, contract: Contract, path: Path) -> Bundle:
    """Put a contract into a graph; the bundle is in memory only.

    Parameters
    ----------
    model : ModelProto
        The graph; its metadata become the contract alone.
    contract : Contract
        What the graph reads and gives.
    path : Path
        What messages about the bundle name.
    """
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    graph: bytes = model.SerializeToString()
    return Bundle(path, graph, hashlib.sha256(graph).hexdigest(), contract)


def write_bundle(model: onnx.ModelProto, contract: Contract, out: Path, check: Check) -> None:
    """Write a bundle, if it loads as filtering loads it and passes a check.

    Parameters
    ----------
    model : ModelProto
        The graph.
    contract : Contract
        What goes into its metadata.
    out : Path
        File to write; its folder is made if needed.
    check : callable
        Gets the bundle as loaded; raises OutputError if it must not be written.

    Raises
    ------
    UsageError
        If ``out`` is no name of a bundle, or the graph is not what the contract says.
    OutputError
        If the check fails or the file cannot be written.
    """
    require_bundle_name(out)
    graph = assemble(model, contract, out).graph
    try:
        with Staging() as staging:
            staged = staging.path(out)
            staged.write_bytes(graph)
            check(load_bundle(str(staged)))
            staging.commit()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error


def require_close(difference: float, tolerance: float, out: Path, what: str) -> None:
    """Refuse a bundle whose numbers differ from those that it was made of.

    Parameters
    ----------
    difference : float
        Largest difference; NaN is never close.
    tolerance : float
        What it may be.
    out : Path
        File that is not written.
    what : str
        What differs from what, as "its scores differ from the head's".

    Raises
    ------
    OutputError
        If the difference exceeds the tolerance.
    """
    if not difference <= tolerance:
        raise OutputError(
            f"{out}: not written: {what} by {difference:.2g}, more than {tolerance:g}"
        )
