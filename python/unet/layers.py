"""The data layer of the networks: training tiles from HDF5, as a Python layer of Caffe."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields

import numpy as np

import caffe
from unet.augmentation.tile_sampler import Augmentation, TileSampler, plain_tile, tile_origins
from unet.augmentation.tile_workers import TileWorkers
from unet.errors import InputError
from unet.machine.cores import available_cores
from unet.network.geometry import Geometry
from unet.preparation.training_set import TrainingSet

# Fields of `unet.network.geometry.Geometry` that param_str may hold.
GEOMETRY = ("downsample_factor", "pad_input", "pad_output")
_KEYS = (
    *("file", "tile", "slices", "seed", "workers", "augmentation", "weighted", "batch"),
    *GEOMETRY,
)


class TrainingTiles(caffe.Layer):
    """Feed tiles of a training set; phase TRAIN: augmented, phase TEST: the slices as they are.

    Configured by JSON in `param_str`:

    file : str
        The HDF5 file that tools/prepare.py wrote.
    tile : int or [height, width]
        Input size, k downsample_factor + pad_input.
    batch : int, optional
        Tiles of a pass, 1 by default: n of them are tiles i n to i n + n - 1 in pass i.
    downsample_factor, pad_input, pad_output : int, optional
        Those of the network, see `unet.network.geometry`; by default 16, 60 and -124, of Fig. 1.
    slices : [first, stop], optional
        All slices by default.
    seed : int, optional
        1 by default. Tile i is a function of the seed and i alone. Where n solvers train together,
        tile i of solver r is tile i * n + r.
    workers : int, optional
        Processes that cut tiles ahead of need, in phase TRAIN; 0: none. By default one less than
        there are cores for each solver, from 1 to 16. The tiles are the same with any number.
    augmentation : object, optional
        Fields of `unet.augmentation.tile_sampler.Augmentation`: grid, std, rotation, mirror, shift,
        contrast, brightness, gamma, noise, balanced.
    weighted : bool, optional
        True by default. False: w(x) is 1 wherever a pixel is annotated.

    Tops, of N tiles: `data` (N, C, h, w); `label` (N, 1, h', w'), class numbers, 255 where not
    annotated; `weight` (N, K, h', w'), w(x) in the channel of the true class and 0 in the others.
    In Fig. 1 h' = h - 184, w' = w - 184.

    Attributes
    ----------
    tiles_per_epoch : int
        In phase TEST: how many passes cover every pixel of the slices once.

    Examples
    --------
    ::

        layer {
          name: "tiles" type: "Python" top: "data" top: "label" top: "weight"
          python_param {
            module: "unet.layers" layer: "TrainingTiles"
            param_str: '{"file": "isbi2012.h5", "tile": 572, "slices": [0, 20], "seed": 1,
                         "augmentation": {"grid": 3, "std": 10, "rotation": 180, "contrast": 0.2}}'
          }
        }
    """

    def setup(self, bottom, top):
        """Read the configuration and open the file.

        Raises
        ------
        InputError
            If a key, a value, the file or the number of tops is wrong, or the slices are such that
            nothing can be learnt from them or tested on them, in a sentence that names it.
        """
        where = "TrainingTiles"
        try:
            config = json.loads(self.param_str)
        except ValueError as error:
            raise InputError(f"{where}: param_str is no JSON: {error}") from None
        if not isinstance(config, dict):
            raise InputError(f"{where}: param_str must be a JSON object, not {self.param_str}")
        _refuse_unknown(config, _KEYS, f"{where}: param_str")
        for key in ("file", "tile"):
            if key not in config:
                raise InputError(f"{where}: param_str lacks '{key}'")
        if len(top) != 3 or len(bottom) != 0:
            raise InputError(
                f"{where}: takes no bottom and the tops data, label and weight,"
                f" but has {len(bottom)} bottoms and {len(top)} tops"
            )
        if not isinstance(config["file"], str):
            raise InputError(f"{where}: file is {config['file']!r}, but must be a path")
        tile = config["tile"]
        sizes = tile if isinstance(tile, list) else [tile, tile]
        if len(sizes) != 2:
            raise InputError(f"{where}: tile is {tile!r}, but must be a size or [height, width]")
        self._tile = tuple(_whole(size, 1, 2**15, f"{where}: tile") for size in sizes)
        self._batch = _whole(config.get("batch", 1), 1, 2**15, f"{where}: batch")
        geometry = _geometry({key: config[key] for key in GEOMETRY if key in config})
        geometry.check(self._tile)
        augmentation = _augmentation(config.get("augmentation", {}))
        self._weighted = config.get("weighted", True)
        if not isinstance(self._weighted, bool):
            raise InputError(f"{where}: weighted is {self._weighted!r}, but must be true or false")
        seed = _whole(config.get("seed", 1), 0, 2**63 - 1, "seed")
        share = caffe.solver_rank(), caffe.solver_count()
        workers = min(16, max(1, available_cores() // share[1] - 1))
        workers = _whole(config.get("workers", workers), 0, 256, f"{where}: workers")
        self._set = TrainingSet(config["file"])
        slices = _slices(config.get("slices"), self._set.shape[0], self._set.path)
        self._set.demand_annotated(slices, classes=1 if self.phase == caffe.TEST else 2)
        self._next = 0
        cut = self._tile, geometry.border
        self._inner = tuple(map(geometry.output_size, self._tile))
        if self.phase == caffe.TEST:
            origins = tile_origins(self._set.shape, slices, *cut)
            self.tiles_per_epoch = -(-len(origins) // self._batch)
            self._fetch = lambda i: plain_tile(self._set, origins[i % len(origins)], *cut)
            return
        self._fetch = TileSampler(self._set, slices, *cut, augmentation, seed, share)
        if workers:
            self._fetch = TileWorkers(self._fetch, workers).fetch

    def reshape(self, bottom, top):
        """Shape the tops."""
        top[0].reshape(self._batch, self._set.channels, *self._tile)
        top[1].reshape(self._batch, 1, *self._inner)
        top[2].reshape(self._batch, self._set.classes, *self._inner)

    def seek(self, index: int) -> None:
        """Let the next pass be number `index`, which delivers the tiles of that number."""
        self._next = index

    def forward(self, bottom, top):
        """Deliver the next tiles."""
        weights = np.asarray(top[2].data)
        for place in range(self._batch):
            data, label, weight = self._fetch(self._next * self._batch + place)
            if not self._weighted:
                weight = np.float32(1)
            top[0].data[place] = data
            top[1].data[place, 0] = label
            for number, out in enumerate(weights[place]):
                np.multiply(weight, label == number, out=out)
        self._next += 1

    def backward(self, top, propagate_down, bottom):
        """Nothing to do: tiles have no gradient."""


def _slices(value: object, count: int, where: str) -> list[int]:
    """Return the slice numbers of [first, stop), or all `count` of them for None."""
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


def _geometry(values: dict[str, object]) -> Geometry:
    limits = {"downsample_factor": 1, "pad_input": 0, "pad_output": -(2**15)}
    for name, value in values.items():
        _whole(value, limits[name], 2**15, f"TrainingTiles: {name}")
    geometry = Geometry(**values)
    if geometry.pad_input < geometry.pad_output or (geometry.pad_input - geometry.pad_output) % 2:
        raise InputError(
            f"TrainingTiles: pad_input {geometry.pad_input} is not pad_output "
            f"{geometry.pad_output} and a border of the same size on both sides"
        )
    return geometry


def _augmentation(values: object) -> Augmentation:
    """Return what names and values mean, as they stand in JSON; refuse wrong ones."""
    if not isinstance(values, dict):
        raise InputError(f"augmentation is {values!r}, but must be an object of names and values")
    _refuse_unknown(values, [field.name for field in fields(Augmentation)], "augmentation")
    most = {"rotation": 180, "contrast": 1}
    for name, value in values.items():
        if name == "grid":
            _whole(value, 2, 64, "augmentation: grid")
        elif name in ("mirror", "shift", "balanced"):
            if not isinstance(value, bool):
                raise InputError(f"augmentation: {name} is {value!r}, but must be true or false")
        elif not (
            _is_number(value) and 0 <= value <= most.get(name, math.inf) and value < math.inf
        ):
            limits = f" from 0 to {most[name]}" if name in most else " of at least 0"
            raise InputError(f"augmentation: {name} is {value!r}, but must be a number{limits}")
    return Augmentation(**values)


def _whole(value: object, least: int, most: int, what: str) -> int:
    if not (_is_whole(value) and least <= value <= most):
        raise InputError(f"{what} is {value!r}, but must be a whole number from {least} to {most}")
    return value


def _refuse_unknown(given: Iterable[str], known: Sequence[str], where: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{where}: unknown key '{name}'; {hint}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
