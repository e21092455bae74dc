"""One opener a format: TIFF, PNG and JPEG, folders of them, HDF5, Zarr, each read slice by slice."""

from __future__ import annotations

import os
import re
import struct
import warnings
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Tuple, Union

import h5py
import numpy as np

from unet.errors import InputError

PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
ZARR_MARKS = (".zarray", ".zgroup", "zarr.json")
# A chunk of HDF5 or Zarr may span many slices; so much of it is kept rather than decoded again for each.
SLAB_BYTES = 256 << 20
# TIFF dialects whose page order only tifffile's series know; plain files are read page by page.
_TIFF_DIALECTS = {"imagej", "ome", "shaped", "lsm", "stk", "fluoview", "nih", "mdgel", "scn"}


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
    def channels(self) -> Optional[int]:
        """Number of channels; None where the stack is (slices, height, width)."""
        return self.shape[1] if len(self.shape) == 4 else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Union[int, slice]) -> np.ndarray:
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
            # What a decoder raises on a damaged file is anybody's guess; here all of it means the same.
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


def natural_key(name: str) -> list:
    """Return a sorting key that puts z2.png before z10.png."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]


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
        page, frames, offset = series.keyframe, series.pages, series.dataoffset
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
            f"{path}: is cut off: {count} slices need {offset + count * frame_bytes} bytes, the file "
            f"has {path.stat().st_size}"
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
    # tifffile only logs that the chain of pages leads out of the file, and goes on with fewer.
    last = tiff.pages[len(tiff.pages) - 1]
    form = tiff.tiff
    with open(path, "rb") as file:
        file.seek(last.offset)
        tags = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
        file.seek(tags * form.tagsize, os.SEEK_CUR)
        following = struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]
    if following:
        raise InputError(f"{path}: is cut off after page {len(tiff.pages)}")


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


def open_hdf5(path: Path, dataset: Optional[str]) -> Volume:
    """Open a dataset of an HDF5 file.

    Parameters
    ----------
    path : pathlib.Path
    dataset : str, optional
        Its name; by default the only stack there is.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        If the file is damaged, or the dataset is missing, not unique or of the wrong shape.
    """
    try:
        file = h5py.File(str(path), "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({error}); is the file whole?") from None
    try:
        found: List[Tuple[str, Sequence[int]]] = []

        def note(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "buif":
                found.append((name, item.shape))

        file.visititems(note)
        array = file[choose(str(path), found, dataset)]
        return _array_volume(f"{path}:{array.name}", array, array.chunks, file.close)
    except Exception:
        file.close()
        raise


def open_zarr(path: Path, dataset: Optional[str]) -> Volume:
    """Open an array of a Zarr directory, version 2 or 3.

    Parameters
    ----------
    path : pathlib.Path
    dataset : str, optional
        Name of the array in a group; by default the only stack there is.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        If the directory is damaged, or the array is missing, not unique or of the wrong shape.
    """
    try:
        import zarr
    except ImportError:
        raise InputError(f"{path}: reading Zarr needs the package zarr; install it") from None
    try:
        root = zarr.open(str(path), mode="r")
    except Exception as error:
        # As with TIFF: whatever the damaged metadata breaks first.
        raise InputError(f"{path}: cannot be read as Zarr ({error})") from None
    if isinstance(root, zarr.Array):
        return _array_volume(str(path), root, root.chunks)
    found = [(name, array.shape) for name, array in _zarr_arrays(root)]
    name = choose(str(path), found, dataset)
    return _array_volume(f"{path}:/{name}", root[name], root[name].chunks)


def _zarr_arrays(group: object, prefix: str = "") -> Iterator[tuple]:
    for name, array in group.arrays():
        yield prefix + name, array
    for name, inner in group.groups():
        yield from _zarr_arrays(inner, f"{prefix}{name}/")


def choose(path: str, found: List[Tuple[str, Sequence[int]]], dataset: Optional[str]) -> str:
    """Return the name of the dataset meant: the one named, else the only 3-D one, else the only one."""
    if dataset is not None:
        wanted = dataset.strip("/")
        if wanted in (name for name, _ in found):
            return wanted
        names = ", ".join(f"/{name}" for name, _ in found) or "none"
        raise InputError(f"{path}: has no dataset of numbers /{wanted}; it has {names}")
    for candidates in ([n for n, s in found if len(s) == 3], [n for n, s in found if len(s) > 1]):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            names = ", ".join(f"/{name}" for name in candidates)
            raise InputError(
                f"{path}: holds several stacks ({names}); name one: {path}:/{candidates[0]}"
            )
    raise InputError(f"{path}: holds no stack of pictures")


def _array_volume(
    name: str,
    array: object,
    chunks: Optional[Sequence[int]],
    close: Callable[[], None] = lambda: None,
) -> Volume:
    shape = tuple(array.shape)
    # OME-Zarr writes (time, channel, z, y, x) also where there is one time and one channel.
    ones = len(shape) - 3 if len(shape) > 4 else 0
    if len(shape) < 2 or any(size != 1 for size in shape[:ones]):
        raise InputError(
            f"{name}: is {shape}; a stack is (slices, height, width) or (slices, channels, height, width)"
        )
    if len(shape) == 2:
        return Volume(name, (1,) + shape, array.dtype, lambda z: array[:], close)
    front = (0,) * ones
    depth = chunks[ones] if chunks else 1
    slab_bytes = depth * int(np.prod(shape[ones + 1 :], dtype=np.int64)) * array.dtype.itemsize
    if depth == 1 or slab_bytes > SLAB_BYTES:
        return Volume(name, shape[ones:], array.dtype, lambda z: array[front + (z,)], close)
    kept: dict = {}

    def read(z: int) -> np.ndarray:
        first = z - z % depth
        if first not in kept:
            kept.clear()
            kept[first] = array[front + (slice(first, first + depth),)]
        return kept[first][z - first].copy()

    return Volume(name, shape[ones:], array.dtype, read, close)
