"""The head file: a linear layer on a model's latent, which ``attpc-filter retag --head`` applies.

A JSON file of version 1: ``head_version`` (1); ``model_sha256`` (of the bundle whose latents it is
for: the numbers of another model's latents mean something else); ``classes`` (some or all of that
model's, in any order); ``weight`` (a row of numbers a class); ``bias`` (a number a class); ``made``
(how it came to be, for the reader; may be left out).

An event's scores are the softmax of ``weight @ latent + bias``. A class of the model that the head
lacks has score 0.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.output.staging import write_json
from attpc_filter.texts import read_json

#: Version of the file's layout.
HEAD_VERSION = 1


@dataclass(frozen=True, slots=True)
class HeadFile:
    """A head as its file holds it.

    Attributes
    ----------
    path : Path
        The file.
    model_sha256 : str
        SHA-256 of the bundle whose latents it is for.
    classes : list of str
        Names of the classes, in the order of the rows.
    weight : ndarray of float64, shape (n_classes, latent_size)
        Weights.
    bias : ndarray of float64, shape (n_classes,)
        Biases.
    sha256 : str
        SHA-256 of the file.
    """

    path: Path
    model_sha256: str
    classes: list[str]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    sha256: str


def write_head(
    path: Path,
    model_sha256: str,
    classes: list[str],
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    made: dict[str, Any],
) -> None:
    """Write a head file; the arguments are the entries that the layout names."""
    entries = {
        "head_version": HEAD_VERSION,
        "model_sha256": model_sha256,
        "classes": classes,
        "weight": weight.tolist(),
        "bias": bias.tolist(),
        "made": made,
    }
    write_json(path, entries)


def read_head(path: Path) -> HeadFile:
    """Read a head file.

    Raises
    ------
    UsageError
        If it cannot be read or is no head.
    """
    try:
        content = path.read_bytes()
        entries = read_json(content)
        if entries["head_version"] != HEAD_VERSION:
            raise ValueError(
                f"version {entries['head_version']}, this attpc-filter reads {HEAD_VERSION}"
            )
        weight, bias = (np.array(entries[name], np.float64) for name in ("weight", "bias"))
        classes = [str(name) for name in entries["classes"]]
        if weight.ndim != 2 or not len(weight) == len(set(classes)) == len(classes):
            raise ValueError(f"weight of shape {weight.shape} for {len(classes)} classes")
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"weight of shape {weight.shape}, bias of shape {bias.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("a weight or bias is not finite")
        model_sha256 = str(entries["model_sha256"])
    except OSError as error:
        raise UsageError(f"head {path}: {error.strerror}") from error
    except KeyError as error:
        raise UsageError(f"head {path}: not a head: no entry {error}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"head {path}: not a head: {error}") from error
    return HeadFile(path, model_sha256, classes, weight, bias, hashlib.sha256(content).hexdigest())
