"""What caffe_unet computes, by its published rules in plain numpy and PyTorch, one thing at a time.

And models as the plugin's editor writes them: text, definition and weights in files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

import caffe
from tests import caffe_unet
from tests.caffe.layers.test_caffe_unet_nets import compute
from unet.model.modeldef import ModelDefinition


def numbers(levels: int) -> tuple[int, int, int]:
    """Return downsampleFactor, padInput and padOutput of an axis."""
    pad_input, pad_output = 0, -4
    for _ in range(levels):
        pad_input, pad_output = 2 * pad_input + 4, 2 * pad_output - 4
    return 2**levels, pad_input, pad_output


def sizes(levels: int, wanted: int) -> tuple[int, int]:
    """Return the smallest (input, output) along an axis whose output is at least as wanted."""
    factor, pad_input, pad_output = numbers(levels)
    for lowest in itertools.count(1):
        if factor * lowest + pad_output >= wanted:
            return factor * lowest + pad_input, factor * lowest + pad_output
    raise AssertionError


def grid_tile(levels: Sequence[int], shape: Sequence[int], counts: Sequence[int]):
    """Return the (input, output) of each axis for so many tiles, by caffe_unet's two steps."""
    first = [sizes(*one) for one in zip(levels, (math.ceil(s / n) for s, n in zip(shape, counts)))]
    again = [math.ceil(s / out) for s, (_, out) in zip(shape, first)]
    return [sizes(one, math.ceil(s / n)) for one, s, n in zip(levels, shape, again)]


def tiled(
    image: np.ndarray,
    tile: Sequence[tuple[int, int]],
    padding: str,
    network: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, int]:
    """Return the scores of an image, tile by tile from a picture that is padded far out; and T."""
    shape = image.shape[1:]
    border = [(wide - inner) // 2 for wide, inner in tile]
    around = [(0, 0)] + [(b, b + wide) for b, (wide, _) in zip(border, tile)]
    # numpy's reflect goes on periodically, as caffe_unet's mirror does.
    mode = "reflect" if padding == "mirror" else "constant"
    far = np.pad(image, around, mode=mode)
    counts = [math.ceil(s / inner) for s, (_, inner) in zip(shape, tile)]
    whole = None
    for place in itertools.product(*map(range, counts)):
        starts = [k * inner for k, (_, inner) in zip(place, tile)]
        window = tuple(slice(a, a + wide) for a, (wide, _) in zip(starts, tile))
        scores = network(far[(slice(None), *window)][None])[0]
        if whole is None:
            whole = np.zeros((len(scores), *(n * i for n, (_, i) in zip(counts, tile))))
        inside = tuple(slice(a, a + inner) for a, (_, inner) in zip(starts, tile))
        whole[(slice(None), *inside)] = scores
    assert whole is not None
    return whole[(slice(None), *map(slice, shape))], math.prod(counts)


class PluginModel:
    """A small model as the plugin's editor writes it, in NAME.modeldef.h5 and NAME.caffemodel.h5.

    `levels` is one number for each axis, (z,) y, x.
    """

    def __init__(self, folder: Path, levels: Sequence[int], channels: int = 1, **changes) -> None:
        self.levels = tuple(levels)
        self.net = self._open(folder, channels)
        rng = np.random.default_rng(5)
        for blobs in self.net.params.values():
            blobs[1].data[...] = rng.normal(size=blobs[1].shape) / 10
        self.weights = folder / "cells.caffemodel.h5"
        self.net.save_hdf5(str(self.weights))
        factors, inputs, outputs = zip(*map(numbers, self.levels))
        self.definition = ModelDefinition(
            **{
                "model_prototxt": caffe_unet.editor_text(self.levels, 2),
                "input_blob_name": "data3",
                "element_size_um": (1.0,) * len(self.levels),
                "downsample_factor": factors,
                "pad_input": inputs,
                "pad_output": outputs,
                **changes,
            }
        )
        self.path = folder / "cells.modeldef.h5"
        caffe_unet.write_modeldef(self.path, self.definition)

    def _open(self, folder: Path, channels: int) -> caffe.Net:
        shape = [sizes(one, 1)[0] for one in self.levels]
        dims = " ".join(f"dim: {one}" for one in (1, channels, *shape))
        path = folder / "net.prototxt"
        path.write_text(
            "state { phase: TEST } layer { top: 'data3' name: 'data3' type: 'Input' input_param "
            f"{{ shape {{ {dims} }} }} }}\n{caffe_unet.editor_text(self.levels, 2)}"
        )
        caffe.set_random_seed(1)
        return caffe.Net(str(path), caffe.TEST)

    def network(self, data: np.ndarray) -> np.ndarray:
        """Return the scores of a tile, in plain PyTorch."""
        return compute(self.net, data, self.levels)


def write_images(path: Path, images: np.ndarray, dataset: str = "data") -> None:
    """Write images as the plugin does: float32, in chunks of one slice, its element size beside."""
    block = (1,) * (images.ndim - 2) + images.shape[-2:]
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            dataset, data=images.astype(np.float32), chunks=block, compression=3
        )
        data.attrs["element_size_um"] = np.ones(images.ndim - 2)
