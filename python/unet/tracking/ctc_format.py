"""Files of the cell tracking challenge: numbered frames and masks, and the table of tracks."""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_folder, atomic_path
from unet.files.names import PathLike
from unet.files.provenance import RESULT, mark, refuse_foreign
from unet.volumes import Volume, open_volume
from unet.volumes.readers.folders import join_files

TRACKS_FILE = "res_track.txt"
_LARGEST_LABEL = np.iinfo(np.uint16).max


class Track(NamedTuple):
    """One line of man_track.txt or res_track.txt: a cell from its first frame to its last.

    Attributes
    ----------
    label : int
        The cell's number in the masks, 1 to 65535.
    begin, end : int
        Its first and its last frame.
    parent : int
        The track it comes from, which ended before; 0 is none.
    """

    label: int
    begin: int
    end: int
    parent: int


def read_tracks(path: PathLike) -> list[Track]:
    """Read man_track.txt or res_track.txt, in the order of the file.

    Parameters
    ----------
    path : path
        Lines of four whole numbers, L B E P; empty lines are skipped. Whatever editors leave, on
        Windows too, is taken: a mark of the encoding, UTF-16, other ends of lines, tabs.

    Raises
    ------
    InputError
        If the file is missing, a line is of another form, a label comes twice, a track ends before
        it begins, or its parent is not in the file or does not end before it begins.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such table of tracks")
    tracks: list[Track] = []
    places: list[str] = []
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 4 or not all(re.fullmatch(r"[0-9]{1,9}", field) for field in fields):
            raise InputError(
                f"{path}, line {number}: {line.strip()!r} is not four whole numbers: "
                "label, first frame, last frame, parent"
            )
        tracks.append(Track(*map(int, fields)))
        places.append(f"{path}, line {number}")
    _check_tracks(tracks, places)
    return tracks


def _text_of(path: Path) -> str:
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # 1A ended a file of DOS.
    return data.decode("utf-16" if wide else "utf-8-sig", "replace").rstrip("\0\x1a")


def _check_tracks(tracks: Sequence[Track], places: Sequence[str]) -> None:
    known: dict[int, Track] = {}
    for track, place in zip(tracks, places):
        if not 1 <= track.label <= _LARGEST_LABEL:
            raise InputError(f"{place}: label {track.label} is not in 1..{_LARGEST_LABEL}")
        if track.label in known:
            raise InputError(f"{place}: label {track.label} is in the table already")
        if track.end < track.begin:
            raise InputError(
                f"{place}: track {track.label} ends in frame {track.end}, before it begins in "
                f"frame {track.begin}"
            )
        known[track.label] = track
    for track, place in zip(tracks, places):
        if track.parent == 0:
            continue
        if track.parent not in known:
            raise InputError(f"{place}: the parent {track.parent} of {track.label} is no track")
        if known[track.parent].end >= track.begin:
            raise InputError(
                f"{place}: track {track.label} begins in frame {track.begin}, but its parent "
                f"{track.parent} ends only in frame {known[track.parent].end}"
            )


def write_tracks(path: PathLike, tracks: Iterable[Track]) -> None:
    """Write man_track.txt or res_track.txt; raises `InputError` as `read_tracks`."""
    tracks = list(tracks)
    _check_tracks(tracks, [f"{path}, track {track.label}" for track in tracks])
    with atomic_path(path) as temporary:
        temporary.write_text("".join("{} {} {} {}\n".format(*track) for track in tracks))


def numbered_files(folder: PathLike, prefix: str) -> dict[int, Path]:
    """Find the numbered pictures of a folder, in order: PREFIXNNN.tif, also in capitals.

    Numbers need not be padded: t0.tif to t119.tif are 120 frames.

    Parameters
    ----------
    folder : path
    prefix : str
        t for frames, mask for results, man_seg and man_track for ground truth.

    Raises
    ------
    InputError
        If there is no such folder, none of its files has such a name, two have the same number, or
        it holds slices of volumes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if re.fullmatch(rf"{prefix}_[0-9]+_[0-9]+\.tiff?", path.name, re.IGNORECASE):
            raise InputError(f"{path}: is a slice of a volume; only flat sequences are read")
        match = re.fullmatch(rf"{prefix}([0-9]{{1,9}})\.tiff?", path.name, re.IGNORECASE)
        if match is None:
            continue
        number = int(match.group(1))
        if number in found:
            raise InputError(
                f"{path}: has the same number as {found[number].name}; remove one of the two"
            )
        found[number] = path
    if not found:
        raise InputError(f"{folder}: holds no {prefix}000.tif, {prefix}001.tif, ...")
    return {number: found[number] for number in sorted(found)}


