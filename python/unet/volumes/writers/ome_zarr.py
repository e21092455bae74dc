"""Stacks as Zarr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_folder
from unet.files.provenance import KEY, STACK, mark
from unet.volumes.writers.layout import Layout, Put


@contextlib.contextmanager
def open_zarr_output(layout: Layout) -> Iterator[Put]:
    """Open a Zarr directory to write."""
    try:
        import zarr
    except ImportError:
        raise InputError(
            f"{layout.path}: writing Zarr needs the package zarr: pip install zarr"
        ) from None
    with atomic_folder(layout.path) as temporary:
        array = zarr.open(
            str(temporary),
            mode="w",
            shape=layout.shape,
            dtype=layout.dtype,
            chunks=(1, *layout.shape[1:-2], *layout.chunk),
        )
        array.attrs[KEY] = mark(STACK)

        def put(z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
            array[(z, ..., rows, columns)] = values

        yield put
