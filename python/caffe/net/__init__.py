"""Nets: made from a prototxt, run, and their parameters shared and copied."""
