"""Pictures: a job at a glance, and one event seen from three sides."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from attpc_filter.bench import Step
from attpc_filter.compare import Compared
from attpc_filter.errors import OutputError
from attpc_filter.output.folder import OutputFolder
from attpc_filter.output.manifest import SUMMARY_NAME, RunOutcome, read_manifest
from attpc_filter.output.staging import Staging
from attpc_filter.output.tag_table import read_tags, scores_of
from attpc_filter.pipeline import Job
from attpc_filter.rebuild.padplane import PadPlane
from attpc_filter.records import N_HARDWARE_COLUMNS, PAD_COLUMN, Hits, Record
from attpc_filter.tagging.batch import Example

matplotlib.rcdefaults()  # a user's matplotlibrc may want LaTeX, say, which is not everywhere

_COLOURS = ("tab:red", "tab:blue", "tab:gray", "tab:green", "tab:purple", "tab:brown")
_MOST_TRACES = 40
#: Scores beyond these change a histogram no more.
_SCORES_SHOWN = 20_000


def draw_summary(job: Job, outcomes: Sequence[RunOutcome]) -> Path:
    """Draw a job into its folder: events by tag, the scores, and the first events of each tag.

    Parameters
    ----------
    job : Job
        With the examples and scores that its runs left.
    outcomes : sequence of RunOutcome
        The outcomes of the runs.

    Returns
    -------
    Path
        The picture.
    """
    done = [outcome for outcome in outcomes if not outcome.error]
    counts = {tag: sum(o.counts[tag] for o in done) for tag in (done[0].counts if done else {})}
    colours = dict(zip(counts, _COLOURS * 2, strict=False))
    shown = [tag for tag in counts if job.examples.get(tag)]
    rows, columns = 1 + len(shown), 4
    figure = plt.figure(figsize=(11, 2.8 * rows), layout="constrained")
    figure.suptitle(
        f"{sum(counts.values())} events of {len(done)} run{'s'[: len(done) != 1]},"
        f" model {job.plan.contract.name}"
    )
    grid = figure.add_gridspec(rows, columns)

    scores = np.concatenate(job.score_sample) if job.score_sample else np.empty((0, 0), np.float32)
    thresholds = dict(zip(job.plan.classes, job.plan.thresholds, strict=True))
    _draw_counts(figure.add_subplot(grid[0, :2]), counts, colours)
    _draw_scores(figure.add_subplot(grid[0, 2:]), scores, thresholds, colours)

    for row, tag in enumerate(shown, start=1):
        for column, example in enumerate(job.examples[tag]):
            axes = figure.add_subplot(grid[row, column])
            _draw_xy(axes, example, job.plan.contract.radius_mm)
            axes.set_title(example.title, fontsize=8)
            if column == 0:
                axes.set_ylabel(tag, color=colours[tag], fontsize=12)
            axes.tick_params(labelsize=7)
    return _save_summary(figure, job.folder.path)


def draw_retagged(out: Path, counts: dict[str, int], thresholds: dict[str, float]) -> Path:
    """Draw the tags and scores of an output folder anew, in place of its summary.

    Parameters
    ----------
    out : Path
        The output folder.
    counts : dict of str to int
        Events by tag.
    thresholds : dict of str to float
        Thresholds in effect.

    Returns
    -------
    Path
        The picture.
    """
    colours = dict(zip(counts, _COLOURS * 2, strict=False))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    figure.suptitle(f"{sum(counts.values())} events, re-tagged")
    sample: list[NDArray[np.float32]] = []
    for entry in read_manifest(out).runs:
        if entry.tag_table and sum(map(len, sample)) < _SCORES_SHOWN:
            table, _ = read_tags(out / entry.tag_table)
            sample.append(scores_of(table, list(thresholds)))
    scores = np.concatenate(sample)
    _draw_counts(left, counts, colours)
    _draw_scores(right, scores[np.isfinite(scores).all(axis=1)], thresholds, colours)
    return _save_summary(figure, out)


def draw_compared(compared: Compared, path: Path) -> None:
    """Draw two taggings: the score of each class in B against that in A; flipped events in colour.

    Parameters
    ----------
    compared : Compared
        The taggings; only classes that both have are drawn.
    path : Path
        PNG to write.
    """
    shared = [name for name in compared.classes_a if name in compared.classes_b]
    columns = max(len(shared), 1)
    figure, axes_row = plt.subplots(
        1, columns, figsize=(4.2 * columns, 4.4), layout="constrained", squeeze=False
    )
    n_events = len(compared.event)
    figure.suptitle(f"{n_events} events, {compared.n_flipped} with another tag")
    chosen = np.zeros(n_events, bool)
    chosen[:: max(n_events // _SCORES_SHOWN, 1)] = True
    flipped = compared.flipped
    for name, axes in zip(shared, axes_row[0], strict=False):
        a = compared.scores_a[:, compared.classes_a.index(name)]
        b = compared.scores_b[:, compared.classes_b.index(name)]
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
        for events, colour, label in (
            (chosen & ~flipped, "tab:gray", "same tag"),
            (chosen & flipped, "tab:red", "another tag"),
        ):
            axes.scatter(a[events], b[events], s=4, color=colour, label=label)
        axes.set(
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
            title=name,
            xlabel="score in A",
            ylabel="score in B",
        )
    axes_row[0][0].legend(frameon=False, loc="upper left")
    _save(figure, path)


def _draw_counts(axes: Axes, counts: dict[str, int], colours: dict[str, str]) -> None:
    bars = axes.bar(list(counts), list(counts.values()), color=list(colours.values()))
    axes.bar_label(bars)
    axes.margins(y=0.2)
    axes.set_ylabel("events")
    axes.tick_params(axis="x", rotation=20)


def _draw_scores(
    axes: Axes,
    scores: NDArray[np.float32],
    thresholds: dict[str, float],
    colours: dict[str, str],
) -> None:
    for (name, threshold), column in zip(thresholds.items(), scores.T, strict=False):
        axes.hist(column, bins=50, range=(0, 1), histtype="step", color=colours[name], label=name)
        axes.axvline(threshold, color=colours[name], linestyle=":", linewidth=1)
    axes.set(xlabel="score (dotted: threshold)", ylabel="events", yscale="log")
    if len(scores):
        axes.legend(frameon=False, loc="upper center")


def _draw_xy(axes: Axes, example: Example, radius: float) -> None:
    order = np.argsort(example.charge)
    axes.scatter(
        example.x[order],
        example.y[order],
        c=np.log1p(np.maximum(example.charge[order], 0)),
        s=4,
        cmap="viridis",
    )
    axes.set(xlim=(-radius, radius), ylim=(-radius, radius), aspect="equal")


def draw_event(
    record: Record, hits: Hits, plane: PadPlane, radius: float, title: str, path: Path
) -> None:
    """Draw one event: x-y projection, z against radius, and its traces.

    Parameters
    ----------
    record : Record
        The event; its traces are drawn if it has any.
    hits : Hits
        Its rebuilt hits.
    plane : PadPlane
        For the outline of the pad plane.
    radius : float
        Half the width of the pictures [mm].
    title : str
        Heading.
    path : Path
        PNG to write.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    figure.suptitle(title)
    left.scatter(plane.x, plane.y, s=0.2, color="0.85")
    norm = LogNorm(1, max(2.0, float(hits.charge.max(initial=2.0))))
    charge = np.maximum(hits.charge, 1)
    shown = left.scatter(hits.x, hits.y, c=charge, s=6, norm=norm)
    left.set(
        xlim=(-radius, radius),
        ylim=(-radius, radius),
        aspect="equal",
        xlabel="x [mm]",
        ylabel="y [mm]",
        title=f"{len(hits.x)} hits",
    )
    middle.scatter(hits.z, np.hypot(hits.x, hits.y), c=charge, s=6, norm=norm)
    middle.set(xlabel="z [mm]", ylabel="radius [mm]", ylim=(0, radius))
    figure.colorbar(shown, ax=middle, label="charge [ADC]")
    if record.traces is None:
        right.text(0.5, 0.5, "hits only: the file holds no traces", ha="center")
        right.set_axis_off()
    else:
        _draw_traces(right, record.traces)
    _save(figure, path)


