"""Bundles: written, changed, checked."""
