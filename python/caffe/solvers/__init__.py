"""Solvers: update rules, test intervals, snapshots, signals."""
