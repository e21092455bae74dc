"""The authors' release of 2015: their trained network, and the frames it was made for.

    unet fetch release-2015 [-o data/u-net-release] [--from FOLDER_OR_ARCHIVE]

puts what is used of u-net-release-2015-10-02 into the folder:

    phseg_v5-train.prototxt     the network, in the V1 format
    phseg_v5.caffemodel         its weights, likewise
    PhC-C2DH-U373/NN/tNNN.tif   frames, 8 bit; NN_GT/ and NN_ST/ beside, where there are any

It comes from the folder or archive (.tar.gz) named by --from, else from the authors. Their license
applies; cite Ronneberger et al., MICCAI 2015.
"""

from __future__ import annotations

import gzip
import math
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from google.protobuf.message import DecodeError

from caffe.proto import caffe_pb2
from unet.datasets.download import download
from unet.datasets.placing import copy_files, once, place
from unet.errors import InputError
from unet.files.atomic import sweep_parts
from unet.files.names import PathLike
from unet.tracking.ctc_format import numbered_files, open_frames

URL = "https://lmb.informatik.uni-freiburg.de/people/ronneber/u-net/u-net-release-2015-10-02.tar.gz"
SHA256 = "260c51948e9e0f3fe1f1282dbedaf2ca69bea38b8392ef8df6d751e58b234740"
FOLDER = Path("data/u-net-release")
NET, WEIGHTS, FRAMES = "phseg_v5-train.prototxt", "phseg_v5.caffemodel", "PhC-C2DH-U373"
# The files that are used; the group is where each belongs, whatever is before.
_MEMBER = re.compile(
    rf"(?:.*/)?({re.escape(NET)}|{re.escape(WEIGHTS)}|{FRAMES}/(?:\d\d/t\d{{3,}}\.tif"
    r"|\d\d_(?:GT|ST)/SEG/man_seg\d{3,}\.tif|\d\d_GT/TRA/man_track(?:\d{3,}\.tif|\.txt)))"
)
_LARGEST_ARCHIVE = 1 << 32  # bytes unpacked; packed it has 184 MB
_MOST_MEMBERS = 100_000
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20


def _belongs(name: str) -> str | None:
    """Return where a file belongs by the end of its name, if it is one that is used."""
    found = _MEMBER.fullmatch(name)
    return found and found.group(1)


class Release(NamedTuple):
    """What there is of the release.

    Attributes
    ----------
    net, weights : pathlib.Path
    sequences : dict of pathlib.Path to int
        Folders of frames, and how many each holds.
    """

    net: Path
    weights: Path
    sequences: dict[Path, int]


def fetch(
    folder: PathLike = FOLDER,
    source: PathLike | None = None,
    url: str = URL,
    sha256: str = SHA256,
    overwrite: bool = False,
) -> Release:
    """Put the release into a folder, checked.

    Parameters
    ----------
    folder : path
        Where it goes. What is there already is checked and kept, unless a source is named.
    source : path, optional
        Folder or .tar.gz to take it from; by default the archive at `url`.
    url, sha256 : str
    overwrite : bool
        Whether files that are there are replaced if they differ from those of the source.

    Raises
    ------
    InputError
        If it cannot be had, or is not this release.
    """
    folder = Path(folder)
    sweep_parts(folder)
    if source is not None:
        _take(Path(source), folder, overwrite)
    elif not (folder / WEIGHTS).is_file():
        try:
            archive = download(url, folder, sha256)
        except InputError as error:
            raise InputError(
                f"{error}; get {Path(url).name} another way and name it, or the folder it was "
                f"unpacked to, with --from (make benchmark-published: RELEASE=)"
            ) from None
        _take(archive, folder, overwrite)
    return check(folder)


def _take(source: Path, folder: Path, overwrite: bool) -> None:
    """Put the files that a folder or archive holds into a folder, once they are all checked."""
    if not source.exists():
        raise InputError(f"{source}: there is no such folder or archive")
    if source.is_dir() and folder.is_dir() and source.samefile(folder):
        return
    place(
        folder,
        source,
        lambda fresh: _copy(source, fresh, folder) if source.is_dir() else _unpack(source, fresh),
        check,
        lambda path: _belongs(path) == path,
        # Weights last: where they are, all is.
        lambda part: (part == WEIGHTS, part),
        overwrite,
    )


