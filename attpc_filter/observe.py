"""What a job tells while it works: its runs, its batches, its bad events."""

from typing import Protocol

from attpc_filter.output.manifest import RunOutcome


class Observer(Protocol):
    """Is told how a job goes; progress, pictures and logs are observers."""

    def note(self, text: str) -> None:
        """A line that a person should read."""

    def run_started(self, name: str, n_events: int, n_bytes: int) -> None:
        """A run was opened."""

    def event_unreadable(self, path: str, event: int, reason: str) -> None:
        """An event could not be read or scored."""

    def advanced(self, n_events: int) -> None:
        """``n_events`` more events have their tag."""

    def run_finished(self, outcome: RunOutcome) -> None:
        """A run is complete, or failed."""
