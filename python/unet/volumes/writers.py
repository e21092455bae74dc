"""Write stacks slice by slice: TIFF, PNG folder, HDF5, Zarr. The file is whole or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_folder, atomic_path, writing
from unet.files.hdf5 import Hdf5Output
from unet.files.names import PathLike
from unet.files.provenance import KEY, STACK, mark, refuse_foreign, save_marked_png

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
# Leaves room below 4 GiB for the tags of the pages.
_CLASSIC_TIFF_BYTES = (1 << 32) - (1 << 25)
Put = Callable[[int, np.ndarray], None]


class VolumeWriter:
    """Write a stack slice after slice; it appears under its name, whole, when the context is left.

    Parameters
    ----------
    path : path
        The suffix decides: .tif and .tiff a TIFF that ImageJ opens (BigTIFF from 4 GiB on); .h5,
        .hdf5 and .hdf HDF5; .zarr a Zarr directory; .png one image; no suffix a folder of PNG.
    shape : sequence of int
        (slices, height, width) or (slices, channels, height, width).
    dtype : dtype
        PNG holds uint8, uint16 and bool only.
    dataset : str
        Name of the dataset in HDF5.
    overwrite : bool
        Whether a folder (of PNG, or Zarr) is replaced that holds other things than a stack that
        this class has written.

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
    An exception inside the context leaves what was there before. One slice is in memory at a time.
    The file carries the mark of `unet.files.provenance`.
    """

    def __init__(
        self,
        path: PathLike,
        shape: Sequence[int],
        dtype: np.dtype,
        *,
        dataset: str = "volume",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self.written = 0
        if len(self.shape) not in (3, 4) or 0 in self.shape:
            raise ValueError(f"a stack of shape {self.shape} cannot be written")
        suffix = self.path.suffix.lower()
        if suffix in ("", ".zarr") and not overwrite:
            refuse_foreign(self.path, STACK)
        if suffix in (".tif", ".tiff"):
            opened = _tiff(self.path, self.shape, self.dtype)
        elif suffix in (".h5", ".hdf5", ".hdf"):
            opened = _hdf5(self.path, self.shape, self.dtype, dataset)
        elif suffix == ".zarr":
            opened = _zarr(self.path, self.shape, self.dtype)
        elif suffix in (".png", ""):
            _check_png(self.path, self.shape, self.dtype)
            opened = _png(self.path) if suffix else _png_folder(self.path, self.shape[0])
        else:
            raise InputError(
                f"{self.path}: stacks are written as .tif, .h5, .zarr, .png or a folder (no "
                f"suffix), not as {suffix}"
            )
        self._stack = contextlib.ExitStack()
        self._put: Put = self._stack.enter_context(opened)

    def write(self, image: np.ndarray) -> None:
        """Write the next slice, (height, width) or (channels, height, width).

        A ValueError if its shape is another or all are written; an InputError if it cannot be.
        """
        if image.shape != self.shape[1:] or self.written == self.shape[0]:
            raise ValueError(
                f"slice {self.written} of shape {image.shape} does not fit into {self.shape}"
            )
        with writing(self.path):
            self._put(self.written, np.ascontiguousarray(image, self.dtype))
        self.written += 1

    def __enter__(self) -> VolumeWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and self.written != self.shape[0]:
            error = ValueError(
                f"{self.path}: {self.written} of {self.shape[0]} slices were written"
            )
            self._stack.__exit__(type(error), error, None)
            raise error
        self._stack.__exit__(kind, error, trace)


def write_volume(
    path: PathLike, volume: np.ndarray, *, dataset: str = "volume", overwrite: bool = False
) -> None:
    """Write a stack (slices, [channels,] height, width).

    Other parameters and errors are those of `VolumeWriter`.
    """
    with VolumeWriter(
        path, volume.shape, volume.dtype, dataset=dataset, overwrite=overwrite
    ) as writer:
        for image in volume:
            writer.write(image)


@contextlib.contextmanager
def _tiff(path: Path, shape: Sequence[int], dtype: np.dtype) -> Iterator[Put]:
    import tifffile

    stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype
    nbytes = int(np.prod(shape, dtype=np.int64)) * stored.itemsize
    big = nbytes > _CLASSIC_TIFF_BYTES
    axes = "ZYX" if len(shape) == 3 else "ZCYX"
    with atomic_path(path) as temporary:
        if shape[-1] == 1:
            # tifffile takes a last axis of one pixel for samples, unless given page by page.
            if len(shape) == 4:
                raise InputError(f"{path}: TIFF holds no channels 1 pixel wide; write .h5 instead")
            with tifffile.TiffWriter(str(temporary), bigtiff=big) as tiff:
                yield lambda z, image: tiff.write(
                    _visible(image),
                    photometric="minisblack",
                    metadata=None,
                    contiguous=False,
                    software=mark(STACK),
                )
            return
        # Pixels lie one after the other, so the file is laid out first and slices are put into it.
        # Not through a memory map: on a full disk that ends in a signal instead of an error.
        imagej = not big and stored.name in _IMAGEJ_TYPES
        with tifffile.TiffWriter(str(temporary), bigtiff=big, imagej=imagej) as tiff:
            offset, _ = tiff.write(
                shape=tuple(shape),
                dtype=stored,
                photometric="minisblack",
                metadata={"axes": axes},
                software=mark(STACK),
                returnoffset=True,
            )
        with open(temporary, "r+b") as file:

            def put(z: int, image: np.ndarray) -> None:
                pixels = _visible(image)
                file.seek(offset + z * pixels.nbytes)
                file.write(pixels.tobytes())

            yield put


@contextlib.contextmanager
def _hdf5(path: Path, shape: Sequence[int], dtype: np.dtype, dataset: str) -> Iterator[Put]:
    # Probabilities hardly shrink; labels do, to a hundredth.
    packing = {} if dtype.kind == "f" else {"compression": "gzip", "compression_opts": 1}
    with atomic_path(path) as temporary, Hdf5Output(temporary) as output:
        with output.changing() as file:
            file.attrs[KEY] = mark(STACK)
            array = file.create_dataset(
                dataset, tuple(shape), dtype, chunks=(1,) + tuple(shape[1:]), **packing
            )

        def put(z: int, image: np.ndarray) -> None:
            with output.changing():
                array[z] = image

        yield put


@contextlib.contextmanager
def _zarr(path: Path, shape: Sequence[int], dtype: np.dtype) -> Iterator[Put]:
    try:
        import zarr
    except ImportError:
        raise InputError(f"{path}: writing Zarr needs the package zarr; install it") from None
    with atomic_folder(path) as temporary:
        array = zarr.open(
            str(temporary),
            mode="w",
            shape=tuple(shape),
            dtype=dtype,
            chunks=(1,) + tuple(shape[1:]),
        )
        array.attrs[KEY] = mark(STACK)

        def put(z: int, image: np.ndarray) -> None:
            array[z] = image

        yield put


def _check_png(path: Path, shape: Sequence[int], dtype: np.dtype) -> None:
    if dtype.name not in ("uint8", "uint16", "bool"):
        raise InputError(f"{path}: PNG holds 8 or 16 bit, not {dtype}; write .tif or .h5 instead")
    if len(shape) == 4:
        raise InputError(f"{path}: PNG files hold no stack of channels; write .tif or .h5 instead")
    if path.suffix and shape[0] > 1:
        raise InputError(
            f"{path}: one PNG holds one slice, not {shape[0]}; name a folder (no suffix)"
        )


def _save_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    save_marked_png(path, Image.fromarray(_visible(image)), STACK)


def _visible(image: np.ndarray) -> np.ndarray:
    # Masks as 0 and 255: that is how viewers show them and how ISBI's labels are.
    return image.astype(np.uint8) * 255 if image.dtype == np.bool_ else image


@contextlib.contextmanager
def _png(path: Path) -> Iterator[Put]:
    with atomic_path(path) as temporary:
        yield lambda z, image: _save_png(temporary, image)


@contextlib.contextmanager
def _png_folder(path: Path, slices: int) -> Iterator[Put]:
    digits = max(4, len(str(slices - 1)))
    with atomic_folder(path) as temporary:
        yield lambda z, image: _save_png(temporary / f"slice_{z:0{digits}d}.png", image)
