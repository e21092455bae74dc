"""Marks inside the files that this project's programs write, by which they tell them from others.

A file or folder that does not carry the mark of its kind may be somebody's work: it is replaced
only if that is asked for.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import h5py

from unet.errors import InputError
from unet.files.atomic import is_temporary
from unet.files.version import VERSION

#: What a file is; part of its mark, so that scores do not replace a training set.
STACK = "stack"
TRAINING_SET = "training set"
PICTURE = "picture"
RESULT = "tracking result"
SCORE_FILE = "file of scores"
NETWORK = "file of a network"
EXPORT = "network export"

#: Data sets of a training set that hold a number a slice: in a long stack more than the 64 kB of an
#: attribute.
PER_SLICE = ("slices", "balance_slices", "frames")

#: Attribute of HDF5 files and Zarr arrays, and key of JSON files, that holds the mark.
KEY = "software"
#: Chunk of a PNG that holds it; in a TIFF it is the tag of the same name.
PNG_KEY = "Software"
#: First line of text files that `unet nets` writes; those of trained networks name it otherwise.
NETWORK_LINE = "# Written by `unet nets`, python/unet/network/nets.py."
_EARLIER_LINE = NETWORK_LINE.replace("network/", "")
_NETWORK_LINES = (
    NETWORK_LINE,
    _EARLIER_LINE,
    _EARLIER_LINE.replace("unet nets", "python -m unet.nets"),
)

if TYPE_CHECKING:
    from PIL import Image

_NAME = "unet-in-caffe"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# A kill leaves of what zarr was writing, or `unet.files.atomic`, a file with `partial` in its name.
_TORN = r"(\.[0-9a-f]+\.partial)?"
_ZARR_FILE = re.compile(rf"(\.zarray|\.zattrs|zarr(\.json)?|\d+(\.\d+)*){_TORN}")
_ZARR_GROUP_FILE = re.compile(rf"\.?(\.zgroup|\.zattrs|zarr(\.json)?){_TORN}")
_SLICE_FILE = re.compile(r"slice_\d+\.png")
_RESULT_FILE = re.compile(r"mask\d{3,}\.tif|res_track\.txt")
_TABLE = "res_track.txt"
# What file managers leave in a folder that was looked at.
_OF_SYSTEM = re.compile(
    r"\.DS_Store|\._.*|Thumbs\.db|ehthumbs\.db|desktop\.ini|\.directory|\.localized|Icon\r"
)


def mark(kind: str) -> str:
    """Return the mark of a kind of file, for the place that its format has for it."""
    return f"{_NAME} {VERSION}, {kind}"


def save_marked_png(
    path: str | os.PathLike,
    picture: Image.Image,
    kind: str,
    more: Mapping[str, str] | None = None,
    **options: Any,
) -> None:
    """Write a picture of Pillow as PNG, with the mark of its kind, more texts, Pillow's options."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for key, text in {PNG_KEY: mark(kind), **(more or {})}.items():
        texts.add_text(key, text)
    picture.save(os.fspath(path), format="PNG", pnginfo=texts, **options)


def is_folder(path: str | os.PathLike, kind: str) -> bool:
    """Tell whether an output is a folder, by its kind and its suffix."""
    suffixes = {STACK: ("", ".zarr"), PICTURE: ("",)}
    return kind == RESULT or Path(path).suffix.lower() in suffixes.get(kind, ())


def may_replace(path: str | os.PathLike, kind: str) -> bool:
    """Tell whether nothing is lost when a program writes an output of a kind in this place.

    So it is if nothing is there, the file or folder is empty, or it carries the mark of this kind
    and, if it is a folder, an HDF5 file or a Zarr array, holds nothing that the programs do not
    write into such.
    """
    path = Path(path)
    if path.is_dir():
        names = [name for name in os.listdir(path) if not _is_no_matter(name)]
        return not names or any(holds(path, names, kind) for holds in _FOLDERS.get(kind, ()))
    if not path.exists():
        return True
    if not path.is_file():
        return False
    return path.stat().st_size == 0 or _is_marked(path, kind)


def _is_no_matter(name: str) -> bool:
    return _OF_SYSTEM.fullmatch(name) is not None or is_temporary(name)


def refuse_foreign(path: str | os.PathLike, kind: str) -> None:
    """Refuse to replace what no program of this project has written as an output of this kind."""
    if not may_replace(path, kind):
        raise InputError(
            f"{os.fspath(path)}: exists, and is not a {kind} that this program wrote, or something "
            "was added to it; name another output, or replace it with --overwrite"
        )


