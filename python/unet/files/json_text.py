"""JSON that every reader takes: what is no number is null."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any, indent: int | None = 1) -> str:
    """Return a value as JSON; NaN and infinities, which JSON does not have, become null.

    Parameters
    ----------
    value : dict, list, tuple, str, int, float, bool or None
        Also nested.
    indent : int, optional
        Of the lines; None: one line.

    Examples
    --------
    >>> json_text({"SEG": float("nan")}, None)
    '{"SEG": null}'
    """
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
