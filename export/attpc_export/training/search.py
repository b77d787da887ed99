"""Searches settings of a model: the tables D.1 and D.2 of the thesis, by Optuna."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from attpc_export.config import Config, FitSettings
from attpc_export.models.ar0 import Ar0Settings
from attpc_export.models.ar1 import Ar1Settings
from attpc_export.models.draw import DrawSettings
from attpc_export.models.latent import LatentSettings
from attpc_export.models.layers import Activation, ConvolutionSettings
from attpc_export.training.run_folder import SCORES_NAME
from attpc_export.training.train import train
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging

STUDY_NAME = "search.journal"
TABLE_NAME = "search.csv"

Sampler = Literal["tpe", "random"]


def search(
    config: Config,
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    n_trials: int,
    sampler: Sampler = "tpe",
    device: str = "auto",
    cache: Path | None = None,
) -> dict[str, Any]:
    """Train with settings that Optuna proposes; more trials in the same folder go on from there.

    Parameters
    ----------
    config : Config
        All that is not searched. Its model says which settings are: those of the convolutions, the
        latent and the optimiser; for DRAW those of the recurrent cells too, in place of the
        convolutions'.
    data, labels : sequence of Path
        As for :func:`attpc_export.training.train.train`.
    out : Path
        Folder of the trials' run folders, the study (a journal) and a table.
    n_trials : int
        Trials that the folder shall hold.
    sampler : {"tpe", "random"}
        How settings are proposed: tree-structured Parzen estimators, or at random as in the thesis.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    cache : Path, optional
        Where a frozen backbone's features are kept; ``out`` if left out.

    Returns
    -------
    dict of str to object
        The best trial's number, macro f1 on the validation events, and settings.

    Raises
    ------
    UsageError
        If the model cannot be searched.
    """
    propose = _space_of(config)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / STUDY_NAME))),
        study_name=config.name,
        load_if_exists=True,
        direction="maximize",
    )
    while (done := _finished(study)) < n_trials:
        # the sampler goes on with other draws than those that the folder's trials had
        seed = config.seed + len(study.trials)
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        study.sampler = samplers[sampler](seed=seed)
        trial = study.ask()
        try:
            proposed = propose(config, trial)
            folder = out / f"trial-{trial.number:04d}"
            train(proposed, data, labels, folder, device, cache=cache or out)
        except UsageError as error:
            study.tell(trial, state=TrialState.FAIL)
            if not done:  # nothing has worked yet: the data or the configuration are wrong
                raise
            print(f"trial {trial.number}: {error}")
            continue
        scores = json.loads((folder / SCORES_NAME).read_text(encoding="utf-8"))
        study.tell(trial, sum(s["macro_f1"] for s in scores.values()) / len(scores))
        _write_table(study, out / TABLE_NAME)
    best = study.best_trial
    return {"trial": best.number, "macro_f1": best.value, "settings": best.params}


def _finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _write_table(study: optuna.Study, path: Path) -> None:
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    with Staging() as staging:
        with staging.path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["trial", "macro_f1", *names], lineterminator="\n")
            writer.writeheader()
            for trial in sorted(trials, key=lambda trial: -(trial.value or 0.0)):
                row = {"trial": trial.number, "macro_f1": f"{trial.value:.5f}"}
                writer.writerow(row | trial.params)
        staging.commit()


def _space_of(config: Config) -> Callable[[Config, Trial], Config]:
    for kind, propose in (
        (DrawSettings, _propose_draw),
        (Ar0Settings, _propose_convolutions),
        (Ar1Settings, _propose_convolutions),
    ):
        if isinstance(config.model, kind):
            return propose
    raise UsageError(
        "model.kind: the search knows ar0, duelling, ar1 and draw; others are searched by hand"
    )


def _propose_convolutions(config: Config, trial: Trial) -> Config:
    """Table D.1: the network starts with larger kernels and fewer filters."""
    most = 0
    while config.projection.size % 2 ** (most + 1) == 0 and most < 6:
        most += 1
    n_layers = trial.suggest_int("n_layers", min(3, most), most)
    kernel = trial.suggest_int("first_kernel", 3, 17, step=2)
    filters = trial.suggest_categorical("first_filters", [2, 4, 8, 16])
    growth = trial.suggest_categorical("filter_growth", [1, 2])
    kernels = tuple(max(3, kernel - 2 * (layer // 2) * 2) for layer in range(n_layers))
    convolutions = ConvolutionSettings(
        filters=tuple(min(64, filters * growth**layer) for layer in range(n_layers)),
        kernels=kernels,
        activation=_choose(trial, "activation", get_args(Activation)),
        normalise=trial.suggest_categorical("normalise", [True, False]),
    )
    model = replace(config.model, convolutions=convolutions, latent=_propose_latent(trial))
    return replace(config, model=model, fit=_propose_fit(config.fit, trial))


def _propose_draw(config: Config, trial: Trial) -> Config:
    """Table D.2."""
    nodes = trial.suggest_categorical("nodes", [64, 128, 256, 512])
    model = replace(
        config.model,
        reading=_choose(trial, "reading", ("attention", "convolution")),
        encoder_size=nodes,
        decoder_size=nodes,
        latent=_propose_latent(trial),
    )
    return replace(config, model=model, fit=_propose_fit(config.fit, trial))


def _propose_latent(trial: Trial) -> LatentSettings:
    loss = _choose(trial, "latent_loss", ("none", "kl", "mmd"))
    size = trial.suggest_categorical("latent_size", [10, 20, 50, 100, 150])
    weight = 1.0 if loss == "none" else trial.suggest_float("beta", 1e-2, 1e2, log=True)
    return LatentSettings(size, loss, weight)


def _propose_fit(fit: FitSettings, trial: Trial) -> FitSettings:
    return replace(
        fit,
        learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        beta1=trial.suggest_float("beta1", 0.25, 0.95),
        beta2=trial.suggest_float("beta2", 0.95, 0.999),
    )


def _choose(trial: Trial, name: str, choices: Sequence[str]) -> Any:
    return cast(Any, trial.suggest_categorical(name, list(choices)))
