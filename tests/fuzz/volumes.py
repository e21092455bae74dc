"""The readers of stacks and training sets, valid files of theirs, and how these are damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.caffe_unet import write_modeldef
from tests.fuzz.mutations import change_bytes
from tests.fuzz.targets import Target, written
from unet.files import hdf5
from unet.model.modeldef import ModelDefinition, read_modeldef
from unet.preparation.training_set import TrainingSet, write_training_set
from unet.tracking.ctc_format import read_tracks
from unet.volumes import open_volume

STACK = np.random.default_rng(0).integers(0, 255, (3, 20, 31)).astype(np.uint8)
# Slices of one stack that are read.
SLICES = 20


def _read_volume(path: Path) -> None:
    with open_volume(path) as volume:
        for z in range(min(len(volume), SLICES)):
            volume[z]


def _read_training_set(path: Path) -> None:
    with TrainingSet(path) as training_set:
        for z in range(min(training_set.shape[0], SLICES)):
            for read in (training_set.raw, training_set.labels, training_set.weights):
                read(z)


def _tiff(**options: object) -> Callable[[Path], None]:
    import tifffile

    return lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", **options)


def _picture(form: str) -> Callable[[Path], None]:
    from PIL import Image

    return lambda path: Image.fromarray(STACK[0]).save(path, format=form)


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a/packed", data=STACK, chunks=(2, 10, 31), compression="gzip")
        file["plain"] = np.ones(7)
        file["link"] = h5py.SoftLink("/a/packed")
        file["out"] = h5py.ExternalLink("/etc/hostname", "/x")


def _training_set(path: Path) -> None:
    attributes = {"classes": 2, "grey_low": 0.0, "grey_high": 255.0, "slices": [0, 1, 2]}
    weights = np.ones(STACK.shape, np.float32)
    write_training_set(path, STACK, STACK % 2, weights, attributes=attributes)


def _damage(rng: random.Random, data: bytes) -> bytes:
    if not data or rng.random() < 0.5:
        return change_bytes(rng, data)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _target(read: Callable[[Path], object], write: Callable[[Path], object]) -> Target:
    # A bad stack may be an OSError or a MemoryError, too: what opens it are other libraries.
    return Target(read, lambda: [written(write)], _damage, "", is_bounded=False)


TARGETS = {
    "tiff": _target(_read_volume, _tiff()),
    "tiff_packed": _target(_read_volume, _tiff(compression="zlib", metadata=None)),
    "imagej": _target(_read_volume, _tiff(imagej=True, metadata={"axes": "ZYX"})),
    "ome": _target(_read_volume, _tiff(ome=True, metadata={"axes": "ZYX"}, compression="zlib")),
    "bigtiff": _target(_read_volume, _tiff(bigtiff=True, tile=(16, 16))),
    "png": _target(_read_volume, _picture("PNG")),
    "jpeg": _target(_read_volume, _picture("JPEG")),
    "hdf5": _target(_read_volume, _hdf5),
    "training_set": _target(_read_training_set, _training_set),
    "modeldef": _target(read_modeldef, lambda path: write_modeldef(path, ModelDefinition("text"))),
    "weights_of_unet": _target(hdf5.check_weights, _hdf5),
    "tracks": _target(read_tracks, lambda path: path.write_text("1 0 2 0\n2 3 4 1\n")),
}
