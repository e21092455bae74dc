"""Units of length and time: as OME writes them, as NGFF names them, and how long they are."""

from __future__ import annotations

from unet.volumes.calibration import Calibration

#: Of a unit as OME writes it: NGFF's name of it (UDUNITS-2), and how many micrometres it is.
LENGTHS = {
    "pm": ("picometer", 1e-6),
    "Å": ("angstrom", 1e-4),
    "nm": ("nanometer", 1e-3),
    "µm": ("micrometer", 1.0),
    "mm": ("millimeter", 1e3),
    "cm": ("centimeter", 1e4),
    "m": ("meter", 1e6),
    "in": ("inch", 25400.0),
}
#: Of a unit as OME writes it: NGFF's name of it, and how many seconds it is.
TIMES = {
    "ns": ("nanosecond", 1e-9),
    "µs": ("microsecond", 1e-6),
    "ms": ("millisecond", 1e-3),
    "s": ("second", 1.0),
    "min": ("minute", 60.0),
    "h": ("hour", 3600.0),
    "d": ("day", 86400.0),
}


def micrometres(
    calibration: Calibration,
) -> tuple[float | None, float | None, float | None] | None:
    """Return the pixel size (z, y, x) in micrometres; None where it or its unit is not known."""
    if calibration.pixel_size is None or calibration.unit not in LENGTHS:
        return None
    _, factor = LENGTHS[calibration.unit]
    z, y, x = (None if size is None else size * factor for size in calibration.pixel_size)
    return z, y, x


def seconds(calibration: Calibration) -> float | None:
    """Return the interval between time points in seconds; None where it is not known."""
    if calibration.interval is None or calibration.interval_unit not in TIMES:
        return None
    return calibration.interval * TIMES[calibration.interval_unit][1]


# As people and programs write them, in small letters.
_LENGTH_NAMES = dict.fromkeys(("um", "\u03bcm", "\\u00b5m", "micron", "microns"), "µm")
_LENGTH_NAMES.update(dict.fromkeys(("a", "å", "angstrom"), "Å"))
_LENGTH_NAMES.update(dict.fromkeys(("inch", "inches"), "in"))
_TIME_NAMES = dict.fromkeys(("us", "usec", "\u03bcs", "\\u00b5s"), "µs")
_TIME_NAMES.update(dict.fromkeys(("msec", "msecs"), "ms"))
_TIME_NAMES.update(dict.fromkeys(("sec", "secs"), "s"))
_TIME_NAMES.update(dict.fromkeys(("mins",), "min"))
_TIME_NAMES.update(dict.fromkeys(("hr", "hrs"), "h"))


def length_unit(text: str) -> str | None:
    r"""Return a unit of length as OME writes it; None where it is none, such as pixels.

    Examples
    --------
    >>> [length_unit(text) for text in ("micron", "\\u00B5m", "nanometers", "pixel")]
    ['µm', 'µm', 'nm', None]
    """
    return _unit(text, LENGTHS, _LENGTH_NAMES)


def time_unit(text: str) -> str | None:
    """Return a unit of time as OME writes it; None where it is none.

    Examples
    --------
    >>> [time_unit(text) for text in ("sec", "minutes", "frame")]
    ['s', 'min', None]
    """
    return _unit(text, TIMES, _TIME_NAMES)


def _unit(text: str, units: dict[str, tuple[str, float]], names: dict[str, str]) -> str | None:
    text = text.strip()
    if text in units:
        return text
    small = text.lower().replace("metre", "meter")
    if small in names:
        return names[small]
    for unit, (name, _) in units.items():
        if small in (unit, name, f"{name}s"):
            return unit
    return None
