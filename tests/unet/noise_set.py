"""A training set of noise, for tests that need any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unet.preparation.training_set import write_training_set

ATTRIBUTES = {"classes": 2, "grey_low": 0.0, "grey_high": 255.0}


def write_noise_set(
    path: Path,
    shape: tuple[int, int, int] = (4, 60, 50),
    *,
    classes: int = 2,
    channels: int | None = None,
    ignored_rows: int = 0,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Path:
    """Write 8-bit pictures, classes and weights between two, all at random; return the path."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, shape).astype(np.uint8)
    labels[:, :ignored_rows] = 255
    raw_shape = shape if channels is None else (shape[0], channels, *shape[1:])
    low, high = weights
    write_training_set(
        path,
        random.integers(0, 256, raw_shape).astype(np.uint8),
        labels,
        (low + (high - low) * random.random(shape)).astype(np.float32),
        attributes={**ATTRIBUTES, "classes": classes},
    )
    return path
