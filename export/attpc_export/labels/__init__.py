"""Labels: which events to ask for, and what to do with the answers."""
