"""Files laid out as those of u-net-release-2015-10-02, made of what is known about it.

The net's text is put together from strings, and the weights are written byte by byte: neither
knows this project's reader, schema or NetSpec.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

# What the authors' scripts put before phseg_v5-train.prototxt.
HEADER = """input: "data"
input_dim: 1
input_dim: 1
input_dim: {height}
input_dim: {width}
state {{ phase: TEST }}
"""

TYPES = {
    "CONVOLUTION": 4, "CONCAT": 3, "DROPOUT": 6, "HDF5_DATA": 9, "POOLING": 17, "RELU": 18,
    "SOFTMAX_LOSS": 21, "DECONVOLUTION": 39,
}  # fmt: skip
Layer = tuple[str, str, list[str], list[str], str]
Weights = dict[str, tuple[np.ndarray, np.ndarray]]


def _convolution(kind: str, name: str, bottom: str, top: str, maps: int, size: int, stride: int):
    text = (
        "  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0\n"
        f"  convolution_param {{ num_output: {maps} pad: 0 kernel_size: {size} stride: {stride} "
        'weight_filler { type: "xavier" } bias_filler { type: "constant" } }\n'
    )
    return kind, name, [bottom], [top], text


def _in_place(kind: str, name: str, blob: str, text: str = "") -> Layer:
    return kind, name, [blob], [blob], text


def layers(width: int = 64) -> Iterator[Layer]:
    """Yield (type, name, bottoms, tops, further text) of the layers of phseg_v5."""
    dropout = "  dropout_param { dropout_ratio: 0.5 } include: { phase: TRAIN }\n"
    yield (
        "HDF5_DATA", "loaddata", [], ["data", "label"],
        '  hdf5_data_param { source: "trainfileList.txt" batch_size: 1 } '
        "include: { phase: TRAIN }\n",
    )  # fmt: skip
    for level in range(5):
        a, b, c = (f"d{level}{step}" for step in "abc")
        first, maps = ("data" if level == 0 else a), width << level
        yield _convolution("CONVOLUTION", f"conv_{a}-b", first, b, maps, 3, 1)
        yield _in_place("RELU", f"relu_{b}", b)
        yield _convolution("CONVOLUTION", f"conv_{b}-c", b, c, maps, 3, 1)
        yield _in_place("RELU", f"relu_{c}", c)
        if level >= 3:
            yield _in_place("DROPOUT", f"dropout_{c}", c, dropout)
        if level < 4:
            below = f"d{level + 1}a"
            text = "  pooling_param { pool: MAX kernel_size: 2 stride: 2 }\n"
            yield "POOLING", f"pool_{c}-{below[1:]}", [c], [below], text
    below = "d4c"
    for level in (3, 2, 1, 0):
        a, b, c, d = (f"u{level}{step}" for step in "abcd")
        skip, cropped, maps = f"d{level}c", f"d{level}cc", width << level
        up = 2 * width if level == 0 else maps
        yield _convolution("DECONVOLUTION", f"upconv_{below}_{a}", below, a, up, 2, 2)
        yield _in_place("RELU", f"relu_{a}", a)
        yield "CROP", f"crop_{skip}-{cropped}", [skip, a], [cropped], ""
        yield "CONCAT", f"concat_{cropped}_{a}-b", [a, cropped], [b], ""
        yield _convolution("CONVOLUTION", f"conv_{b}-c", b, c, maps, 3, 1)
        yield _in_place("RELU", f"relu_{c}", c)
        yield _convolution("CONVOLUTION", f"conv_{c}-d", c, d, maps, 3, 1)
        yield _in_place("RELU", f"relu_{d}", d)
        below = d
    yield _convolution("CONVOLUTION", f"conv_{below}-score", below, "score", 2, 1, 1)
    yield (
        "SOFTMAX_LOSS", "loss", ["score", "label"], ["loss"],
        "  loss_param { ignore_label: 2 } include: { phase: TRAIN }\n",
    )  # fmt: skip


def train_text(width: int = 64) -> str:
    """Return the text of phseg_v5-train.prototxt."""
    text = "name: 'phseg_v5'\nforce_backward: true\n"
    for kind, name, bottoms, tops, further in layers(width):
        blobs = "".join(f" bottom: '{blob}'" for blob in bottoms)
        blobs += "".join(f" top: '{blob}'" for blob in tops)
        text += f"layers {{{blobs}\n  name: '{name}' type: {kind}\n{further}}}\n"
    return text


def test_text(shape: tuple[int, int], width: int = 64) -> str:
    """Return what the authors' scripts made of it for an input of (height, width)."""
    return HEADER.format(height=shape[0], width=shape[1]) + train_text(width)


