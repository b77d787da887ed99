"""One page about bundles on labelled runs: confusion, folds, few labels, purity, the latent.

The numbers behind the pictures lie beside the page as CSV.
"""

import base64
import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from attpc_export.data.classes import find_noise
from attpc_export.data.labelled import load_events
from attpc_export.judging.evaluate import describe, judge_scored, score_labelled_runs
from attpc_export.judging.latent_worth import anomaly_auc, anomaly_scores, few_label_f1, fold_f1
from attpc_export.judging.run_bundle import ReadOptions, ScoredEvents
from attpc_export.metrics import calibration_bins
from attpc_export.models.base import LatentModel
from attpc_export.training.fit import apply_in_batches
from attpc_export.training.run_folder import load_run
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging
from attpc_filter.score.bundle import load_bundle

PAGE_NAME = "report.html"
N_LABELS = (10, 20, 50, 100, 200, 500, 1000, 2000)
#: Purities whose thresholds are looked up.
PURITIES = (0.9, 0.95, 0.98, 0.99)
_N_FOLDS = 5
_PURITY_STEPS = 50
_EVENTS_DRAWN = 1000
_COMPONENTS_BEFORE_TSNE = 50
_REDRAWN_A_CLASS = 4


@dataclass(frozen=True, slots=True)
class _DataSet:
    """What a bundle makes of the labelled events of one data set."""

    classes: list[str]
    noise: str
    label: NDArray[np.int64]
    scores: NDArray[np.float32]
    class_scores: NDArray[np.float32]
    latent: NDArray[np.float32]
    novelty: NDArray[np.float32] | None


def write_report(
    models: Sequence[str],
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    device: str = "auto",
    run_folder: Path | None = None,
    options: ReadOptions | None = None,
) -> Path:
    """Write ``report.html`` and the numbers behind it as CSV.

    Parameters
    ----------
    models : sequence of str
        Names of bundles that ship, or paths of ONNX files.
    data : sequence of Path
        Run files, and folders of run files; each path is a data set of its own.
    labels : sequence of Path
        Tables of labels.
    out : Path
        Folder of the page, ``folds.csv``, ``few_labels.csv``, ``purity.csv``, ``thresholds.csv``
        and ``anomaly.csv``.
    device : {"auto", "cpu", "cuda"}
        Where the bundles run.
    run_folder : Path, optional
        A finished training whose reconstructions are shown too: a bundle has no decoder.
    options : ReadOptions, optional
        How runs and labels are read, where that is not as the contracts say.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        If a bundle cannot be used, no event has a label, or the run folder's model has no decoder.
    """
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("folds", "few_labels", "purity", "thresholds", "anomaly")
    }
    sections = []
    for model in models:
        scored = score_labelled_runs(load_bundle(model), data, labels, device, options)
        for result in judge_scored(scored, data):
            part = _part(scored, result.data_set)
            own = {
                "folds": _folds(part),
                "few_labels": list(_few_labels(part)),
                "purity": list(_purities(part)),
                "thresholds": list(_thresholds(part)),
                "anomaly": list(_anomalies(part)),
            }
            sections.append(_section(describe(result), own, _draw(part, own)))
            where = {"bundle": scored.bundle.contract.name, "data_set": result.data_set}
            for name, rows in own.items():
                tables[name] += [where | row for row in rows]
    if run_folder is not None:
        text, rows, picture = _redraw(run_folder, data, labels)
        tables["anomaly"] += [{"bundle": run_folder.name, "data_set": "all"} | r for r in rows]
        sections.append(_section(text, {"anomaly": rows}, [picture]))
    page = _PAGE.format(body="\n".join(sections))
    with Staging() as staging:
        for name, rows in tables.items():
            _write_csv(staging.path(out / f"{name}.csv"), rows)
        staging.path(out / PAGE_NAME).write_text(page, encoding="utf-8")
        staging.commit()
    return out / PAGE_NAME


