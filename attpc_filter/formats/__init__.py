"""Event-record formats: one file a format; each knows how to recognise, read and write it.

What comes after does not know which file an event came from.
"""
