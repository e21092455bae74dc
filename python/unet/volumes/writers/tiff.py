"""Stacks as TIFF: ImageJ's up to 4 GB, else OME as BigTIFF; laid out first, then filled anywhere.

ImageJ opens the first as a calibrated hyperstack; Fiji, napari and bioio open both.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.provenance import STACK, mark
from unet.volumes.units import seconds
from unet.volumes.writers.layout import Layout, Put, visible

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = (*_IMAGEJ_TYPES, "int8", "int16", "int32", "uint32", "float64")
# Leaves room below 4 GiB for the tags of the pages.
_CLASSIC_BYTES = (1 << 32) - (1 << 25)


@contextlib.contextmanager
def open_tiff_output(layout: Layout) -> Iterator[Put]:
    """Open a TIFF to write."""
    import tifffile

    shape = layout.shape
    stored = np.dtype(np.uint8) if layout.dtype == np.bool_ else layout.dtype
    big = int(np.prod(shape, dtype=np.int64)) * stored.itemsize > _CLASSIC_BYTES
    with atomic_path(layout.path) as temporary:
        if shape[-1] == 1:
            with tifffile.TiffWriter(str(temporary), bigtiff=big) as tiff:
                yield from _narrow(layout, tiff)
            return
        # Pixels lie one after the other, so the file is laid out first and parts are put into it.
        # Not through a memory map: on a full disk that ends in a signal instead of an error.
        imagej = not big and stored.name in _IMAGEJ_TYPES
        tags: dict[str, Any] = {"metadata": {"axes": layout.full_axes}}
        if imagej:
            tags["metadata"].update(_imagej_metadata(layout))
            tags.update(_resolution(layout))
            if layout.note:
                info = {"Info": layout.note_text()}
                tags["extratags"] = tifffile.tifffile.imagej_metadata_tag(info, "<")
        elif stored.name in _OME_TYPES:
            tags.update(metadata=None, description=_ome_xml(layout, stored))
        with tifffile.TiffWriter(str(temporary), bigtiff=big, byteorder="<", imagej=imagej) as tiff:
            offset, _ = tiff.write(
                shape=layout.full_shape,
                dtype=stored,
                photometric="minisblack",
                software=mark(STACK),
                returnoffset=True,
                **tags,
            )
        with open(temporary, "r+b") as file:
            yield _seeking(file, offset, shape, stored.newbyteorder("<"))


def _seeking(file: BinaryIO, offset: int, shape: tuple[int, ...], stored: np.dtype) -> Put:
    """Return what puts parts where they belong in pixels that lie one after the other."""
    height, width = shape[-2:]
    channels = shape[1] if len(shape) == 4 else 1

    def put(z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        pixels = visible(values).astype(stored, copy=False)
        pixels = pixels.reshape(channels, -1, pixels.shape[-1])
        for channel, plane in enumerate(pixels):
            first = (z * channels + channel) * height + rows.start
            # Whole rows are one piece.
            pieces = [plane] if plane.shape[1] == width else plane
            for row, piece in enumerate(pieces, first):
                file.seek(offset + (row * width + columns.start) * stored.itemsize)
                file.write(piece.tobytes())

    return put


def _narrow(layout: Layout, tiff: Any) -> Iterator[Put]:
    """Give what takes slices one pixel wide, which are written when all are there.

    tifffile takes a last axis of one pixel for samples, unless given page by page.
    """
    if len(layout.shape) == 4:
        raise InputError(f"{layout.path}: TIFF holds no channels 1 pixel wide; write .h5 instead")
    pages = np.zeros(layout.shape, layout.dtype)

    def put(z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        pages[z, rows, columns] = values

    yield put
    for page in pages:
        tiff.write(
            visible(page),
            photometric="minisblack",
            metadata=None,
            contiguous=False,
            software=mark(STACK),
        )


def _imagej_metadata(layout: Layout) -> dict[str, Any]:
    calibration = layout.calibration
    metadata: dict[str, Any] = {}
    size = calibration.pixel_size
    if size is not None and calibration.unit:
        # ImageJ writes and understands it so, in any encoding of the description.
        metadata["unit"] = calibration.unit.replace("µ", "u")
        if size[0] is not None:
            metadata["spacing"] = size[0]
    interval = seconds(calibration)
    if interval is not None:
        metadata["finterval"] = interval
    return metadata


def _resolution(layout: Layout) -> dict[str, Any]:
    """Return the tags by which ImageJ knows the pixel size, in its unit."""
    size = layout.calibration.pixel_size
    if size is None or not (size[1] and size[2]):
        return {}
    return {"resolution": (1 / size[2], 1 / size[1])}


def _ome_xml(layout: Layout, stored: np.dtype) -> str:
    """Return OME's description, in ASCII as TIFF has it; other characters by their numbers."""
    import tifffile

    calibration = layout.calibration
    # The same stack makes the same file under whatever name, to the bit.
    told = f"{layout.shape} {stored} {layout.note_text()}"
    number = str(uuid.uuid5(uuid.NAMESPACE_OID, told))
    metadata: dict[str, Any] = {}
    for axis, size in zip("ZYX", calibration.pixel_size or ()):
        if size is not None:
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = calibration.unit or "pixel"
    if calibration.interval is not None:
        metadata["TimeIncrement"] = calibration.interval
        metadata["TimeIncrementUnit"] = calibration.interval_unit or "s"
    if layout.note:
        metadata["Description"] = layout.note_text()
    pages = int(np.prod(layout.shape[:-2]))
    xml = tifffile.OmeXml(Creator=mark(STACK), UUID=number)
    xml.addimage(
        stored,
        layout.full_shape,
        (pages, 1, 1, *layout.shape[-2:], 1),
        axes=layout.full_axes,
        **metadata,
    )
    return xml.tostring(declaration=True).encode("ascii", "xmlcharrefreplace").decode("ascii")
