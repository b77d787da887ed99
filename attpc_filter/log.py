"""What the program logs, so that a problem can be understood from a user's report.

Every module logs to ``logging.getLogger(__name__)``, below the logger ``attpc_filter``. Nothing is
shown unless a program asks for it: the command line with ``-v`` (level INFO) or ``-vv`` (DEBUG), a
notebook with :func:`logging.basicConfig`.
"""

import logging
import os
import platform
import sys
from typing import TextIO

from attpc_filter.texts import shown

_FORMAT = "%(asctime)s %(levelname)-5s %(name)s: %(message)s"


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the time: above the progress bar while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


class _Formatter(logging.Formatter):
    """Writes names from files without their power over a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; its lines stay."""
        return "\n".join(map(shown, super().format(record).split("\n")))


def log_to_stderr(verbosity: int) -> None:
    """Show the log on stderr.

    Parameters
    ----------
    verbosity : int
        How often ``-v`` was given: 0 shows nothing, 1 INFO, 2 and more DEBUG.
    """
    logger = logging.getLogger("attpc_filter")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Stderr)]:
        logger.removeHandler(handler)
    logger.setLevel([logging.NOTSET, logging.INFO, logging.DEBUG][min(verbosity, 2)])
    if verbosity > 0:
        handler = _Stderr(sys.stderr)
        handler.setFormatter(_Formatter(_FORMAT))
        logger.addHandler(handler)


def log_program(command: str) -> None:
    """Log the command, the versions of what makes the results, and the machine."""
    logger = logging.getLogger(__name__)
    if not logger.isEnabledFor(logging.INFO):
        return
    from attpc_filter.output.manifest import package_versions

    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    logger.info("command: %s", command)
    logger.info("versions: %s", versions)
    logger.info("machine: %s, %s cores", platform.platform(), os.cpu_count())
