"""Trains, judges and exports the model bundles that attpc-filter runs."""

__version__ = "0.2.0.dev0"
