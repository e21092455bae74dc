"""What a network is best segmented with: segment.json beside it, which flags override."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.names import PathLike
from unet.files.score_file import write_scores
from unet.segmentation.instances import InstanceRules, check_rules
from unet.segmentation.segment import TTA

SEGMENT = "segment.json"
_KINDS: dict[str, tuple[type, ...]] = {
    "tta": (str,),
    "threshold": (int, float, type(None)),
    "minimum_area": (int,),
    "fill_holes": (bool,),
    "watershed": (int, float, type(None)),
}


def write_defaults(path: PathLike, rules: InstanceRules, tta: str) -> None:
    """Write segment.json: test-time augmentation, and what is a cell."""
    write_scores(path, {"tta": tta, **rules._asdict()})


def read_defaults(deploy: PathLike) -> dict[str, Any]:
    """Read what segment.json beside a network says.

    Parameters
    ----------
    deploy : path
        The network's prototxt.

    Returns
    -------
    dict
        tta and the fields of `InstanceRules`, as far as the file has them; without a file none.

    Raises
    ------
    InputError
        If the file is damaged, or a value is not one that can be asked for.
    """
    path = Path(deploy).parent / SEGMENT
    if not path.exists():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(said, dict):
        raise InputError(f"{path}: must hold an object, such as {{\"threshold\": 0.5}}")
    found = {name: said[name] for name in _KINDS if name in said}
    for name, value in found.items():
        is_kind = isinstance(value, _KINDS[name])
        if not is_kind or (isinstance(value, bool) and name != "fill_holes"):
            raise InputError(f"{path}: {name} is {json.dumps(value)}, which means nothing")
    if found.get("tta", "none") not in TTA:
        raise InputError(f"{path}: tta {found['tta']!r}: give one of {', '.join(TTA)}")
    try:
        check_rules(InstanceRules(**{name: found[name] for name in found if name != "tta"}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def told(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Say which defaults hold, where `given` has no value of its own; nothing if none does."""
    usual = {"tta": "none", **InstanceRules._field_defaults}
    held = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in defaults.items()
        if given.get(name) is None and value != usual[name]
    ]
    return f"as {SEGMENT} beside the network says: {' '.join(held)}" if held else ""
