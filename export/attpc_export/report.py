"""One page about bundles on labelled runs: folds, few labels, purity, confusion, the latent.

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
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from attpc_export.data import Events, load_events, take_events
from attpc_export.evaluate import describe, evaluate
from attpc_export.latent_worth import few_label_f1, fold_f1
from attpc_filter.score.bundle import Bundle, load_bundle
from attpc_filter.score.scorer import Scorer
from attpc_filter.staging import Staging

PAGE_NAME = "report.html"
N_LABELS = (10, 20, 50, 100, 200, 500, 1000, 2000)
_N_FOLDS = 5
_PURITY_STEPS = 50
_EVENTS_DRAWN = 1000
_COMPONENTS_BEFORE_TSNE = 50


@dataclass(frozen=True, slots=True)
class _DataSet:
    """What a bundle makes of the labelled events of one data set."""

    bundle: Bundle
    name: str
    classes: list[str]
    label: NDArray[np.int64]
    scores: NDArray[np.float32]
    latent: NDArray[np.float32]


def write_report(
    models: Sequence[str],
    data: Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    device: str = "auto",
) -> Path:
    """Write ``report.html``, ``folds.csv``, ``few_labels.csv`` and ``purity.csv``.

    Parameters
    ----------
    models : sequence of str
        Names of bundles that ship, or paths of ONNX files.
    data : sequence of Path
        Run files, and folders of run files; each path is a data set of its own.
    labels : sequence of Path
        Tables of labels.
    out : Path
        Folder.
    device : {"auto", "cpu", "cuda"}
        Where the bundles run.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        If a bundle cannot be used or no event has a label.
    """
    judged = evaluate(models, data, labels, device)
    sets = [part for model in models for part in _run(load_bundle(model), data, labels, device)]
    folds: list[dict[str, Any]] = []
    few: list[dict[str, Any]] = []
    purity: list[dict[str, Any]] = []
    sections = []
    for result, part in zip(judged, sets, strict=True):
        where = {"bundle": part.bundle.contract.name, "data_set": part.name}
        own_folds, own_few = _folds(part), list(_few_labels(part))
        own_purity = list(_purities(part))
        folds += [where | row for row in own_folds]
        few += [where | row for row in own_few]
        purity += [where | row for row in own_purity]
        pictures = [_draw_purity(own_purity), _draw_latent(part)]
        if own_few:
            pictures.insert(0, _draw_few(own_few))
        sections.append(_section(describe(result), own_folds, pictures))
    page = _PAGE.format(body="\n".join(sections))
    with Staging() as staging:
        for name, rows in (("folds", folds), ("few_labels", few), ("purity", purity)):
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


def _run(
    bundle: Bundle, data: Sequence[Path], labels: Sequence[Path], device: str
) -> Iterable[_DataSet]:
    contract = bundle.contract
    classes = [event_class.name for event_class in contract.classes]
    events = load_events(data, labels, classes, contract.hits, contract.detector)
    scorer = Scorer(bundle, device)
    for number, name in enumerate(events.data_sets):
        rows = np.flatnonzero((events.data_set == number) & (events.label >= 0))
        if len(rows):
            found = _score(events, rows, bundle, scorer)
            label = events.label[rows]
            yield _DataSet(bundle, name, classes, label, found["scores"], found["latent"])


def _score(
    events: Events, rows: NDArray[np.int64], bundle: Bundle, scorer: Scorer
) -> dict[str, NDArray[np.float32]]:
    parts = []
    for start in range(0, len(rows), scorer.batch_size):
        hits = take_events(events.hits, rows[start : start + scorer.batch_size])
        parts.append(scorer.run(bundle.contract.make_inputs(hits), ["scores", "latent"]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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
        curve = purity_curve(part.scores[:, index], part.label == index, thresholds)
        for row in curve:
            yield {"class": part.classes[index]} | {k: round(v, 5) for k, v in row.items()}


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


def _section(text: str, folds: list[dict[str, Any]], pictures: list[str]) -> str:
    title, _, rest = text.partition("\n")
    lines = [
        f"<tr><td>{html.escape(row['class'])}</td>"
        f"<td>{row['f1']:.3f} ± {row['spread']:.3f}</td></tr>"
        for row in folds
    ]
    table = ""
    if lines:
        table = (
            f"<p>f1 of a new logistic regression on the latent, {_N_FOLDS} folds:</p><table>"
            + "".join(lines)
            + "</table>"
        )
    images = "".join(f'<img src="data:image/png;base64,{picture}">' for picture in pictures)
    return f"<h2>{html.escape(title)}</h2><pre>{html.escape(rest)}</pre>{table}<p>{images}</p>"


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
