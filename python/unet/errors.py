"""The exception that a user's mistake raises, wherever the method meets it."""

from __future__ import annotations


class InputError(ValueError):
    """A file, a value or an option that the user can put right.

    The message is one sentence that names what is wrong, where, and the remedy; the programs print
    it without a traceback and exit with status 2.
    """
