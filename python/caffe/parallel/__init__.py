"""Solvers in several processes that train one net together."""