def _is_marked(path: Path, kind: str) -> bool:
    """Tell whether a file carries the mark of a kind, and holds nothing else."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(_PNG))
        if kind == NETWORK:
            return _is_network(path)
        if kind == EXPORT:
            return _is_export(path)
        if begin == _HDF5:
            return _is_marked_hdf5(path, kind)
        if begin == _PNG:
            return _fits(_png_software(path), kind)
        if begin[:4] in _TIFF:
            return _fits(_tiff_software(path), kind)
        return kind == SCORE_FILE and _fits(_of_json(path.read_text(encoding="utf-8")), kind)
    except Exception:
        # What a reader raises on a damaged or strange file is anybody's guess: it is not ours.
        return False


def _fits(found: object, kind: str) -> bool:
    found = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return re.fullmatch(rf"{_NAME} \S+, {kind}", found) is not None


def _is_marked_hdf5(path: Path, kind: str) -> bool:
    with h5py.File(str(path), "r") as file:
        names = set(file)
        arrays = names - set(PER_SLICE) if kind == TRAINING_SET else names
        whole = len(arrays) == 1 if kind == STACK else arrays == {"raw", "labels", "weights"}
        flat = all(isinstance(file.get(name), h5py.Dataset) for name in names)
        return whole and flat and _fits(file.attrs.get(KEY), kind)


def _png_software(path: Path) -> object:
    from PIL import Image

    # The chunk stands before the pixels, which need not be read.
    with Image.open(path) as picture:
        return picture.info.get(PNG_KEY)


def _tiff_software(path: Path) -> object:
    import tifffile

    with tifffile.TiffFile(str(path)) as tiff:
        tag = tiff.pages[0].tags.get("Software")
        return tag and tag.value


def _of_json(text: str) -> object:
    content = json.loads(text)
    return content.get(KEY) if isinstance(content, dict) else None


def _is_network(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        # It has one key and two values: nothing is lost that a program would not write again.
        content = json.loads(text)
        return set(content) == {"normalise"} and isinstance(content["normalise"], bool)
    return text.split("\n", 1)[0] in _NETWORK_LINES


def _is_export(path: Path) -> bool:
    """Tell whether a file of ONNX, or a zip, says that it is ours."""
    if zipfile.is_zipfile(str(path)):
        with zipfile.ZipFile(str(path)) as archive:
            return _fits(archive.comment, EXPORT)
    with open(path, "rb") as file:
        # After the version of the format it names its producer.
        return file.read(4 + len(_NAME))[4:].decode("latin-1") == _NAME


def _is_zarr(path: Path, names: list[str], kind: str) -> bool:
    """Tell whether a folder is an OME-Zarr image of ours, or the single array of older versions."""
    try:
        attributes = _zarr_attributes(path)
        if attributes is None or not _fits(attributes.get(KEY), kind):
            return False
        if _is_zarr_array(path):
            return _holds_chunks_alone(path, names)
        ome = attributes.get("ome", attributes)
        levels = {str(level["path"]) for level in ome["multiscales"][0]["datasets"]}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return False
    # While an image is being written its metadata name the first level alone, and a level may be
    # there that they do not name yet.
    if attributes.get("complete") is False:
        levels |= {name for name in names if name.isdigit()}
    return all(
        _ZARR_GROUP_FILE.fullmatch(name)
        or (name in levels and _holds_chunks_alone(path / name, os.listdir(path / name)))
        for name in names
    )


def _zarr_attributes(path: Path) -> dict[str, Any] | None:
    if (path / "zarr.json").exists():
        return json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes")
    if (path / ".zattrs").exists():
        return json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    return None


def _is_zarr_array(path: Path) -> bool:
    if (path / "zarr.json").exists():
        content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return content.get("node_type") == "array"
    return (path / ".zarray").exists()


def _holds_chunks_alone(path: Path, names: list[str]) -> bool:
    is_array = ".zarray" in names or "zarr.json" in names
    return is_array and all(_ZARR_FILE.fullmatch(name) for name in _files(path))


def _files(folder: Path) -> Iterator[str]:
    """Yield the names of all files below a folder, and of all folders but those of chunks."""
    for _, folders, files in os.walk(folder):
        yield from (name for name in files if not _OF_SYSTEM.fullmatch(name))
        yield from (name for name in folders if not re.fullmatch(r"c|\d+", name))


def _is_png_folder(path: Path, names: list[str], kind: str) -> bool:
    return all(_SLICE_FILE.fullmatch(name) and _is_marked(path / name, kind) for name in names)


def _is_result(path: Path, names: list[str], kind: str) -> bool:
    # The table has no place for a mark; the masks around it have.
    return any(name != _TABLE for name in names) and all(
        _RESULT_FILE.fullmatch(name) and (name == _TABLE or _is_marked(path / name, kind))
        for name in names
    )


_FOLDERS: dict[str, tuple[Callable[[Path, list[str], str], bool], ...]] = {
    STACK: (_is_zarr, _is_png_folder),
    PICTURE: (_is_png_folder,),
    RESULT: (_is_result,),
}
