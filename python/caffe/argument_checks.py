"""Arguments that a function does not take are refused with the class and words of genuine Caffe."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import SupportsIndex, TypeVar

F = TypeVar("F", bound=Callable)

PATH = (str, bytes, os.PathLike)
WHOLE = SupportsIndex

_TOLD = {**dict.fromkeys(PATH, "a path"), WHOLE: "a whole number"}


class ArgumentError(TypeError):
    """Arguments of types, or as many, as a function does not take."""


# Whose it is in genuine Caffe.
ArgumentError.__module__ = "Boost.Python"


def kind_of(value: object) -> str:
    """Return the name of a value's type, with its module's unless it is Python's own."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def refused(function: str, arguments: tuple, why: str) -> ArgumentError:
    """Return the error about a call with these arguments by place."""
    kinds = ", ".join(map(kind_of, arguments))
    return ArgumentError(f"Python argument types in {function}({kinds}) did not match: {why}")


def not_converted(kind: str, value: object, why: str) -> TypeError:
    """Return the error about a value where another kind, in the words of C++, is wanted."""
    return TypeError(
        f"No registered converter was able to produce a C++ rvalue of type {kind} from this Python "
        f"object of type {kind_of(value)}: {why}"
    )


def takes(**kinds: type | tuple) -> Callable[[F], F]:
    """Let a function refuse arguments of other types, missing ones and unknown names.

    Parameters
    ----------
    **kinds : type or tuple of types
        Of arguments by name; what is None by default may be None.

    Raises
    ------
    ArgumentError
        From the function, before it runs.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        optional = {name for name, given in signature.parameters.items() if given.default is None}

        @functools.wraps(function)
        def checked(*arguments, **named):
            try:
                given = signature.bind(*arguments, **named).arguments
            except TypeError as error:
                raise refused(function.__qualname__, arguments, str(error)) from None
            for name, wanted in kinds.items():
                value = given.get(name)
                left_out = name not in given or (value is None and name in optional)
                if not left_out and not isinstance(value, wanted):
                    why = f"{name} is to be {_told(wanted)}, not {kind_of(value)}"
                    raise refused(function.__qualname__, arguments, why)
            return function(*arguments, **named)

        return checked

    return decorate


def _told(wanted: type | tuple[type, ...]) -> str:
    several = wanted if isinstance(wanted, tuple) else (wanted,)
    return " or ".join(dict.fromkeys(_TOLD.get(kind, f"a {kind.__name__}") for kind in several))
