"""The pixels of a page of a TIFF, whole or a part: strips, tiles, polarity, palette."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from unet.errors import InputError

_WHITE_IS_ZERO, _RGB, _PALETTE = 0, 2, 3
# Colours that are no red, green and blue: to take them for these would turn them round.
_OTHER_COLOURS = {5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "CIELAB", 10: "CIELAB"}
# What decoders of JPEG turn into red, green and blue by themselves.
_JPEG = (6, 7)
# Of ExtraSamples.
_ALPHA = (1, 2)


def page_at(frames: Sequence, number: int) -> Any:
    """Return a page; None where there is none."""
    try:
        return frames[number]
    except IndexError:
        return None


def is_there(frames: Sequence, number: int) -> bool:
    """Tell whether a page was written; one of which no byte is stored was not."""
    page = page_at(frames, number)
    if page is None or not any(page.databytecounts):
        return False
    return page.dataoffsets[-1] + page.databytecounts[-1] <= page.parent.filehandle.size


def contiguous_part(
    path: Path, offset: int, page: Any, byteorder: str, rows: slice, columns: slice
) -> np.ndarray:
    """Return rows and columns of a page whose pixels lie one after the other, uncompressed.

    The result has the axes of the page.
    """
    rows_at, columns_at = page.axes.index("Y"), page.axes.index("X")
    stored = page.dtype.newbyteorder(byteorder)
    width = int(np.prod(page.shape[rows_at + 1 :], dtype=np.int64)) * stored.itemsize
    height = page.shape[rows_at]
    planes = int(np.prod(page.shape[:rows_at], dtype=np.int64))
    count = rows.stop - rows.start
    pieces = []
    # Not through a memory map: a file that is cut off while it is read would end the process.
    with open(path, "rb") as file:
        for plane in range(planes):
            file.seek(offset + (plane * height + rows.start) * width)
            pieces.append(np.frombuffer(file.read(count * width), stored))
    image = np.stack(pieces).reshape(page.shape[:rows_at] + (count,) + page.shape[rows_at + 1 :])
    return np.moveaxis(np.moveaxis(image, columns_at, 0)[columns], 0, columns_at)


def decoded_part(
    path: Path, page: Any, number: int, first: Any, rows: slice, columns: slice
) -> np.ndarray:
    """Return rows and columns of a page in strips or tiles, decoding only those that are touched.

    What is read is known not to be made of a damaged header. The result has the axes of the page.
    """
    if page.shape != first.shape:
        raise InputError(
            f"{path}: slice {number} is {page.shape}, but slice 0 is {first.shape}: take those of "
            f"one size by --slices, or save them as a stack"
        )
    # Later pages of a stack have what they share with the first one there alone.
    key = page.keyframe
    for what, given, wanted in (
        ("holds", key.dtype, first.dtype),
        ("stores brightness as", _polarity(key), _polarity(first)),
    ):
        if given != wanted:
            raise InputError(
                f"{path}: slice {number} {what} {given}, but slice 0 {wanted}: save all alike (in "
                f"Fiji: Image, Type)"
            )
    pieces, stored = int(np.prod(key.chunked, dtype=np.int64)), len(page.databytecounts)
    if pieces > stored and not key.is_contiguous:
        raise InputError(
            f"{path}: slice {number} is {page.shape}, in {pieces} pieces, of which the file holds "
            f"{stored}: it is damaged"
        )
    # Of a series over several files all but the first are closed.
    file = page.parent.filehandle
    closed = file.closed
    if closed:
        file.open()
    try:
        return _decoded(page, pieces != stored, rows, columns)
    finally:
        if closed:
            file.close()


def _decoded(page: Any, together: bool, rows: slice, columns: slice) -> np.ndarray:
    axes = page.keyframe.axes
    rows_at, columns_at = axes.index("Y"), axes.index("X")
    whole = (0, page.shape[rows_at], 0, page.shape[columns_at])
    # Pieces of their own, of one depth, are decoded alone; all else has one decoder for the whole.
    is_deep = page.keyframe.shaped[1] > 1
    if (rows.start, rows.stop, columns.start, columns.stop) == whole or together or is_deep:
        part: list[slice] = [slice(None)] * len(page.shape)
        part[rows_at], part[columns_at] = rows, columns
        return page.asarray()[tuple(part)]
    return _segments(page, rows, columns)


def _segments(page: Any, rows: slice, columns: slice) -> np.ndarray:
    """Return part of a page from the strips and tiles that it touches."""
    key, file = page.keyframe, page.parent.filehandle
    samples, _, height, width, inner = key.shaped
    block = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, width)
    across, down = -(-width // block[1]), -(-height // block[0])
    shape = (samples, rows.stop - rows.start, columns.stop - columns.start, inner)
    image = np.zeros(shape, key.dtype)
    tables = {} if key.jpegtables is None else {"jpegtables": key.jpegtables}
    for sample in range(samples):
        for row in range(rows.start // block[0], -(-rows.stop // block[0])):
            for column in range(columns.start // block[1], -(-columns.stop // block[1])):
                number = (sample * down + row) * across + column
                if not page.databytecounts[number]:
                    continue
                file.seek(page.dataoffsets[number])
                packed = file.read(page.databytecounts[number])
                values, _, _ = key.decode(packed, number, **tables)
                top, left = row * block[0], column * block[1]
                # A piece may reach over the edge of the page.
                y = slice(max(rows.start, top), min(rows.stop, top + values.shape[1]))
                x = slice(max(columns.start, left), min(columns.stop, left + values.shape[2]))
                image[
                    sample,
                    y.start - rows.start : y.stop - rows.start,
                    x.start - columns.start : x.stop - columns.start,
                ] = values[0, y.start - top : y.stop - top, x.start - left : x.stop - left]
    if key.axes == "SYX":
        return image[..., 0]
    return image[0] if key.axes == "YXS" else image[0, ..., 0]


def has_transparency(page: Any) -> bool:
    """Tell whether the last sample of each pixel is how opaque it is, rather than a channel."""
    extra = [int(kind) for kind in page.extrasamples]
    if len(extra) != 1:
        return False
    # Programs leave out what the fourth of red, green and blue is.
    return extra[0] in _ALPHA or int(page.photometric) == _RGB


def _polarity(page: Any) -> str:
    """Return what numbers of a page stand for, where it changes how they are read."""
    names = {_WHITE_IS_ZERO: "white is 0", _PALETTE: "places in a palette"}
    return names.get(int(page.photometric), "black is 0")


def meaning(path: Path, page: Any, colours: bool) -> tuple[Callable[[np.ndarray], np.ndarray], Any]:
    """Return what makes brightness of stored numbers, and the type of the pixels then.

    Parameters
    ----------
    path : path
        For messages.
    page : tifffile.TiffPage
        White may be 0, and numbers places in a palette.
    colours : bool
        Whether a palette means its colours, which become a last axis; else its indices.
    """
    photometric = int(page.photometric)
    if photometric in _OTHER_COLOURS and not (photometric == 6 and page.compression in _JPEG):
        raise InputError(
            f"{path}: has the colours of {_OTHER_COLOURS[photometric]}; save it as RGB or grey"
        )
    if photometric == _WHITE_IS_ZERO:
        if page.dtype.kind == "b":
            # So tifffile writes masks of Python, whose True is meant.
            return (lambda image: image) if page.is_shaped else np.logical_not, page.dtype
        if page.dtype.kind != "u":
            raise InputError(
                f"{path}: says that white is 0 of {page.dtype}, where no black is known; save it "
                f"with black as 0 (in Fiji: Image, Lookup Tables, Invert LUT)"
            )
        bits = page.bitspersample
        white = page.dtype.type((1 << (bits if isinstance(bits, int) else bits[0])) - 1)
        return lambda image: white - image, page.dtype
    # ImageJ writes its display's colours as a palette; its numbers are the measured ones.
    if photometric == _PALETTE and colours and not page.is_imagej and page.colormap is not None:
        table = np.ascontiguousarray(np.asarray(page.colormap).T >> 8).astype(np.uint8)
        return lambda image: table[image], table.dtype
    return lambda image: image, page.dtype
