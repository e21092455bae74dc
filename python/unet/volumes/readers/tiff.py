"""Stacks as TIFF: plain, of ImageJ, OME, tifffile and microscopes, by their metadata."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.volumes.images import Volume
from unet.volumes.readers.axes import Axes, Selection
from unet.volumes.readers.colours import grey_if_equal
from unet.volumes.readers.tiff_calibration import spacing
from unet.volumes.readers.tiff_checks import (
    check_companion,
    check_folder,
    check_ome_sizes,
    check_page_chain,
    promised,
)
from unet.volumes.readers.tiff_pages import (
    contiguous_part,
    decoded_part,
    has_transparency,
    is_there,
    meaning,
)

# Dialects whose page order only tifffile's series know; plain files are read page by page.
_DIALECTS = {"imagej", "ome", "shaped", "lsm", "stk", "fluoview", "nih", "mdgel", "scn"}
_DIALECTS |= {"mmstack", "ndtiff", "scanimage", "sis"}
# Of whole slides: levels, and pictures of their labels.
_DIALECTS |= {"svs", "ndpi", "bif", "qpi", "philips"}


@dataclass(frozen=True)
class _Picture:
    """The pages of one picture of a file.

    `page` is the first one, `frames` all, `lead` and `lead_axes` their order, `inner_axes` those of
    a page. Where pixels lie one after the other, `offset` says from which byte.
    """

    page: Any
    frames: Sequence
    lead: tuple[int, ...]
    lead_axes: str
    inner_axes: str
    offset: int | None = None
    image: int = 0
    scale: tuple[float, float] = (1.0, 1.0)


def open_tiff(path: Path, selection: Selection | None = None) -> Volume:
    """Open a TIFF: one page or many, ImageJ or OME hyperstack, any depth and compression.

    Time points and slices follow each other; channels and samples (RGB) are channels. White is
    bright, also where the file stores it as 0. Refused is a file that is cut off, or holds images
    of several sizes, of which none is chosen.
    """
    import tifffile

    with _quiet():
        try:
            tiff = tifffile.TiffFile(str(path))
        except Exception as error:
            # Like the decoders: a damaged header surfaces as whatever it first breaks.
            raise InputError(
                f"{path}: cannot be read as TIFF ({error}); is the file whole?"
            ) from None
        try:
            return _volume(path, tiff, selection or Selection())
        except InputError:
            tiff.close()
            raise
        except Exception as error:
            tiff.close()
            raise InputError(
                f"{path}: cannot be read as TIFF ({error}); is the file whole?"
            ) from None


def files_of_ome(path: Path) -> set[str]:
    """Return the names of the files that the OME header of a TIFF says it consists of."""
    import tifffile

    with _quiet():
        try:
            with tifffile.TiffFile(str(path)) as tiff:
                text = tiff.ome_metadata if tiff.is_ome else None
        except Exception:
            # What is wrong is told when its slice is read.
            return set()
    return set(_files_named(text or ""))


def _files_named(text: str) -> list[str]:
    """Return the files that OME-XML names, each once."""
    found = re.findall(r"<(?:\w+:)?UUID\b[^>]*\bFileName\s*=\s*[\"']([^\"']+)[\"']", text)
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile from printing what is told in other words, or is not so: that it put zeros."""
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _volume(path: Path, tiff: Any, selection: Selection) -> Volume:
    check_page_chain(path, tiff)
    picture = _by_series(path, tiff, selection)
    if picture is None:
        selection.one_of("scene", str(path), [""])
        selection.one_of("level", str(path), [""])
        picture = _by_pages(tiff)
    page, lead, offset = picture.page, picture.lead, picture.offset
    inner_axes = picture.inner_axes
    if sorted(inner_axes.replace("S", "").replace("Z", "").replace("I", "")) != ["X", "Y"]:
        raise InputError(f"{path}: has pages with the axes {page.axes}, not height and width")
    count = int(np.prod(lead, dtype=np.int64))
    frame_bytes = int(np.prod(page.shape, dtype=np.int64)) * page.dtype.itemsize
    if offset is not None and offset + count * frame_bytes > path.stat().st_size:
        raise InputError(
            f"{path}: is cut off: {count} slices need {offset + count * frame_bytes} bytes, the "
            f"file has {path.stat().st_size}"
        )
    bright, dtype = meaning(path, page, selection.colours)
    inner = page.shape
    if bright(np.zeros((1,) * len(inner), page.dtype)).ndim > len(inner):
        inner, inner_axes = (*inner, 3), inner_axes + "S"
    axes = Axes(str(path), picture.lead_axes + inner_axes, lead + inner, selection)
    order = np.arange(count).reshape(lead)
    missing = _missing(tiff, picture, order, axes)

    def frame(number: int, rows: slice, columns: slice) -> np.ndarray:
        if offset is None:
            image = decoded_part(path, picture.frames[number], number, page, rows, columns)
        else:
            at = offset + number * frame_bytes
            image = contiguous_part(path, at, page, tiff.byteorder, rows, columns)
        return bright(image)

    def part(z: int, rows: slice, columns: slice) -> np.ndarray:
        index = axes.index(z, rows, columns)
        numbers = np.asarray(order[index[: len(lead)]])
        # Rows and columns are cut already.
        within = tuple(
            slice(None) if axis in "YX" else at for axis, at in zip(inner_axes, index[len(lead) :])
        )
        images = [frame(int(number), rows, columns)[within] for number in numbers.flat]
        return axes.arrange(np.reshape(images, numbers.shape + images[0].shape))

    whole = (slice(0, axes.shape[-2]), slice(0, axes.shape[-1]))
    volume = Volume(
        str(path),
        axes.shape,
        dtype,
        lambda z: part(z, *whole),
        tiff.close,
        missing,
        axes.calibration(**_scaled(spacing(tiff, page, picture.image), picture.scale)),
        part,
    )
    if missing and tiff.is_ome:
        volume.absent = tuple(
            name for name in _files_named(tiff.ome_metadata) if not (path.parent / name).exists()
        )
    samples = inner[inner_axes.index("S")] if "S" in inner_axes else 0
    if samples and axes.shape[1:2] == (samples,) and (samples == 3 or has_transparency(page)):
        return grey_if_equal(volume, selection)
    return volume


