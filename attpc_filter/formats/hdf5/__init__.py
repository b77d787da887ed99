"""Runs in HDF5 files: one file a format."""
