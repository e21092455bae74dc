"""What the axes of a stack are, and how far its pixels and time points lie apart."""

from __future__ import annotations

from dataclasses import dataclass


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
