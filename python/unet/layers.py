"""The data layer of the networks: training tiles from HDF5, as a Python layer of Caffe."""

from __future__ import annotations

import difflib
import json
from dataclasses import fields

import caffe
import numpy as np

from unet.errors import InputError
from unet.tile_sampler import (
    Augmentation,
    TileSampler,
    coverage,
    one_weight_per_class,
    parse_slices,
    plain_tile,
)
from unet.tiles import BORDER, check_tile
from unet.training_set import TrainingSet

_KEYS = {"file", "slices", "tile", "seed", "workers", "augmentation"}


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
        1 by default. Tile i is a function of the seed and i alone.
    augmentation : object, optional
        Fields of `unet.tile_sampler.Augmentation`.

    Tops: `data` (1, C, h, w); `label` (1, 1, h - 184, w - 184), class numbers, 255 where not annotated;
    `weight` (1, K, h - 184, w - 184), w(x) in the channel of the true class and 0 in the others.

    Attributes
    ----------
    tiles_per_epoch : int
        In phase TEST: how many passes cover every pixel of the slices once.
    """

    def setup(self, bottom, top):
        """Read the configuration and open the file."""
        where = "TrainingTiles"
        try:
            config = json.loads(self.param_str)
        except ValueError as error:
            raise InputError(f"{where}: param_str is no JSON: {error}") from None
        if not isinstance(config, dict):
            raise InputError(f"{where}: param_str must be a JSON object")
        _refuse_unknown(config, _KEYS, where)
        for key in ("file", "tile"):
            if key not in config:
                raise InputError(f"{where}: param_str lacks '{key}'")
        if len(top) != 3:
            raise InputError(f"{where}: needs the tops data, label and weight, has {len(top)}")
        tile = config["tile"]
        self._tile = (tile, tile) if isinstance(tile, int) else tuple(tile)
        check_tile(self._tile)
        self._set = TrainingSet(config["file"])
        slices = parse_slices(config.get("slices"), self._set.shape[0], self._set.path)
        self._next = 0
        if self.phase == caffe.TEST:
            self._places = coverage(self._set.shape, slices, self._tile)
            self.tiles_per_epoch = len(self._places)
        else:
            varied = config.get("augmentation", {})
            _refuse_unknown(varied, {f.name for f in fields(Augmentation)}, where)
            self._sampler = TileSampler(
                self._set, slices, self._tile, Augmentation(**varied), config.get("seed", 1)
            )

    def reshape(self, bottom, top):
        """Shape the tops."""
        height, width = self._tile
        inner = (height - 2 * BORDER, width - 2 * BORDER)
        top[0].reshape(1, self._set.channels, height, width)
        top[1].reshape(1, 1, *inner)
        top[2].reshape(1, self._set.classes, *inner)

    def seek(self, index: int) -> None:
        """Let the next pass deliver tile number `index`."""
        self._next = index

    def forward(self, bottom, top):
        """Deliver the next tile."""
        if self.phase == caffe.TEST:
            place = self._places[self._next % len(self._places)]
            data, label, weight = plain_tile(self._set, place, self._tile)
        else:
            data, label, weight = self._sampler(self._next)
        self._next += 1
        top[0].data[0] = data
        top[1].data[0, 0] = label
        one_weight_per_class(label, weight, np.asarray(top[2].data)[0])

    def backward(self, top, propagate_down, bottom):
        """Nothing to do: tiles have no gradient."""


def _refuse_unknown(given, known, where):
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(sorted(known))}"
            raise InputError(f"{where}: unknown key '{key}' in param_str{hint}")
