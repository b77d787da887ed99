"""The errors that a person is meant to read: one line, with the remedy in it."""

import os


class AttpcFilterError(Exception):
    """Base of every error that ends a run or the job with one clear line."""


class UsageError(AttpcFilterError):
    """Wrong option, configuration, table or model: the job cannot start."""


class InputError(AttpcFilterError):
    """A run file that cannot be opened or is not a run: the other runs go on."""


class EmptyRunError(InputError):
    """A run file of a known format without a single event."""


class OutputError(AttpcFilterError):
    """A stream, tag table or manifest that cannot be written."""


def debugging() -> bool:
    """Whether ``ATTPC_FILTER_DEBUG=1`` is set: errors are raised with their traceback."""
    return os.environ.get("ATTPC_FILTER_DEBUG", "") not in ("", "0")
