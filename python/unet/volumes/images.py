"""Stacks of images in files: TIFF, PNG, JPEG and folders of them, read slice by slice."""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from unet.errors import InputError
from unet.files.names import natural_key
from unet.volumes.calibration import Calibration

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
# TIFF dialects whose page order only tifffile's series know; plain files are read page by page.
_TIFF_DIALECTS = {"imagej", "ome", "shaped", "lsm", "stk", "fluoview", "nih", "mdgel", "scn"}
_TIFF_DIALECTS |= {"mmstack", "ndtiff"}
# What a header says of more is not believed: a list of them alone would fill the memory.
_MOST_PAGES = 10_000_000
_DESCRIPTION = 270
_STRANGE = (
    "is neither TIFF, PNG, JPEG, HDF5 nor Zarr; save it as TIFF (in Fiji: File, Save As, Tiff)"
)


class Volume:
    """A stack that lies in a file; each slice is read when it is asked for.

    Attributes
    ----------
    path : str
        Where it lies, for messages.
    shape : tuple of int
        (slices, height, width), or (slices, channels, height, width) for images with channels.
    dtype : numpy.dtype
        Of the pixels, in the byte order of this machine.
    missing : tuple of int
        Slices that the file promises and does not hold, as of an acquisition that was stopped.
    calibration : Calibration
        What its axes are, and how far its pixels lie apart.
    names : tuple of str
        Of a folder: the file of each slice. Empty where slices have no names of their own.

    Notes
    -----
    `volume[z]` is a new array, (height, width) or (channels, height, width); `volume[a:b]` stacks
    several; iterating gives slice after slice. Pixels that are NaN or infinite raise `InputError`.
    """

    names: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        shape: Sequence[int],
        dtype: np.dtype,
        read: Callable[[int], np.ndarray],
        close: Callable[[], None] = lambda: None,
        missing: Iterable[int] = (),
        calibration: Calibration | None = None,
    ) -> None:
        self.path = path
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.read = read
        self.close = close
        self.missing = tuple(sorted(missing))
        self.calibration = calibration or Calibration("ZYX" if len(self.shape) < 4 else "ZCYX")
        if min(self.shape) < 1:
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

    def demand(self, slices: Sequence[int]) -> None:
        """Raise `InputError` if one of these slices is not there, before any work is done."""
        if not self.missing:
            return
        lost = sorted(set(slices) & set(self.missing))
        if lost:
            count, there = len(self), len(self) - len(self.missing)
            ends = [-1, *self.missing, count]
            first, stop = max(
                ((a + 1, b) for a, b in zip(ends, ends[1:])), key=lambda run: run[1] - run[0]
            )
            raise InputError(
                f"{self.path}: slice {lost[0]} is not there: the header promises {count} slices, "
                f"the file holds {there}; the acquisition was stopped, or the file is not whole: "
                + (f"take what is there with --slices {first}:{stop}" if there else "copy it anew")
            )

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if isinstance(index, slice):
            wanted = range(*index.indices(len(self)))
            try:
                stack = np.empty((len(wanted),) + self.shape[1:], self.dtype)
            except (ValueError, MemoryError):
                raise MemoryError(
                    f"{self.path}: {len(wanted)} slices of {self.shape[1:]} do not fit into memory"
                ) from None
            for row, z in enumerate(wanted):
                stack[row] = self[z]
            return stack
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path}: there is no slice {index}, only {len(self)}")
        index %= len(self)
        self.demand([index])
        try:
            image = np.asarray(self.read(index))
        except (InputError, MemoryError):
            raise
        except Exception as error:
            # What a decoder raises on a damaged file is anybody's guess; here all means the same.
            reason = str(error).strip() or type(error).__name__
            raise InputError(
                f"{self.path}: slice {index} cannot be read ({reason}); is the file whole?"
            ) from None
        if image.shape != self.shape[1:]:
            raise InputError(
                f"{self.path}: slice {index} is {image.shape}, but slice 0 is {self.shape[1:]}"
            )
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise InputError(f"{self.path}: slice {index} holds NaN or infinite values")
        return image.astype(self.dtype, copy=False)

    def region(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Read a part of a slice.

        Parameters
        ----------
        z : int
        rows, columns : slice

        Returns
        -------
        ndarray, shape ([channels,] rows, columns)

        Raises
        ------
        InputError
            As `volume[z]`.
        """
        return self[z][..., rows, columns]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[z] for z in range(len(self)))

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_tiff(path: Path) -> Volume:
    """Open a TIFF: one page or many, ImageJ or OME hyperstack, any depth and compression.

    Time points and slices follow each other; channels and samples (RGB) are channels. Refused is a
    file that is cut off, or holds images of several sizes.
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
        _check_ome_sizes(path, tiff)
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
        _check_folder(path, series)
        promised, promised_axes = _promised(path, tiff, page)
        if np.prod(promised, dtype=np.int64) > np.prod(lead, dtype=np.int64):
            # tifffile then takes the pages for what there is.
            lead, lead_axes = promised, promised_axes
            offset, frames = None, tiff.pages
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
    missing: list[int] = []
    if (offset is None and frames is not tiff.pages) or count > len(frames):
        there = np.array([_is_there(frames, number) for number in range(count)])
        missing = np.nonzero(~there[order].all(axis=1))[0].tolist()

    def frame(number: int) -> np.ndarray:
        if offset is None:
            image = _decoded(path, frames, number, page)
        else:
            with open(path, "rb") as file:
                file.seek(offset + number * frame_bytes)
                image = np.frombuffer(file.read(frame_bytes), stored).reshape(page.shape)
        return image if samples < 0 else np.moveaxis(image, samples, 0)

    plane = tuple(size for size, axis in zip(page.shape, page.axes) if axis != "S")
    if samples < 0 and not channel_axes:
        return Volume(str(path), (count,) + plane, page.dtype, frame, tiff.close, missing)
    channels = per_slice * (1 if samples < 0 else page.shape[samples])

    def read(z: int) -> np.ndarray:
        images = [frame(number) for number in order[z]]
        return np.concatenate([p.reshape((-1,) + p.shape[-2:]) for p in images])

    return Volume(str(path), (len(order), channels) + plane, page.dtype, read, tiff.close, missing)


def _check_ome_sizes(path: Path, tiff: object) -> None:
    # tifffile makes a list as long as the header says.
    text = tiff.ome_metadata if tiff.is_ome else None
    for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*", text or ""):
        sizes = [int(size) for size in re.findall(r"\bSize[ZCT]\s*=\s*[\"'](\d{1,18})\b", pixels)]
        if np.prod(sizes, dtype=np.float64) > _MOST_PAGES:
            raise InputError(f"{path}: the OME header promises {sizes} pages (Z, C, T): no sense")


def _check_folder(path: Path, series: object) -> None:
    """Refuse pages that lie in files of other folders, which the header or an index may name."""
    # The file itself may be a link; its pages are where it leads to.
    own = {os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))}
    pages = (_page(series.pages, number) for number in range(len(series.pages)))
    for file in {str(page.parent.filehandle.path) for page in pages if page is not None}:
        if os.path.realpath(os.path.dirname(file)) not in own:
            raise InputError(
                f"{path}: names the file {file}, which is in another folder and not read; put the "
                f"files of the stack into one folder"
            )


