"""The ISBI 2012 stack: serial-section electron microscopy of a fly larva's nerve cord.

    unet fetch isbi2012 [-o data/isbi2012] [--from FOLDER_OR_ZIP]

puts train-volume.tif, train-labels.tif and, where they are to be had, test-volume.tif and
test-labels.tif into the folder: 30 slices of 512 x 512 pixels of 4 x 4 x 50 nm, 8 bit. Labels
are 255 inside a cell (class 1 of a training set) and 0 on the membrane (class 0).

They come from the folder or zip named by --from or the variable ISBI_DIR, else from the archive
of the challenge. Free for research; cite Arganda-Carreras et al., Frontiers in Neuroanatomy 9
(2015) and Cardona et al., PLoS Biology 8 (2010).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from unet.datasets.download import download
from unet.datasets.placing import copy_files, once, open_zip, place, unpack
from unet.errors import InputError
from unet.files.atomic import sweep_parts
from unet.files.names import PathLike
from unet.volumes import read_volume

URL = "https://downloads.imagej.net/ISBI-2012-challenge.zip"
FOLDER = Path("data/isbi2012")
SHAPE = (30, 512, 512)
REQUIRED = ("train-volume.tif", "train-labels.tif")
OPTIONAL = ("test-volume.tif", "test-labels.tif")
# Of the pixels, not of the files: the same stack goes round in several encodings.
PIXELS_SHA256 = {
    "train-volume.tif": "200da3d452d726e6c9ca1ce04b869d4edb727320d23b516d01cce707dc8c4760",
    "train-labels.tif": "a7cb64000a1a7e542682927e19c91339f58f9f178e0bcce4e207371116f0ca36",
    "test-volume.tif": "1b58fa7ec1d0ff9d39a855622db3ff66a97863036339b0d04be51b2f5a99b0e9",
}
_LARGEST_MEMBER = 1 << 28  # bytes; a stack has 8 MB


def fetch(
    folder: PathLike = FOLDER,
    source: PathLike | None = None,
    url: str = URL,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Put the stacks into a folder, checked.

    Parameters
    ----------
    folder : path
        Where they go. What is there already is checked and kept, unless a source is named.
    source : path, optional
        Folder or zip to take them from; by default what ISBI_DIR names, else the archive at `url`.
    url : str
    overwrite : bool
        Whether stacks that are there are replaced if their pixels differ from the source's.

    Returns
    -------
    dict of str to pathlib.Path
        The stacks there are, by file name: the two for training and whichever of the test's came.

    Raises
    ------
    InputError
        If they cannot be had, or are not these stacks.
    """
    folder = Path(folder)
    sweep_parts(folder)
    source = source or os.environ.get("ISBI_DIR")
    if source:
        _take(Path(source), folder, overwrite)
    elif not all((folder / name).exists() for name in REQUIRED):
        try:
            archive = download(url, folder)
        except InputError as error:
            raise InputError(
                f"{error}; put {', '.join(REQUIRED)} (or {Path(url).name}) into {folder}, or run "
                "make demo, which does with made-up tissue"
            ) from None
        _take(archive, folder, overwrite)
    stacks = {name: folder / name for name in REQUIRED + OPTIONAL if (folder / name).exists()}
    for path in stacks.values():
        check(path)
    return stacks


def _take(source: Path, folder: Path, overwrite: bool) -> None:
    """Put the stacks that a folder or zip holds into a folder, once they are all checked."""
    if not source.exists():
        raise InputError(f"{source}: there is no such folder or zip")
    if source.is_dir() and all(
        (folder / name).exists() and (folder / name).samefile(source / name)
        for name in REQUIRED + OPTIONAL
        if (source / name).exists()
    ):
        _demand(source, os.listdir(source))
        return
    place(
        folder,
        source,
        lambda fresh: _copy(source, fresh) if source.is_dir() else _unpack(source, fresh),
        lambda fresh: _check_all(fresh, folder),
        lambda name: name in REQUIRED + OPTIONAL,
        # Those that tell that all is there come last.
        lambda name: (name in REQUIRED, name),
        overwrite,
        _same_pixels,
    )


def _same_pixels(old: Path, new: Path) -> bool:
    """Tell whether two files hold one stack: it goes round in several encodings."""
    try:
        return np.array_equal(read_volume(old), read_volume(new))
    except InputError:
        return False


def _copy(source: Path, fresh: Path) -> None:
    files = {name: source / name for name in REQUIRED + OPTIONAL if (source / name).is_file()}
    _demand(source, files)
    copy_files(files, fresh)


def _unpack(source: Path, fresh: Path) -> None:
    with open_zip(source) as archive:
        # By their last name only: where a member wants to be unpacked does not matter.
        members = (
            (PurePosixPath(info.filename).name, info)
            for info in archive.infolist()
            if not info.is_dir() and "__MACOSX" not in info.filename
        )
        found = once((pair for pair in members if pair[0] in REQUIRED + OPTIONAL), source)
        _demand(source, found)
        unpack(archive, found, fresh, lambda name: _LARGEST_MEMBER)


def _check_all(fresh: Path, folder: Path) -> None:
    """Check the new stacks, and the old ones that stay beside them."""
    for name in REQUIRED + OPTIONAL:
        path = next((path for path in (fresh / name, folder / name) if path.exists()), None)
        if path is not None:
            check(path)


def _demand(source: Path, found: Container[str]) -> None:
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise InputError(f"{source}: has no {' and no '.join(missing)}")


def check(path: Path) -> str:
    """Check by its pixels that a file, named as in the archive, is one of the stacks.

    Returns
    -------
    str
        "verified" if every pixel is as in the stacks that this project was tested with, else
        "plausible": the challenge publishes no checksum to hold them against.

    Raises
    ------
    InputError
        If shape, type or values are others.
    """
    stack = read_volume(path)
    if stack.shape != SHAPE or stack.dtype != np.uint8:
        raise InputError(
            f"{path}: is {stack.dtype} of {stack.shape}, not uint8 of {SHAPE}; is it another?"
        )
    values = np.unique(stack)
    if "labels" in path.name and values.tolist() != [0, 255]:
        raise InputError(f"{path}: labels are 0 and 255, not {values[:5].tolist()}...")
    if "volume" in path.name and len(values) < 64:
        raise InputError(f"{path}: has only {len(values)} grey values; is it the right file?")
    pixels = hashlib.sha256(stack.tobytes()).hexdigest()
    return "verified" if pixels == PIXELS_SHA256.get(path.name) else "plausible"


def describe(stacks: Mapping[str, Path]) -> list[str]:
    """Return what is known of the stacks that `fetch` found, a line each."""
    told = {
        "verified": "every pixel as tested",
        "plausible": "shape, type and values are right; there is no checksum for its pixels",
    }
    return [f"{path}: {told[check(path)]}" for path in stacks.values()]
