"""Where tiles lie: mirrored at the edges, and so far apart that no seam shows.

What a network gives moves along with its input in steps of its downsample factor only (16 for the
four poolings of Fig. 1). So tiles stand at multiples of it, each overlapping the next by the output
pixels left over; what is put together equals one pass over the whole mirrored image.

References
----------
Ronneberger et al. 2015, Sec. 2 and Fig. 2 (overlap-tile strategy).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from unet.errors import InputError
from unet.network.geometry import Geometry
from unet.volumes.mirror import mirrored, reflect


def tile_starts(length: int, tile: int, geometry: Geometry) -> range:
    """Return where along one axis the output tiles begin.

    Parameters
    ----------
    length : int
        Pixels of the image along the axis.
    tile : int
        Input size.
    geometry : Geometry

    Returns
    -------
    range
        First output pixel of each tile: multiples of the downsample factor that leave no gap.

    Raises
    ------
    InputError
        If the tile is not of a valid size, or its output cannot cover a longer axis.

    Examples
    --------
    >>> list(tile_starts(512, 572, Geometry())), list(tile_starts(512, 700, Geometry()))
    ([0, 384], [0])
    """
    geometry.check((tile, tile))
    output, factor = geometry.output_size(tile), geometry.downsample_factor
    if length <= output:
        return range(1)
    step = output // factor * factor
    if not step:
        raise InputError(
            f"tile size {tile} gives {output} pixels, less than the {factor} that tiles are apart: "
            f"it suits pictures up to {output} pixels; take {geometry.input_size(factor)} or more "
            f"for {length}"
        )
    count = 1 + -(-(length - output) // step)
    return range(0, count * step, step)


@dataclass(frozen=True)
class Tiling:
    """How images of one shape are cut into tiles, and their scores put together.

    Attributes
    ----------
    tile : tuple of int
        (height, width) of the network's input.
    origins : tuple of (int, int)
        Row and column of the first output pixel of every tile; where tiles overlap, the last one's
        scores count.
    geometry : Geometry
    reach : int, optional
        As of `unet.volumes.mirror.mirrored`.
    """

    tile: tuple[int, int]
    origins: tuple[tuple[int, int], ...]
    geometry: Geometry
    reach: int | None = None

    @classmethod
    def over(cls, shape: tuple[int, int], tile: tuple[int, int], geometry: Geometry) -> Tiling:
        """Cover images of `shape` = (height, width) without a seam; errors as of `tile_starts`.

        Examples
        --------
        >>> Tiling.over((512, 300), (572, 444), Geometry()).origins
        ((0, 0), (0, 256), (384, 0), (384, 256))
        """
        rows, columns = (tile_starts(*sizes, geometry) for sizes in zip(shape, tile))
        return cls(tuple(tile), tuple((y, x) for y in rows for x in columns), geometry)

    def transposed(self) -> Tiling:
        """Return the same for images laid on their side."""
        origins = tuple(sorted((x, y) for y, x in self.origins))
        return replace(self, tile=self.tile[::-1], origins=origins)

    def covering(self, rows: slice, columns: slice) -> Tiling:
        """Cover a part of an image, from the multiples of the downsample factor before it.

        That is the grid of a pass over the whole image: its scores are the same. Errors as of
        `tile_starts`.

        Examples
        --------
        >>> whole = Tiling.over((512, 512), (572, 572), Geometry())
        >>> whole.covering(slice(100, 300), slice(256, 700)).origins
        ((96, 256), (96, 640))
        """
        starts = []
        for part, tile in zip((rows, columns), self.tile):
            first = part.start - part.start % self.geometry.downsample_factor
            more = tile_starts(part.stop - first, tile, self.geometry)
            starts.append([first + start for start in more])
        return replace(self, origins=tuple((y, x) for y in starts[0] for x in starts[1]))

    def seen(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Return which rows and columns of an image of `size` the tiles' inputs show."""
        border, seen = self.geometry.border, []
        for axis, length in enumerate(size):
            starts = [origin[axis] for origin in self.origins]
            stop = max(starts) - border + self.tile[axis]
            shown = reflect(np.arange(min(starts) - border, stop), length)
            seen.append(slice(int(shown.min()), int(shown.max()) + 1))
        return seen[0], seen[1]

    def inputs(
        self, image: np.ndarray, part_of: tuple[int, int, int, int] | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the tiles of an image (channels, height, width), each (channels,) + `tile`.

        `part_of` is as of `unet.volumes.mirror.mirrored`.
        """
        border = self.geometry.border
        for y, x in self.origins:
            yield mirrored(image, y - border, x - border, self.tile, self.reach, part_of)

    def joined(self, passes: Iterable[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        """Put the scores of all tiles, (classes, height, width) each, together into an image's."""
        margin, scores = self.geometry.margin, None
        shape = rows.stop - rows.start, columns.stop - columns.start
        for (y, x), given in zip(self.origins, passes):
            if scores is None:
                scores = np.empty(given.shape[:1] + shape, np.float32)
            inner = given[:, margin : given.shape[1] - margin, margin : given.shape[2] - margin]
            # A tile may begin before the first of them.
            y, x = y - rows.start, x - columns.start
            inner = inner[:, max(0, -y) :, max(0, -x) :]
            y, x = max(0, y), max(0, x)
            part = scores[:, y : y + inner.shape[1], x : x + inner.shape[2]]
            part[...] = inner[:, : part.shape[1], : part.shape[2]]
        return scores
