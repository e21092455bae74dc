"""Files of scores: JSON that every reader takes, with the project's mark."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.names import printable
from unet.files.provenance import KEY, SCORE_FILE, mark


def write_scores(path: str | os.PathLike[str], scores: Mapping[str, Any]) -> None:
    """Write scores as JSON, whole or not at all.

    NaN and infinities, which JSON does not have, become null; names that are not UTF-8, which JSON
    does not have either, are written as `unet.files.names.printable` does.
    """
    marked = {KEY: mark(SCORE_FILE), **scores}
    with atomic_path(path) as fresh:
        text = json.dumps(_as_json(marked), indent=1, allow_nan=False)
        fresh.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read what a file of JSON holds; an `InputError` if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, str):
        return printable(value) if any("\ud800" <= one <= "\udfff" for one in value) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