test_text.__test__ = False


def random_weights(width: int = 64, seed: int = 0) -> Weights:
    """Return weights of He's standard deviation and small biases: layer -> (weights, biases)."""
    random = np.random.default_rng(seed)
    # The blobs' channels, followed through the net.
    channels, weights = {"data": 1}, {}
    for kind, name, bottoms, tops, text in layers(width):
        count = sum(channels[blob] for blob in bottoms if blob != "label")
        if kind in ("CONVOLUTION", "DECONVOLUTION"):
            words = text.replace("{", " ").split()
            maps = int(words[words.index("num_output:") + 1])
            size = int(words[words.index("kernel_size:") + 1])
            sides = (maps, count) if kind == "CONVOLUTION" else (count, maps)
            fan_in = count * size * size if kind == "CONVOLUTION" else count
            values = random.normal(0, np.sqrt(2 / fan_in), (*sides, size, size))
            biases = random.normal(0, 0.05, maps)
            weights[name] = (values.astype(np.float32), biases.astype(np.float32))
            count = maps
        channels[tops[0]] = channels[bottoms[0]] if kind == "CROP" else count or 1
    return weights


# -- protobuf's wire format, https://protobuf.dev/programming-guides/encoding ----------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _blob(values: np.ndarray) -> bytes:
    # Biases are 1 x 1 x 1 x N.
    sides = (1,) * (4 - values.ndim) + values.shape
    legacy = b"".join(_number(number, side) for number, side in enumerate(sides, 1))
    return legacy + _bytes(5, values.astype("<f4").tobytes())


def caffemodel(weights: Weights, width: int = 64, crop: int = 40) -> bytes:
    """Return the bytes of phseg_v5.caffemodel.

    Parameters
    ----------
    weights : Weights
    width : int
    crop : int
        The number of the type CROP, which is not known.
    """
    types = {**TYPES, "CROP": crop}
    out = _bytes(1, b"phseg_v5")
    for kind, name, bottoms, tops, _ in layers(width):
        layer = b"".join(_bytes(2, blob.encode()) for blob in bottoms)
        layer += b"".join(_bytes(3, blob.encode()) for blob in tops)
        layer += _bytes(4, name.encode()) + _number(5, types[kind])
        layer += b"".join(_bytes(6, _blob(blob)) for blob in weights.get(name, ()))
        out += _bytes(2, layer)
    return out


# -- the release as a folder and as an archive -----------------------------------------------------

FOLDER = "u-net-release"


def write_release(
    folder: Path, width: int, frames: np.ndarray, weights: Weights | None = None
) -> Path:
    """Write the release, with a narrow net and few frames, under `folder`; return its own folder.

    Parameters
    ----------
    folder : Path
    width : int
    frames : uint8 ndarray, shape (frames, height, width)
    weights : Weights, optional
        By default `random_weights`.
    """
    release = folder / FOLDER
    sequence = release / "PhC-C2DH-U373" / "01"
    sequence.mkdir(parents=True)
    (release / "caffe-unet-src").mkdir()
    (release / "caffe-unet-src" / "README").write_text("sources\n")
    (release / "segmentAndTrack.sh").write_text("#!/bin/sh\n")
    (release / "phseg_v5-train.prototxt").write_text(train_text(width))
    data = caffemodel(random_weights(width) if weights is None else weights, width)
    (release / "phseg_v5.caffemodel").write_bytes(data)
    for t, frame in enumerate(frames):
        tifffile.imwrite(sequence / f"t{t:03d}.tif", frame)
    return release


def pack(release: Path) -> bytes:
    """Return a release's folder as .tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(release, FOLDER)
    return packed.getvalue()
