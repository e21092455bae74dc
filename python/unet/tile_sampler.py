"""Training tiles: tile number i of a training set, augmented, a function of the seed and i alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

from unet.deform import Window, displacement_field, tile_coordinates
from unet.errors import InputError
from unet.labels import IGNORED
from unet.tiles import BORDER, check_tile
from unet.training_set import TrainingSet

Tile = Tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Augmentation:
    """How tiles are varied (Ronneberger et al. 2015, Sec. 3.1).

    Parameters
    ----------
    grid : int
        Points per axis of the coarse grid of displacement vectors.
    std : float
        Standard deviation of the displacements, pixels; 0: no elastic deformation.
    rotation : float
        Largest angle in degrees; angles are uniform in [-rotation, rotation].
    mirror : bool
        Flip every second tile, at random.
    shift : bool
        Centre tiles anywhere on the slice, uniformly; else on the middle of the slice.
    contrast : float
        Grey values are multiplied, about the tile's mean, by a factor uniform in [1 - c, 1 + c].
    brightness : float
        Grey values (0 to 1) are shifted by an amount uniform in [-b, b].
    gamma : float
        Grey values are raised to a power whose logarithm is uniform in [-g, g].
    """

    grid: int = 3
    std: float = 10.0
    rotation: float = 180.0
    mirror: bool = True
    shift: bool = True
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 0.0


class TileSampler:
    """Cut augmented tiles from a training set.

    Parameters
    ----------
    training_set : TrainingSet
    slices : sequence of int
        The slices that tiles are cut from.
    tile : tuple of int
        (height, width) of the network's input; labels and weights are 184 pixels smaller.
    augmentation : Augmentation
    seed : int

    Raises
    ------
    InputError
        If the network cannot take this tile size.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        slices: Sequence[int],
        tile: Tuple[int, int],
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        check_tile(tile)
        self.slices = list(slices)
        self.tile = tile
        self.augmentation = augmentation
        self.seed = seed
        self.classes = training_set.classes
        self.shape = training_set.shape[1:]
        # A stack is read once: decompressing a slice costs more than cutting a tile from it.
        self._raw = {z: training_set.raw(z) for z in self.slices}
        self._labels = {z: training_set.labels(z) for z in self.slices}
        self._weights = {z: training_set.weights(z) for z in self.slices}

    def __call__(self, index: int) -> Tile:
        """Return tile number `index`.

        Returns
        -------
        data : ndarray of float32, shape (channels, height, width)
        label : ndarray of uint8, shape (height - 184, width - 184)
            Class, 255 where not annotated.
        weight : ndarray of float32, shape (height - 184, width - 184)
            w(x); 0 where not annotated.
        """
        how = self.augmentation
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        z = self.slices[int(rng.random() * len(self.slices))]
        height, width = self.shape
        if how.shift:
            centre = (rng.random() * (height - 1), rng.random() * (width - 1))
        else:
            centre = ((height - 1) / 2, (width - 1) / 2)
        angle = math.radians(how.rotation) * (2 * rng.random() - 1)
        mirror = how.mirror and rng.random() < 0.5
        if how.std > 0:
            grid = rng.normal(0.0, how.std, (2, how.grid, how.grid))
            displacement = displacement_field(grid, self.tile)
        else:
            displacement = np.zeros((2,) + tuple(self.tile), np.float32)
        coordinates = tile_coordinates(self.tile, centre, angle, mirror, displacement)
        window = Window(coordinates, self.shape)
        data = np.stack([window.linear(channel) for channel in self._raw[z]])
        self._vary_grey(data, rng)
        inner = Window(coordinates[:, BORDER:-BORDER, BORDER:-BORDER], self.shape)
        label, weight = inner.nearest(self._labels[z], self._weights[z])
        return data, label, weight

    def _vary_grey(self, data: np.ndarray, rng: np.random.Generator) -> None:
        how = self.augmentation
        contrast, brightness, gamma = 2 * rng.random(3) - 1
        if how.gamma:
            np.clip(data, 0.0, None, out=data)
            np.power(data, np.float32(math.exp(gamma * how.gamma)), out=data)
        if how.contrast or how.brightness:
            mean = data.mean(dtype=np.float64)
            factor = 1 + contrast * how.contrast
            data *= np.float32(factor)
            data += np.float32(mean * (1 - factor) + brightness * how.brightness)


def coverage(
    shape: Tuple[int, int, int], slices: Sequence[int], tile: Tuple[int, int]
) -> List[Tuple[int, int, int]]:
    """Return (slice, y, x) of the output tiles that cover the slices, each pixel once.

    Parameters
    ----------
    shape : tuple of int
        (slices, height, width) of the stack.
    slices : sequence of int
    tile : tuple of int
        (height, width) of the network's input.
    """
    rows, columns = (size - 2 * BORDER for size in tile)
    return [
        (z, y, x)
        for z in slices
        for y in range(0, shape[1], rows)
        for x in range(0, shape[2], columns)
    ]


def plain_tile(
    training_set: TrainingSet, place: Tuple[int, int, int], tile: Tuple[int, int]
) -> Tile:
    """Cut a tile as it is; its border is mirrored, what lies beyond the slice is not annotated.

    Parameters
    ----------
    training_set : TrainingSet
    place : tuple of int
        (slice, y, x) of the first pixel of the output tile.
    tile : tuple of int
        (height, width) of the network's input.

    Returns
    -------
    data, label, weight : ndarray
        As those of `TileSampler`.
    """
    from unet.tiles import mirrored

    z, y, x = place
    rows, columns = (size - 2 * BORDER for size in tile)
    data = mirrored(training_set.raw(z), y - BORDER, x - BORDER, tile)
    label = np.full((rows, columns), IGNORED, np.uint8)
    weight = np.zeros((rows, columns), np.float32)
    inside = training_set.labels(z)[y : y + rows, x : x + columns]
    label[: inside.shape[0], : inside.shape[1]] = inside
    values = training_set.weights(z)[y : y + rows, x : x + columns]
    weight[: inside.shape[0], : inside.shape[1]] = values
    return data, label, weight


def one_weight_per_class(
    label: np.ndarray, weight: np.ndarray, out: np.ndarray
) -> None:
    """Spread w(x) over the classes: `out[k]` is w(x) where the class is k and 0 elsewhere.

    Parameters
    ----------
    label : ndarray of uint8, shape (height, width)
    weight : ndarray of float32, shape (height, width)
    out : ndarray of float32, shape (classes, height, width)
    """
    for number in range(out.shape[0]):
        np.multiply(weight, label == number, out=out[number])


def parse_slices(value: Optional[Sequence[int]], count: int, where: str) -> List[int]:
    """Return the slice numbers of [first, stop), checked against the number of slices.

    Raises
    ------
    InputError
        If the range is empty or leaves the stack.
    """
    if value is None:
        return list(range(count))
    if len(value) != 2 or not all(isinstance(v, int) for v in value):
        raise InputError(f"{where}: slices must be [first, stop), two integers, not {value}")
    first, stop = value
    if not 0 <= first < stop <= count:
        raise InputError(
            f"{where}: slices [{first}, {stop}) are not among the stack's 0..{count - 1}"
        )
    return list(range(first, stop))
