"""Detectors that ship: a YAML file each, and the table of its pads beside it."""