def _by_pages(tiff: Any) -> _Picture:
    """Take each page of a plain file for a slice, but what comes small after them."""
    frames, page = tiff.pages, tiff.pages[0]
    count = len(frames)
    while count > 1 and _is_thumbnail(frames[count - 1], frames[count - 2], count):
        count -= 1
    return _Picture(page, frames, (count,), "I", page.axes)


def _is_thumbnail(last: Any, before: Any, count: int) -> bool:
    """Tell whether the last page is a small copy: it says so, or is smaller after several alike."""
    if last.shape == before.shape:
        return False
    smaller = all(last.shape[a] < before.shape[b] for a, b in _sides(last, before))
    return smaller and (bool(last.is_reduced) or (count > 2 and _is_far_smaller(last, before)))


def _is_far_smaller(last: Any, before: Any) -> bool:
    # Of an odd side the half is rounded up.
    return all(2 * last.shape[a] <= before.shape[b] + 1 for a, b in _sides(last, before))


def _sides(one: Any, other: Any) -> list[tuple[int, int]]:
    return [(one.axes.index(axis), other.axes.index(axis)) for axis in "YX"]


def _by_series(path: Path, tiff: Any, selection: Selection) -> _Picture | None:
    """Return what tifffile makes of the metadata; None of a plain file without levels."""
    if not _DIALECTS & set(tiff.flags):
        pages = tiff.pages
        if not pages[0].subifds and not (len(pages) > 1 and pages[1].is_reduced):
            return None
        if len(tiff.series) != 1:
            return None
    check_ome_sizes(path, tiff)
    check_companion(path, tiff)
    found = list(tiff.series)
    joined = _joined(tiff, found)
    if joined is not None:
        selection.one_of("level", str(path), [""])
        selection.one_of("scene", str(path), [""])
        return joined
    while len(found) > 1 and _is_thumbnail(found[-1].keyframe, found[0].keyframe, _many(found)):
        found.pop()
    scene = selection.one_of("scene", str(path), [str(one.name or "") for one in found])
    if scene is None:
        if len(found) > 1:
            names = ", ".join(
                f"{k}: {one.name + ' ' if one.name else ''}{'x'.join(map(str, one.shape))}"
                for k, one in enumerate(found[:8])
            )
            raise InputError(
                f"{path}: holds {len(found)} separate pictures or stacks ({names}"
                f"{', ...' * (len(found) > 8)}); choose one with --scene, or save one as a file"
            )
        scene = 0
    levels = list(found[scene].levels)
    level = selection.one_of("level", str(path), [""] * len(levels)) or 0
    check_folder(path, levels[level])
    picture = _of_series(path, tiff, levels[level], len(found) == 1 and level == 0, selection)
    finest = levels[0].keyframe
    scale = tuple(finest.shape[a] / picture.page.shape[b] for a, b in _sides(finest, picture.page))
    return replace(picture, image=scene, scale=scale)


