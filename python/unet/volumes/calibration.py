"""What the axes of a stack are, and how far its pixels and time points lie apart."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Calibration:
    """Axes and spacing of a stack, as its file tells them.

    Parameters
    ----------
    axes : {"ZYX", "TYX", "ZCYX", "TCYX"}
        The axes of the stack as it is held; the first is what its slices are.
    pixel_size : tuple of float or None, optional
        Spacing of pixels along (z, y, x) in `unit`; None where the file does not tell it.
    unit : str, optional
        Of length, as OME writes it: "nm", "µm", "mm".
    interval : float, optional
        Between time points, in `interval_unit`.
    interval_unit : str, optional
        Of time, as OME writes it: "s", "ms", "min".
    times : int
        Where slices are of several time points and in each of several depths: how many time points
        follow each other, each with all its depths. `axes` then begins with Z.
    origin : tuple of float, optional
        Where the first pixel lies along (z, y, x), in `unit`; None where the file does not tell it.

    Examples
    --------
    >>> Calibration("ZYX", (50.0, 4.0, 4.0), "nm").pixel_size
    (50.0, 4.0, 4.0)
    """

    axes: str = "ZYX"
    pixel_size: tuple[float | None, float | None, float | None] | None = None
    unit: str | None = None
    interval: float | None = None
    interval_unit: str | None = None
    times: int = 1
    origin: tuple[float, float, float] | None = None

    def of_slices(self, slices: range, count: int) -> Calibration:
        """Return what is known of some slices of a stack of `count`.

        Of time points with depths these are whole time points, depths of one time point, or a mere
        run of slices, of which no step in z is known.

        Examples
        --------
        >>> stack = Calibration("ZYX", (5.0, 1.0, 1.0), "nm", times=4)
        >>> stack.of_slices(range(3, 9), 12).times, stack.of_slices(range(3, 5), 12).pixel_size
        (2, (5.0, 1.0, 1.0))
        >>> stack.of_slices(range(2, 9), 12).pixel_size
        (None, 1.0, 1.0)
        >>> Calibration("ZYX", (5.0, 1.0, 1.0), "nm", origin=(0.0, 7.0, 7.0)).of_slices(
        ...     range(2, 9), 12
        ... ).origin
        (10.0, 7.0, 7.0)
        """
        depth = count // self.times
        if slices == range(count):
            return self
        if self.times == 1:
            return self._from_depth(slices[0])
        first, last = slices[0] // depth, slices[-1] // depth
        if first == last:
            return replace(self, times=1)._from_depth(slices[0] % depth)
        if slices.step == 1 and slices.start % depth == slices.stop % depth == 0:
            return replace(self, times=last + 1 - first)
        size = self.pixel_size
        return replace(self, times=1, pixel_size=None if size is None else (None, *size[1:]))

    def _from_depth(self, z: int) -> Calibration:
        """Return what is known without the first z depths."""
        step = self.pixel_size[0] if self.pixel_size is not None else None
        if self.origin is None or step is None or self.axes[0] != "Z":
            return self
        return replace(self, origin=(self.origin[0] + z * step, *self.origin[1:]))
