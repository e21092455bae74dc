"""How large a tile may be: what a pass of a network takes, and what costs least in the memory free.

A tile of any valid size gives the same result. Large ones lose less to their borders, and take more
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.network.geometry import Geometry
from unet.segmentation.tiles import tile_starts

# Caffe counts the elements of a blob in a signed 32-bit integer.
_MOST_ELEMENTS = 2**31 - 1
# Layers whose tops show the memory of their first bottom: a crop only in this project's engine.
_ALIASES = ("Split", "Crop")


@dataclass(frozen=True)
class PassCost:
    """What one pass of a network takes, as a function of the input size.

    The size of every map along an axis is linear in that of the input, so two sizes tell all.

    Attributes
    ----------
    smallest : tuple of int
        An input size.
    sizes : int ndarray, shape (maps, axes)
        Of each map for an input of `smallest`.
    growth : float ndarray, shape (maps, axes)
        Pixels that they grow by for a pixel of the input.
    channels : int ndarray, shape (maps,)
        Values that are kept for a pixel of the map.
    live : bool ndarray, shape (moments, maps)
        Which maps are in memory at the same time.
    multiply_adds : int ndarray, shape (maps,)
        Multiply-adds for a pixel of the map.
    workspace : int ndarray, shape (maps,)
        Values for a pixel of the map that its layer needs for itself, for as long as it runs.
    workspaces_add : bool
        Whether all layers keep their workspaces, as genuine Caffe's do, or one at a time has one.
    """

    smallest: tuple[int, ...]
    sizes: np.ndarray
    growth: np.ndarray
    channels: np.ndarray
    live: np.ndarray
    multiply_adds: np.ndarray
    workspace: np.ndarray
    workspaces_add: bool

    @classmethod
    def of(cls, net: Any, *axes: Geometry) -> PassCost:
        """Measure a net by the shapes of its maps, which are set anew.

        Parameters
        ----------
        net : caffe.Net
            As of `unet.model.open_net.load_net`.
        *axes : Geometry
            The net's, along each axis; one stands for (height, width).
        """
        axes = axes * 2 if len(axes) == 1 else axes
        smallest = tuple(axis.smallest for axis in axes)
        factor = np.array([axis.downsample_factor for axis in axes])
        shape_net(net, smallest)
        maps = _maps(net)
        before = list(maps.values())
        shape_net(net, tuple(np.add(smallest, factor).tolist()))
        after = list(_maps(net).values())
        genuine = _is_genuine(net)
        sizes = np.array([row[0] for row in before])
        channels, work, columns = (np.array([row[k] for row in before]) for k in (1, 2, 3))
        return cls(
            smallest=smallest,
            sizes=sizes,
            growth=(np.array([row[0] for row in after]) - sizes) / factor,
            channels=channels,
            live=np.ones((1, len(sizes)), bool) if genuine else _live(net, list(maps)),
            multiply_adds=work,
            # Genuine Caffe unrolls the windows of each convolution into a matrix, and keeps all of
            # them. Else one copy of the largest map covers what was measured beside the blobs, but
            # for the 0.1 GB that the allocator keeps of small ones.
            workspace=columns if genuine else channels,
            workspaces_add=genuine,
        )

    def pixels(self, tile: tuple[int, ...]) -> np.ndarray:
        """Pixels of each map, float64 (maps,), for an input of `tile`."""
        return np.prod(self.sizes + self.growth * np.subtract(tile, self.smallest), axis=1)

    def work(self, tile: tuple[int, ...]) -> float:
        """Multiply-adds of one pass."""
        return float(self.pixels(tile) @ self.multiply_adds)

    def memory(self, tile: tuple[int, ...]) -> float:
        """Bytes of one pass; infinite where a map has more values than Caffe can count."""
        pixels = self.pixels(tile)
        values = pixels * self.channels
        if values.max() > _MOST_ELEMENTS:
            return np.inf
        workspaces = pixels * self.workspace
        workspace = workspaces.sum() if self.workspaces_add else workspaces.max()
        return 4.0 * float((self.live @ values).max() + workspace)


def _is_genuine(net: Any) -> bool:
    return type(net).__module__.endswith("_caffe")


def _maps(net: Any) -> dict[str, tuple[tuple[int, ...], int, int, int]]:
    """Return (size, values, multiply-adds, unrolled values), for a pixel of each map."""
    maps = {}
    aliases = _ALIASES[:1] if _is_genuine(net) else _ALIASES
    for name, layer in net.layer_dict.items():
        # A layer in place shows its bottom's memory as well, under the same name.
        if layer.type not in aliases:
            for top in net.top_names[name]:
                shape = tuple(net.blobs[top].shape)
                maps[top] = (shape[2:], shape[1], 0, 0)
        if layer.type in ("Convolution", "Deconvolution"):
            # Each pixel of the map on the side of the lower resolution meets every weight once.
            sides = net.top_names if layer.type == "Convolution" else net.bottom_names
            weights = list(layer.blobs[0].shape)
            window = int(np.prod(weights[1:]))
            size = tuple(net.blobs[sides[name][0]].shape)[2:]
            maps[f"passing {name}"] = (size, 0, weights[0] * window, window)
    return maps


def _live(net: Any, maps: list[str]) -> np.ndarray:
    """Tell which of the maps are in memory while each layer runs: bool (layers, maps)."""
    row = {name: number for number, name in enumerate(maps)}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for moment, (name, layer) in enumerate(net.layer_dict.items()):
        bottoms, tops = net.bottom_names[name], net.top_names[name]
        if layer.type in _ALIASES:
            row.update((top, row[bottoms[0]]) for top in tops)
        for blob in (*bottoms, *tops):
            first.setdefault(row[blob], moment)
            last[row[blob]] = moment
    live = np.zeros((len(net.layer_dict), len(maps)), bool)
    for number in first:
        live[first[number] : last[number] + 1, number] = True
    for name in (*net.inputs, *net.outputs):
        live[:, row[name]] = True
    return live


def shape_net(net: Any, tile: tuple[int, ...]) -> None:
    """Give a net, and all its maps, the input size `tile`, such as (height, width)."""
    data = net.blobs[net.inputs[0]]
    shape = (1, data.shape[1]) + tuple(tile)
    if tuple(data.shape) != shape:
        data.reshape(*shape)
        net.reshape()


def choose_tile(
    shape: tuple[int, int], cost: PassCost, memory: float, geometry: Geometry
) -> tuple[int, int]:
    """Choose the input size that segments an image with the fewest multiply-adds.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the image.
    cost : PassCost
    memory : float
        Bytes that a pass may take.
    geometry : Geometry

    Returns
    -------
    tuple of int
        (height, width) of the tiles; of equal ones that with the fewest.

    Raises
    ------
    InputError
        If not even the smallest tiles fit.
    """
    rows, columns = (_candidates(length, geometry) for length in shape)
    best: tuple[float, int, tuple[int, int]] | None = None
    for height, down in rows:
        for width, across in columns:
            tile, tiles = (height, width), down * across
            key = (tiles * cost.work(tile), tiles, tile)
            if (best is None or key < best) and cost.memory(tile) <= memory:
                best = key
    if best is None:
        tile = (rows[-1][0], columns[-1][0])
        raise InputError(
            f"a pass of the smallest tiles, {tile[0]}x{tile[1]}, takes about "
            f"{cost.memory(tile) / 2**20:.0f} MB, but {memory / 2**20:.0f} MB are free for it: end "
            f"other programs, or give more with --memory"
        )
    return best[2]


def tiled_area(
    block: tuple[int, int], size: tuple[int, int], tta: str, geometry: Geometry
) -> tuple[int, int]:
    """Return the height and width that the tiles of a block cover, by `Tiling.covering`.

    Edges of blocks of an image of `size` that is laid another way are off the grid of the tiles;
    a whole image begins on it.
    """
    if block == size or tta == "none":
        return block
    slack = geometry.downsample_factor - 1
    return block[0] + slack, block[1] + slack


def _candidates(length: int, geometry: Geometry) -> list[tuple[int, int]]:
    """Return, for every number of tiles along an axis, the smallest size: (size, number)."""
    factor, largest = geometry.downsample_factor, geometry.input_size(length)
    best: dict[int, int] = {}
    for size in range(largest, min(largest, geometry.input_size(factor)) - 1, -factor):
        best[len(tile_starts(length, size, geometry))] = size
    return [(size, number) for number, size in best.items()]
