"""Stacks out: each format, and the one class that writes them all."""
