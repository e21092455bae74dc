"""Tiles for training: elastic deformation, intensities, workers that cut ahead."""
