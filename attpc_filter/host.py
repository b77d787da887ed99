"""For host programs and notebooks: score hits, tag a run, keep some of its events.

The functions here are part of the public face (:mod:`attpc_filter`).
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.execute.base import Executor, InProcess, tag_events
from attpc_filter.execute.choose import make_executor
from attpc_filter.formats.run import Run, StreamMode
from attpc_filter.output.staging import Staging
from attpc_filter.output.tag_table import TagWriter
from attpc_filter.records import Hits
from attpc_filter.score.bundle import Bundle
from attpc_filter.score.outputs import fill_columns
from attpc_filter.score.scorer import Scorer
from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE
from attpc_filter.tagging.batch import Batch
from attpc_filter.tagging.plan import Plan


def score_hits(hits: Hits, bundle: Bundle, device: str = "cpu") -> NDArray[np.float32]:
    """Score a batch of events.

    Parameters
    ----------
    hits : Hits
        The events' hits, made as the bundle's contract says.
    bundle : Bundle
        The model.
    device : {"cpu", "auto", "cuda", "cuda:N"}
        Where the model runs. To score many batches keep a :class:`Scorer`.

    Returns
    -------
    ndarray of float32, shape (n_events, n_classes)
        A row an event.

    Raises
    ------
    UsageError
        If the model reads raw traces, or the device is not there.
    """
    return Scorer(bundle, device).score(bundle.contract.make_inputs(hits))


@contextlib.contextmanager
def start_executor(plan: Plan) -> Iterator[Executor]:
    """Start the executor that a plan's options name; within ``with``, which ends it.

    Yields
    ------
    Executor
        Ready to tag run after run.
    """
    with make_executor(plan.config) as executor:
        executor.load(plan)
        executor.wait()
        yield executor


def load_in_process(plan: Plan) -> Executor:
    """Make a plan ready in this process, on one core; it stays loaded as long as the result."""
    executor = InProcess(plan.config)
    executor.load(plan)
    return executor


def tag_run(run: Run, plan: Plan, executor: Executor | None = None) -> Iterator[Batch]:
    """Tag all events of a run.

    Parameters
    ----------
    run : Run
        The open run.
    plan : Plan
        How events are tagged.
    executor : Executor, optional
        What tags them, with the same plan; this process if left out.

    Yields
    ------
    Batch
        Events in the order of the run, with scores and tags.

    Raises
    ------
    InputError
        If the plan does not fit the run, or the run cannot be tagged.
    """
    with tag_events(run, plan, executor or load_in_process(plan)) as batches:
        yield from batches


def known_tags(plan: Plan) -> list[str]:
    """The tags that :func:`keep_events` can be asked for."""
    return [*plan.classes, UNCERTAIN, UNREADABLE]


def keep_events(
    run: Run,
    plan: Plan,
    executor: Executor,
    stream: Path,
    tag_table: Path,
    keep: Collection[str] | None,
    *,
    mode: StreamMode = "link",
    number: int | None = None,
    on_batch: Callable[[Batch], None] | None = None,
    finish: Callable[[Path], None] | None = None,
) -> dict[str, int]:
    """Tag a run; write the events with certain tags as one stream, and the tag table.

    Ion-chamber downscale triggers go into every stream: the next program counts them. Both files
    are complete when this returns; if it raises, neither was touched.

    Parameters
    ----------
    run : Run
        The open run.
    plan : Plan
        How events are tagged.
    executor : Executor
        What tags them, with the same plan.
    stream, tag_table : Path
        Files to write.
    keep : collection of str or None
        Tags to keep, of :func:`known_tags`; None keeps all events.
    mode : {"link", "copy"}
        How the stream holds its events.
    number : int, optional
        Run number for the tag table; that of the run's file if left out.
    on_batch : callable, optional
        Called with each batch once it is written.
    finish : callable, optional
        Called with the stream's temporary path before the files get their names.

    Returns
    -------
    dict of str to int
        Events of each tag, the most frequent first.

    Raises
    ------
    UsageError
        If the plan's model does not give a tag.
    InputError
        If the run cannot be tagged.
    OutputError
        If a file cannot be written.
    """
    if unknown := set(keep or ()) - set(known_tags(plan)):
        raise UsageError(
            f"keep: the model gives {', '.join(known_tags(plan))}; no {sorted(unknown)[0]!r}"
        )
    counts: Counter[str] = Counter()
    takes_hits = run.takes_hits(mode)
    label = "all" if keep is None else "+".join(keep)
    with Staging() as staging, contextlib.ExitStack() as stack:
        table = TagWriter(
            staging.path(tag_table),
            plan.classes,
            plan.table_metadata(run.path),
            plan.further_columns,
        )
        stack.callback(table.abort)
        output = run.create_stream(staging.path(stream), mode, label)
        stack.callback(output.abort)
        for batch in tag_run(run, plan, executor):
            table.add(
                run.number if number is None else number,
                batch.events,
                batch.tags,
                batch.scores,
                batch.scored,
                batch.n_hits,
                batch.reasons,
                fill_columns(plan.contract, batch.outputs),
            )
            for index, (record, tag) in enumerate(zip(batch.records, batch.tags, strict=True)):
                if keep is None or tag == PASSTHROUGH or tag in keep:
                    has_hits = takes_hits and batch.hits is not None
                    hits = batch.hits.event(index) if has_hits and batch.hits else None
                    output.add(record, hits)
            counts.update(batch.tags)
            if on_batch is not None:
                on_batch(batch)
        output.close()
        table.close()
        if finish is not None:
            finish(staging.path(stream))
        staging.commit()
    return dict(counts.most_common())


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Write a file so that it is complete or absent; within ``with``.

    Yields
    ------
    Path
        Where to write it; it gets its name at the end, unless there was an exception.
    """
    with Staging() as staging:
        yield staging.path(path)
        staging.commit()
