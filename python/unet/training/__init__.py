"""A solver run to its end: snapshots, history, validation, limits."""