def open_frames(files: Mapping[int, Path], *, masks: bool) -> Volume:
    """Open numbered pictures as a stack, each read when it is asked for.

    Parameters
    ----------
    files : mapping of int to pathlib.Path
        As `numbered_files` returns them; their order is that of the slices.
    masks : bool
        True: whole numbers from 0 to 65535, of whatever type, become uint16. False: all must be of
        the first one's type.

    Raises
    ------
    InputError
        If the first file, or on reading another, is damaged, of another size or type, or holds
        several slices or channels.
    """
    paths = list(files.values())
    open_one = _open_mask if masks else functools.partial(open_volume, channels=1)
    return join_files(paths[0].parent, paths, open_one, "only flat sequences are read")


def _open_mask(path: Path) -> Volume:
    volume = open_volume(path, channels=1)

    def read(z: int) -> np.ndarray:
        return _as_mask(volume[z], path)

    return Volume(volume.path, volume.shape, np.dtype(np.uint16), read, volume.close)


def _as_mask(image: np.ndarray, path: Path) -> np.ndarray:
    """Return a mask as uint16: programs write numbers of cells as any type that holds them."""
    low, high = image.min(), image.max()
    if low < 0 or high > _LARGEST_LABEL:
        raise InputError(
            f"{path}: has the numbers {low:g} to {high:g}, but masks hold 0 to {_LARGEST_LABEL}"
        )
    numbers = image.astype(np.uint16, copy=False)
    if image.dtype.kind == "f" and (numbers != image).any():
        raise InputError(f"{path}: holds numbers that are not whole; is it a mask?")
    return numbers


def open_masks(folder: PathLike, prefix: str = "mask") -> Volume:
    """Open all masks of a folder as a stack: of a result, or the markers of a ground truth.

    It is uint16 (frames, height, width), 0 is background; raises `InputError` as `numbered_files`
    and `open_frames`, and if frames are missing between the first and the last.
    """
    files = numbered_files(folder, prefix)
    lost = next((k for k, number in enumerate(files, min(files)) if k != number), None)
    if lost is not None:
        raise InputError(f"{folder}: {prefix}{lost:03d}.tif is missing")
    return open_frames(files, masks=True)


def write_masks(
    folder: PathLike,
    masks: Iterable[np.ndarray],
    tracks: Iterable[Track] | None = None,
    *,
    numbers: Sequence[int] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a result: mask000.tif, mask001.tif, ..., and res_track.txt.

    The challenge wants all names of one length: of four digits as soon as a number has four.

    Parameters
    ----------
    folder : path
        Appears whole; an older result in its place is replaced.
    masks : sequence or iterable of ndarray of int, shape (height, width)
        Frame after frame; 0 is background, every other number a cell, up to 65535.
    tracks : iterable of Track, optional
        None: masks alone, whose numbers say nothing from frame to frame.
    numbers : sequence of int, optional
        Of the frames, one a mask; by default from 0 on, as many as `masks`, then a sequence, has.
    overwrite : bool
        Whether a folder is replaced that holds other things than a result of this function, whose
        masks carry the mark of `unet.files.provenance`.

    Raises
    ------
    InputError
        If there is such a folder, a number needs more than 16 bit, or a track
        is invalid (see `read_tracks`).
    """
    import tifffile

    folder = Path(folder)
    if not overwrite:
        refuse_foreign(folder, RESULT)
    tracks = None if tracks is None else list(tracks)
    _check_tracks(tracks or [], [f"{folder}, track {track.label}" for track in tracks or []])
    numbers = range(len(masks)) if numbers is None else numbers
    digits = 3 if max(numbers, default=0) < 1000 else len(str(max(numbers)))
    with atomic_folder(folder) as temporary:
        for number, mask in zip(numbers, masks):
            if mask.min() < 0 or mask.max() > _LARGEST_LABEL:
                raise InputError(
                    f"{folder}: frame {number} has the numbers {mask.min()} to {mask.max()}, but "
                    f"masks hold 0 to {_LARGEST_LABEL}"
                )
            # zlib, as tifffile needs no other package for it.
            tifffile.imwrite(
                str(temporary / f"mask{number:0{digits}d}.tif"),
                mask.astype(np.uint16),
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                software=mark(RESULT),
            )
        if tracks is not None:
            write_tracks(temporary / TRACKS_FILE, tracks)
