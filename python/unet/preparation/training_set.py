"""The training set: pictures, labels and weights in one HDF5 file.

/raw        (slices, height, width) or (slices, channels, height, width), the type of the source
/labels     uint8 (slices, height, width), the class of each pixel, 255 where not annotated
/weights    float32 (slices, height, width), w(x)
/slices, /balance_slices, /frames
            int64, one-dimensional, where they apply: the slices of the source that were taken,
            those whose class frequencies were balanced, and the numbers of a sequence's frames.
            Older files have them as attributes, which hold no more than 8,190 numbers.

All else that is known of the set are attributes of the file, texts as strings of fixed length.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_path, writing
from unet.files.hdf5 import Hdf5Output, damage_is_told, find, open_hdf5_file
from unet.files.names import PathLike, printable
from unet.files.provenance import KEY, PER_SLICE, TRAINING_SET, mark
from unet.files.version import VERSION
from unet.preparation.labels import IGNORED
from unet.volumes.intensity import scale_intensity

FORMAT = "unet-training-set"
# 2: slices may be normalised.
FORMAT_VERSION = 2
# Packing one takes three times as much.
_LARGEST_CHUNK = 16 << 20


class TrainingSetWriter:
    """Write a training set slice by slice; the file appears, whole, when the context is left.

    Parameters
    ----------
    path : path
        The HDF5 file.
    shape : tuple of int
        (slices, height, width).
    raw_dtype : dtype
        /raw keeps the type of the source.
    attributes : mapping
        Every parameter and source, kept as attributes of the file; lists of a number a slice as
        data sets. Must hold classes, grey_low and grey_high, and may hold normalise: whether each
        slice is, in place of the range from low to high.
    channels : int, optional
        None: /raw is (slices, height, width); else (slices, channels, height, width).
    """

    def __init__(
        self,
        path: PathLike,
        shape: tuple[int, int, int],
        raw_dtype: np.dtype,
        attributes: Mapping[str, Any],
        channels: int | None = None,
    ) -> None:
        self._path = path
        with contextlib.ExitStack() as opened:
            self._output = opened.enter_context(Hdf5Output(opened.enter_context(atomic_path(path))))
            with self._output.changing() as file:
                _lay_out(file, shape, raw_dtype, attributes, channels)
            self._opened = opened.pop_all()

    def write(self, index: int, raw: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        """Write slice `index`."""
        with writing(self._path), self._output.changing() as file:
            file["raw"][index] = raw
            file["labels"][index] = labels
            file["weights"][index] = weights

    def __enter__(self) -> TrainingSetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)


def _lay_out(
    file: h5py.File,
    shape: tuple[int, int, int],
    raw_dtype: np.dtype,
    attributes: Mapping[str, Any],
    channels: int | None,
) -> None:
    slices, height, width = shape
    plane = (height, width) if channels is None else (channels, height, width)
    for name, dtype, inner in (
        ("raw", np.uint8 if raw_dtype == np.bool_ else raw_dtype, plane),
        ("labels", np.uint8, (height, width)),
        ("weights", np.float32, (height, width)),
    ):
        file.create_dataset(
            name,
            (slices,) + inner,
            dtype=dtype,
            chunks=(1,) + inner[:-2] + (_chunk_rows(inner, np.dtype(dtype)), inner[-1]),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
    own = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "unet_version": VERSION,
        KEY: mark(TRAINING_SET),
    }
    for key, value in {**own, **attributes}.items():
        if key in PER_SLICE:
            file[key] = np.asarray(value, np.int64)
        elif isinstance(value, str):
            # Text of no fixed length lies in a heap; a bit of it flipped, the HDF5 library hangs.
            file.attrs[key] = np.bytes_(printable(value).encode())
        else:
            file.attrs[key] = value


def _chunk_rows(plane: tuple[int, ...], dtype: np.dtype) -> int:
    """Return how many rows are packed at once: a slice, unless that takes more than HDF5 should."""
    row = int(np.prod(plane[:-2], dtype=np.int64)) * plane[-1] * dtype.itemsize
    return max(1, min(plane[-2], _LARGEST_CHUNK // row))


def write_training_set(
    path: PathLike,
    raw: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    attributes: Mapping[str, Any],
) -> None:
    """Write a training set from arrays, shaped as in the file; attributes as for its writer."""
    channels = raw.shape[1] if raw.ndim == 4 else None
    with TrainingSetWriter(path, labels.shape, raw.dtype, attributes, channels) as writer:
        for index, images in enumerate(zip(raw, labels, weights)):
            writer.write(index, *images)


class TrainingSet:
    """A training set, read slice by slice.

    Parameters
    ----------
    path : path
        The HDF5 file.

    Attributes
    ----------
    classes : int
        Number of classes K; labels are 0..K-1, 255 where not annotated.
    channels : int
        Channels of the pictures.
    shape : tuple of int
        (slices, height, width).
    intensity_range : tuple of float, optional
        The grey values that become 0 and 1; None: each slice is normalised.
    attributes : dict
        All attributes of the file, and the lists of a number a slice that it holds.

    Raises
    ------
    InputError
        If the file is missing, damaged, no training set, or its arrays do not fit each other or lie
        in another file; on
        reading a slice, if it is damaged, or holds NaN or a label that is no class.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        if not os.path.exists(self.path):
            raise InputError(f"{self.path}: no such training set; make one with tools/prepare.py")
        if os.path.isfile(self.path) and not h5py.is_hdf5(self.path):
            raise InputError(
                f"{self.path}: is not HDF5, and so no training set, or is damaged; make one with "
                f"tools/prepare.py"
            )
        self._file = open_hdf5_file(self.path)
        self._datasets: dict[str, h5py.Dataset] = {}
        try:
            with damage_is_told(self.path):
                self._check()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        attributes = {
            key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for key, value in self._file.attrs.items()
        }
        kind = attributes.get("format")
        if kind != FORMAT:
            raise InputError(
                f"{self.path}: is HDF5 but no training set (attribute format is {kind!r}, "
                f"not {FORMAT!r}); make one with tools/prepare.py"
            )
        for key in ("format_version", "classes", "grey_low", "grey_high"):
            if np.asarray(attributes.get(key, "")).dtype.kind not in "iuf":
                raise InputError(f"{self.path}: the attribute {key} is missing or no number")
        if int(attributes["format_version"]) > FORMAT_VERSION:
            raise InputError(
                f"{self.path}: was written by a newer version (format "
                f"{attributes['format_version']}, this one reads up to {FORMAT_VERSION})"
            )
        for key, kinds in (("raw", "buif"), ("labels", "ui"), ("weights", "uif")):
            dataset = find(self._file, key)
            if not isinstance(dataset, h5py.Dataset):
                raise InputError(f"{self.path}: has no dataset /{key}")
            if dataset.dtype.kind not in kinds:
                raise InputError(f"{self.path}: /{key} holds {dataset.dtype}, not its numbers")
            self._datasets[key] = dataset
        for key in PER_SLICE:
            dataset = find(self._file, key)
            if isinstance(dataset, h5py.Dataset):
                is_list = len(dataset.shape) == 1 and dataset.dtype.kind == "i"
                # No more than the file holds: a size costs nothing to claim.
                if not is_list or dataset.id.get_storage_size() < dataset.size:
                    raise InputError(f"{self.path}: /{key} is no list of numbers")
                attributes[key] = dataset[()]
        self.attributes = attributes
        shape, raw = self._datasets["labels"].shape, self._datasets["raw"].shape
        if len(shape) != 3 or len(raw) not in (3, 4) or (raw[0],) + raw[-2:] != shape:
            raise InputError(f"{self.path}: /raw is {raw} but /labels is {shape}")
        if self._datasets["weights"].shape != shape:
            raise InputError(
                f"{self.path}: /weights is {self._datasets['weights'].shape} but /labels is {shape}"
            )
        if 0 in shape + raw:
            raise InputError(f"{self.path}: is empty: /raw is {raw}")
        self.shape = shape
        self.channels = raw[1] if len(raw) == 4 else 1
        self.classes = int(attributes["classes"])
        low, high = float(attributes["grey_low"]), float(attributes["grey_high"])
        if not 2 <= self.classes <= IGNORED or not low < high:
            raise InputError(
                f"{self.path}: {self.classes} classes, grey values {(low, high)}: no sense"
            )
        self.intensity_range = None if attributes.get("normalise", False) else (low, high)

    def _read(self, key: str, index: int) -> np.ndarray:
        try:
            return self._datasets[key][index]
        except MemoryError:
            raise
        except Exception as error:
            # As of a damaged file: see `damage_is_told`.
            raise InputError(
                f"{self.path}: slice {index} of /{key} is damaged ({error}); make it anew with "
                "tools/prepare.py"
            ) from None

    def raw(self, index: int) -> np.ndarray:
        """Return a picture for the network: float32 (channels, height, width), range to [0, 1]."""
        image = self._read("raw", index)
        self._demand(np.isfinite(image).all(), "raw", index, "holds NaN or infinite values")
        return scale_intensity(image, self.intensity_range).reshape(
            (self.channels,) + self.shape[1:]
        )

    def labels(self, index: int) -> np.ndarray:
        """Return the classes of a slice: uint8 (height, width), 255 where not annotated."""
        classes = self._read("labels", index)
        known = (classes < self.classes) | (classes == IGNORED)
        self._demand(known.all(), "labels", index, f"holds other classes than {self.classes}")
        return classes.astype(np.uint8, copy=False)

    def weights(self, index: int) -> np.ndarray:
        """Return w(x) of a slice: float32 (height, width)."""
        weights = self._read("weights", index)
        usable = np.isfinite(weights).all() and (weights >= 0).all()
        self._demand(usable, "weights", index, "holds NaN, infinite or negative values")
        return weights.astype(np.float32, copy=False)

    def demand_annotated(self, slices: Sequence[int], *, classes: int) -> None:
        """Refuse slices from which nothing can be learnt, or on which nothing can be tested.

        Parameters
        ----------
        slices : sequence of int
            Read only as far as the answer is not known.
        classes : int
            How many classes must have a pixel that is annotated and weighs more than 0: 2 to learn
            from, 1 to test on.

        Raises
        ------
        InputError
        """
        found: set[int] = set()
        for index in slices:
            found.update(np.unique(self.labels(index)[self.weights(index) > 0]).tolist())
            found.discard(IGNORED)
            if len(found) >= classes:
                return
        which = f"{self.path}: in the slices {min(slices)} to {max(slices)}"
        if not found:
            raise InputError(
                f"{which} no pixel is annotated and weighs more than 0, so there is nothing to "
                f"{'learn from' if classes > 1 else 'test on'}; choose other slices"
            )
        raise InputError(
            f"{which} all pixels that count are of class {found.pop()}, and a network learns to "
            f"tell classes apart; choose other slices"
        )

    def _demand(self, holds: bool, key: str, index: int, complaint: str) -> None:
        if not holds:
            raise InputError(f"{self.path}: slice {index} of /{key} {complaint}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TrainingSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