def _promised(path: Path, tiff: object, page: object) -> tuple[tuple[int, ...], str]:
    """Return how many pages the header of ImageJ or tifffile promises, by axis, and the axes."""
    if tiff.is_imagej and tiff.imagej_metadata:
        values = tiff.imagej_metadata
        frames, slices, channels, images = (
            values.get(key, 1) for key in ("frames", "slices", "channels", "images")
        )
        sizes, axes = (frames, slices, channels), "TZC"
        # Colours may be declared as channels.
        if page.samplesperpixel > 1:
            sizes, axes = (frames, slices), "TZ"
        elif channels == 1:
            sizes, axes = (max(frames * slices, images),), "I"
        elif str(values.get("order", "czt")).lower() not in ("czt", "default"):
            return (0,), "I"
    elif tiff.is_shaped and tiff.shaped_metadata:
        sizes, axes = (), ""
        shape = tuple(tiff.shaped_metadata[0].get("shape", ()))
        while len(sizes) < len(shape) and np.prod(shape[len(sizes) :], dtype=float) > page.size:
            sizes, axes = shape[: len(sizes) + 1], axes + "Q"
    else:
        return (0,), "I"
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        return (0,), "I"
    if np.prod(sizes, dtype=np.float64) > _MOST_PAGES:
        raise InputError(f"{path}: the header promises {sizes} pages: no sense")
    return sizes, axes


