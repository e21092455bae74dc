"""A stack that is a dask array, segmented when what comes out of it is asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.segmentation.blocks import Block
from unet.segmentation.options import Plan, SegmentationOptions
from unet.volumes import as_volume

# A net computes one block at a time, however many threads ask.
_turn = threading.Lock()


def is_lazy(stack: object) -> bool:
    """Tell whether a stack is a dask array, without importing dask."""
    return type(stack).__module__.partition(".")[0] == "dask"


def segment_lazily(model: Any, stack: Any, options: SegmentationOptions) -> Any:
    """Return the probability of every pixel, computed block by block when asked for.

    A block is given the pixels that its tiles show, and no more; so blocks need no overlap.

    Parameters
    ----------
    model : unet.model.Model
    stack : dask.array.Array, shape ([slices, [channels,]] height, width)
        Where its range of intensity is asked for, 16 slices are computed at once.
    options : SegmentationOptions

    Returns
    -------
    dask.array.Array
        As of `Model.segment`; its chunks are the plan's blocks.
    """
    import dask
    import dask.array

    stack = stack[None] if stack.ndim == 2 else stack
    with as_volume(stack, "stack") as volume:
        plan = model.plan(volume, options)
    if getattr(plan, "depth", 1) > 1:
        raise InputError(
            "a 3-D network sees a volume at once, and not slice by slice: compute the dask array "
            "first, or give the file"
        )
    run = dask.delayed(_run, pure=False, traverse=False)
    slices: dict[int, list[list[Any]]] = {}
    for block in plan.blocks:
        part = plan.part(block)
        whole = tuple(slice(0, length) for length in plan.size)
        # To normalise a slice all of it has to be seen.
        seen = whole if part is None or plan.intensity is None else part.seen
        pixels = stack[(block.z, ..., *seen)]
        front = () if model.classes == 2 else (model.classes,)
        shape = (*front, *(side.stop - side.start for side in block[1:]))
        given = run(model, plan, block, seen, pixels)
        rows = slices.setdefault(block.z, [])
        if block.columns.start == 0:
            rows.append([])
        rows[-1].append(dask.array.from_delayed(given, shape, np.float32))
    return dask.array.stack([dask.array.block(rows) for rows in slices.values()])


@dataclass(frozen=True, eq=False)
class _Seen:
    """A stack of which one block shows a part of one slice, or all of it to be normalised."""

    path: str
    shape: tuple[int, ...]
    rows: slice
    columns: slice
    pixels: np.ndarray

    def __getitem__(self, z: int) -> np.ndarray:
        """Return the slice, all of which is there."""
        return self.pixels

    def region(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels of the slice."""
        top, left = self.rows.start, self.columns.start
        rows, columns = (
            slice(side.start - first, side.stop - first)
            for side, first in ((rows, top), (columns, left))
        )
        return self.pixels[..., rows, columns]


def _run(
    model: Any, plan: Plan, block: Block, seen: tuple[slice, slice], pixels: np.ndarray
) -> np.ndarray:
    volume = _Seen(plan.stack, plan.shape, *seen, np.asarray(pixels))
    with _turn:
        _, probabilities = model.run_block(volume, plan, block)
    return probabilities[1] if model.classes == 2 else probabilities
