"""A stack that lies in a file, of which slices, or parts of them, are read when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Callable

import numpy as np

from unet.errors import InputError, few
from unet.volumes.calibration import Calibration


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
    absent : tuple of str
        Files that those which are there name, and that are not: of several that make one stack.
    is_coloured : bool
        Whether channels are those of a colour picture, perhaps with transparency.
    among_several : frozenset of str
        Which of level, channel, time and scene were chosen of several that the file holds.

    Notes
    -----
    `volume[z]` is a new array, (height, width) or (channels, height, width); `volume[a:b]` stacks
    several; iterating gives slice after slice. Pixels that are NaN or infinite raise `InputError`.
    """

    names: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    is_coloured = False
    among_several: frozenset[str] = frozenset()

    def __init__(
        self,
        path: str,
        shape: Sequence[int],
        dtype: np.dtype,
        read: Callable[[int], np.ndarray],
        close: Callable[[], None] = lambda: None,
        missing: Iterable[int] = (),
        calibration: Calibration | None = None,
        part: Callable[[int, slice, slice], np.ndarray] | None = None,
    ) -> None:
        self.path = path
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.read, self.part = read, part
        self.close = close
        self.missing = tuple(sorted(missing))
        self.calibration = calibration or Calibration("ZYX" if len(self.shape) < 4 else "ZCYX")
        if min(self.shape) < 1:
            close()
            raise InputError(f"{path}: is empty: its shape is {self.shape}")
        if self.dtype.kind not in "buif":
            close()
            raise InputError(f"{path}: holds {self.dtype} instead of real numbers")

    def replaced(
        self,
        shape: Sequence[int],
        dtype: np.dtype,
        read: Callable[[int], np.ndarray],
        part: Callable[[int, slice, slice], np.ndarray] | None,
        axes: str,
    ) -> Volume:
        """Return the same slices understood in another way; to close it closes this one."""
        calibration = replace(self.calibration, axes=axes)
        volume = Volume(self.path, shape, dtype, read, self.close, self.missing, calibration, part)
        volume.names, volume.absent = self.names, self.absent
        return volume

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
            why = "the acquisition was stopped, or the file is not whole"
            if self.absent:
                why = f"of the same stack are missing {few(self.absent, 3)}"
            raise InputError(
                f"{self.path}: slice {lost[0]} is not there: the header promises {count} slices, "
                f"the file holds {there}; {why}: "
                + (f"take what is there with --slices {first}:{stop}" if there else "copy it anew")
            )

    def demand_channels(self, wanted: int, network: object) -> None:
        """Raise `InputError` unless there are as many channels as a network takes."""
        found = self.channels or 1
        if found != wanted:
            here = "" if wanted > 1 else " (in Fiji: Image, Type, 8-bit; in napari: Split RGB)"
            remedy = f"give {wanted} channel{'s' * (wanted > 1)} of it{here}, or another network"
            raise InputError(
                f"{self.path}: has {found} channel{'s' * (found > 1)}, but {network} takes "
                f"{wanted}: {remedy}"
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
        return self._checked(index, self.shape[1:], lambda: self.read(index))

    def region(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Read a part of a slice; of a file in tiles, strips or chunks no more than it touches.

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
            As `volume[z]`, of what is read.
        """
        part = self.part
        steps = (rows.step, columns.step)
        if part is None or any(step not in (None, 1) for step in steps):
            return self[z][..., rows, columns]
        height, width = self.shape[-2:]
        y, x = slice(*rows.indices(height)), slice(*columns.indices(width))
        size = (max(0, y.stop - y.start), max(0, x.stop - x.start))
        if 0 in size or not -len(self) <= z < len(self):
            return self[z][..., rows, columns]
        z %= len(self)
        return self._checked(z, self.shape[1:-2] + size, lambda: part(z, y, x))

    def _checked(
        self, index: int, shape: tuple[int, ...], read: Callable[[], np.ndarray]
    ) -> np.ndarray:
        self.demand([index])
        try:
            image = np.asarray(read())
        except (InputError, MemoryError):
            raise
        except Exception as error:
            # What a decoder raises on a damaged file is anybody's guess; here all means the same.
            reason = str(error).strip() or type(error).__name__
            raise InputError(
                f"{self.path}: slice {index} cannot be read ({reason}); is the file whole?"
            ) from None
        if image.shape != shape:
            raise InputError(f"{self.path}: slice {index} is {image.shape}, but slice 0 is {shape}")
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise InputError(
                f"{self.path}: slice {index} holds NaN or infinite values: "
                "put numbers in their place (in Fiji: Process, Noise, Remove NaNs)"
            )
        return image.astype(self.dtype, copy=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[z] for z in range(len(self)))

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
