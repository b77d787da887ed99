"""What the runs in ROOT files share."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attpc_filter.formats.root.file import RootFile
from attpc_filter.formats.run import Run
from attpc_filter.records import N_TIME_BUCKETS
from attpc_filter.root_options import RootOptions


class RootRun(Run):
    """A run in a ROOT file; an event's name is its entry.

    Parameters
    ----------
    file : RootFile
        The file; closed with the run.
    holds : {"traces", "points"}
        What its records hold.

    Attributes
    ----------
    options : RootOptions
        What it was opened with.
    """

    def __init__(self, file: RootFile, holds: Literal["traces", "points"]) -> None:
        super().__init__(file.path)
        self.n_samples = N_TIME_BUCKETS if holds == "traces" else None
        self.options = RootOptions()
        self.holds = holds
        self._file = file
        self._reopen: Callable[[Path, RootOptions], RootRun] | None = None

    def opened_by(
        self, opener: Callable[[Path, RootOptions], "RootRun"], options: RootOptions
    ) -> "RootRun":
        """Remember how the run was opened, so that a stream can open it once more."""
        self._reopen, self.options = opener, options
        return self

    def reopen(self) -> "RootRun":
        """The same run, opened once more: for another thread, and for entries here and there."""
        assert self._reopen is not None
        again = self._reopen(self.path, self.options)
        again._file.read_ahead = False
        return again

    def takes_hits(self, mode: Literal["link", "copy", "none"]) -> bool:
        """Whether its streams take the hits that are rebuilt: copies do."""
        return mode == "copy" and self.holds == "traces"

    def close(self) -> None:
        """Close the file."""
        self._file.close()
