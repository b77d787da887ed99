"""How a job goes: a progress bar on a terminal, plain log lines elsewhere; the table at its end."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from attpc_filter.output.manifest import RunOutcome
from attpc_filter.texts import shown

if TYPE_CHECKING:
    from attpc_filter.bench import Step

_log = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0
#: Unreadable events of a run that are named as they come.
_MOST_EVENTS = 20


class Display:
    """Shows the progress of a job; an :class:`attpc_filter.observe.Observer`.

    Parameters
    ----------
    console : Console
        Where to write. On a terminal a bar, elsewhere a line every ten seconds and one a run.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._name = ""
        self._n_events = 0
        self._bytes_an_event = 0.0
        self._done = 0
        self._started = 0.0
        self._last_line = 0.0
        self._n_unreadable = 0

    def note(self, text: str) -> None:
        """A line that a person should read."""
        self._log(text)

    def run_started(self, name: str, n_events: int, n_bytes: int) -> None:
        """A run was opened."""
        _log.info("%s: %d events, %.1f MB", name, n_events, n_bytes / 1e6)
        self._name, self._n_events, self._done = name, n_events, 0
        self._bytes_an_event = n_bytes / n_events
        self._started = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("events  {task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(escape(shown(name)), total=n_events, rate="")
            self._bar.start()
        else:
            self._log(f"{name}: {n_events} events, {n_bytes / 1e6:.1f} MB")

    def event_unreadable(self, path: str, event: int, reason: str) -> None:
        """An event could not be read or scored."""
        _log.debug("%s: event %d: %s", path, event, reason)
        self._n_unreadable += 1
        if self._n_unreadable <= _MOST_EVENTS:
            self._log(f"unreadable: {path}: event {event}: {reason}")

    def advanced(self, n_events: int) -> None:
        """So many more events have their tag."""
        _log.debug("%s: a batch of %d events is tagged", self._name, n_events)
        self._done += n_events
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=self._rate(now))
        elif now - self._last_line >= _LOG_EVERY_S:
            self._last_line = now
            left = (now - self._started) * (self._n_events - self._done) / self._done
            self._log(
                f"{self._name}: {self._done} of {self._n_events} events,"
                f" {self._rate(now)}, {left:.0f} s left"
            )

    def run_finished(self, outcome: RunOutcome) -> None:
        """A run is complete, or failed."""
        self.stop()
        _log.info("%s: %s in %.2f s", outcome.input, outcome.counts, outcome.seconds)
        if self._n_unreadable > _MOST_EVENTS:
            more = self._n_unreadable - _MOST_EVENTS
            self._log(f"unreadable: {self._name}: {more} events more, each in the tag table")
        self._n_unreadable = 0
        if outcome.error:
            self._log(f"error: {outcome.error}")
        elif outcome.is_all_unreadable:
            reason = next(iter(outcome.reasons), "")
            self._log(
                f"error: {outcome.input}: all {outcome.n_events} events are unreadable, most often:"
                f" {reason}; their tags are written"
            )
        elif not self._console.is_terminal:
            counts = ", ".join(f"{n} {tag}" for tag, n in outcome.counts.items() if n)
            self._log(
                f"{self._name}: done in {outcome.seconds:.1f} s"
                f" ({outcome.events_per_s:.0f} events/s): {counts}"
            )

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rate(self, now: float) -> str:
        rate = self._done / max(now - self._started, 1e-6)
        return f"{rate:.0f} events/s, {rate * self._bytes_an_event / 1e6:.0f} MB/s"

    def _log(self, text: str) -> None:
        self._console.print(shown(text), markup=False, highlight=False, soft_wrap=True)


def summary_table(outcomes: list[RunOutcome]) -> Table:
    """The events of each run by tag."""
    done = [outcome for outcome in outcomes if not outcome.error]
    tags = list(done[0].counts) if done else []
    table = Table("run", "events", *tags, "events/s", "MB/s", box=SIMPLE)
    for column in table.columns:
        column.justify = "right"
    for outcome in done:
        table.add_row(
            str(outcome.run),
            str(outcome.n_events),
            *(str(outcome.counts[tag]) for tag in tags),
            f"{outcome.events_per_s:.0f}",
            f"{outcome.mb_per_s:.0f}",
        )
    if len(done) > 1:
        table.add_section()
        table.add_row(
            "all",
            str(sum(outcome.n_events for outcome in done)),
            *(str(sum(outcome.counts[tag] for outcome in done)) for tag in tags),
        )
    return table


def steps_table(steps: "Sequence[Step]") -> Table:
    """The steps that :func:`attpc_filter.bench.bench` measured."""
    table = Table("step", "events/s", "traces/s", "MB/s", "CPU us/event", "peak MiB", box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for step in steps:
        table.add_row(
            step.name,
            f"{step.events_per_s:,.0f}",
            f"{step.traces_per_s:,.0f}",
            f"{step.mb_per_s:,.0f}",
            f"{step.cpu_us_per_event:,.0f}",
            f"{step.peak_memory / 2**20:,.0f}" if step.peak_memory else "",
        )
    return table
