"""Put files into a folder, all or none: made and checked elsewhere, then moved."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from unet.errors import InputError


def replace_parts(
    folder: Path,
    source: Path,
    fill: Callable[[Path], None],
    check: Callable[[Path], object],
    order: Callable[[str], object],
) -> None:
    """Fill a new folder, check it, and move what is in it into `folder`, in place of what is there.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is not there.
    source : pathlib.Path
        Where the files come from: what errors name.
    fill, check : callable
        Called with the new folder; what they raise leaves `folder` as it was.
    order : callable
        Key by which the parts are moved, smallest first: last comes what tells that all is there.

    Raises
    ------
    InputError
        If `check` raises it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(folder), prefix=".new") as temporary:
        fresh, old = Path(temporary, "fresh"), Path(temporary, "old")
        fresh.mkdir()
        old.mkdir()
        fill(fresh)
        try:
            check(fresh)
        except InputError as error:
            raise InputError(str(error).replace(str(fresh), str(source))) from None
        for part in sorted(os.listdir(fresh), key=order):
            if (folder / part).exists():
                os.replace(folder / part, old / part)
            os.replace(fresh / part, folder / part)
