"""Runs filtered in parts, by many processes on many machines, then joined."""
