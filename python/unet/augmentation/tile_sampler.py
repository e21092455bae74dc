"""Tiles of a training set: tile number i, augmented, is a function of the seed and i alone."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unet.augmentation.deform import (
    TileRandom,
    Window,
    jitter_intensity,
    rigid_matrix,
    tile_coordinates,
)
from unet.preparation.labels import IGNORED
from unet.preparation.training_set import TrainingSet
from unet.volumes.mirror import mirrored

Tile = tuple[np.ndarray, np.ndarray, np.ndarray]

# Bytes of decompressed slices that one sampler keeps.
_CACHE = 1 << 27


@dataclass(frozen=True)
class Augmentation:
    """How tiles are varied (Ronneberger et al. 2015, Sec. 3.1).

    Parameters
    ----------
    grid : int
        Points per axis of the coarse grid of displacement vectors that spans the tile, 2 or more.
    std : float
        Standard deviation of the displacements in pixels; 0: no elastic deformation.
    rotation : float
        Largest angle in degrees; angles are uniform in [-rotation, rotation].
    mirror : bool
        Flip rows, columns, both or neither, at random.
    shift : bool
        Centre tiles on any pixel of the slice, uniformly; else on the middle of the slice.
    contrast : float
        Intensities are stretched about the tile's mean by a factor uniform in [1 - c, 1 + c].
    brightness : float
        Intensities, of range 0 to 1, are shifted by an amount uniform in [-b, b].
    gamma : float
        Intensities are raised to a power whose logarithm is uniform in [-g, g].
    noise : float
        To each intensity a number of normal distribution is added, whose standard deviation is
        uniform in [0, n] and the same for the whole tile.
    balanced : bool
        With shift: tiles are centred on a pixel of each class equally often, as far as the slice
        has it; one that is not annotated is never chosen.
    """

    grid: int = 3
    std: float = 10.0
    rotation: float = 180.0
    mirror: bool = True
    shift: bool = True
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    balanced: bool = False


class TileSampler:
    """Cut augmented tiles from slices of a training set.

    Parameters
    ----------
    training_set : TrainingSet
    slices : sequence of int
    tile : tuple of int
        (height, width) of the network's input.
    border : int
        Pixels by which labels and weights are smaller than the input, on each side.
    augmentation : Augmentation
    seed : int, 0 to 2**63 - 1
    share : tuple of int
        (r, n): one of n samplers, which give n tiles at a time; number i of this one is tile
        i * n + r of the seed.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        slices: Sequence[int],
        tile: tuple[int, int],
        border: int,
        augmentation: Augmentation,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.share = share
        self.slices = list(slices)
        self.tile, self.border = tile, border
        self.augmentation = augmentation
        self.seed = seed
        self.set = training_set
        self._kept: OrderedDict[int, Tile] = OrderedDict()
        self._pixels: dict[int, list[np.ndarray]] = {}
        height, width = training_set.shape[1:]
        self._room = max(1, _CACHE // (height * width * (4 * training_set.channels + 5)))

    def _slice(self, z: int) -> Tile:
        """Return image, labels and weights, which take long to decompress."""
        if z in self._kept:
            self._kept.move_to_end(z)
        else:
            if len(self._kept) == self._room:
                self._kept.popitem(last=False)
            self._kept[z] = (self.set.raw(z), self.set.labels(z), self.set.weights(z))
        return self._kept[z]

    def _pixels_of_classes(self, z: int) -> list[np.ndarray]:
        """Return where the pixels of each class are that a slice has, as places in its rows."""
        if z not in self._pixels:
            labels = self._slice(z)[1]
            found = [np.flatnonzero(labels == k) for k in range(self.set.classes)]
            self._pixels[z] = [pixels.astype(np.int32) for pixels in found if len(pixels)]
        return self._pixels[z]

    def __call__(self, index: int) -> Tile:
        """Return tile number `index`, 0 or more.

        Returns
        -------
        data : float32 ndarray, shape (channels, height, width)
            Intensities, the data's range as 0 to 1.
        label : uint8 ndarray, shape (height - 2 border, width - 2 border)
            Class, 255 where not annotated.
        weight : float32 ndarray, shape of `label`
            w(x); 0 where not annotated.
        """
        how = self.augmentation
        # All are drawn, used or not, so that one option does not change what another gives.
        first, step = self.share
        random = TileRandom(self.seed, index * step + first)
        z = self.slices[random.below(len(self.slices))]
        image, labels, weights = self._slice(z)
        shape = labels.shape
        anywhere = random.below(shape[0]), random.below(shape[1])
        centre = anywhere if how.shift else (shape[0] // 2, shape[1] // 2)
        angle = math.radians(random.uniform(-how.rotation, how.rotation))
        flips = [random.below(2) == 1 and how.mirror for _ in shape]
        contrast = random.uniform(1 - how.contrast, 1 + how.contrast)
        brightness = random.uniform(-how.brightness, how.brightness)
        gamma = math.exp(random.uniform(-how.gamma, how.gamma))
        displacements = how.std * random.normal((2, how.grid, how.grid))
        # After all that was there before it: without noise tiles are those of earlier trainings.
        deviation = random.uniform(0, how.noise)
        if how.balanced and how.shift and self._pixels_of_classes(z):
            classes = self._pixels_of_classes(z)
            pixels = classes[random.below(len(classes))]
            centre = divmod(int(pixels[random.below(len(pixels))]), shape[1])

        matrix = rigid_matrix(angle, *flips)
        bent = displacements if how.std else None
        coordinates = tile_coordinates(self.tile, centre, matrix, bent)
        window = Window(coordinates, shape)
        data = np.stack([window.cubic(channel) for channel in image])
        data = jitter_intensity(data, contrast, brightness, gamma)
        if how.noise:
            data += (deviation * random.normal(data.shape)).astype(np.float32)
        rows, columns = (slice(self.border, size - self.border) for size in self.tile)
        inner = Window(coordinates[:, rows, columns], shape)
        label, weight = inner.nearest(labels, weights)
        weight[label == IGNORED] = 0
        return data, label, weight


def tile_origins(
    shape: tuple[int, int, int], slices: Iterable[int], tile: tuple[int, int], border: int
) -> list[tuple[int, int, int]]:
    """Return (slice, row, column) of output tiles that cover slices of a stack, each pixel once.

    `tile` is the (height, width) of the network's input, whose output is smaller by `border` pixels
    on each side.

    >>> tile_origins((30, 512, 512), [7], (700, 444), 92)
    [(7, 0, 0), (7, 0, 260)]
    """
    rows, columns = (size - 2 * border for size in tile)
    return [
        (z, y, x)
        for z in slices
        for y in range(0, shape[1], rows)
        for x in range(0, shape[2], columns)
    ]


def plain_tile(
    training_set: TrainingSet, first: tuple[int, int, int], tile: tuple[int, int], border: int
) -> Tile:
    """Cut a tile as it is: data, label, weight as those of `TileSampler`.

    `first` is one of `tile_origins`. The border is mirrored; what lies beyond the slice is not
    annotated.
    """
    z, y, x = first
    rows, columns = (size - 2 * border for size in tile)
    data = mirrored(training_set.raw(z), y - border, x - border, tile)
    label = np.full((rows, columns), IGNORED, np.uint8)
    weight = np.zeros((rows, columns), np.float32)
    inside = training_set.labels(z)[y : y + rows, x : x + columns]
    here = tuple(slice(size) for size in inside.shape)
    label[here] = inside
    weight[here] = training_set.weights(z)[y : y + rows, x : x + columns]
    weight[label == IGNORED] = 0
    return data, label, weight
