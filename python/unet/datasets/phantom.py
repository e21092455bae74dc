"""Phantoms: made-up tissue like the ISBI 2012 stack, for want of the real one, and touching cells.

    unet fetch phantom [-o data/phantom] [--slices 30 --size 512 --seed 1]

writes train-volume.tif and train-labels.tif, 8 bit, with the labels of ISBI 2012: 255 in a cell,
0 on the membrane.

    unet fetch phantom-cells [-o data/phantom-cells]

writes colonies of cells that touch, one picture a slice, and the number of the cell of each pixel,
0 for none. The same numbers give the same stack.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from unet.errors import InputError
from unet.files.atomic import replace_parts
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import STACK
from unet.volumes import read_volume, write_volume

NAMES = ("train-volume.tif", "train-labels.tif")

# Everything in pixels and grey values; measured by eye and histogram on ISBI 2012.
CELL_DIAMETER = 48.0
# Smaller pictures may lie in one cell.
SMALLEST_SIZE = 64
DRIFT = 2.5  # of a cell from slice to slice
BEND, BEND_SCALE = 7.0, 16.0  # how far membranes bend, and over what distance
LABEL_HALF_WIDTH = 2.8
CYTOPLASM, MEMBRANE_DEPTH = 162.0, 112.0
NOISE, BLUR = 19.0, 0.7
# Of cells that touch.
SPACING, COLONY_SCALE = 34.0, 30.0
SMALLEST_CELL = 250
SEAM_DEPTH, SEAM_WIDTH, FOLD_DEPTH = 32.0, 1.2, 12.0


def smooth_noise(
    random: np.random.Generator, shape: Sequence[int], scale: float | Sequence[float]
) -> np.ndarray:
    """Return Gaussian noise of mean 0 and deviation 1, smoothed by a Gaussian of `scale` pixels."""
    noise = ndimage.gaussian_filter(random.standard_normal(shape), scale, mode="wrap")
    return noise / noise.std()


def phantom(slices: int = 30, size: int = 512, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Make the phantom.

    Parameters
    ----------
    slices : int
    size : int
        Height and width in pixels, at least 64.
    seed : int, not negative

    Returns
    -------
    volume : ndarray of uint8, shape (slices, size, size)
        Cells with dark membranes, grainy cytoplasm, vesicles and mitochondria.
    labels : ndarray of uint8, shape (slices, size, size)
        255 inside a cell, 0 on the membrane.

    Raises
    ------
    InputError
        If a number is too small.

    Notes
    -----
    Cells are the Voronoi cells of points that drift from slice to slice, on coordinates that bend.
    The distance of a pixel to the plane halfway between its two nearest points is that to the
    membrane.
    Mitochondria are dark, too, and no membrane: grey values alone do not tell.
    """
    _check_numbers(slices, size, seed)
    random = np.random.default_rng(seed)
    margin = 2 * CELL_DIAMETER
    count = max(8, round(((size + 2 * margin) / CELL_DIAMETER) ** 2))
    points = random.uniform(-margin, size + margin, (count, 2))
    walk = random.standard_normal((slices, count, 2)).cumsum(axis=0) * DRIFT
    smooth_in_depth = (2.0, BEND_SCALE, BEND_SCALE)
    bend = [BEND * smooth_noise(random, (slices, size, size), smooth_in_depth) for _ in range(2)]
    oblique = smooth_noise(random, (slices, size, size), smooth_in_depth)
    cells = {
        "grey": random.normal(0, 7, count),
        "mitochondrion": np.where(random.random(count) < 0.15, random.uniform(9, 20, count), 0),
        "angle": random.uniform(0, np.pi, count),
    }
    volume = np.empty((slices, size, size), np.uint8)
    labels = np.empty((slices, size, size), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for z in range(slices):
        at = np.stack([rows + bend[0][z], columns + bend[1][z]], axis=-1)
        cell, distance, offset = _nearest_cells(points + walk[z], at)
        volume[z] = _picture(random, cell, distance, offset, oblique[z], cells)
        labels[z] = np.where(distance > LABEL_HALF_WIDTH, 255, 0)
    return volume, labels


def _nearest_cells(points: np.ndarray, at: np.ndarray) -> tuple:
    """Return cell, distance to the membrane and offset from the cell's point, for each position."""
    _, nearest = cKDTree(points).query(at, k=2)
    own, other = points[nearest[..., 0]], points[nearest[..., 1]]
    apart = np.linalg.norm(other - own, axis=-1)
    distance = (((at - other) ** 2).sum(-1) - ((at - own) ** 2).sum(-1)) / (2 * apart)
    return nearest[..., 0], distance, at - own


def _picture(
    random: np.random.Generator,
    cell: np.ndarray,
    distance: np.ndarray,
    offset: np.ndarray,
    oblique: np.ndarray,
    cells: dict,
) -> np.ndarray:
    """Draw one slice as the microscope shows it: uint8 (height, width)."""
    shape = cell.shape
    grey = CYTOPLASM + cells["grey"][cell] + 6 * smooth_noise(random, shape, 25)
    grey += 20 * smooth_noise(random, shape, 1.5)
    vesicles = smooth_noise(random, shape, 2.2)
    grey -= 45 * np.clip(vesicles - 1.4, 0, 1)

    cosine, sine = np.cos(cells["angle"][cell]), np.sin(cells["angle"][cell])
    along = cosine * offset[..., 0] + sine * offset[..., 1]
    across = (offset**2).sum(-1) - along**2
    radius = cells["mitochondrion"][cell]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = radius - np.sqrt(along**2 / 1.7 + across)
    inside = np.clip(np.minimum(depth, distance - 4), 0, 2) / 2
    cristae = 18 * np.sin(along * 1.25 + 2 * smooth_noise(random, shape, 6))
    grey -= inside * (60 - cristae)

    # A membrane cut at a slant is wide and faint, one cut upright narrow and dark.
    width = 1.9 + 0.55 * np.clip(oblique, -1, 2)
    contrast = 1 - 0.16 * np.clip(oblique, -1, 2.5)
    grey -= MEMBRANE_DEPTH * contrast * np.exp(-((distance / width) ** 2) / 2)
    grey = ndimage.gaussian_filter(grey, BLUR) + NOISE * random.standard_normal(shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def touching_cells(
    slices: int = 30, size: int = 384, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Make pictures of colonies of cells, between which there is a seam that is faint in places.

    Parameters are those of `phantom`.

    Returns
    -------
    volume : ndarray of uint8, shape (slices, size, size)
        Bright, grainy cells on a dark ground, each picture of cells of its own.
    labels : ndarray of uint16, shape (slices, size, size)
        1, 2, ... in the cells of a picture, 0 outside; there is no gap where cells touch.

    Raises
    ------
    InputError
        If a number is too small.

    Notes
    -----
    Voronoi cells of points on a shaken grid, on coordinates that bend, where smooth noise is above
    0. Folds inside cells look like the faint parts of seams: only their course tells them apart.
    """
    _check_numbers(slices, size, seed)
    random = np.random.default_rng(seed)
    volume = np.empty((slices, size, size), np.uint8)
    labels = np.empty((slices, size, size), np.uint16)
    rows, columns = np.mgrid[:size, :size]
    grid = np.stack(np.mgrid[-2 : size / SPACING + 3, -2 : size / SPACING + 3], -1).reshape(-1, 2)
    for z in range(slices):
        points = SPACING * (grid + random.uniform(-0.35, 0.35, grid.shape))
        bend = [3 * smooth_noise(random, (size, size), BEND_SCALE) for _ in range(2)]
        at = np.stack([rows + bend[0], columns + bend[1]], axis=-1)
        cell, distance, _ = _nearest_cells(points, at)
        colony = smooth_noise(random, (size, size), COLONY_SCALE)
        labels[z] = _whole_cells(cell, colony > 0)
        volume[z] = _colonies(random, labels[z] > 0, distance)
    return volume, labels


def _whole_cells(cell: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Number the connected parts of cells that are large enough: uint16 (height, width)."""
    numbers = np.zeros(cell.shape, np.uint16)
    for index in np.unique(cell[inside]):
        parts, count = ndimage.label((cell == index) & inside)
        areas = np.bincount(parts.ravel(), minlength=count + 1)
        for part in np.flatnonzero(areas[1:] >= SMALLEST_CELL) + 1:
            numbers[parts == part] = numbers.max() + 1
    return numbers


def _colonies(random: np.random.Generator, inside: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Draw cells as a microscope shows them: uint8 (height, width)."""
    shape = inside.shape
    grey = 84 + 3 * smooth_noise(random, shape, 30)
    texture = 6 * smooth_noise(random, shape, 2.5) + 4 * smooth_noise(random, shape, 9)
    depth = SEAM_DEPTH * np.clip(0.9 + 0.35 * smooth_noise(random, shape, 7), 0.3, 1.6)
    seam = depth * np.exp(-((distance / SEAM_WIDTH) ** 2) / 2)
    course = smooth_noise(random, shape, 11)
    steep = np.hypot(*np.gradient(course)) + 1e-3
    fold = np.exp(-((course / steep / SEAM_WIDTH) ** 2) / 2)
    fold *= FOLD_DEPTH * np.clip(smooth_noise(random, shape, 9), 0, 1.5)
    grey += np.where(inside, 52 + texture - np.maximum(seam, fold), 0)
    grey = ndimage.gaussian_filter(grey, BLUR) + 7 * random.standard_normal(shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _check_numbers(slices: int, size: int, seed: int) -> None:
    if slices < 1 or size < SMALLEST_SIZE or seed < 0:
        raise InputError(
            f"slices {slices}, size {size}, seed {seed}: at least 1 slice of size {SMALLEST_SIZE} "
            f"and seed 0"
        )


# Of each kind the function that makes it, and its size.
KINDS = {"phantom": (phantom, 512), "phantom-cells": (touching_cells, 384)}


def fetch(
    kind: str = "phantom",
    folder: str | os.PathLike[str] | None = None,
    slices: int = 30,
    size: int | None = None,
    seed: int = 1,
    overwrite: bool = False,
) -> list[str]:
    """Make a phantom and write it, unless it is there already.

    Parameters
    ----------
    kind : {"phantom", "phantom-cells"}
    folder : path, optional
        By default data/ and the kind.
    slices, size, seed : int
        As for `phantom`; size is by default that of the kind.
    overwrite : bool
        Whether stacks that this project has not written are replaced.

    Returns
    -------
    list of str
        What there is, a line each.

    Raises
    ------
    InputError
        If a number is too small, or there are other stacks, written by somebody else.
    """
    make, usual = KINDS[kind]
    folder, size = Path("data", kind) if folder is None else Path(folder), size or usual
    stacks = make(slices, size, seed)
    # The same stacks stay as they are, whoever wrote them: what was made of them is not made anew.
    new = [name for name, stack in zip(NAMES, stacks) if not _holds(folder / name, stack)]
    guard_outputs([Output(folder / name, STACK) for name in new], [], overwrite)

    def fill(fresh: Path) -> None:
        for name, stack in zip(NAMES, stacks):
            write_volume(fresh / name, stack)

    # Pictures and labels of two tissues must never lie side by side.
    if new:
        replace_parts(folder, folder, fill, lambda fresh: None, NAMES.index)
    return [f"{folder / name}: {slices} slices of {size} x {size}" for name in NAMES]


def _holds(path: Path, stack: np.ndarray) -> bool:
    """Tell whether a stack is there already."""
    try:
        return np.array_equal(read_volume(path), stack)
    except InputError:
        return False
