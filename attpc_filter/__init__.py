"""attpc-filter: decide which AT-TPC events to keep before anyone reconstructs them."""

__version__ = "0.2.0.dev0"
