"""Trains, judges and exports the model bundles that attpc-filter runs."""

__version__ = "0.1.0"