def purity_curve(
    score: NDArray[np.float32], is_class: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> list[dict[str, float]]:
    """Purity and efficiency of a class against the threshold on its score.

    Parameters
    ----------
    score : ndarray of float32, shape (n_events,)
        Score of the class.
    is_class : ndarray of bool, shape (n_events,)
        Whether an event is of the class.
    thresholds : ndarray of float64
        Lowest scores that make an event the class.

    Returns
    -------
    list of dict
        ``threshold``, ``efficiency`` and ``purity`` with the ends of their 68% intervals (Wilson
        1927), and ``events`` above the threshold; a threshold that no event reaches is left out.
    """
    rows = []
    for threshold in thresholds:
        kept = score >= threshold
        right = int((kept & is_class).sum())
        if not kept.any():
            continue
        row = {"threshold": float(threshold), "events": float(kept.sum())}
        for name, total in (("efficiency", int(is_class.sum())), ("purity", int(kept.sum()))):
            found = binomtest(right, total).proportion_ci(0.6827, "wilson")
            row |= {name: right / total, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return rows


def threshold_for(
    score: NDArray[np.float32], is_class: NDArray[np.bool_], purity: float
) -> dict[str, float] | None:
    """Find the threshold on a score that gives a wanted purity at the highest efficiency.

    Parameters
    ----------
    score : ndarray of float32, shape (n_events,)
        Score of the class.
    is_class : ndarray of bool, shape (n_events,)
        Whether an event is of the class.
    purity : float
        Least share of the kept events that must be of the class.

    Returns
    -------
    dict or None
        The row of :func:`purity_curve`; None if no threshold gives that purity.
    """
    order = np.argsort(-score)
    ranked, right = score[order], np.cumsum(is_class[order])
    is_last = np.append(ranked[1:] != ranked[:-1], True)  # of those with equal scores
    enough = (right > 0) & (right >= purity * np.arange(1, len(score) + 1))
    if not (is_last & enough).any():
        return None
    threshold = ranked[np.flatnonzero(is_last & enough)[-1:]].astype(np.float64)
    (row,) = purity_curve(score, is_class, threshold)
    return row


def _part(scored: ScoredEvents, data_set: str) -> _DataSet:
    rows = scored.labelled(scored.events.data_sets.index(data_set))
    return _DataSet(
        scored.classes,
        find_noise(scored.bundle.contract.classes),
        scored.events.label[rows],
        scored.scores[rows],
        scored.class_scores()[rows],
        scored.latent[rows],
        None if scored.novelty is None else scored.novelty[rows],
    )


def _folds(part: _DataSet) -> list[dict[str, Any]]:
    """f1 of each class over the folds of a new logistic regression on the latent."""
    present, label = np.unique(part.label, return_inverse=True)
    if len(present) < 2 or np.bincount(label).min() < _N_FOLDS:
        return []
    found = fold_f1(part.latent, label, _N_FOLDS)
    names = [part.classes[k] for k in present]
    rows = [
        {"class": name, "f1": round(f1.mean(), 4), "spread": round(f1.std(), 4)}
        for name, f1 in zip(names, found.T, strict=True)
    ]
    macro = found.mean(axis=1)
    return [
        *rows,
        {"class": "all", "f1": round(macro.mean(), 4), "spread": round(macro.std(), 4)},
    ]


def _few_labels(part: _DataSet) -> Iterable[dict[str, Any]]:
    """Macro f1 of new logistic regressions on the latent, against the number of labels."""
    present, label = np.unique(part.label, return_inverse=True)
    if len(present) < 2:
        return
    for number in N_LABELS:
        if number <= len(label) // 2:
            found = few_label_f1(part.latent, label, number)
            yield {
                "labels": number,
                "macro_f1": round(found.mean(), 4),
                "spread": round(found.std(), 4),
            }


def _purities(part: _DataSet) -> Iterable[dict[str, Any]]:
    thresholds = np.linspace(0.0, 1.0, _PURITY_STEPS + 1)
    for index in np.unique(part.label):
        curve = purity_curve(part.class_scores[:, index], part.label == index, thresholds)
        for row in curve:
            yield {"class": part.classes[index]} | _rounded(row)


def _thresholds(part: _DataSet) -> Iterable[dict[str, Any]]:
    for index in np.unique(part.label):
        for purity in PURITIES:
            row = threshold_for(part.class_scores[:, index], part.label == index, purity)
            if row is not None:
                yield {"class": part.classes[index], "wanted_purity": purity} | _rounded(row)


def _anomalies(part: _DataSet) -> Iterable[dict[str, Any]]:
    """Area under the ROC curve of scores that know no classes."""
    scores = {"latent_mean": part.latent.mean(1), "latent_square": np.square(part.latent).mean(1)}
    if part.novelty is not None:
        scores["novelty"] = part.novelty
    return _anomaly_rows(scores, part.classes, part.label, part.noise)


def _anomaly_rows(
    scores: dict[str, NDArray[np.float32]], classes: list[str], label: NDArray[np.int64], noise: str
) -> list[dict[str, Any]]:
    is_unusual = np.array(classes)[label] == noise
    if is_unusual.all() or not is_unusual.any():
        return []
    return [{"score": k, "auc": round(v, 4)} for k, v in anomaly_auc(scores, is_unusual).items()]


def _rounded(row: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in row.items()}


def _draw(part: _DataSet, own: dict[str, list[dict[str, Any]]]) -> list[str]:
    pictures = [_draw_few(own["few_labels"])] if own["few_labels"] else []
    return [*pictures, _draw_purity(own["purity"]), _draw_calibration(part), _draw_latent(part)]


def _draw_few(rows: list[dict[str, Any]]) -> str:
    figure, axes = _figure("Macro f1 of a logistic regression on the latent")
    labels = [row["labels"] for row in rows]
    axes.errorbar(
        labels, [row["macro_f1"] for row in rows], [row["spread"] for row in rows], marker="o"
    )
    axes.set(xlabel="labelled events", ylabel="macro f1", xscale="log")
    return _picture(figure)


def _draw_purity(rows: list[dict[str, Any]]) -> str:
    figure, axes = _figure("Purity against efficiency, by the threshold on the score")
    for name in dict.fromkeys(row["class"] for row in rows):
        own = [row for row in rows if row["class"] == name]
        efficiency = [row["efficiency"] for row in own]
        axes.plot(efficiency, [row["purity"] for row in own], label=name)
        low, high = ([row[f"purity_{end}"] for row in own] for end in ("low", "high"))
        axes.fill_between(efficiency, low, high, alpha=0.3)
    axes.set(xlabel="efficiency", ylabel="purity")
    axes.legend()
    return _picture(figure)


def _draw_calibration(part: _DataSet) -> str:
    figure, axes = _figure("Calibration: the highest score, and how often it is right")
    mean_score, share_right, n_events = calibration_bins(part.scores, part.label)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.scatter(mean_score, share_right, s=5 + 200 * n_events / n_events.sum())
    axes.set(xlabel="mean highest score", ylabel="share of right ones", xlim=(0, 1), ylim=(0, 1))
    return _picture(figure)


def _redraw(
    run_folder: Path, data: Sequence[Path], labels: Sequence[Path]
) -> tuple[str, list[dict[str, Any]], str]:
    """Reconstructions of a training beside their originals, and its anomaly scores."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scoring, contract = load_run(run_folder)
    model = scoring.model
    if type(model).reconstruct is LatentModel.reconstruct:
        raise UsageError(f"--run-folder: {run_folder}: its model has no decoder")
    classes = [event_class.name for event_class in contract.classes]
    events = load_events(data, labels, classes, contract.hits, contract.detector.load())
    enough = events.hits.counts >= contract.hits.min_hits
    events = events.take(np.flatnonzero(enough & (events.label >= 0)))
    inputs = tuple(contract.make_inputs(events.hits).values())
    cpu = torch.device("cpu")
    rows = _anomaly_rows(
        anomaly_scores(model, inputs, cpu), classes, events.label, find_noise(contract.classes)
    )
    shown = np.concatenate(
        [np.flatnonzero(events.label == k)[:_REDRAWN_A_CLASS] for k in np.unique(events.label)]
    )
    some = tuple(part[shown] for part in inputs)
    drawn = torch.cat(apply_in_batches(lambda *b: model.reconstruct(model.encode(*b)), some, cpu))
    figure, axes = plt.subplots(
        2, len(shown), figsize=(1.3 * len(shown), 3), layout="constrained", squeeze=False
    )
    for column, row in enumerate(shown):
        axes[0, column].set_title(classes[events.label[row]], fontsize=8)
        for line, image in enumerate((some[0][column, 0], drawn[column, 0].numpy())):
            axes[line, column].imshow(image, origin="lower", vmin=0.0, vmax=1.0)
            axes[line, column].set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("event")
    axes[1, 0].set_ylabel("redrawn")
    return f"{run_folder.name}: reconstructions, first view", rows, _picture(figure)


def _draw_latent(part: _DataSet) -> str:
    import matplotlib.pyplot as plt

    rows = np.random.default_rng(0).permutation(len(part.label))[:_EVENTS_DRAWN]
    latent, label = part.latent[rows], part.label[rows]
    most = min(_COMPONENTS_BEFORE_TSNE, *latent.shape)
    reduced = PCA(most, random_state=0).fit_transform(latent)
    ways = {"PCA": reduced[:, :2]}
    if most > 2 and len(rows) > 30:
        ways["t-SNE"] = TSNE(random_state=0, init="pca").fit_transform(reduced)
    figure, all_axes = plt.subplots(
        1, len(ways), figsize=(5 * len(ways), 4), layout="constrained", squeeze=False
    )
    for axes, (way, place) in zip(all_axes[0], ways.items(), strict=True):
        for index in np.unique(label):
            axes.scatter(*place[label == index].T, s=4, label=part.classes[index])
        axes.set(title=f"Latent, {way}", xticks=[], yticks=[])
    all_axes[0, 0].legend()
    return _picture(figure)


def _figure(title: str) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.set_title(title)
    return figure, axes


def _picture(figure: Any) -> str:
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    figure.savefig(file, dpi=90, format="png")
    plt.close(figure)
    return base64.b64encode(file.getvalue()).decode()


_CAPTIONS = {
    "folds": f"f1 of a new logistic regression on the latent, {_N_FOLDS} folds:",
    "thresholds": "lowest threshold that gives a wanted purity (68% intervals):",
    "anomaly": "area under the ROC curve of anomaly scores, the class of role noise being unusual:",
}


def _section(text: str, own: dict[str, list[dict[str, Any]]], pictures: list[str]) -> str:
    title, _, rest = text.partition("\n")
    parts = [f"<h2>{html.escape(title)}</h2><pre>{html.escape(rest)}</pre>"]
    for name, caption in _CAPTIONS.items():
        if rows := own.get(name):
            lines = [list(rows[0]), *(row.values() for row in rows)]
            cells = ("".join(f"<td>{html.escape(str(x))}</td>" for x in line) for line in lines)
            table = "".join(f"<tr>{line}</tr>" for line in cells)
            parts.append(f"<p>{html.escape(caption)}</p><table>{table}</table>")
    images = "".join(f'<img src="data:image/png;base64,{picture}">' for picture in pictures)
    return "".join(parts) + f"<p>{images}</p>"


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Bundles on labelled runs</title>
<style>body {{ font-family: sans-serif; margin: 2em; }} td {{ padding-right: 1em; }}
img {{ max-width: 100%; }}</style></head>
<body><h1>Bundles on labelled runs</h1>
{body}
</body></html>
"""
