"""The data layer of the networks: training tiles from HDF5, as a Python layer of Caffe."""

from __future__ import annotations

import json

import numpy as np

import caffe
from unet.augmentation.tile_sampler import (
    Augmentation,
    TileSampler,
    coverage,
    one_weight_per_class,
    parse_slices,
    parse_whole,
    plain_tile,
    refuse_unknown,
)
from unet.augmentation.tile_workers import TileWorkers
from unet.errors import InputError
from unet.machine.cores import available_cores
from unet.preparation.training_set import TrainingSet
from unet.segmentation.tiles import BORDER, check_tile

_KEYS = ("file", "tile", "slices", "seed", "workers", "augmentation")


class TrainingTiles(caffe.Layer):
    """Feed tiles of a training set; phase TRAIN: augmented, phase TEST: the slices as they are.

    Configured by JSON in `param_str`:

    file : str
        The HDF5 file that tools/prepare.py wrote.
    tile : int or [height, width]
        Input size, 16k + 60.
    slices : [first, stop], optional
        All slices by default.
    seed : int, optional
        1 by default. Tile i is a function of the seed and i alone. Where n solvers train together,
        pass i of solver r delivers tile i * n + r.
    workers : int, optional
        Processes that cut tiles ahead of need, in phase TRAIN; 0: none. By default one less than
        there are cores for each solver, from 1 to 16. The tiles are the same with any number.
    augmentation : object, optional
        Fields of `unet.augmentation.tile_sampler.Augmentation`: grid, std, rotation, mirror, shift,
        contrast, brightness, gamma.

    Tops: `data` (1, C, h, w); `label` (1, 1, h - 184, w - 184), class numbers, 255 where not
    annotated; `weight` (1, K, h - 184, w - 184), w(x) in the channel of the true class and 0 in the
    others.

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
        refuse_unknown(config, _KEYS, f"{where}: param_str")
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
        self._tile = tuple(parse_whole(size, 1, 2**15, f"{where}: tile") for size in sizes)
        check_tile(self._tile)
        augmentation = Augmentation.from_mapping(config.get("augmentation", {}))
        share = caffe.solver_rank(), caffe.solver_count()
        workers = min(16, max(1, available_cores() // share[1] - 1))
        workers = parse_whole(config.get("workers", workers), 0, 256, f"{where}: workers")
        self._set = TrainingSet(config["file"])
        slices = parse_slices(config.get("slices"), self._set.shape[0], self._set.path)
        self._set.demand_annotated(slices, classes=1 if self.phase == caffe.TEST else 2)
        self._next = 0
        if self.phase == caffe.TEST:
            places = coverage(self._set.shape, slices, self._tile)
            self.tiles_per_epoch = len(places)
            self._fetch = lambda i: plain_tile(self._set, places[i % len(places)], self._tile)
            return
        self._fetch = TileSampler(
            self._set, slices, self._tile, augmentation, config.get("seed", 1), share
        )
        if workers:
            self._fetch = TileWorkers(self._fetch, workers).fetch

    def reshape(self, bottom, top):
        """Shape the tops."""
        height, width = self._tile
        inner = (height - 2 * BORDER, width - 2 * BORDER)
        top[0].reshape(1, self._set.channels, height, width)
        top[1].reshape(1, 1, *inner)
        top[2].reshape(1, self._set.classes, *inner)

    def seek(self, index: int) -> None:
        """Let the next pass be number `index`, which delivers the tile of that number."""
        self._next = index

    def forward(self, bottom, top):
        """Deliver the next tile."""
        data, label, weight = self._fetch(self._next)
        self._next += 1
        top[0].data[0] = data
        top[1].data[0, 0] = label
        one_weight_per_class(label, weight, np.asarray(top[2].data)[0])

    def backward(self, top, propagate_down, bottom):
        """Nothing to do: tiles have no gradient."""
