"""A slice through a sliding-window network: pixel by pixel, as it was, or all windows at once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from unet.errors import InputError
from unet.model.open_net import read_weights, stored_in
from unet.network.sliding_window import join_fragments, multiply_adds
from unet.volumes.intensity import is_normalised, scale_intensity
from unet.volumes.mirror import mirrored

# Windows of a pass, pixel by pixel.
_TOGETHER = 64


class SlidingWindow:
    """A trained network of `unet.network.nets.window_files`.

    Parameters
    ----------
    caffe : module
        As `unet.machine.engine.open_engine` gives it.
    folder : path
        Where deploy.prototxt, dense.prototxt and input.json lie.
    weights : path
        A .caffemodel.

    Attributes
    ----------
    window : int
        Its side.

    Raises
    ------
    InputError
        If a file is missing, the weights are those of another network, or it takes no normalised
        windows of one channel.
    """

    def __init__(self, caffe: ModuleType, folder: Path, weights: Path) -> None:
        files = [folder / "deploy.prototxt", folder / "dense.prototxt", weights]
        for path in files:
            if not path.is_file():
                raise InputError(
                    f"{path}: no such file; name the folder that `unet nets sliding_window` wrote "
                    f"and weights that were trained by its solver"
                )
        if not is_normalised(files[0]):
            raise InputError(
                f"{files[0]}: learnt from slices that were not normalised, and which grey values "
                f"became 0 and 1 is not known; make its training set with --normalise"
            )
        self._each, self._all = (caffe.Net(str(net), caffe.TEST) for net in files[:2])
        stored = stored_in(weights)
        for net, prototxt in zip((self._each, self._all), files):
            read_weights(net, prototxt, weights, stored)
        channels, height, width = self._each.blobs["data"].data.shape[1:]
        if channels != 1 or height != width:
            raise InputError(
                f"{files[0]}: takes {channels} channels of {height} x {width}, but square windows "
                f"of one channel are wanted"
            )
        self.window = height
        self._side = self._all.blobs["data"].data.shape[-1]

    def prepared(self, image: np.ndarray) -> np.ndarray:
        """Return grey values, (height, width), as the network is given them: normalised."""
        return scale_intensity(image, None)

    def windows(self, image: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the probabilities of class 1 at some pixels, each by a window of its own.

        Parameters
        ----------
        image : float32 ndarray, shape (height, width)
            From `prepared`; mirrored at its edges.
        places : int ndarray, shape (n, 2)
            Rows and columns.

        Returns
        -------
        float32 ndarray, shape (n,)
        """
        half, found = self.window // 2, []
        for begin in range(0, len(places), _TOGETHER):
            part = places[begin : begin + _TOGETHER]
            self._each.blobs["data"].reshape(len(part), 1, self.window, self.window)
            data = self._each.blobs["data"].data
            for place, (y, x) in zip(data, part):
                place[...] = mirrored(image[None], y - half, x - half, place.shape[1:])
            self._each.forward()
            found.append(_class_1(np.array(self._each.blobs["score"].data)[:, :, 0, 0].T))
        return np.concatenate(found)

    def dense(self, image: np.ndarray) -> np.ndarray:
        """Return the probabilities of class 1 of all pixels; as `windows`, of (height, width)."""
        height, width = image.shape
        out = np.empty(image.shape, np.float32)
        step, half = self._side - self.window + 1, self.window // 2
        for y in range(0, height, step):
            for x in range(0, width, step):
                tile = mirrored(image[None], y - half, x - half, (self._side, self._side))
                self._all.blobs["data"].data[0] = tile
                self._all.forward()
                scores = join_fragments(
                    np.asarray(self._all.blobs["score"].data), self.window, self._side
                )
                rows, columns = min(step, height - y), min(step, width - x)
                out[y : y + rows, x : x + columns] = _class_1(scores[:, :rows, :columns])
        return out

    def multiply_adds(self) -> tuple[int, int]:
        """Return those of a window's pass, and those of a pass that scores all of a slice."""
        self._each.blobs["data"].reshape(1, 1, self.window, self.window)
        self._each.reshape()
        return multiply_adds(self._each), multiply_adds(self._all)


def _class_1(scores: np.ndarray) -> np.ndarray:
    """Return the soft-max of class 1, of scores (classes, ...)."""
    powers = np.exp(scores - scores.max(0))
    return (powers[1] / powers.sum(0)).astype(np.float32)
