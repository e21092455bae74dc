"""What a network is best segmented with: segment.json beside it, which flags override."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.names import PathLike
from unet.files.provenance import KEY
from unet.files.score_file import read_json, write_scores
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
_USUAL = {"tta": "none", **InstanceRules._field_defaults}


def write_defaults(path: PathLike, rules: InstanceRules, tta: str) -> None:
    """Write segment.json: test-time augmentation, and what is a cell."""
    values = {"tta": tta, **rules._asdict()}
    write_scores(path, {name: values[name] for name in _KINDS})


def read_defaults(deploy: PathLike) -> dict[str, Any]:
    """Read what segment.json beside a network says.

    Parameters
    ----------
    deploy : path
        The network's prototxt.

    Returns
    -------
    dict
        tta; threshold, minimum_area, fill_holes and watershed as of `InstanceRules`: those that
        the file has. Without a file none.

    Raises
    ------
    InputError
        If the file is damaged, or says what cannot be asked for.
    """
    path = Path(deploy).parent / SEGMENT
    if not path.exists():
        return {}
    said = read_json(path)
    if not isinstance(said, dict):
        raise InputError(f'{path}: must hold an object, such as {{"threshold": 0.5}}')
    found = {name: value for name, value in said.items() if name != KEY}
    for name, value in found.items():
        kinds = _KINDS.get(name, ())
        # True is a whole number, too.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InputError(
                f"{path}: {name!r} is {json.dumps(value)}, which means nothing; it may hold "
                f"{', '.join(_KINDS)}"
            )
    if found.get("tta", "none") not in TTA:
        raise InputError(f"{path}: 'tta' is {found['tta']!r}: make it one of {', '.join(TTA)}")
    try:
        check_rules(InstanceRules(**{name: found[name] for name in found if name != "tta"}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def take_defaults(given: dict[str, Any], deploy: PathLike) -> str:
    """Take what a network says of itself where no flag says otherwise; say as flags what that is.

    Parameters
    ----------
    given : dict
        The flags of `unet segment` by their names, None where one is not given; is filled in.
    deploy : path
        As of `read_defaults`.

    Returns
    -------
    str
        Empty where all is as usual.
    """
    # What is a cell matters where cells are asked for; a procedure fixes all of it.
    taken = {
        name: value
        for name, value in read_defaults(deploy).items()
        if given[name] is None and not given["procedure"] and (name == "tta" or given["instances"])
    }
    given.update(taken)
    return told(taken)


def told(taken: Mapping[str, Any]) -> str:
    """Say as flags which values are taken from segment.json; nothing where all are the usual."""
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in taken.items()
        if value != _USUAL[name]
    ]
    return f"{' '.join(flags)}: as {SEGMENT} beside the network says" if flags else ""
