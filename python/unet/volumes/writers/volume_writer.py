"""Write stacks by slices or parts of them: TIFF, PNG, HDF5, Zarr. The file is whole or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.files.atomic import writing
from unet.files.names import PathLike
from unet.files.provenance import STACK, refuse_foreign
from unet.volumes.calibration import Calibration
from unet.volumes.writers.hdf5 import open_hdf5_output
from unet.volumes.writers.layout import Layout, Put
from unet.volumes.writers.ome_zarr import open_zarr_output
from unet.volumes.writers.png import open_png, open_png_folder
from unet.volumes.writers.tiff import open_tiff_output

_FORMATS = {
    ".tif": open_tiff_output,
    ".tiff": open_tiff_output,
    ".h5": open_hdf5_output,
    ".hdf5": open_hdf5_output,
    ".hdf": open_hdf5_output,
    ".zarr": open_zarr_output,
    ".png": open_png,
    "": open_png_folder,
}


class VolumeWriter:
    """Write a stack, in any order; it appears under its name, whole, when the context is left.

    Parameters
    ----------
    path : path
        The suffix decides: .tif and .tiff a TIFF that ImageJ opens (from 4 GiB on, and of types
        that ImageJ lacks, an OME-TIFF, then BigTIFF); .h5, .hdf5 and .hdf HDF5; .zarr a Zarr
        directory; .png one image; no suffix a folder of PNG.
    shape : sequence of int
        (slices, height, width) or (slices, channels, height, width).
    dtype : dtype
        PNG holds uint8, uint16 and bool only.
    dataset : str
        Name of the dataset in HDF5.
    overwrite : bool
        Whether a folder (of PNG, or Zarr) is replaced that holds other things than a stack that
        this class has written.
    calibration : Calibration
        Goes into each format's own place, as far as the format has one.
    blocks : (int, int), optional
        Height and width of the chunks of HDF5 and Zarr; by default a slice, at most 4 MB.
    note : mapping, optional
        Provenance, of what JSON holds; goes into the format's own metadata.
    labels : bool, optional
        Whether the values are numbers of classes or objects; by default those of type bool are.
    zarr_format : {2, 3}, optional
        Of .zarr: 2 is NGFF 0.4, 3 is NGFF 0.5; by default the newest that the package zarr writes.
    numbers : sequence of int, optional
        Of the slices, in the names of a folder's files; by default they count from 0.

    Raises
    ------
    InputError
        If the suffix is none of these, the format cannot hold such a stack, such a folder is there,
        or it cannot be written: the disk is full, say.

    Examples
    --------
    with VolumeWriter("out.tif", (30, 512, 512), np.float32) as out:
        for image in images:
            out.write(image)

    Notes
    -----
    An exception inside the context leaves what was there before. One slice is in memory at a time;
    of PNG, more if slices come in parts. The file carries the mark of `unet.files.provenance`.
    """

    def __init__(
        self,
        path: PathLike,
        shape: Sequence[int],
        dtype: np.dtype,
        *,
        dataset: str = "volume",
        overwrite: bool = False,
        calibration: Calibration | None = None,
        blocks: tuple[int, int] | None = None,
        note: Mapping[str, Any] | None = None,
        labels: bool | None = None,
        zarr_format: int | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.path = Path(path)
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self.written = 0
        self._pixels = 0
        if len(self.shape) not in (3, 4) or 0 in self.shape:
            raise ValueError(f"a stack of shape {self.shape} cannot be written")
        suffix = self.path.suffix.lower()
        if suffix not in _FORMATS:
            raise InputError(
                f"{self.path}: stacks are written as .tif, .h5, .zarr, .png or a folder (no "
                f"suffix), not as {suffix}"
            )
        if suffix in ("", ".zarr") and not overwrite:
            refuse_foreign(self.path, STACK)
        layout = Layout(
            self.path,
            self.shape,
            self.dtype,
            calibration=calibration or Calibration(),
            blocks=blocks,
            note=note or {},
            dataset=dataset,
            labels=self.dtype == np.bool_ if labels is None else labels,
            zarr_format=zarr_format,
            numbers=numbers,
        )
        self._stack = contextlib.ExitStack()
        self._put: Put = self._stack.enter_context(_FORMATS[suffix](layout))

    def write(self, image: np.ndarray) -> None:
        """Write the next slice, (height, width) or (channels, height, width).

        A ValueError if its shape is another or all are written; an InputError if it cannot be.
        """
        if image.shape != self.shape[1:] or self.written == self.shape[0]:
            raise ValueError(
                f"slice {self.written} of shape {image.shape} does not fit into {self.shape}"
            )
        height, width = self.shape[-2:]
        self._write(self.written, slice(0, height), slice(0, width), image)
        self.written += 1

    def put(self, z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Write a part of slice z; every pixel is put once, in any order.

        Parameters
        ----------
        z : int
        rows, columns : slice
            With start and stop, step 1. Cheapest are multiples of `blocks`.
        values : ndarray, shape ([channels,] rows, columns)

        Raises
        ------
        ValueError
            If the part does not lie in the stack, or the values are of another shape.
        InputError
            If it cannot be written.
        """
        size = (rows.stop - rows.start, columns.stop - columns.start)
        inside = (
            0 <= z < self.shape[0]
            and 0 <= rows.start < rows.stop <= self.shape[-2]
            and 0 <= columns.start < columns.stop <= self.shape[-1]
        )
        if not inside or values.shape != self.shape[1:-2] + size:
            raise ValueError(
                f"{values.shape} at slice {z}, {rows}, {columns} does not fit into {self.shape}"
            )
        self._write(z, rows, columns, values)
        self._pixels += size[0] * size[1]

    def _write(self, z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        with writing(self.path):
            self._put(z, rows, columns, np.ascontiguousarray(values, self.dtype))

    def __enter__(self) -> VolumeWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        area = self.shape[-2] * self.shape[-1]
        there = self.written * area + self._pixels
        if kind is None and there < self.shape[0] * area:
            error = ValueError(
                f"{self.path}: {there // area} of {self.shape[0]} slices were written"
            )
            self._stack.__exit__(type(error), error, None)
            raise error
        self._stack.__exit__(kind, error, trace)


def write_volume(path: PathLike, volume: np.ndarray, **options: Any) -> None:
    """Write a stack (slices, [channels,] height, width).

    Options and errors are those of `VolumeWriter`.
    """
    with VolumeWriter(path, volume.shape, volume.dtype, **options) as writer:
        for image in volume:
            writer.write(image)
