"""The scores of the images in an HDF5 file, as `caffe_unet tiled_predict` writes them."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any, Callable, NamedTuple

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.hdf5 import Hdf5Output, damage_is_told, find, open_hdf5_file
from unet.files.names import PathLike
from unet.machine.memory import pass_memory
from unet.model.modeldef import ModelDefinition
from unet.segmentation.caffe_unet_passes import AVERAGES, score_averaged
from unet.segmentation.caffe_unet_tiles import GridTiles, Shape, TileRules
from unet.segmentation.tile_size import PassCost


class TilingWish(NamedTuple):
    """How an image is to be cut; one of these at most, by default so that it fits into memory.

    Attributes
    ----------
    tile_size : tuple of int, optional
        Output pixels of a tile, for all axes or each.
    n_tiles : tuple of int, optional
        Up to so many tiles; or so many along each axis.
    pixels : int, optional
        That a tile's input may have.
    megabytes : int, optional
        Of memory that a tile may take.
    """

    tile_size: tuple[int, ...] | None = None
    n_tiles: tuple[int, ...] | None = None
    pixels: int | None = None
    megabytes: int | None = None


def predict_file(
    net: Any,
    definition: ModelDefinition,
    files: tuple[PathLike, PathLike],
    wish: TilingWish = TilingWish(),  # noqa: B008
    *,
    average: str = "none",
    device: str = "cpu",
    most: int | None = None,
    told: Callable[[int, int, int, int], object] = lambda *_: None,
) -> None:
    """Compute the scores of the images in a file.

    Parameters
    ----------
    net : caffe.Net
    definition : ModelDefinition
        As of `unet.model.open_modeldef.open_definition`.
    files : tuple of path
        HDF5 with images, (samples, channels, [depth,] height, width) in the dataset that the
        definition names; and the HDF5 that is written, which may be the same file: one dataset of
        scores, float32 (samples, classes, [depth,] height, width), for each output of the network.
    wish : TilingWish
    average : {"none", "mirror", "rotate"}
        Of `unet.segmentation.caffe_unet_passes.AVERAGES`.
    device : str
        Whose memory tiles have to fit into: "cpu" or the number of a GPU.
    most : int, optional
        Images that are computed; None or 0: all.
    told : callable
        Is told before each pass: batch, batches, tile and tiles, from 1. A batch is a version of an
        image.

    Raises
    ------
    InputError
        If the images are missing, damaged, of other axes or channels, NaN or infinite; if their
        scores would be; if no tile fits. Nothing is written.
    """
    source, target = files
    versions = AVERAGES[average]
    cut = _cut_by(wish, net, definition, device)
    with closing(open_hdf5_file(source)) as file, atomic_path(target) as temporary:
        images = _images(file, net, definition)
        many = min(most or len(images), len(images))
        _check_values(images, many)
        with Hdf5Output(temporary) as output:
            for k in range(many):

                def tell(version: int, tile: int, tiles: int, k: int = k) -> None:
                    told(k * len(versions) + version + 1, many * len(versions), tile + 1, tiles)

                image = np.asarray(images[k], np.float32)
                scores = score_averaged(net, image, cut, versions, tell)
                if not all(np.isfinite(one).all() for one in scores.values()):
                    raise InputError(
                        f"{file.filename}: the scores of image {k + 1} are NaN or infinite; are "
                        f"its grey values, from {image.min():g} to {image.max():g}, normalised as "
                        f"the network was trained?"
                    )
                with output.changing() as written:
                    for name, one in scores.items():
                        if k == 0:
                            written.create_dataset(name, (many, *one.shape), np.float32)
                        written[name][k] = one


def _images(file: h5py.File, net: Any, definition: ModelDefinition) -> h5py.Dataset:
    name, axes = definition.input_dataset_name, len(definition.element_size_um)
    images = find(file, name)
    if not isinstance(images, h5py.Dataset):
        raise InputError(f"{file.filename}: has no dataset /{name} with the images to segment")
    if images.ndim != 2 + axes or 0 in images.shape or images.dtype.kind not in "buif":
        raise InputError(
            f"{file.filename}: /{name} is {images.dtype} of shape {images.shape}, not images of "
            f"{axes} dimensions: (samples, channels, {'depth, ' * (axes == 3)}height, width)"
        )
    channels = net.blobs[net.inputs[0]].shape[1]
    if images.shape[1] != channels:
        raise InputError(
            f"{file.filename}: /{name} has {images.shape[1]} channels, but the weights are for "
            f"{channels}"
        )
    return images


def _check_values(images: h5py.Dataset, many: int) -> None:
    """Refuse what would become NaN, before the network computes."""
    for k in range(many):
        with damage_is_told(images.file.filename):
            image = images[k]
        if not np.isfinite(image).all():
            raise InputError(
                f"{images.file.filename}: image {k + 1} of {len(images)} holds NaN or infinite "
                f"values; the plugin writes them for a picture of one grey value only: leave it out"
            )


def _cut_by(
    wish: TilingWish, net: Any, definition: ModelDefinition, device: str
) -> Callable[[Shape], GridTiles]:
    """Return what cuts an image of any shape as was wished."""
    rules = TileRules(definition.axes, definition.padding)
    axes = len(definition.axes)
    for flag, given in (("tile_size", wish.tile_size), ("n_tiles", wish.n_tiles)):
        if given is not None and len(given) not in (1, axes):
            raise InputError(
                f"-{flag} {'x'.join(map(str, given))}: the model has {axes} dimensions; give one "
                f"number, or {axes}"
            )
    if wish.tile_size is not None:
        size = wish.tile_size * (axes // len(wish.tile_size))
        return lambda shape: rules.of_output(shape, size)
    if wish.n_tiles is not None:
        counts = wish.n_tiles
        if len(counts) == 1:
            return lambda shape: rules.of_count(shape, counts[0])
        return lambda shape: rules.of_grid(shape, counts)
    said, fits = _what_fits(wish, net, definition, device)

    def cut(shape: Shape) -> GridTiles:
        tiles = rules.of_size(shape, fits)
        if tiles is None:
            smallest = rules.smallest(shape).input
            raise InputError(
                f"{said}: out of memory: not even a tile of {'x'.join(map(str, smallest))} = "
                f"{math.prod(smallest)} input pixels fits; give more"
            )
        return tiles

    return cut


def _what_fits(
    wish: TilingWish, net: Any, definition: ModelDefinition, device: str
) -> tuple[str, Callable[[Shape], bool]]:
    """Return who says which tiles fit, and whether one does."""
    pixels = wish.pixels
    if pixels is None and wish.megabytes is not None and definition.memory_map:
        # What the model's authors measured.
        measured = [one for one, size in definition.memory_map if size <= wish.megabytes]
        pixels = max(measured, default=0)
    if pixels is not None:
        known = pixels
        said = (
            f"-mem_available_px {pixels}"
            if wish.megabytes is None
            else f"-gpu_mem_available_MB {wish.megabytes}"
        )
        return said, lambda tile: math.prod(tile) <= known
    cost = PassCost.of(net, *definition.axes)
    if wish.megabytes is not None:
        free, said = wish.megabytes * 2.0**20, f"-gpu_mem_available_MB {wish.megabytes}"
    else:
        free = pass_memory(device)
        said = f"{free / 2**20:.0f} MB are free"
    return said, lambda tile: cost.memory(tile) <= free
