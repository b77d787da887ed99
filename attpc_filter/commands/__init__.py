"""The commands of ``attpc-filter``: one file a command, named after its word.

A command's file has two functions. :mod:`attpc_filter.cli` lists the words, each with a help of one
line. A distribution adds a word with the entry point group ``attpc_filter.commands``: the
name is the word, the value a module with the same two functions.
"""

import argparse
from typing import Protocol


class Command(Protocol):
    """What a command's module offers.

    A module whose command reads events also says ``USES_KERNELS = True``; numba then loads only
    what this program needs.
    """

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the arguments, and a description, to the command's parser."""

    @staticmethod
    def act(options: argparse.Namespace, command: str) -> int:
        """Do what the arguments ask for.

        Parameters
        ----------
        options : Namespace
            The parsed arguments.
        command : str
            The whole command line, for the manifest.

        Returns
        -------
        int
            The exit code.

        Raises
        ------
        AttpcFilterError
            With one line for the user; the exit code is 2.
        """
