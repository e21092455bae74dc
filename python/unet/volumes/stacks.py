"""Stacks of any format are opened, and the slices of them chosen that are asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.names import PathLike, split_name
from unet.volumes.images import Volume
from unet.volumes.readers.axes import Selection
from unet.volumes.readers.folders import open_folder
from unet.volumes.readers.hdf5 import open_hdf5
from unet.volumes.readers.microscopes import PLUGINS, open_microscope
from unet.volumes.readers.npy import MAGIC, open_npy
from unet.volumes.readers.ome_zarr import ZARR_MARKS, open_zarr
from unet.volumes.readers.pictures import open_picture
from unet.volumes.readers.tiff import open_tiff

#: What `as_volume` takes; arrays of dask and Zarr too.
Stack = Union[PathLike, np.ndarray, Volume]
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_volume(
    path: PathLike,
    dataset: str | None = None,
    *,
    channels: int | None = None,
    level: int | None = None,
    channel: int | None = None,
    time: int | None = None,
    scene: int | str | None = None,
    colours: bool = False,
) -> Volume:
    """Open a stack without reading its pixels.

    Parameters
    ----------
    path : path
        A TIFF, PNG or JPEG file; a folder of such files, one slice each, in natural order; an HDF5
        file or a Zarr directory, also as FILE:/dataset; a .npy of NumPy. The content decides, not
        the suffix. What microscopes write (.czi, .lif, .nd2, .dv, ...) is read with the package
        bioio.
    dataset : str, optional
        Dataset of an HDF5 file or Zarr group; by default the only 3-D one.
    channels : int, optional
        How many channels the images must have; 1 demands grey images. By default any.
    level : int, optional
        Of a pyramid; 0, the default, is the finest.
    channel, time : int, optional
        The only channel, or time point, that is read; counted from 0. By default all.
    scene : int or str, optional
        Which picture of a file that holds several, by number from 0 or name.
    colours : bool
        Whether a palette means its colours, as in pictures; else its indices, as in labels.

    Returns
    -------
    Volume
        `.shape` is (slices, height, width) or (slices, channels, height, width), `.dtype` the type
        of the pixels, `[z]` reads one slice. One slice is in memory (of HDF5 and Zarr: one layer of
        chunks).

    Raises
    ------
    InputError
        If there is no such file, it is of another format, damaged, empty or has other channels.
    """
    return _open(path, dataset, Selection(level, channel, time, scene, channels, colours=colours))


def _open(path: PathLike, dataset: str | None, selection: Selection) -> Volume:
    file, inner = existing_stack(path)
    dataset = dataset if dataset is not None else inner
    if file.is_dir():
        is_zarr = any((file / mark).exists() for mark in ZARR_MARKS)
        volume = open_zarr(file, dataset, selection) if is_zarr else open_folder(file, selection)
    else:
        with open(file, "rb") as opened:
            magic = opened.read(4)
        if not magic:
            raise InputError(f"{file}: the file is empty")
        if h5py.is_hdf5(str(file)):
            volume = open_hdf5(file, dataset, selection)
        elif magic == MAGIC:
            volume = open_npy(file, selection)
        elif magic in _TIFF_MAGIC:
            volume = open_tiff(file, selection)
        elif file.suffix.lower() in PLUGINS:
            volume = open_microscope(file, selection)
        else:
            volume = open_picture(file, selection)
    if dataset is not None and volume.path == str(file):
        volume.close()
        raise InputError(f"{file}: has no datasets, so {dataset!r} cannot be chosen in it")
    volume.among_several = frozenset(selection.among_several)
    return _of_channels(volume, selection.channels)


def existing_stack(path: PathLike) -> tuple[Path, str | None]:
    """Return file or folder of a stack, and the dataset; an InputError if it is not there."""
    text = os.fsdecode(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise InputError(
            f"{text}: is an address, and only files are read; copy it to this machine first "
            f"(OME-Zarr: ome_zarr download {text})"
        )
    file, inner = split_name(text)
    if not file.exists():
        raise InputError(f"{file}: there is no such file or folder")
    return file, inner


def as_volume(
    stack: Stack,
    name: str,
    *,
    channels: int | None = None,
    as_slices: bool = False,
    colours: bool = False,
    part: Mapping[str, Any] | None = None,
    if_several: bool = False,
) -> Volume:
    """Take a stack in any form: a path, an array, or a volume that is open.

    Parameters
    ----------
    stack : path, Volume, or array, shape ([slices, [channels,]] height, width)
        A path as `open_volume` takes it. Arrays of dask or Zarr are read slice by slice, too.
    name : str
        What messages call an array.
    channels : int, optional
    as_slices : bool
        Whether planes that may be slices as well as channels are slices, as three or four that
        tifffile wrote without saying which.
    colours : bool
        As for `open_volume`.
    part : mapping, optional
        Its level, channel, time and scene, for a path.
    if_several : bool
        Whether a part is asked for only where the file holds several; `among_several` tells that.

    Returns
    -------
    Volume
        To be closed, which leaves a volume that was given open.

    Raises
    ------
    InputError
        As `open_volume`; also if an array is no stack.

    Examples
    --------
    >>> as_volume(np.zeros((512, 512), np.uint8), "labels").shape
    (1, 512, 512)
    """
    asked = {option: one for option, one in (part or {}).items() if one is not None}
    if isinstance(stack, (str, os.PathLike)):
        selection = Selection(
            **asked,
            channels=channels,
            as_slices=as_slices,
            colours=colours,
            if_several=if_several,
        )
        return _open(stack, None, selection)
    if asked and not if_several:
        raise InputError(f"{name}: --{', --'.join(asked)} is for files: choose a part by an index")
    if isinstance(stack, Volume):
        name, array, region = stack.path, stack, stack.region
    else:
        array = stack if hasattr(stack, "dtype") else np.asarray(stack)
        array = array[None] if array.ndim == 2 else array
        if array.ndim not in (3, 4):
            raise InputError(f"{name}: an array of shape {array.shape} is no slice and no stack")

        def region(z: int, rows: slice, columns: slice) -> np.ndarray:
            return array[(z, ..., rows, columns)]

    volume = Volume(
        name,
        array.shape,
        array.dtype,
        array.__getitem__,
        missing=getattr(stack, "missing", ()),
        calibration=getattr(stack, "calibration", None),
        part=region,
    )
    volume.names = stack.names if isinstance(stack, Volume) else ()
    return _of_channels(volume, channels)


def _of_channels(volume: Volume, channels: int | None) -> Volume:
    have = volume.channels or 1
    if channels is not None and have != channels:
        volume.close()
        wanted = "grey pictures are" if channels == 1 else f"pictures with {channels} channels are"
        raise InputError(
            f"{volume.path}: has {have} channels (colour?), but {wanted} needed here"
            f"{'; choose one with --channel' * (have > 1 and channels == 1)}"
        )
    return volume


def chosen_slices(chosen: range | slice | None, count: int, option: str = "--slices") -> range:
    """Return the slices that are asked for of a stack that holds `count`.

    Parameters
    ----------
    chosen : range or slice, optional
        By default all. A stop of None or `sys.maxsize` is the end of the stack.
    count : int
    option : str
        That gives them, for messages.

    Raises
    ------
    InputError
        If there are none, or the stack does not hold them.
    """
    if chosen is None:
        return range(count)
    is_open = chosen.stop in (None, sys.maxsize)
    first, stop = chosen.start or 0, count if is_open else chosen.stop
    if not 0 <= first < stop <= count:
        raise InputError(
            f"{option} {first}:{'' if is_open else stop}: give A:B with 0 <= A < B <= {count}, the "
            f"slices of the stack"
        )
    return range(first, stop, chosen.step or 1)


def read_volume(path: PathLike, dataset: str | None = None) -> np.ndarray:
    """Read a whole stack.

    Parameters
    ----------
    path, dataset
        As for `open_volume`.

    Returns
    -------
    ndarray, shape (slices, height, width) or (slices, channels, height, width)

    Raises
    ------
    InputError
        As `open_volume`; also if a slice is damaged or holds NaN.
    """
    with open_volume(path, dataset) as volume:
        return volume[:]
