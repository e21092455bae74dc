"""Options that several programs take: numbers within bounds, --overwrite."""

from __future__ import annotations

import argparse
import math
import re
from typing import Callable


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        # Of many digits Python reads no number.
        value = int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", text) else None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r} is not a whole number from {low} to {high}"
            )
        return value

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number {low:g} to {high:g}")
        return value

    return parse


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite to a program's options."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace outputs that are there already, also those that this program has not "
        "written; a folder with all that is in it (never an input)",
    )
