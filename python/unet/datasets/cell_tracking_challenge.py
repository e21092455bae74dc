"""Two sequences each of the cell tracking challenge: PhC-C2DH-U373 and DIC-C2DH-HeLa.

    unet fetch phc-u373|dic-hela [-o data/PhC-C2DH-U373] [--from FOLDER_OR_ZIP]

puts the training sequences into the folder, in the challenge's layout:

    NN/tNNN.tif                 frames, 8 bit
    NN_GT/SEG/man_segNNN.tif    cells of some frames, 16 bit, 0 = background; on PhC-C2DH-U373 cells
                                that do not reach into the field of interest, 50 pixels from the
                                edge, are not drawn; on DIC-C2DH-HeLa not every cell is
    NN_GT/TRA/man_trackNNN.tif  a marker in each cell of every frame
    NN_GT/TRA/man_track.txt     the tracks: label, first frame, last frame, parent
    NN_ST/SEG/man_segNNN.tif    cells of every frame, made of the results of several methods

They come from the folder or zip named by --from or the variable CTC_DIR (the data set, or a folder
that holds it), else from the challenge. Its terms apply; cite Maska et al., Bioinformatics 30
(2014), Ulman et al., Nature Methods 14 (2017).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from unet.datasets.download import download
from unet.datasets.placing import copy_files, once, open_zip, place, unpack
from unet.errors import InputError
from unet.files.atomic import sweep_parts
from unet.files.names import PathLike
from unet.preparation.ctc_sequence import ANNOTATIONS, find_sequence
from unet.tracking.ctc_format import numbered_files, open_frames, read_tracks
from unet.volumes import Volume

_URL = "https://data.celltrackingchallenge.net/training-datasets/"
# The files of the layout; the groups are where each belongs, whatever is before. Programs of
# Windows write suffixes, and whole names, in capitals.
_MEMBER = re.compile(
    r"(?:.*/)?([0-9]{2}(?:_GT|_ST)?)/(?:(t[0-9]{3,}\.tif)|SEG/(man_seg[0-9]{3,}\.tif)"
    r"|TRA/(man_track(?:[0-9]{3,}\.tif|\.txt)))",
    re.IGNORECASE | re.DOTALL,
)
_LARGEST_ARCHIVE = 1 << 31  # bytes unpacked; these data sets have a tenth of it
_LARGEST_TABLE = 1 << 20
_LARGEST_HEADER = 1 << 20


def _belongs(name: str) -> str | None:
    """Return where a file belongs by the end of its name, if it is one of the layout."""
    # Zips that Windows has packed may have its separators.
    found = _MEMBER.fullmatch(name.replace("\\", "/"))
    if found is None:
        return None
    folder, frame, cells, markers = found.groups()
    folder, kind = folder.upper(), folder.upper()[2:]
    if kind not in (("",) if frame else ("_GT", "_ST") if cells else ("_GT",)):
        return None
    if frame:
        return f"{folder}/{frame.lower()}"
    return f"{folder}/SEG/{cells.lower()}" if cells else f"{folder}/TRA/{markers.lower()}"


def _largest(place: str, dataset: Dataset) -> int:
    """Return how many bytes a file of a data set may have: 32 bit a pixel, and its header."""
    height, width = dataset.size
    return _LARGEST_TABLE if place.endswith(".txt") else 4 * height * width + _LARGEST_HEADER


class Dataset(NamedTuple):
    """Where a data set is and what tells it from others.

    Its folder is named like its archive, less .zip; its frames are of one size, (height, width).
    """

    folder: str
    size: tuple[int, int]
    sha256: str | None = None
    address: str = _URL

    @property
    def url(self) -> str:
        """The address of the archive."""
        return f"{self.address}{self.folder}.zip"


DATASETS = {
    "phc-u373": Dataset(
        "PhC-C2DH-U373",
        (520, 696),
        "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
    ),
    "dic-hela": Dataset("DIC-C2DH-HeLa", (512, 512)),
}


class Found(NamedTuple):
    """What there is of a sequence, DATASET/NN.

    Numbers of frames: all, those with cells in NN_GT/SEG and in NN_ST/SEG, those with markers; and
    of the lines of man_track.txt.
    """

    path: Path
    frames: int
    gold: int
    silver: int
    markers: int
    tracks: int


def fetch(
    name: str,
    folder: PathLike | None = None,
    source: PathLike | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Put the training sequences of a data set into a folder, checked.

    Parameters
    ----------
    name : {"phc-u373", "dic-hela"}
    folder : path, optional
        Where they go, by default data/ and the name of the data set. What is there already is
        checked and kept, unless a source is named.
    source : path, optional
        Folder or zip to take them from; by default what CTC_DIR names, else the challenge's
        archive.
    overwrite : bool
        Whether files that are there are replaced if they differ from those of the source.

    Returns
    -------
    dict of str to pathlib.Path
        The sequences there are: 01, 02 and their folders.

    Raises
    ------
    InputError
        If they cannot be had, or are not this data set.
    """
    dataset = DATASETS[name]
    folder = Path("data", dataset.folder) if folder is None else Path(folder)
    sweep_parts(folder)
    if source is None and not _sequences(folder):
        source = os.environ.get("CTC_DIR") or None
    if source is not None:
        _take(_locate(Path(source), dataset), folder, dataset, overwrite)
    elif not _sequences(folder):
        try:
            archive = download(dataset.url, folder, dataset.sha256)
        except InputError as error:
            raise InputError(
                f"{error}; put {dataset.folder}.zip into {folder}, or name a folder that holds "
                f"{dataset.folder} in CTC_DIR"
            ) from None
        _take(archive, folder, dataset, overwrite)
    return {found.path.name: found.path for found in check(name, folder)}


