"""What another distribution can add to attpc-filter: a format, a model output, an executor.

Each module imports the public face of attpc_filter alone. ``pyproject.toml`` names what they add.
"""