def _copy(source: Path, fresh: Path, folder: Path) -> None:
    own = folder.resolve()
    files = [
        (_belongs(path.relative_to(source).as_posix()), path)
        for path in sorted(source.rglob("*"))
        # The target may lie in the source; what it holds is not the source's.
        if own == source.resolve() or own not in path.resolve().parents
    ]
    copy_files(once((pair for pair in files if pair[0] and pair[1].is_file()), source), fresh)


class _Limited:
    """A stream that refuses to give more bytes than any release has."""

    def __init__(self, stream: BinaryIO, source: Path) -> None:
        self._stream = stream
        self._source = source
        self._given = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._given += len(data)
        if self._given > _LARGEST_ARCHIVE:
            raise InputError(
                f"{self._source}: would unpack to more than {_LARGEST_ARCHIVE:,} bytes; it is "
                f"another archive, or damaged"
            )
        return data


def _unpack(source: Path, fresh: Path) -> None:
    try:
        with open(source, "rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            with tarfile.open(fileobj=_Limited(stream, source), mode="r|") as archive:
                for info, place in _members(archive, source):
                    target = fresh / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "wb") as out:
                        shutil.copyfileobj(archive.extractfile(info), out, _BLOCK)
    # tarfile meets damaged headers with ValueError and the like.
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        # What has an errno is not of the archive: a disk that is full, for one.
        if isinstance(error, InputError) or getattr(error, "errno", None):
            raise
        raise InputError(
            f"{source}: is no whole .tar.gz ({error}); remove it and run this again"
        ) from None


def _members(archive: tarfile.TarFile, source: Path) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield the members that are used, and where each belongs."""
    given: set[str] = set()
    for count, info in enumerate(archive):
        if count >= _MOST_MEMBERS:
            raise InputError(f"{source}: holds more than {_MOST_MEMBERS:,} files; is it another?")
        # By the end of the name, so that no member leaves the folder.
        belongs = _belongs(info.name)
        if belongs is None:
            continue
        if belongs in given:
            raise InputError(
                f"{source}: holds {belongs} twice; name a source that holds one data set"
            )
        given.add(belongs)
        if not info.isreg():
            raise InputError(f"{source}: {info.name} is a link or device where a file should be")
        yield info, belongs


def check(folder: PathLike) -> Release:
    """Check that a folder holds the release's network, and find its frames.

    Raises
    ------
    InputError
        If a file is missing, empty or damaged, the network is not in the V1 format, or frames are
        not of 8 bit or of different sizes.
    """
    folder = Path(folder)
    net, weights = folder / NET, folder / WEIGHTS
    for path in (net, weights):
        if not path.is_file() or not path.stat().st_size:
            raise InputError(f"{folder}: has no {path.name}; is it u-net-release-2015-10-02?")
    text = net.read_bytes().decode("utf-8", "replace")
    if not re.search(r"(?m)^\s*layers\s*\{", text) or "\0" in text:
        raise InputError(f"{net}: is no network in the V1 format (layers {{ ... }})")
    _check_weights(weights)
    sequences = {}
    place = folder / FRAMES
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if re.fullmatch(r"\d\d", path.name):
            files = numbered_files(path, "t")
            with open_frames(files, masks=False) as volume:
                if volume.dtype.name != "uint8":
                    raise InputError(f"{path}: frames are {volume.dtype}, not uint8")
                for _ in volume:
                    pass
            sequences[path] = len(files)
    return Release(net, weights, sequences)


def _check_weights(path: Path) -> None:
    """See that a .caffemodel is whole: every blob has as many numbers as its shape."""
    message = caffe_pb2.NetParameter()
    try:
        message.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError(f"{path}: is no whole .caffemodel") from None
    blobs = [(layer.name, blob) for layer in message.layers for blob in layer.blobs]
    for name, blob in blobs:
        sizes = blob.shape.dim or (blob.num, blob.channels, blob.height, blob.width)
        if len(blob.data) != math.prod(sizes):
            raise InputError(
                f"{path}: layer '{name}' has {len(blob.data)} numbers of {math.prod(sizes)}: the "
                f"file is damaged"
            )
    if not blobs:
        raise InputError(f"{path}: holds no weights of layers in the V1 format")


def describe(release: Release) -> list[str]:
    """Return what was found, a line each."""
    return [
        f"{release.net}: {release.net.stat().st_size:,} bytes",
        f"{release.weights}: {release.weights.stat().st_size:,} bytes",
        *(f"{path}: {count} frames" for path, count in release.sequences.items()),
    ]
