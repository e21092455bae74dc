"""Which tiles caffe_unet cuts an image of any number of axes into, and how large they are.

Its own join without overlap, off the grid of the poolings: scores depend, by a little, on where the
seams lie. On the grid, as those of `unet.segmentation.tiles`, they do not.

References
----------
Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16
(2019), and its caffe_unet.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np

from unet.network.geometry import Geometry
from unet.volumes.mirror import reflect

#: One number for each axis: ([depth,] height, width).
Shape = tuple[int, ...]


@dataclass(frozen=True)
class GridTiles:
    """An image of one shape in tiles.

    Attributes
    ----------
    shape : tuple of int
        Of the image, ([depth,] height, width).
    input, output : tuple of int
        Of a tile, and of its scores.
    padding : {"mirror", "zero"}
        What lies beyond the image: its mirror, periodic and without the edge twice, or zeros.
    step : tuple of int
        Pixels that tiles are apart; where they overlap, the last one counts.
    """

    shape: Shape
    input: Shape
    output: Shape
    padding: str
    step: Shape

    @property
    def counts(self) -> Shape:
        """Tiles along each axis."""
        return tuple(
            1 + -(-max(0, length - size) // step)
            for length, size, step in zip(self.shape, self.output, self.step)
        )

    @property
    def tile(self) -> Shape:
        """The input of a tile, as of `unet.segmentation.tiles.Tiling`."""
        return self.input

    @property
    def number(self) -> int:
        """All tiles."""
        return math.prod(self.counts)

    @property
    def border(self) -> Shape:
        """Pixels of the input before its first scores, along each axis."""
        return tuple((i - o + 1) // 2 for i, o in zip(self.input, self.output))

    @property
    def origins(self) -> list[Shape]:
        """The first pixel of each tile's scores; the last axis runs fastest."""
        starts = [range(0, n * step, step) for n, step in zip(self.counts, self.step)]
        return list(itertools.product(*starts))

    def inputs(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the tiles of an image (channels, *shape), each (channels, *input)."""
        for origin in self.origins:
            tile = image
            for axis, (first, before) in enumerate(zip(origin, self.border)):
                length = self.shape[axis]
                index = np.arange(first - before, first - before + self.input[axis])
                outside = (index < 0) | (index >= length)
                tile = tile.take(reflect(index, length), axis=1 + axis)
                if self.padding == "zero" and outside.any():
                    np.moveaxis(tile, 1 + axis, 0)[outside] = 0
            yield tile

    def put(self, whole: np.ndarray, origin: Shape, scores: np.ndarray) -> None:
        """Put a tile's scores (classes, *output) into those of the image (classes, *shape)."""
        part = whole[(slice(None), *(slice(o, o + n) for o, n in zip(origin, self.output)))]
        part[...] = scores[tuple(slice(n) for n in part.shape)]


@dataclass(frozen=True)
class TileRules:
    """Sizes of tiles that a network takes.

    Attributes
    ----------
    axes : tuple of Geometry
        Of the network, along each axis.
    padding : {"mirror", "zero"}
    on_grid : bool
        Whether tiles lie at multiples of the downsample factor, so that all give what one pass over
        the whole image would; else, as caffe_unet has them, they join without overlap.
    """

    axes: tuple[Geometry, ...]
    padding: str = "mirror"
    on_grid: bool = False

    def of_output(self, shape: Shape, wanted: Sequence[int]) -> GridTiles:
        """Cut into the smallest tiles whose scores have at least the size `wanted`.

        Examples
        --------
        With the network of Fig. 1 d4a = ceil((wanted + 124) / 16) pixels of the lowest map:

        >>> tiles = TileRules((Geometry(), Geometry())).of_output((512, 300), (388, 100))
        >>> tiles.input, tiles.output, tiles.counts
        ((572, 284), (388, 100), (2, 3))
        """
        sizes = []
        for axis, length, least in zip(self.axes, shape, wanted):
            factor = axis.downsample_factor
            if self.on_grid and least < length:
                # Tiles are at least a step of the grid apart.
                least = max(least, min(factor, length))
            inner = factor * max(1, -(-(least - axis.pad_output) // factor))
            output = inner + axis.pad_output
            step = output // factor * factor if self.on_grid else output
            # Of a single tile it does not matter.
            sizes.append((inner + axis.pad_input, output, step or output))
        inputs, outputs, steps = zip(*sizes)
        return GridTiles(tuple(shape), inputs, outputs, self.padding, steps)

    def of_grid(self, shape: Shape, counts: Sequence[int]) -> GridTiles:
        """Cut into so many tiles along each axis, or fewer where fewer suffice."""
        tiles = self.of_output(shape, _divided(shape, counts))
        return self.of_output(shape, _divided(shape, tiles.counts))

    def of_count(self, shape: Shape, count: int) -> GridTiles:
        """Cut into up to `count` tiles: as many as can be had, then of the fewest input pixels."""
        found = [self.of_grid(shape, grid) for grid in _grids(count, self.smallest(shape).counts)]
        return min(found, key=lambda one: (-math.prod(one.counts), math.prod(one.input)))

    def of_size(self, shape: Shape, fits: Callable[[Shape], bool]) -> GridTiles | None:
        """Cut into tiles whose input fits: the fewest input pixels of all tiles together.

        None if not even the smallest fit.
        """
        # Along each axis, for every number of tiles the smallest: (input, number, output).
        sizes = [
            _smallest(TileRules((axis,), self.padding, self.on_grid), length)
            for axis, length in zip(self.axes, shape)
        ]
        inputs, numbers, _ = (
            functools.reduce(np.multiply.outer, along).ravel()
            for along in zip(*(np.array(one, np.float64).T for one in sizes))
        )
        for k in np.lexsort((numbers, inputs * numbers)):
            place = np.unravel_index(k, [len(one) for one in sizes])
            chosen = [one[number] for one, number in zip(sizes, place)]
            if fits(tuple(size for size, _, _ in chosen)):
                return self.of_output(shape, [output for _, _, output in chosen])
        return None

    def smallest(self, shape: Shape) -> GridTiles:
        """Cut into the smallest tiles."""
        return self.of_output(shape, (1,) * len(shape))


def _divided(shape: Shape, counts: Sequence[int]) -> list[int]:
    return [-(-length // n) for length, n in zip(shape, counts)]


def _smallest(rules: TileRules, length: int) -> list[tuple[int, int, int]]:
    """Return, for each number of tiles along an axis, the smallest: (input, number, output)."""
    best: dict[int, tuple[int, int, int]] = {}
    for wanted in [*range(length, 1, -rules.axes[0].downsample_factor), 1]:
        tiles = rules.of_output((length,), (wanted,))
        best[tiles.number] = (*tiles.input, tiles.number, *tiles.output)
    return list(best.values())


def _grids(count: int, most: Shape) -> Iterator[Shape]:
    """Yield all numbers of tiles along each axis, up to `most`, whose product is up to `count`."""
    if not most:
        yield ()
        return
    for n in range(1, min(count, most[0]) + 1):
        for others in _grids(count // n, most[1:]):
            yield (n, *others)
