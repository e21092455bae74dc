"""The exception that a user's mistake raises, wherever the method meets it, and its words."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """A file, a value or an option that the user can put right.

    The message is one sentence that names what is wrong, where, and the remedy; the programs print
    it without a traceback and exit with status 2.
    """


def is_mistake(error: BaseException) -> bool:
    """Tell whether a user can put an error right, so that its message is all there is to say."""
    # The engine's own errors are recognised by their module: genuine Caffe has none to import.
    return isinstance(error, (InputError, OSError, MemoryError)) or (
        type(error).__module__.split(".")[0] == "caffe"
    )


def few(numbers: Sequence[int], most: int = 8) -> str:
    """Write the first of many numbers.

    Examples
    --------
    >>> few([3, 7, 12], most=2)
    '3, 7 and 1 more'
    """
    more = len(numbers) - most
    return ", ".join(map(str, numbers[:most])) + (f" and {more} more" if more > 0 else "")


def counted(many: int, what: str) -> str:
    """Write how many there are of something.

    Examples
    --------
    >>> counted(1, "slice"), counted(2000, "step")
    ('1 slice', '2,000 steps')
    """
    return f"{many:,} {what}{'s' * (many != 1)}"
