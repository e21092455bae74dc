"""A stack as a slow disk holds it: slices that come when a test lets them."""

from __future__ import annotations

import threading

import numpy as np


class SlowStack:
    """Pixels that napari shows at once, and other threads get when `gate` is open.

    Attributes
    ----------
    gate : threading.Event
    asked : list of tuple
        What other threads than the window's have asked for.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim
        self.gate = threading.Event()
        self.asked: list[tuple] = []

    def __getitem__(self, place: tuple) -> np.ndarray:
        if threading.current_thread() is not threading.main_thread():
            self.asked.append(place)
            assert self.gate.wait(600)
        return self._pixels[place]
