"""Which axes of an array are slices, channels, height and width, and which part is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.volumes.calibration import Calibration


@dataclass(frozen=True)
class Selection:
    """Which part of a file is meant.

    Parameters
    ----------
    level : int, optional
        Of a pyramid; 0, the default, is the finest.
    channel, time : int, optional
        The only channel, or time point, that is read, from 0; by default all.
    scene : int or str, optional
        Which picture of a file that holds several, by number from 0 or name.
    channels : int, optional
        How many channels are needed, where a file can be understood in two ways.
    as_slices : bool
        Whether planes that may be slices as well as channels are slices.
    colours : bool
        Whether a palette means its colours; else its indices, as in pictures of labels.
    as_stored : bool
        Whether colours stay that may be grey: of one file of several nobody can say.
    if_several : bool
        Whether level, channel, time and scene are asked for only of a file that holds several.

    Attributes
    ----------
    among_several : set of str
        Those of level, channel, time and scene that were chosen among several, which `one_of`
        notes.
    """

    level: int | None = None
    channel: int | None = None
    time: int | None = None
    scene: int | str | None = None
    channels: int | None = None
    as_slices: bool = False
    colours: bool = False
    as_stored: bool = False
    if_several: bool = False
    among_several: set[str] = field(default_factory=set, compare=False)

    def one_of(self, option: str, path: str, names: Sequence[str]) -> int | None:
        """Return which of these --level, --channel, ... asks for; None where it is not given.

        Raises
        ------
        InputError
            If it is not one of them.
        """
        asked = getattr(self, option)
        if asked is None or (self.if_several and len(names) == 1):
            return None
        if len(names) > 1:
            self.among_several.add(option)
        if str(asked) in names:
            return list(names).index(str(asked))
        # A name may be a number that is another's place.
        if str(asked).isdecimal() and int(asked) < len(names):
            return int(asked)
        numbers = f"0 to {len(names) - 1}" if len(names) > 1 else "0 only"
        named = [name for k, name in enumerate(names) if name and name != str(k)]
        called = f" ({', '.join(named[:8])}{', ...' * (len(named) > 8)})" if named else ""
        raise InputError(f"{path}: --{option} {asked}: there is {option} {numbers}{called}")

    def scene_of(self, path: str, names: Sequence[str], what: str) -> int:
        """Return which scene is meant: the one that is asked for, or the only one.

        Raises
        ------
        InputError
            If it is not one of them, or of several none is asked for; `what` says what they are.
        """
        scene = self.one_of("scene", path, names)
        if scene is None and len(names) > 1:
            some = ", ".join(f"{k}: {name}" for k, name in enumerate(names[:8]))
            raise InputError(
                f"{path}: holds {len(names)} {what} ({some}{', ...' * (len(names) > 8)}); "
                f"choose one with --scene"
            )
        return scene or 0


class Axes:
    """How a stack lies in an array of named axes.

    Parameters
    ----------
    path : str
        For messages.
    axes : str
        A letter an axis: Y and X of the picture, C and S (samples, as RGB) channels, T and Z; every
        other one, such as I or Q of tifffile, is taken for slices.
    shape : sequence of int
    selection : Selection
    keep_channel : bool
        Whether one channel is an axis, too.

    Attributes
    ----------
    shape : tuple of int
        (slices, height, width) or (slices, channels, height, width). Time points follow each other,
        each with all its slices.
    axes : str
        Those of the volume, as `Calibration.axes`.

    Raises
    ------
    InputError
        If these are no axes of a stack, or the selection asks for what is not there.
    """

    def __init__(
        self,
        path: str,
        axes: str,
        shape: Sequence[int],
        selection: Selection,
        keep_channel: bool = False,
    ) -> None:
        self.stored = tuple(int(size) for size in shape)
        if axes.count("Y") != 1 or axes.count("X") != 1 or len(axes) != len(self.stored):
            raise InputError(f"{path}: has the axes {axes}, not height (Y) and width (X)")
        self._at: dict[int, int] = {}
        channel = [k for k, axis in enumerate(axes) if axis in "CS"]
        sizes = [self.stored[k] for k in channel]
        count = int(np.prod(sizes, dtype=np.int64))
        chosen = selection.one_of("channel", path, [""] * count)
        if chosen is not None:
            self._at.update(zip(channel, map(int, np.unravel_index(chosen, sizes or (1,)))))
        time = axes.find("T")
        chosen = selection.one_of("time", path, [""] * (self.stored[time] if time >= 0 else 1))
        if chosen is not None and time >= 0:
            self._at[time] = chosen
        kept = [k for k in range(len(axes)) if k not in self._at]
        self._channel = [k for k in kept if axes[k] in "CS"]
        if count == 1 and not keep_channel:
            self._at.update((k, 0) for k in self._channel)
            self._channel = []
        # A time point is whole before the next one begins, in whatever order they are stored.
        slices = [k for k in kept if axes[k] not in "CSYX"]
        self._slices = sorted(slices, key=lambda k: (axes[k] == "Z") - (axes[k] == "T"))
        self._rows, self._columns = axes.index("Y"), axes.index("X")
        long = [axes[k] for k in self._slices if self.stored[k] > 1]
        #: Time points of which each has several depths.
        self.times = self.stored[time] if long == ["T", "Z"] else 1
        #: Whether slices differ in more than one axis, and not just in these.
        self.is_mixed = len(long) > 1 and self.times == 1
        first = "T" if long == ["T"] else "Z"
        plane = (self.stored[self._rows], self.stored[self._columns])
        inner = tuple(self.stored[k] for k in self._channel)
        per_slice = (int(np.prod(inner, dtype=np.int64)),) if self._channel else ()
        self._counts = tuple(self.stored[k] for k in self._slices)
        self.shape = (int(np.prod(self._counts, dtype=np.int64)), *per_slice, *plane)
        self.axes = f"{first}{'C' * len(per_slice)}YX"

    def index(self, z: int, rows: slice, columns: slice) -> tuple:
        """Return what to index the array with for a part of a slice, (channels,) height, width."""
        places = dict(self._at)
        if self._slices:
            places.update(zip(self._slices, map(int, np.unravel_index(z, self._counts))))
        places.update({self._rows: rows, self._columns: columns})
        return tuple(places.get(k, slice(None)) for k in range(len(self.stored)))

    def arrange(self, part: Any) -> np.ndarray:
        """Bring what the array gave for `index` into the order (channels, height, width)."""
        left = sorted([*self._channel, self._rows, self._columns])
        order = [left.index(k) for k in (*self._channel, self._rows, self._columns)]
        image = np.asarray(part).transpose(order)
        return image.reshape(self.shape[1:2] + image.shape[-2:] if self._channel else image.shape)

    def calibration(self, **spacing: Any) -> Calibration:
        """Return what is known of the volume.

        Parameters
        ----------
        **spacing
            Fields of `Calibration` but the axes.
        """
        size = spacing.get("pixel_size")
        if size is not None and self.is_mixed:
            # From the last slice of a time point it is no step in z to the first of the next.
            spacing["pixel_size"] = (None, *size[1:])
        return Calibration(self.axes, times=self.times, **spacing)

    @property
    def slice_axes(self) -> tuple[int, ...]:
        """Return which axes of the array the slices run along."""
        return tuple(self._slices)
