"""Labelled runs, and how they are varied for training."""
