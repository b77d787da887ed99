"""A head for ``attpc-filter retag --head``, fitted on stored latents: no images, no raw data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_export import __version__
from attpc_export.data.labelled import UNLABELLED, groups_of, hash_files, read_labels
from attpc_export.heads.cross_validation import (
    CrossValidation,
    cross_validate,
    describe_f1,
    f1_by_class,
)
from attpc_export.heads.linear import Head, fit_head
from attpc_filter.errors import InputError, UsageError
from attpc_filter.output.folder import settle
from attpc_filter.output.head_file import write_head
from attpc_filter.output.latents import read_latents
from attpc_filter.output.manifest import read_manifest
from attpc_filter.output.tag_table import read_tags, scores_of


@dataclass(frozen=True, slots=True)
class LatentEvents:
    """Scored events of output folders: what their model made of them.

    Attributes
    ----------
    model_sha256 : str
        SHA-256 of the model.
    classes : list of str
        The model's classes.
    run, event : ndarray of int64, shape (n_events,)
        Run and event number.
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    scores : ndarray of float32, shape (n_events, n_classes)
        The stored scores.
    """

    model_sha256: str
    classes: list[str]
    run: NDArray[np.int64]
    event: NDArray[np.int64]
    latent: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RetagHeadFit:
    """How a head was fitted and how good it is, by events that did not fit it.

    Attributes
    ----------
    events : int
        Scored events that have a label.
    events_scored : int
        Scored events, with a label or without.
    cross_validation : CrossValidation
        How good the new head is.
    f1_stored : dict of str to float
        f1 of the stored scores, on the same events.
    """

    events: int
    events_scored: int
    cross_validation: CrossValidation
    f1_stored: dict[str, float]

    def describe(self) -> str:
        """A few lines of text."""
        found = self.cross_validation
        by_class = ", ".join(f"{n} {name}" for name, n in found.events_by_class.items())
        lines = [
            f"labelled: {self.events} of {self.events_scored} scored events: {by_class}",
            "f1, the class being that of the highest score; new head cross-validated in"
            f" {found.folds} parts:",
        ]
        for title, f1 in (("new head", found.f1), ("stored scores", self.f1_stored)):
            lines.append(f"  {title:<14} {describe_f1(f1)}")
        return "\n".join(lines)


def fit_retag_head(
    folders: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    inverse_regularisation: float = 1.0,
    group_column: str = "",
    label_map: Mapping[str, str] | None = None,
) -> RetagHeadFit:
    """Fit a head on the stored latents of labelled events, and write it.

    The head has the classes that occur among the labels; its scores are calibrated on those of the
    cross-validation.

    Parameters
    ----------
    folders : sequence of Path
        Output folders of ``attpc-filter run --keep-latents``, all of one model.
    labels : sequence of Path
        CSV tables with the columns run, event, label; they may have other events too.
    out : Path
        Head file to write; see :mod:`attpc_filter.output.head_file`.
    inverse_regularisation : float
        scikit-learn's C.
    group_column : str
        Column of the labels with the number of the physics event, whose copies are never divided
        between fit and judgement; empty: none.
    label_map : mapping of str to str, optional
        Class of labels that have another name.

    Raises
    ------
    UsageError
        If there are no latents, they come from several models, or the labels are too few.
    InputError
        If a table cannot be read.
    """
    if inverse_regularisation <= 0:
        raise UsageError(f"inverse regularisation {inverse_regularisation:g}: must be positive")
    events = load_latents(folders)
    table = read_labels(labels, events.classes, group_column, label_map)
    keys = zip(events.run.tolist(), events.event.tolist(), strict=True)
    joined = [table.get(key) for key in keys]
    all_labels = np.array([row.label if row else UNLABELLED for row in joined], np.int64)
    rows = np.flatnonzero(all_labels != UNLABELLED)
    present, label = np.unique(all_labels[rows], return_inverse=True)
    if len(present) < 2:
        raise UsageError(
            f"--labels: {len(rows)} of the {len(events.run)} scored events have a label, of"
            f" {len(present)} classes; a head needs events of two classes or more"
        )
    names = [events.classes[index] for index in present]
    latent, group = events.latent[rows], groups_of(joined)[rows]

    def fit(some: NDArray[np.int64]) -> Head:
        return fit_head(latent[some], label[some], inverse_regularisation)

    found = cross_validate(fit, latent, label, group, names)
    head = fit(np.arange(len(rows)))
    stored = events.scores[rows].argmax(axis=1)
    result = RetagHeadFit(
        events=len(rows),
        events_scored=len(events.run),
        cross_validation=found,
        f1_stored=f1_by_class(all_labels[rows], stored, events.classes),
    )
    made = {
        "attpc_export": __version__,
        "folders": [str(folder) for folder in folders],
        "labels": [asdict(file) for file in hash_files(labels)],
        "inverse_regularisation": inverse_regularisation,
        "events": result.events,
        "events_scored": result.events_scored,
        "f1_stored": result.f1_stored,
    }
    write_head(
        out,
        events.model_sha256,
        names,
        head.weight / found.temperature,
        head.bias / found.temperature,
        made | asdict(found),
    )
    return result


def load_latents(folders: Sequence[Path]) -> LatentEvents:
    """Read the scored events of output folders.

    Raises
    ------
    UsageError
        If a folder has no latents, a run stands in two folders, or the latents come from several
        models.
    InputError
        If a table cannot be read.
    OutputError
        If a commit that a command left unfinished there cannot be finished.
    """
    parts: list[LatentEvents] = []
    where: dict[int, Path] = {}
    for folder in folders:
        settle(folder)
        entries = [entry for entry in read_manifest(folder).runs if not entry.error]
        if not entries:
            raise UsageError(f"{folder}: no run in it was filtered, so there are no latents")
        for entry in entries:
            if not entry.latents:
                raise UsageError(f"{folder}: no latents in it; filter with --keep-latents")
            path = folder / entry.latents
            if entry.run in where:
                raise UsageError(
                    f"{path}: run {entry.run} is in {where[entry.run]} too; labels are joined"
                    " by run and event, so give each run once"
                )
            where[entry.run] = path
            parts.append(_load_run(path, folder / entry.tag_table))
            if parts[-1].model_sha256 != parts[0].model_sha256:
                raise UsageError(
                    f"{folder}: latents of model {parts[-1].model_sha256[:12]}, those of"
                    f" {folders[0]} are of model {parts[0].model_sha256[:12]}; a head needs latents"
                    " of one model"
                )
    return LatentEvents(
        *(parts[0].model_sha256, parts[0].classes),
        run=np.concatenate([part.run for part in parts]),
        event=np.concatenate([part.event for part in parts]),
        latent=np.concatenate([part.latent for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
    )


def _load_run(path: Path, tag_table: Path) -> LatentEvents:
    event, latent = read_latents(path)
    table, metadata = read_tags(tag_table)
    if not np.array_equal(event, table.column("event").to_numpy()):
        raise InputError(f"{path}: its events are not those of {tag_table}")
    classes = json.loads(metadata["classes"])
    scored = np.isfinite(latent).all(axis=1)
    return LatentEvents(
        *(metadata["model_sha256"], classes),
        run=table.column("run").to_numpy().astype(np.int64)[scored],
        event=event[scored],
        latent=latent[scored],
        scores=scores_of(table, classes)[scored],
    )
