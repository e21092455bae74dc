"""What is to be written of a stack, whatever the format: shape, type, axes, blocks, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np

from unet.volumes.calibration import Calibration

#: Takes slice, rows, columns and their values, ([channels,] height, width).
Put = Callable[[int, slice, slice, np.ndarray], None]
# Whole slices are chunks up to here; of larger ones a chunk is a square of at most so much.
_CHUNK_BYTES = 4 << 20
_SQUARE = 1024


@dataclass(frozen=True)
class Layout:
    """A stack that is going to be written.

    Attributes
    ----------
    path : pathlib.Path
    shape : tuple of int
        (slices, height, width) or (slices, channels, height, width).
    dtype : numpy.dtype
    calibration : Calibration
    blocks : (int, int), optional
        Height and width of the chunks; by default a slice, or squares of one that is large.
    note : mapping
        Provenance, of what JSON holds.
    dataset : str
        Name in HDF5.
    labels : bool
        Whether the values are numbers of classes or objects, which no mean may be taken of.
    zarr_format : {2, 3}, optional
        2 is NGFF 0.4, 3 is 0.5; by default the newest that the package zarr writes.
    numbers : sequence of int, optional
        Of the slices, for formats with a file for each; by default they count from 0.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    calibration: Calibration = field(default_factory=Calibration)
    blocks: tuple[int, int] | None = None
    note: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = "volume"
    labels: bool = False
    zarr_format: int | None = None
    numbers: Sequence[int] | None = None

    @property
    def axes(self) -> str:
        """Axes of `shape`; those of the calibration, where they are as many."""
        axes = self.calibration.axes
        if len(axes) == len(self.shape):
            return axes
        return axes[0] + ("CYX" if len(self.shape) == 4 else "YX")

    @property
    def full_axes(self) -> str:
        """`axes`, of time points that have several depths with both."""
        return "T" + self.axes if self._times > 1 else self.axes

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Sizes of `full_axes`."""
        times = self._times
        return (times, self.shape[0] // times, *self.shape[1:]) if times > 1 else self.shape

    def place(self, z: int) -> dict[str, int]:
        """Return where slice z lies along T, Z or both."""
        if self._times > 1:
            return dict(zip("TZ", divmod(z, self.shape[0] // self._times)))
        return {self.axes[0]: z}

    @property
    def _times(self) -> int:
        times = self.calibration.times
        return times if self.shape[0] % times == 0 and self.shape[0] > times else 1

    @property
    def chunk(self) -> tuple[int, int]:
        """Height and width of a chunk of one slice and one channel; blocks are whole chunks."""
        block = tuple(map(min, self.blocks or self.shape[-2:], self.shape[-2:]))
        if block[0] * block[1] * self.dtype.itemsize <= _CHUNK_BYTES:
            return block
        height, width = (
            min(_SQUARE, size) if side == size else _largest_divisor(side)
            for side, size in zip(block, self.shape[-2:])
        )
        return height, width

    def note_text(self) -> str:
        """Return the note as JSON, for formats that hold text."""
        return json.dumps(dict(self.note), indent=1, default=str, sort_keys=True)


def _largest_divisor(side: int) -> int:
    return next(part for part in range(min(_SQUARE, side), 0, -1) if side % part == 0)


def visible(image: np.ndarray) -> np.ndarray:
    """Return masks as 0 and 255: that is how viewers show them and how ISBI's labels are."""
    return image.astype(np.uint8) * 255 if image.dtype == np.bool_ else image
