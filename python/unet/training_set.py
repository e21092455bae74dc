"""The training set: pictures, labels and weights in one HDF5 file."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Mapping, Optional, Tuple, Type, Union

import h5py
import numpy as np

from unet import __version__
from unet.errors import InputError
from unet.program import atomic_path

FORMAT = "unet-training-set"
FORMAT_VERSION = 1
PathLike = Union[str, "os.PathLike[str]"]


class TrainingSetWriter:
    """Write a training set slice by slice; the file appears, whole, when the context is left.

    Parameters
    ----------
    path : path
        The HDF5 file.
    slices, height, width : int
    raw_dtype : dtype
        /raw keeps the type of the source.
    channels : int, optional
        None: /raw is (slices, height, width); else (slices, channels, height, width).
    attributes : mapping
        Every parameter and source; must hold classes, grey_low and grey_high.
    """

    def __init__(
        self,
        path: PathLike,
        shape: Tuple[int, int, int],
        raw_dtype: np.dtype,
        attributes: Mapping[str, Any],
        channels: Optional[int] = None,
    ) -> None:
        self._target = atomic_path(path)
        self._file = h5py.File(str(self._target.__enter__()), "w")
        slices, height, width = shape
        plane = (height, width) if channels is None else (channels, height, width)
        for name, dtype, inner in (
            ("raw", raw_dtype, plane),
            ("labels", np.uint8, (height, width)),
            ("weights", np.float32, (height, width)),
        ):
            self._file.create_dataset(
                name, (slices,) + inner, dtype=dtype, chunks=(1,) + inner, compression="gzip",
                compression_opts=1, shuffle=True,
            )
        attrs = self._file.attrs
        attrs["format"] = FORMAT
        attrs["format_version"] = FORMAT_VERSION
        attrs["unet_version"] = __version__
        for key, value in attributes.items():
            attrs[key] = value

    def write(self, index: int, raw: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        """Write slice `index`."""
        self._file["raw"][index] = raw
        self._file["labels"][index] = labels
        self._file["weights"][index] = weights

    def __enter__(self) -> TrainingSetWriter:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._file.close()
        self._target.__exit__(kind, error, trace)


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
    grey_range : tuple of float
        The grey values that become 0 and 1.
    attributes : dict
        All attributes of the file.

    Raises
    ------
    InputError
        If the file is missing, truncated, no training set, or its arrays do not fit each other.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        if not os.path.exists(self.path):
            raise InputError(
                f"{self.path}: no such training set; make one with tools/prepare.py"
            )
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read as HDF5 ({error}); make it anew with tools/prepare.py"
            ) from None
        try:
            self._check()
        except Exception:
            self._file.close()
            raise

    def _check(self) -> None:
        attributes = dict(self._file.attrs)
        kind = attributes.get("format")
        kind = kind.decode() if isinstance(kind, bytes) else kind
        if kind != FORMAT:
            raise InputError(
                f"{self.path}: is HDF5 but no training set (attribute format is {kind!r}, "
                f"not {FORMAT!r}); make one with tools/prepare.py"
            )
        if int(attributes.get("format_version", 0)) > FORMAT_VERSION:
            raise InputError(
                f"{self.path}: was written by a newer version (format "
                f"{attributes['format_version']}, this one reads up to {FORMAT_VERSION})"
            )
        for key in ("raw", "labels", "weights"):
            if key not in self._file:
                raise InputError(f"{self.path}: has no dataset /{key}")
        for key in ("classes", "grey_low", "grey_high"):
            if key not in attributes:
                raise InputError(f"{self.path}: has no attribute {key}")
        self.attributes = attributes
        self._raw, self._labels, self._weights = (
            self._file[key] for key in ("raw", "labels", "weights")
        )
        shape = self._labels.shape
        raw = self._raw.shape
        if len(shape) != 3 or len(raw) not in (3, 4) or (raw[0],) + raw[-2:] != shape:
            raise InputError(f"{self.path}: /raw is {raw} but /labels is {shape}")
        if self._weights.shape != shape:
            raise InputError(f"{self.path}: /weights is {self._weights.shape} but /labels is {shape}")
        if 0 in shape:
            raise InputError(f"{self.path}: is empty: /labels is {shape}")
        self.shape = shape
        self.channels = raw[1] if len(raw) == 4 else 1
        self.classes = int(attributes["classes"])
        self.grey_range = (float(attributes["grey_low"]), float(attributes["grey_high"]))

    def raw(self, index: int) -> np.ndarray:
        """Return a picture as network input: float32 (channels, height, width), grey range to [0, 1]."""
        low, high = self.grey_range
        picture = self._raw[index].astype(np.float32)
        picture = (picture - np.float32(low)) / np.float32(high - low)
        return picture.reshape((self.channels,) + self.shape[1:])

    def labels(self, index: int) -> np.ndarray:
        """Return the classes of a slice: uint8 (height, width), 255 where not annotated."""
        return self._labels[index]

    def weights(self, index: int) -> np.ndarray:
        """Return w(x) of a slice: float32 (height, width)."""
        return self._weights[index]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TrainingSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
