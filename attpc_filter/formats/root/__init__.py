"""Runs in ROOT files: ATTPCROOT's trees and plain ones."""