def _sequences(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if re.fullmatch(r"\d\d", path.name)]


def _locate(source: Path, dataset: Dataset) -> Path:
    """Return the folder or zip that a user's folder or zip means."""
    if not source.exists():
        raise InputError(f"{source}: there is no such folder or zip")
    if source.is_dir() and not _sequences(source):
        for path in (source / dataset.folder, source / f"{dataset.folder}.zip"):
            if path.exists():
                return path
        raise InputError(
            f"{source}: holds neither sequences (01, 02) nor {dataset.folder} nor "
            f"{dataset.folder}.zip"
        )
    return source


def _take(source: Path, folder: Path, dataset: Dataset, overwrite: bool) -> None:
    """Put the sequences that a folder or zip holds into a folder, once they are all checked."""
    if source.is_dir() and folder.is_dir() and source.samefile(folder):
        return
    place(
        folder,
        source,
        lambda fresh: (
            copy_files(once(_files(source), source), fresh)
            if source.is_dir()
            else _unpack(source, fresh, dataset)
        ),
        lambda fresh: _check(dataset, fresh, source),
        lambda path: (_belongs(path) or "").lower() == path.lower(),
        # Frames last: a sequence that is there has its annotations.
        lambda part: -len(part),
        overwrite,
    )


def _files(source: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of the layout in a folder, and before each where it belongs."""
    for pattern in ("??/*", "??_*/*/*"):
        for path in sorted(source.glob(pattern)):
            place = _belongs(path.relative_to(source).as_posix())
            if place and path.is_file():
                yield place, path


def _unpack(source: Path, fresh: Path, dataset: Dataset) -> None:
    with open_zip(source) as archive:
        # By the end of the name, so that no member leaves the folder.
        members = once(
            (
                (_belongs(info.filename), info)
                for info in archive.infolist()
                if _belongs(info.filename) and "__MACOSX" not in info.filename
            ),
            source,
        )
        total = sum(info.file_size for info in members.values())
        if total > _LARGEST_ARCHIVE:
            raise InputError(f"{source}: would unpack to {total:,} bytes")
        unpack(archive, members, fresh, lambda name: _largest(name, dataset))


def check(name: str, folder: PathLike) -> list[Found]:
    """Check that a folder holds sequences of a data set.

    Raises
    ------
    InputError
        If there is no sequence; frames are missing, of another size or not of 8 bit; annotations
        are of frames that are not there or of another size; or a file is damaged.
    """
    return _check(DATASETS[name], Path(folder), Path(folder))


def _check(dataset: Dataset, folder: Path, source: Path) -> list[Found]:
    """Check a folder; `source` is where its files come from, for messages."""
    found = []
    for path in _sequences(folder):
        frames = numbered_files(path, "t")
        lost = set(range(max(frames) + 1)) - set(frames)
        if lost:
            raise InputError(f"{source}: {path.name} lacks t{min(lost):03d}.tif")
        with open_frames(frames, masks=False) as volume:
            if volume.shape[1:] != dataset.size or volume.dtype.name != "uint8":
                raise InputError(
                    f"{source}: frames of {path.name} are {volume.dtype} of {volume.shape[1:]}, "
                    f"not uint8 of {dataset.size} as in {dataset.folder}"
                )
            _read_all(volume)
        drawn = {kind: 0 for kind in ANNOTATIONS}
        for kind in ANNOTATIONS:
            if (folder / f"{path.name}_{kind.upper()}" / "SEG").is_dir():
                files = find_sequence(path, kind)
                drawn[kind] = len(files.cells)
                _check_masks(files.cells, dataset)
        tracking = folder / f"{path.name}_GT" / "TRA"
        markers = tracks = 0
        if tracking.is_dir():
            marked = numbered_files(tracking, "man_track")
            _check_masks(marked, dataset)
            markers = len(marked)
            tracks = len(read_tracks(tracking / "man_track.txt"))
        found.append(Found(path, len(frames), drawn["gt"], drawn["st"], markers, tracks))
    if not found:
        raise InputError(f"{source}: holds no sequence (01, 02) of {dataset.folder}")
    return found


def _check_masks(files: Mapping[int, Path], dataset: Dataset) -> None:
    with open_frames(files, masks=True) as masks:
        if masks.shape[1:] != dataset.size:
            first = next(iter(files.values()))
            raise InputError(f"{first}: is {masks.shape[1:]}, not {dataset.size}")
        _read_all(masks)


def _read_all(volume: Volume) -> None:
    """Read every slice: a damaged one raises `InputError`."""
    for _ in volume:
        pass


def describe(name: str, folder: PathLike) -> list[str]:
    """Return what there is of each sequence in a folder, a line each; checks them as `check`."""
    return [
        f"{found.path}: {found.frames} frames; cells drawn in {found.gold} (GT) and "
        f"{found.silver} (ST); markers in {found.markers}, {found.tracks} tracks"
        for found in check(name, folder)
    ]
