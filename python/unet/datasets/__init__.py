"""Data sets that the project knows how to get or make: one small module each."""