def draw_plane(plane: PadPlane, title: str, path: Path) -> None:
    """Draw the pads of a plane: sizes by their marks, the beam region in another colour.

    Parameters
    ----------
    plane : PadPlane
        The pads.
    title : str
        Heading.
    path : Path
        PNG to write.
    """
    figure, axes = plt.subplots(figsize=(8, 8), layout="constrained")
    for pads, colour, label in (
        (~plane.beam, "tab:blue", "pads"),
        (plane.beam, "tab:red", "beam region"),
    ):
        if pads.any():
            axes.scatter(
                plane.x[pads], plane.y[pads], s=3 * plane.scale[pads], color=colour, label=label
            )
    axes.set(
        aspect="equal", xlabel="x [mm]", ylabel="y [mm]", title=f"{title}: {len(plane.x)} pads"
    )
    axes.legend()
    _save(figure, path)


def draw_steps(steps: Sequence[Step], title: str, path: Path) -> None:
    """Draw how long an event takes in each step of the filter.

    Parameters
    ----------
    steps : sequence of Step
        From :func:`attpc_filter.bench.bench`.
    title : str
        What was measured where.
    path : Path
        PNG to write.
    """
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(steps) + 1.5), layout="constrained")
    names = [step.name for step in steps]
    taken = [1e6 / step.events_per_s for step in steps]
    bars = axes.barh(names, taken, color=["tab:gray"] * (len(steps) - 1) + ["tab:red"])
    labels = [f"{step.events_per_s:,.0f} events/s" for step in steps]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("time an event [microseconds] (median)")
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def _draw_traces(axes: Axes, traces: NDArray[np.int16]) -> None:
    samples = traces[:, N_HARDWARE_COLUMNS:]
    largest = np.argsort(samples.max(axis=1, initial=0))[::-1][:_MOST_TRACES]
    for trace, pad in zip(samples[largest], traces[largest, PAD_COLUMN], strict=True):
        axes.plot(trace, linewidth=0.6, label=str(pad))
    axes.set(
        xlabel="time bucket",
        ylabel="ADC",
        title=f"{len(largest)} of {len(samples)} traces, the largest",
    )


def _save_summary(figure: Figure, out: Path) -> Path:
    """Save the picture of an output folder, and enter it in the books."""
    path = out / SUMMARY_NAME
    try:
        with OutputFolder(out) as folder, folder.staging() as staging:
            figure.savefig(staging.path(path), format="png", dpi=110)
            books = folder.books_to_change()
            books.pictures = [SUMMARY_NAME]
            staging.commit(books)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        plt.close(figure)
    return path


def _save(figure: Figure, path: Path) -> None:
    try:
        with Staging() as staging:
            figure.savefig(staging.path(path), format="png", dpi=110)
            staging.commit()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        plt.close(figure)
