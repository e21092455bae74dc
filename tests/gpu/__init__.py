"""This engine on a GPU, in each precision, held against itself on the CPU."""
