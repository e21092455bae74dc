"""Stacks of pictures in files: TIFF, PNG, JPEG and folders of them, read slice by slice."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from unet.errors import InputError
from unet.names import natural_key

PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
# TIFF dialects whose page order only tifffile's series know; plain files are read page by page.
_TIFF_DIALECTS = {"imagej", "ome", "shaped", "lsm", "stk", "fluoview", "nih", "mdgel", "scn"}
_DESCRIPTION = 270


class Volume:
    """A stack that lies in a file; each slice is read when it is asked for.

    Attributes
    ----------
    path : str
        Where it lies, for messages.
    shape : tuple of int
        (slices, height, width), or (slices, channels, height, width) for pictures with channels.
    dtype : numpy.dtype
        Of the pixels, in the byte order of this machine.

    Notes
    -----
    `volume[z]` is a new array, (height, width) or (channels, height, width); `volume[a:b]` stacks
    several; iterating gives slice after slice. Pixels that are NaN or infinite raise `InputError`.
    """

    def __init__(
        self,
        path: str,
        shape: Sequence[int],
        dtype: np.dtype,
        read: Callable[[int], np.ndarray],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self._read = read
        self.close = close
        if 0 in self.shape:
            close()
            raise InputError(f"{path}: is empty: its shape is {self.shape}")
        if self.dtype.kind not in "buif":
            close()
            raise InputError(f"{path}: holds {self.dtype} instead of real numbers")

    @property
    def channels(self) -> int | None:
        """Number of channels; None where the stack is (slices, height, width)."""
        return self.shape[1] if len(self.shape) == 4 else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if isinstance(index, slice):
            wanted = range(*index.indices(len(self)))
            stack = np.empty((len(wanted),) + self.shape[1:], self.dtype)
            for row, z in enumerate(wanted):
                stack[row] = self[z]
            return stack
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path}: there is no slice {index}, only {len(self)}")
        index %= len(self)
        try:
            picture = np.asarray(self._read(index))
        except (InputError, MemoryError):
            raise
        except Exception as error:
            # What a decoder raises on a damaged file is anybody's guess; here all means the same.
            reason = str(error).strip() or type(error).__name__
            raise InputError(
                f"{self.path}: slice {index} cannot be read ({reason}); is the file whole?"
            ) from None
        if picture.shape != self.shape[1:]:
            raise InputError(
                f"{self.path}: slice {index} is {picture.shape}, but slice 0 is {self.shape[1:]}"
            )
        if picture.dtype.kind == "f" and not np.isfinite(picture).all():
            raise InputError(f"{self.path}: slice {index} holds NaN or infinite values")
        return picture.astype(self.dtype, copy=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[z] for z in range(len(self)))

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_tiff(path: Path) -> Volume:
    """Open a TIFF: one page or many, ImageJ or OME hyperstack, any depth and compression.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    Volume
        Time points and slices follow each other; channels and samples (RGB) are channels.

    Raises
    ------
    InputError
        If the file is no TIFF, is cut off, or holds pictures of several sizes.
    """
    import tifffile

    try:
        tiff = tifffile.TiffFile(str(path))
    except Exception as error:
        # Like the decoders: a damaged header surfaces as whatever it first breaks.
        raise InputError(f"{path}: cannot be read as TIFF ({error}); is the file whole?") from None
    try:
        return _tiff_volume(path, tiff)
    except InputError:
        tiff.close()
        raise
    except Exception as error:
        tiff.close()
        raise InputError(f"{path}: cannot be read as TIFF ({error}); is the file whole?") from None


def _tiff_volume(path: Path, tiff: object) -> Volume:
    _check_page_chain(path, tiff)
    page = tiff.pages[0]
    lead, lead_axes = (len(tiff.pages),), "I"
    offset, frames = None, tiff.pages
    if _TIFF_DIALECTS & set(tiff.flags):
        if len(tiff.series) != 1:
            raise InputError(
                f"{path}: holds {len(tiff.series)} separate pictures or stacks; save one as a file"
            )
        series = tiff.series[0]
        page, frames = series.keyframe, series.pages
        # The tifffile of genuine Caffe's Python has the older name.
        offset = series.dataoffset if hasattr(series, "dataoffset") else series.offset
        inner = len(page.axes)
        lead, lead_axes = series.shape[:-inner], series.axes[:-inner]
    if "".join(sorted(page.axes.replace("S", ""))) != "XY":
        raise InputError(f"{path}: has pages with the axes {page.axes}, not height and width")
    if len(lead) == 2 and lead_axes[1] == "Q":
        lead_axes = lead_axes[0] + "C"
    count = int(np.prod(lead, dtype=np.int64))
    frame_bytes = int(np.prod(page.shape, dtype=np.int64)) * page.dtype.itemsize
    stored = page.dtype.newbyteorder(tiff.byteorder)
    if offset is not None and offset + count * frame_bytes > path.stat().st_size:
        raise InputError(
            f"{path}: is cut off: {count} slices need {offset + count * frame_bytes} bytes, the "
            f"file has {path.stat().st_size}"
        )
    order = np.arange(count).reshape(lead)
    channel_axes = [k for k, axis in enumerate(lead_axes) if axis == "C"]
    order = np.moveaxis(order, channel_axes, range(-len(channel_axes), 0))
    per_slice = int(np.prod([lead[k] for k in channel_axes], dtype=np.int64))
    order = order.reshape(-1, per_slice)
    samples = page.axes.find("S")

    def frame(number: int) -> np.ndarray:
        if offset is None:
            picture = frames[number].asarray()
        else:
            with open(path, "rb") as file:
                file.seek(offset + number * frame_bytes)
                picture = np.frombuffer(file.read(frame_bytes), stored).reshape(page.shape)
        return picture if samples < 0 else np.moveaxis(picture, samples, 0)

    plane = tuple(size for size, axis in zip(page.shape, page.axes) if axis != "S")
    if samples < 0 and not channel_axes:
        return Volume(str(path), (count,) + plane, page.dtype, frame, tiff.close)
    channels = per_slice * (1 if samples < 0 else page.shape[samples])

    def read(z: int) -> np.ndarray:
        pictures = [frame(number) for number in order[z]]
        return np.concatenate([p.reshape((-1,) + p.shape[-2:]) for p in pictures])

    return Volume(str(path), (len(order), channels) + plane, page.dtype, read, tiff.close)


def _check_page_chain(path: Path, tiff: object) -> None:
    # tifffile only logs that pages or what describes them lie beyond the end of the file, and goes
    # on without.
    count = len(tiff.pages)
    codes, _ = _directory(path, tiff, tiff.pages[0].offset)
    lost = _DESCRIPTION in codes and _DESCRIPTION not in tiff.pages[0].tags
    _, following = _directory(path, tiff, tiff.pages[count - 1].offset)
    if lost or following:
        raise InputError(
            f"{path}: is cut off: {count} pages are there, something after them is not"
        )


def _directory(path: Path, tiff: object, offset: int) -> tuple[list[int], int]:
    """Return the codes of the tags of a page and the offset of the page after it, 0 for none."""
    form = tiff.tiff
    with open(path, "rb") as file:
        file.seek(offset)
        count = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
        tags = file.read(count * form.tagsize)
        following = struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]
    code = tiff.byteorder + "H"
    return [struct.unpack_from(code, tags, k * form.tagsize)[0] for k in range(count)], following


def open_picture(path: Path) -> Volume:
    """Open a PNG or JPEG as a stack of one slice.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    Volume
        (1, height, width), or (1, channels, height, width) for colour. A palette gives its indices,
        as label pictures mean them.

    Raises
    ------
    InputError
        If it is neither, is damaged, or is colour of 16 bit.
    """
    from PIL import Image

    def load() -> np.ndarray:
        with warnings.catch_warnings():
            # Pictures of 10,000 x 10,000 pixels are usual in electron microscopy.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.format not in ("PNG", "JPEG"):
                    raise InputError(f"{path}: is neither TIFF, PNG, JPEG, HDF5 nor Zarr")
                raw_mode = str(picture.tile[0][-1]) if picture.tile else ""
                if "16" in raw_mode and picture.mode in ("RGB", "RGBA", "LA"):
                    raise InputError(f"{path}: is colour of 16 bit; save it as TIFF")
                pixels = np.asarray(picture)
        return pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    try:
        pixels = load()
    except (InputError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: is neither TIFF, PNG, JPEG, HDF5 nor Zarr") from None
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({error}); is the file whole?") from None
    return Volume(str(path), (1,) + pixels.shape, pixels.dtype, lambda z: pixels)


def open_folder(path: Path) -> Volume:
    """Open a folder of PNG, TIFF or JPEG files, one slice each, in natural order of the names.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        If it holds no pictures, several formats, or a file with several slices.
    """
    with os.scandir(path) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower().endswith(PICTURE_SUFFIXES)
        ]
    if not names:
        raise InputError(f"{path}: the folder holds no PNG, TIFF or JPEG files and is no Zarr")
    kinds = sorted({os.path.splitext(name)[1].lower()[:4] for name in names})
    if len(kinds) > 1:
        raise InputError(f"{path}: holds {' and '.join(kinds)} files; leave one kind in the folder")
    names.sort(key=natural_key)

    def one(name: str) -> Volume:
        file = path / name
        volume = open_tiff(file) if kinds[0] == ".tif" else open_picture(file)
        if len(volume) != 1:
            volume.close()
            raise InputError(f"{file}: holds {len(volume)} slices; in a folder each file is one")
        return volume

    with one(names[0]) as first:
        shape, dtype = first.shape[1:], first.dtype

    def read(z: int) -> np.ndarray:
        with one(names[z]) as volume:
            if volume.dtype != dtype:
                raise InputError(f"{volume.path}: is {volume.dtype}, but {names[0]} is {dtype}")
            if volume.shape[1:] != shape:
                raise InputError(f"{volume.path}: is {volume.shape[1:]}, but {names[0]} is {shape}")
            return volume[0]

    return Volume(str(path), (len(names),) + shape, dtype, read)
