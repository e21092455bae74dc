"""PNG and JPEG, each a stack of one slice."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from unet.errors import InputError
from unet.volumes.images import Volume
from unet.volumes.readers.axes import Axes, Selection
from unet.volumes.readers.colours import grey_if_equal

# Of other formats that microscopists have: what makes one of them that is read.
_REMEDIES = {
    **dict.fromkeys(
        (".mrc", ".mrcs", ".rec", ".st", ".ali", ".map"), "make a TIFF of it (mrc2tif of IMOD)"
    ),
    **dict.fromkeys((".zip", ".ozx"), "unpack it into a folder"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".7z"), "unpack it"),
    **dict.fromkeys(
        (".avi", ".mp4", ".mov", ".mkv", ".webm", ".gif"),
        "save its frames as PNG in a folder (ffmpeg -i FILE FOLDER/%05d.png)",
    ),
    ".npz": "save one of its arrays as .npy (numpy.save)",
}


def strange(path: Path) -> str:
    """Return what is said of a file of another format: what it is not, and what helps."""
    remedy = _REMEDIES.get(path.suffix.lower(), "save it as TIFF (in Fiji: File, Save As, Tiff)")
    return f"{path}: is neither TIFF, PNG, JPEG, HDF5, Zarr nor .npy; {remedy}"


def open_picture(path: Path, selection: Selection | None = None) -> Volume:
    """Open a PNG or JPEG as a stack of one slice; colours are channels.

    A palette gives its colours if the selection says so, else its indices, as label images mean
    them. Refused is colour of 16 bit.
    """
    from PIL import Image

    selection = selection or Selection()

    def load() -> np.ndarray:
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty")
        with warnings.catch_warnings():
            # Images of 10,000 x 10,000 pixels are usual in electron microscopy.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.format not in ("PNG", "JPEG"):
                    raise InputError(strange(path))
                if getattr(image, "n_frames", 1) > 1:
                    raise InputError(
                        f"{path}: holds {image.n_frames} pictures; save them as TIFF (in Fiji: "
                        f"File, Save As, Tiff)"
                    )
                if image.mode == "CMYK":
                    # Taken for red, green and blue, or for grey, it would come in inverted.
                    raise InputError(f"{path}: has the colours of CMYK; save it as RGB or grey")
                raw_mode = str(image.tile[0][-1]) if image.tile else ""
                if "16" in raw_mode and image.mode in ("RGB", "RGBA", "LA"):
                    raise InputError(f"{path}: is colour of 16 bit; save it as TIFF")
                if image.mode == "P" and selection.colours:
                    return np.asarray(image.convert("RGB"))
                return np.asarray(image)

    try:
        pixels = load()
    except (InputError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise InputError(strange(path)) from None
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({error}); is the file whole?") from None
    for option in ("scene", "level"):
        selection.one_of(option, str(path), [""])
    axes = Axes(str(path), "YXS"[: pixels.ndim], pixels.shape, selection)

    def part(z: int, rows: slice, columns: slice) -> np.ndarray:
        return axes.arrange(pixels[axes.index(z, rows, columns)])

    whole = slice(None)
    volume = Volume(str(path), axes.shape, pixels.dtype, lambda z: part(z, whole, whole), part=part)
    return grey_if_equal(volume, selection) if len(axes.shape) == 4 else volume
