"""Fuzz the readers of stacks and training sets: python -m tests.fuzz.volumes --seconds 600.

Valid files have bits flipped, pieces cut out and their ends cut off. A reader may only accept one
or raise InputError, OSError or MemoryError, in a line that names the file; the process neither ends
nor hangs. What does otherwise is kept.
"""

from __future__ import annotations

import contextlib
import logging
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from tests.caffe_unet import write_modeldef
from tests.fuzz import campaign
from tests.fuzz.mutations import change_bytes
from unet.errors import InputError
from unet.files import hdf5
from unet.model.modeldef import ModelDefinition, read_modeldef
from unet.preparation.training_set import TrainingSet, write_training_set
from unet.tracking.ctc_format import read_tracks
from unet.volumes import open_volume, write_volume

STACK = np.random.default_rng(0).integers(0, 255, (3, 20, 31)).astype(np.uint8)
# A damaged header may well ask for more; then there is a MemoryError.
MEMORY = 8 << 30
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


#: Of each reader: what reads, and what writes a valid file.
TARGETS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "tiff": (_read_volume, _tiff()),
    "tiff_packed": (_read_volume, _tiff(compression="zlib", metadata=None)),
    "imagej": (_read_volume, _tiff(imagej=True, metadata={"axes": "ZYX"})),
    "ome": (_read_volume, _tiff(ome=True, metadata={"axes": "ZYX"}, compression="zlib")),
    "bigtiff": (_read_volume, _tiff(bigtiff=True, tile=(16, 16))),
    "png": (_read_volume, _picture("PNG")),
    "jpeg": (_read_volume, _picture("JPEG")),
    "hdf5": (_read_volume, _hdf5),
    "training_set": (_read_training_set, _training_set),
    "modeldef": (read_modeldef, lambda path: write_modeldef(path, ModelDefinition("text"))),
    "weights": (hdf5.check_weights, _hdf5),
    "zarr": (_read_volume, lambda path: write_volume(f"{path}.zarr", STACK)),
    "tracks": (read_tracks, lambda path: path.write_text("1 0 2 0\n2 3 4 1\n")),
}


def verdict(read: Callable[[Path], object], path: Path) -> str:
    """Read a file; return what is wrong with how that went, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except InputError as error:
        told = str(error)
        if path.name not in told:
            return f"no file in the message: {told[:200]}"
        return f"several lines: {told[:200]}" if "\n" in told else ""
    except (OSError, MemoryError):
        return ""
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
    return ""


def _damage(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return change_bytes(rng, data)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> dict[str, object]:
    """Fuzz one reader in this process; return how often, and how many finds there were.

    Parameters
    ----------
    name : str
        Of the target.
    seconds : float
        Of processor time.
    seed : int
    folder : Path
        For the file that is read, and the finds.
    """
    read, write = TARGETS[name]
    rng = random.Random(f"{name} {seed}")
    path = folder / f"{name}.file"
    write(path)
    directory = path.with_name(f"{path.name}.zarr")
    path = directory if directory.is_dir() else path
    parts = (
        [part for part in sorted(path.rglob("*")) if part.is_file()] if path.is_dir() else [path]
    )
    whole = {part: part.read_bytes() for part in parts}
    assert not verdict(read, path)
    finds: dict[str, str] = {}
    executions, end = 0, time.process_time() + seconds
    while time.process_time() < end:
        part = rng.choice(parts)
        part.write_bytes(_damage(rng, whole[part]))
        wrong = verdict(read, path)
        executions += 1
        kind = wrong[:40]
        if wrong and kind not in finds:
            finds[kind] = wrong
            kept = folder / f"{name}-{len(finds)}-{seed}"
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, kept)
            print(f"{kept}: {wrong[:300]}", file=sys.stderr, flush=True)
        part.write_bytes(whole[part])
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return {"reader": name, "executions": executions, "finds": len(finds)}


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    yield


def main() -> int:
    """Run the campaign."""
    about = __doc__.splitlines()[0]
    return campaign.run("tests.fuzz.volumes", about, list(TARGETS), fuzz, _environment)


if __name__ == "__main__":
    sys.exit(main())