def _decoded(path: Path, frames: Sequence, number: int, first: Any) -> np.ndarray:
    """Return the pixels of a page, once it is known that these are not made of a damaged header."""
    page = frames[number]
    if page.shape != first.shape:
        raise InputError(f"{path}: slice {number} is {page.shape}, but slice 0 is {first.shape}")
    pieces, stored = int(np.prod(page.chunked, dtype=np.int64)), len(page.databytecounts)
    if pieces > stored and not page.is_contiguous:
        raise InputError(
            f"{path}: slice {number} is {page.shape}, in {pieces} pieces, of which the file holds "
            f"{stored}: it is damaged"
        )
    return page.asarray()


def _page(frames: Sequence, number: int) -> Any:
    try:
        return frames[number]
    except IndexError:
        return None


def _is_there(frames: Sequence, number: int) -> bool:
    """Tell whether a page was written; one of which no byte is stored was not."""
    page = _page(frames, number)
    if page is None or not any(page.databytecounts):
        return False
    return page.dataoffsets[-1] + page.databytecounts[-1] <= page.parent.filehandle.size


def _check_page_chain(path: Path, tiff: object) -> None:
    # tifffile only logs that pages or what describes them lie beyond the end of the file, and goes
    # on without.
    count = len(tiff.pages)
    codes, _ = _directory(path, tiff, tiff.pages[0].offset)
    lost = _DESCRIPTION in codes and _DESCRIPTION not in tiff.pages[0].tags
    _, following = _directory(path, tiff, tiff.pages[count - 1].offset)
    if lost or following:
        raise InputError(
            f"{path}: is cut off: {count} pages are there, something after them is not; copy it "
            f"anew, or save the pages that are there as a stack"
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


def open_image(path: Path) -> Volume:
    """Open a PNG or JPEG as a stack of one slice; colours are channels.

    A palette gives its indices, as label images mean them. Refused is colour of 16 bit.
    """
    from PIL import Image

    def load() -> np.ndarray:
        with warnings.catch_warnings():
            # Images of 10,000 x 10,000 pixels are usual in electron microscopy.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.format not in ("PNG", "JPEG"):
                    raise InputError(f"{path}: {_STRANGE}")
                raw_mode = str(image.tile[0][-1]) if image.tile else ""
                if "16" in raw_mode and image.mode in ("RGB", "RGBA", "LA"):
                    raise InputError(f"{path}: is colour of 16 bit; save it as TIFF")
                pixels = np.asarray(image)
        return pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    try:
        pixels = load()
    except (InputError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: {_STRANGE}") from None
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({error}); is the file whole?") from None
    return Volume(str(path), (1,) + pixels.shape, pixels.dtype, lambda z: pixels)


def open_folder(path: Path) -> Volume:
    """Open a folder of PNG, TIFF or JPEG files, one slice each, in natural order of the names.

    Refused are several formats in one folder, and files with several slices.
    """
    with os.scandir(path) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower().endswith(IMAGE_SUFFIXES)
        ]
    if not names:
        raise InputError(f"{path}: the folder holds no PNG, TIFF or JPEG files and is no Zarr")
    kinds = sorted({os.path.splitext(name)[1].lower()[:4] for name in names})
    if len(kinds) > 1:
        raise InputError(f"{path}: holds {' and '.join(kinds)} files; leave one kind in the folder")
    names.sort(key=natural_key)

    open_one = open_tiff if kinds[0] == ".tif" else open_image
    files = [path / name for name in names]
    return join_files(path, files, open_one, "in a folder each file is one")


def join_files(
    path: Path, files: Sequence[Path], open_one: Callable[[Path], Volume], rule: str
) -> Volume:
    """Make a stack of files of one slice each, which are opened when their slice is read.

    All must be of the first one's size and type; `rule` tells why a file may not hold several.
    """

    def one(file: Path) -> Volume:
        volume = open_one(file)
        if len(volume) != 1:
            volume.close()
            raise InputError(f"{file}: holds {len(volume)} slices; {rule}")
        return volume

    with one(files[0]) as first:
        shape, dtype = first.shape[1:], first.dtype

    def read(z: int) -> np.ndarray:
        with one(files[z]) as volume:
            for given, wanted in ((volume.dtype, dtype), (volume.shape[1:], shape)):
                if given != wanted:
                    raise InputError(f"{volume.path}: is {given}, but {files[0].name} is {wanted}")
            return volume[0]

    volume = Volume(str(path), (len(files),) + shape, dtype, read)
    volume.names = tuple(file.name for file in files)
    return volume
