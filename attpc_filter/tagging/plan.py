"""The plan: all that decides how events are tagged, as data that can be pickled and sent.

It holds the model's bytes, not its path. All workers use the model that was loaded when the plan
was made, even if the file changes later.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from attpc_filter.config import Config
from attpc_filter.errors import InputError, UsageError
from attpc_filter.formats.run import Run
from attpc_filter.rebuild.detector import Detector
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.score.bundle import Bundle, load_bundle
from attpc_filter.score.contract import Contract
from attpc_filter.score.outputs import further_columns

_CALIBRATION = ("micromegas_time_bucket", "window_time_bucket", "detector_length")


@dataclass(frozen=True, slots=True)
class Plan:
    """How events are tagged; made by :func:`make_plan`.

    Attributes
    ----------
    config : Config
        The options.
    bundle : Bundle
        The model: its bytes, their SHA-256 and its contract.
    detector : Detector
        Pads, samples and z calibration of the runs.
    thresholds : tuple of float
        Threshold of each class, in the order of the score columns.
    """

    config: Config
    bundle: Bundle
    detector: Detector
    thresholds: tuple[float, ...]

    @property
    def contract(self) -> Contract:
        """The model's contract."""
        return self.bundle.contract

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the score columns."""
        return self.contract.class_names

    @property
    def further_columns(self) -> tuple[str, ...]:
        """Columns of the tag table besides those that every table has."""
        return further_columns(self.contract)

    def how_hits_are_made(self) -> dict[str, Any]:
        """What decides which hits traces become; a hit store keeps it."""
        settings = asdict(self.contract.hits)
        del settings["min_hits"]  # says which events are scored, not what their hits are
        settings["pad_plane_sha256"] = self.detector.plane.sha256
        if not self.detector.frame.is_plain:  # then hits keep the z that they were made with
            settings["frame"] = asdict(self.detector.frame) | asdict(self.detector.calibration)
        return settings

    def table_metadata(self, path: Path) -> dict[str, Any]:
        """What the tag table of a run says about how it was made."""
        return {
            "contract_version": str(self.contract.version),
            "model": self.contract.name,
            "model_sha256": self.bundle.sha256,
            "classes": self.classes,
            "thresholds": dict(zip(self.classes, self.thresholds, strict=True)),
            "min_hits": self.contract.hits.min_hits,
            "novelty_threshold": self.contract.novelty_threshold,
            "input": str(path.resolve()),
        }

    def check_run(self, run: Run) -> None:
        """Refuse a run that cannot be tagged by this plan.

        Raises
        ------
        InputError
            If the run's traces have another number of samples than the detector, or the run holds
            hits that were not made as the model wants them.
        """
        run.require_detector(self.detector.name, self.detector.n_samples)
        if run.hits_made is not None:
            self._require_same_hits(run, run.hits_made)

    def _require_same_hits(self, run: Run, made: dict[str, Any]) -> None:
        wanted = self.how_hits_are_made()
        differ = [name for name in made | wanted if made.get(name) != wanted.get(name)]
        if {"pad_plane_sha256", "frame"} & set(differ):
            raise InputError(
                f"{run.path}: its hits were made with another detector; give the"
                " --detector that it was made with, or the raw run"
            )
        if differ:
            texts = [f"{name} {made.get(name)}, not {wanted.get(name)}" for name in differ]
            raise InputError(
                f"{run.path}: its hits were made otherwise than model {self.contract.name} wants"
                f" them ({', '.join(texts)}); give it the raw run"
            )


def make_plan(config: Config) -> Plan:
    """Load the model, the pads and all else that decides how events are tagged.

    Raises
    ------
    UsageError
        If one of them cannot be loaded, or the options do not fit the model.
    """
    bundle = load_bundle(config.model)
    contract = bundle.contract
    classes = contract.class_names
    if unknown := set(config.thresholds) - set(classes):
        raise UsageError(
            f"thresholds: the model has no class {unknown.pop()!r}, it has {', '.join(classes)}"
        )
    thresholds = tuple(config.thresholds.get(c.name, c.threshold) for c in contract.classes)
    if config.keep_latents and not bundle.latent_size:
        raise UsageError(
            f"keep_latents: model {bundle.path} does not declare the size of its latent"
        )
    if config.keep_hits and contract.traces is not None:
        raise UsageError(
            f"keep_hits: model {bundle.path} makes hits of traces and keeps them to itself; take"
            " the bundle that it was made of"
        )
    return Plan(config, bundle, choose_detector(config, contract), thresholds)


def choose_detector(config: Config, contract: Contract) -> Detector:
    """Load the runs' detector: the one that the options name, or the model's.

    A model that reads hits is sound for other pads, samples and drift: hits are in mm, and in the
    frame of the beam. One that reads traces has them built in.

    Raises
    ------
    UsageError
        If there is no such detector, its files are wrong, or the model cannot be used with it.
    """
    of_model = contract.detector
    detector = load_detector(config.detector) if config.detector else of_model.load()
    given = {name: v for name in _CALIBRATION if (v := getattr(config, name)) is not None}
    try:
        detector = replace(detector, calibration=replace(detector.calibration, **given))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if contract.traces is not None:
        if detector.n_samples != of_model.n_samples:
            raise UsageError(
                f"detector {detector.name}: traces of {detector.n_samples} samples, model"
                f" {contract.name} reads {of_model.n_samples}; take the bundle that it was made of"
            )
        if not detector.frame.is_plain:
            raise UsageError(
                f"detector {detector.name}: its beam is tilted, off axis or reversed, and model"
                f" {contract.name} makes hits itself, as if it were not; take the bundle that it"
                " was made of"
            )
    return detector
