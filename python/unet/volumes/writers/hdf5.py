"""Stacks as HDF5: chunked, labels packed; axes and pixel size where Fiji and ilastik look."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import h5py
import numpy as np

from unet.files.atomic import atomic_path
from unet.files.hdf5 import Hdf5Output
from unet.files.provenance import KEY, STACK, mark
from unet.volumes.units import micrometres, seconds
from unet.volumes.writers.layout import Layout, Put

#: Attribute of the file that holds the provenance, as JSON.
NOTE_KEY = "provenance"
# Of vigra, whose axistags ilastik reads: channels, space, time.
_TYPE_FLAGS = {"C": 1, "Z": 2, "Y": 2, "X": 2, "T": 8}


@contextlib.contextmanager
def open_hdf5_output(layout: Layout) -> Iterator[Put]:
    """Open an HDF5 file to write, with one dataset."""
    # Probabilities hardly shrink; labels do, to a hundredth.
    packing = {} if layout.dtype.kind == "f" else {"compression": "gzip", "compression_opts": 1}
    channels = layout.shape[1:-2]
    with atomic_path(layout.path) as temporary, Hdf5Output(temporary) as output:
        with output.changing() as file:
            file.attrs[KEY] = mark(STACK)
            if layout.note:
                file.attrs[NOTE_KEY] = layout.note_text()
            array = file.create_dataset(
                layout.dataset,
                layout.full_shape,
                layout.dtype,
                chunks=(*(1 for _ in layout.place(0)), *channels, *layout.chunk),
                # The same stack makes the same file.
                track_times=False,
                **packing,
            )
            _calibrate(array, layout)

        def put(z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
            with output.changing():
                array[(*layout.place(z).values(), ..., rows, columns)] = values

        yield put


def _calibrate(array: h5py.Dataset, layout: Layout) -> None:
    size = micrometres(layout.calibration)
    interval = seconds(layout.calibration)
    spacing = dict(zip("ZYX", size or ()), T=interval)
    tags = []
    for axis, label in zip(layout.full_axes, array.dims):
        label.label = axis.lower()
        step = spacing.get(axis)
        unit = "" if step is None else "s" if axis == "T" else "µm"
        tags.append(
            {
                "key": axis.lower(),
                "typeFlags": _TYPE_FLAGS[axis],
                "resolution": step or 0,
                "description": unit,
            }
        )
    array.attrs["axistags"] = json.dumps({"axes": tags})
    # Fiji's HDF5 plugin reads z, y, x.
    if size is not None and None not in size:
        array.attrs["element_size_um"] = np.array(size)
