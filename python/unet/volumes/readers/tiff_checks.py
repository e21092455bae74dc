"""Whether all of a TIFF is there, in one folder, and its headers promise what can be."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.volumes.readers.tiff_pages import page_at

# What a header says of more is not believed: a list of them alone would fill the memory.
_MOST_PAGES = 10_000_000
_DESCRIPTION = 270


def check_ome_sizes(path: Path, tiff: Any) -> None:
    """Refuse an OME header that promises more pages than a file can have."""
    # tifffile makes a list as long as the header says.
    text = tiff.ome_metadata if tiff.is_ome else None
    for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*", text or ""):
        sizes = [int(size) for size in re.findall(r"\bSize[ZCT]\s*=\s*[\"'](\d{1,18})\b", pixels)]
        if np.prod(sizes, dtype=np.float64) > _MOST_PAGES:
            raise InputError(f"{path}: the OME header promises {sizes} pages (Z, C, T): no sense")


def check_companion(path: Path, tiff: Any) -> None:
    """Refuse pages whose OME header says that what they are is told in another file."""
    told = re.search(
        r"<(?:\w+:)?BinaryOnly\b[^>]*\bMetadataFile\s*=\s*[\"']([^\"']+)[\"']",
        (tiff.ome_metadata if tiff.is_ome else None) or "",
    )
    if told is None:
        return
    name = os.path.basename(told[1])
    if name.lower().endswith((".tif", ".tiff")) and (path.parent / name).exists():
        raise InputError(
            f"{path}: is part of a stack: name {path.parent / name}, which tells of all"
        )
    raise InputError(
        f"{path}: tells in another file, {name}, which slices, channels and time points its pages "
        f"are, and that is not read: save the whole as one OME-TIFF (in Fiji, by Bio-Formats)"
    )


def check_folder(path: Path, series: Any) -> None:
    """Refuse pages that lie in files of other folders, which the header or an index may name."""
    # The file itself may be a link; its pages are where it leads to.
    own = {os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))}
    pages = (page_at(series.pages, number) for number in range(len(series.pages)))
    for file in {str(page.parent.filehandle.path) for page in pages if page is not None}:
        if os.path.realpath(os.path.dirname(file)) not in own:
            raise InputError(
                f"{path}: names the file {file}, which is in another folder and not read; put the "
                f"files of the stack into one folder"
            )


def promised(path: Path, tiff: Any, page: Any) -> tuple[tuple[int, ...], str]:
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


def check_page_chain(path: Path, tiff: Any) -> None:
    """Refuse a file that is cut off between its pages."""
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


def _directory(path: Path, tiff: Any, offset: int) -> tuple[list[int], int]:
    """Return the codes of the tags of a page and the offset of the page after it, 0 for none."""
    form = tiff.tiff
    with open(path, "rb") as file:
        file.seek(offset)
        count = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
        tags = file.read(count * form.tagsize)
        following = struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]
    code = tiff.byteorder + "H"
    return [struct.unpack_from(code, tags, k * form.tagsize)[0] for k in range(count)], following