def _many(found: list[Any]) -> int:
    return len(found) - 1 + len(found[0].pages)


def _joined(tiff: Any, found: list[Any]) -> _Picture | None:
    """Take pictures of one page and shape that were written one by one for slices."""
    if not tiff.is_shaped or len(found) < 2 or tiff.is_ome or tiff.is_imagej:
        return None
    first = found[0]
    count = len(found)
    while count > 1 and _is_thumbnail(found[count - 1].keyframe, first.keyframe, count):
        count -= 1
    same = all(
        len(one.pages) == 1 and (one.shape, one.dtype) == (first.shape, first.dtype)
        for one in found[:count]
    )
    if not same or len(first.shape) != len(first.keyframe.shape) or count < 2:
        return None
    pages = [one.pages[0] for one in found[:count]]
    return _Picture(pages[0], pages, (count,), "I", pages[0].axes)


def _of_series(path: Path, tiff: Any, series: Any, whole: bool, selection: Selection) -> _Picture:
    page, frames = series.keyframe, series.pages
    # The tifffile of genuine Caffe's Python has the older name.
    offset = series.dataoffset if hasattr(series, "dataoffset") else series.offset
    inner = len(page.axes)
    lead, lead_axes = tuple(series.shape[:-inner]), series.axes[:-inner]
    inner_axes = page.axes
    if page.axes == "SYX" and tiff.is_shaped and series.shape == page.shape:
        # Three or four slices, which tifffile stores as planes of colour unless told otherwise.
        if "S" not in series.axes:
            inner_axes = series.axes
        elif selection.channels == 1 or selection.as_slices:
            inner_axes = "IYX"
    if whole:
        sizes, axes = promised(path, tiff, page)
        if np.prod(sizes, dtype=np.int64) > np.prod(lead, dtype=np.int64):
            # tifffile then takes the pages for what there is.
            lead, lead_axes = tuple(sizes), axes
            offset, frames = None, tiff.pages
    if len(lead) == 2 and lead_axes[1] == "Q":
        lead_axes = lead_axes[0] + "C"
    return _Picture(page, frames, lead, lead_axes, inner_axes, offset)


def _missing(tiff: Any, picture: _Picture, order: np.ndarray, axes: Axes) -> list[int]:
    """Return the slices of which a page is promised and not there."""
    frames, count = picture.frames, order.size
    # Of pixels that lie one after the other all are there; ImageJ describes such a stack by one
    # page, where it has more than 4 GB.
    if picture.offset is not None or (frames is tiff.pages and count <= len(frames)):
        return []
    there = np.array([is_there(frames, number) for number in range(count)])
    lead = order.ndim
    every = slice(None)
    return [
        z
        for z in range(axes.shape[0])
        if not there[order[axes.index(z, every, every)[:lead]]].all()
    ]


def _scaled(found: dict[str, Any], scale: tuple[float, float]) -> dict[str, Any]:
    """Return a pixel size as it is on a coarser level."""
    size = found.get("pixel_size")
    if size is None or scale == (1.0, 1.0):
        return found
    z, y, x = size
    return {**found, "pixel_size": (z, y and y * scale[0], x and x * scale[1])}
