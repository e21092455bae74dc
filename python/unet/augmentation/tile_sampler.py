"""Tiles of a training set: tile number i, augmented, is a function of the seed and i alone."""

from __future__ import annotations

import difflib
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from unet.augmentation.deform import TileRandom, Window, rigid_matrix, tile_coordinates, vary_grey
from unet.errors import InputError
from unet.preparation.labels import IGNORED
from unet.preparation.training_set import TrainingSet
from unet.segmentation.tiles import BORDER, check_tile
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
        Grey values are stretched about the tile's mean by a factor uniform in [1 - c, 1 + c].
    brightness : float
        Grey values, of range 0 to 1, are shifted by an amount uniform in [-b, b].
    gamma : float
        Grey values are raised to a power whose logarithm is uniform in [-g, g].

    Raises
    ------
    InputError
        If a value is of the wrong type or out of range.
    """

    grid: int = 3
    std: float = 10.0
    rotation: float = 180.0
    mirror: bool = True
    shift: bool = True
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("std", 0, math.inf),
            ("rotation", 0, 180),
            ("contrast", 0, 1),
            ("brightness", 0, math.inf),
            ("gamma", 0, math.inf),
        ):
            value = getattr(self, name)
            if not (_is_number(value) and math.isfinite(value) and least <= value <= most):
                raise InputError(
                    f"augmentation: {name} is {value!r}, but must be a number"
                    + (f" from {least} to {most}" if most < math.inf else " of at least 0")
                )
        parse_whole(self.grid, 2, 64, "augmentation: grid")
        for name in ("mirror", "shift"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(
                    f"augmentation: {name} is {getattr(self, name)!r}, but must be true or false"
                )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Augmentation:
        """Make one from names and values, as they stand in JSON.

        Raises
        ------
        InputError
            If it is no mapping, a name is unknown or a value is wrong.
        """
        if not isinstance(values, Mapping):
            raise InputError(
                f"augmentation is {values!r}, but must be an object of names and values"
            )
        refuse_unknown(values, [field.name for field in fields(cls)], "augmentation")
        return cls(**values)


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
    seed : int, 0 to 2**63 - 1
    share : tuple of int
        (r, n): one of n samplers, which give n tiles at a time; number i of this one is tile
        i * n + r of the seed.

    Raises
    ------
    InputError
        If the network cannot take this tile size, or the seed is none.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        slices: Sequence[int],
        tile: tuple[int, int],
        augmentation: Augmentation,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        check_tile(tile)
        self.share = share
        self.slices = list(slices)
        self.tile = tile
        self.augmentation = augmentation
        self.seed = parse_whole(seed, 0, 2**63 - 1, "seed")
        self.set = training_set
        self._kept: OrderedDict[int, Tile] = OrderedDict()
        height, width = training_set.shape[1:]
        self._room = max(1, _CACHE // (height * width * (4 * training_set.channels + 5)))

    def _slice(self, z: int) -> Tile:
        """Return picture, labels and weights, which take long to decompress."""
        if z in self._kept:
            self._kept.move_to_end(z)
        else:
            if len(self._kept) == self._room:
                self._kept.popitem(last=False)
            self._kept[z] = (self.set.raw(z), self.set.labels(z), self.set.weights(z))
        return self._kept[z]

    def __call__(self, index: int) -> Tile:
        """Return tile number `index`.

        Parameters
        ----------
        index : int, 0 or more

        Returns
        -------
        data : float32 ndarray, shape (channels, height, width)
            Grey values, the data's range as 0 to 1.
        label : uint8 ndarray, shape (height - 184, width - 184)
            Class, 255 where not annotated.
        weight : float32 ndarray, shape (height - 184, width - 184)
            w(x); 0 where not annotated.
        """
        how = self.augmentation
        # All are drawn, used or not, so that one option does not change what another gives.
        first, step = self.share
        random = TileRandom(self.seed, index * step + first)
        picture, labels, weights = self._slice(self.slices[random.below(len(self.slices))])
        shape = labels.shape
        anywhere = random.below(shape[0]), random.below(shape[1])
        centre = anywhere if how.shift else (shape[0] // 2, shape[1] // 2)
        angle = math.radians(random.uniform(-how.rotation, how.rotation))
        flips = [random.below(2) == 1 and how.mirror for _ in shape]
        contrast = random.uniform(1 - how.contrast, 1 + how.contrast)
        brightness = random.uniform(-how.brightness, how.brightness)
        gamma = math.exp(random.uniform(-how.gamma, how.gamma))
        displacements = how.std * random.normal((2, how.grid, how.grid)) if how.std else None

        matrix = rigid_matrix(angle, *flips)
        coordinates = tile_coordinates(self.tile, centre, matrix, displacements)
        window = Window(coordinates, shape)
        data = np.stack([window.cubic(channel) for channel in picture])
        data = vary_grey(data, contrast, brightness, gamma)
        inner = Window(coordinates[:, BORDER:-BORDER, BORDER:-BORDER], shape)
        label, weight = inner.nearest(labels, weights)
        weight[label == IGNORED] = 0
        return data, label, weight


def coverage(
    shape: tuple[int, int, int], slices: Iterable[int], tile: tuple[int, int]
) -> list[tuple[int, int, int]]:
    """Return (slice, row, column) of the output tiles that cover the slices, each pixel once.

    Parameters
    ----------
    shape : tuple of int
        (slices, height, width) of the stack.
    slices : iterable of int
    tile : tuple of int
        (height, width) of the network's input.

    Examples
    --------
    >>> coverage((30, 512, 512), [7], (700, 444))
    [(7, 0, 0), (7, 0, 260)]
    """
    rows, columns = (size - 2 * BORDER for size in tile)
    return [
        (z, y, x)
        for z in slices
        for y in range(0, shape[1], rows)
        for x in range(0, shape[2], columns)
    ]


def plain_tile(
    training_set: TrainingSet, place: tuple[int, int, int], tile: tuple[int, int]
) -> Tile:
    """Cut a tile as it is; its border is mirrored, what lies beyond the slice is not annotated.

    Parameters
    ----------
    training_set : TrainingSet
    place : tuple of int
        (slice, row, column) of the first pixel of the output tile.
    tile : tuple of int
        (height, width) of the network's input.

    Returns
    -------
    data, label, weight : ndarray
        As those of `TileSampler`.
    """
    z, y, x = place
    rows, columns = (size - 2 * BORDER for size in tile)
    data = mirrored(training_set.raw(z), y - BORDER, x - BORDER, tile)
    label = np.full((rows, columns), IGNORED, np.uint8)
    weight = np.zeros((rows, columns), np.float32)
    inside = training_set.labels(z)[y : y + rows, x : x + columns]
    here = tuple(slice(size) for size in inside.shape)
    label[here] = inside
    weight[here] = training_set.weights(z)[y : y + rows, x : x + columns]
    weight[label == IGNORED] = 0
    return data, label, weight


def one_weight_per_class(label: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """Spread w(x) over the classes: `out[k]` is w(x) where the class is k and 0 elsewhere.

    Parameters
    ----------
    label : uint8 ndarray, shape (height, width)
    weight : float32 ndarray, shape (height, width)
    out : float32 ndarray, shape (classes, height, width)
    """
    for number in range(out.shape[0]):
        np.multiply(weight, label == number, out=out[number])


def parse_slices(value: Sequence[int] | None, count: int, where: str) -> list[int]:
    """Return the slice numbers of [first, stop), or all of them for None.

    Parameters
    ----------
    value : two int, optional
    count : int
        Slices that there are.
    where : str
        What the message of an error begins with.

    Raises
    ------
    InputError
        If the range is empty or leaves the stack.
    """
    if value is None:
        return list(range(count))
    if not (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_whole, value))):
        raise InputError(
            f"{where}: slices is {value!r}, but must be [first, stop], two whole numbers"
        )
    first, stop = value
    if not 0 <= first < stop <= count:
        raise InputError(
            f"{where}: slices [{first}, {stop}] are not in the stack, which has {count}"
            f" (first counts from 0 and stop is not included: [0, {count}] is all)"
        )
    return list(range(first, stop))


def parse_whole(value: object, least: int, most: int, what: str) -> int:
    """Return a whole number from `least` to `most`, or refuse what is none.

    Raises
    ------
    InputError
        Begins with `what`.
    """
    if not (_is_whole(value) and least <= value <= most):
        raise InputError(f"{what} is {value!r}, but must be a whole number from {least} to {most}")
    return value


def refuse_unknown(given: Iterable[str], known: Sequence[str], where: str) -> None:
    """Refuse names that are not known, with the nearest one that is.

    Raises
    ------
    InputError
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{where}: unknown key '{name}'; {hint}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
