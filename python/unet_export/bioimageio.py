"""A model package of bioimage.io: weights for ONNX and PyTorch, test pictures, cover, card."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bioimageio.spec import InvalidDescr, load_description
from loguru import logger
from PIL import Image
from ruyaml import YAML

from unet.datasets.phantom import phantom
from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.names import PathLike
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import EXPORT, mark
from unet.segmentation.segment import probabilities_of
from unet.volumes.element_size import normalized
from unet.volumes.intensity import is_normalised, scale_intensity
from unet_export import architecture
from unet_export.card import AUTHOR, card_text, citations, plain_name, summary
from unet_export.graph import OPSET
from unet_export.network import model_of, write_network
from unet_export.source import LICENCE, Source, metadata, open_source
from unet_export.state import described, state_of
from unet_export.whole import halo, make_whole, placed, smallest_block, window

# Cells of the lowest map within the halo of the test picture: few, for tools run it often.
_TEST_CELLS = {2: 6, 3: 2}
# Of the zip's files, so that equal networks give equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
_SMALL = 1 << 22
_COVER = 256
_SPEC = "0.5.12"


def write_bioimageio(
    source: PathLike,
    path: PathLike,
    net: PathLike | None = None,
    *,
    author: str = AUTHOR,
    licence: str = LICENCE,
    overwrite: bool = False,
) -> list[str]:
    """Write a trained network as a model package of bioimage.io.

    Parameters
    ----------
    source, net : path
        As of `unet.load`; a network whose tiles fit together.
    path : path
        The package, NAME.zip; equal networks give equal bytes.
    author : str
        Who trained it.
    licence : str
        An identifier of SPDX, such as MIT or CC-BY-4.0.
    overwrite : bool
        Whether what no program of this project has written may be replaced.

    Returns
    -------
    list of str
        The formats of its weights.

    Raises
    ------
    InputError
        If the network cannot be opened, tiles of it do not fit together, a layer cannot be said in
        ONNX, the specification refuses what was given, or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".zip":
        raise InputError(f"{path}: name a file NAME.zip")
    opened = open_source(source, net)
    if not opened.axes:
        raise InputError(
            f"{opened.prototxt}: is no U-Net whose tiles can be put together; export it as ONNX"
        )
    guard_outputs([Output(path, EXPORT)], [opened.prototxt, opened.weights], overwrite)
    files, formats = _files(opened, author, licence)
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, data in files.items():
                # Weights hardly become smaller, and take minutes.
                small = len(data) < _SMALL
                kind = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
                archive.writestr(zipfile.ZipInfo(name, _DATE), data, kind)
            archive.comment = mark(EXPORT).encode()
        _check(temporary, path)
    return formats


def _files(source: Source, author: str, licence: str) -> tuple[dict[str, bytes], list[str]]:
    """Return the files of a package, and the formats of its weights."""
    written = write_network(source.net, [source.score])
    written = make_whole(written, source.axes, source.net.inputs[0], source.score)
    said = metadata(source, licence)
    model = model_of(written.graph, written.inputs, written.outputs, source.name, said)
    files = {"weights.onnx": model.SerializeToString(deterministic=True)}
    del model, written
    layers = described(source)
    weights: dict[str, Any] = {"onnx": {"source": "weights.onnx", "opset_version": OPSET}}
    if layers is not None:
        files["weights.pt"] = state_of(source, layers)
        files["architecture.py"] = Path(architecture.__file__).read_bytes()
        weights = _weights(files, layers)
    picture, probabilities = _test_tensors(source)
    files["test_image.npy"], files["test_probabilities.npy"] = map(_npy, (picture, probabilities))
    files["cover.png"] = _cover(source, picture, probabilities)
    files["README.md"] = card_text(source, list(weights), said).encode()
    for entry in weights.values():
        entry["sha256"] = hashlib.sha256(files[entry["source"]]).hexdigest()
    files["rdf.yaml"] = _yaml(_description(source, weights, author, licence))
    return files, list(weights)


def _weights(files: Mapping[str, bytes], layers: dict[str, Any]) -> dict[str, Any]:
    return {
        "pytorch_state_dict": {
            "source": "weights.pt",
            "pytorch_version": torch.__version__.split("+")[0],
            "architecture": {
                "source": "architecture.py",
                "sha256": hashlib.sha256(files["architecture.py"]).hexdigest(),
                "callable": "UNet",
                "kwargs": layers,
            },
        },
        "onnx": {
            "source": "weights.onnx",
            "opset_version": OPSET,
            "parent": "pytorch_state_dict",
        },
    }


def _npy(values: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.save(written, values, allow_pickle=False)
    return written.getvalue()


def _yaml(content: dict[str, Any]) -> bytes:
    yaml, written = YAML(typ="safe"), io.BytesIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(content, written)
    return written.getvalue()


def _test_tensors(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of a phantom and what the network makes of it, zeros in the halo."""
    net, axes = source.net, source.axes
    shape = tuple(
        smallest_block(axis) + _TEST_CELLS[len(axes)] * axis.downsample_factor for axis in axes
    )
    channels = net.blobs[net.inputs[0]].shape[1]
    many = channels if len(axes) == 2 else shape[0]
    stack, _ = phantom(slices=many, size=max(64, *shape[-2:]))
    image = np.resize(stack[:, : shape[-2], : shape[-1]], (channels, *shape))
    seen = _normalised(source, image)
    cut = [window(axis, size) for axis, size in zip(axes, shape)]
    tile = seen[(slice(None), *(slice(first, first + size) for first, size in cut))]
    blob = net.blobs[net.inputs[0]]
    blob.reshape(1, *tile.shape)
    net.reshape()
    blob.data[...] = tile
    scores = placed(net.forward([source.score])[source.score][0], axes, shape)
    dtype = np.uint8 if _is_8_bit(source) else np.float32
    return image[None].astype(dtype), probabilities_of(scores)[None].astype(np.float32)


def _is_8_bit(source: Source) -> bool:
    """Tell whether the network learnt from the whole range of 8 bit, not from each slice's."""
    return source.definition is None and not is_normalised(source.prototxt)


def _normalised(source: Source, image: np.ndarray) -> np.ndarray:
    if source.definition is not None:
        return normalized(image, source.definition.normalization_type)
    return scale_intensity(image, (0.0, 255.0) if _is_8_bit(source) else None)


def _cover(source: Source, picture: np.ndarray, probabilities: np.ndarray) -> bytes:
    """Return a PNG: the test picture, and the probability of the last class beside it."""
    rows, columns = (
        slice(halo(axis), size - halo(axis))
        for axis, size in zip(source.axes[-2:], picture.shape[-2:])
    )
    middle = (0,) * (picture.ndim == 4) + (0, picture.shape[2] // 2) * (picture.ndim == 5)
    grey = picture[0][middle][rows, columns].astype(np.float64)
    grey = (grey - grey.min()) / (np.ptp(grey) or 1)
    found = probabilities[0, -1]
    found = (found if found.ndim == 2 else found[found.shape[0] // 2])[rows, columns]
    halves = [
        np.asarray(Image.fromarray((255 * half).round().astype(np.uint8)).resize((_COVER, _COVER)))
        for half in (grey, found)
    ]
    written = io.BytesIO()
    Image.fromarray(np.concatenate(halves, axis=1)).save(written, "PNG")
    return written.getvalue()


def _description(
    source: Source, weights: dict[str, Any], author: str, licence: str
) -> dict[str, Any]:
    """Return what rdf.yaml holds."""
    net = source.net
    channels = net.blobs[net.inputs[0]].shape[1]
    classes = net.blobs[source.score].shape[1]
    named = source.definition.class_names if source.definition is not None else ()
    names = list(named) if len(named) == classes else [f"class{k}" for k in range(classes)]
    takes, gives = [], []
    for name, axis, scale in zip("zyx"[3 - len(source.axes) :], source.axes, _scales(source)):
        step = axis.downsample_factor
        about = {"type": "space", "id": name, **scale}
        takes.append(
            {**about, "size": {"min": smallest_block(axis), "step": step}, "concatenable": True}
        )
        size = {"tensor_id": "image", "axis_id": name, "offset": 0}
        gives.append({**about, "size": size, **({"halo": halo(axis)} if halo(axis) else {})})
    axes = [axis["id"] for axis in takes]
    zeros = source.definition is not None and source.definition.padding == "zero"
    return {
        "format_version": _SPEC,
        "type": "model",
        "name": plain_name(source),
        "description": summary(source),
        "authors": [{"name": author}],
        "cite": citations(source),
        "license": licence,
        "tags": ["unet", "segmentation", "semantic-segmentation", "caffe", "2d", "3d"][
            : 5 if len(axes) == 2 else 6
        ],
        "documentation": {"source": "README.md"},
        "covers": [{"source": "cover.png"}],
        "inputs": [
            {
                "id": "image",
                "description": f"grey values; {source.normalisation}"[:128],
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": [f"channel{k}" for k in range(channels)]},
                    *takes,
                ],
                "test_tensor": {"source": "test_image.npy"},
                "data": {"type": "uint8" if _is_8_bit(source) else "float32"},
                "pad": {"mode": "constant", "value": 0} if zeros else {"mode": "reflect"},
                "preprocessing": _preprocessing(source, axes),
            }
        ],
        "outputs": [
            {
                "id": "probabilities",
                "description": "of each class",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": names},
                    *gives,
                ],
                "test_tensor": {"source": "test_probabilities.npy"},
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "postprocessing": [{"id": "softmax", "kwargs": {"axis": "channel"}}],
            }
        ],
        "weights": weights,
        "config": {"unet_in_caffe": metadata(source, licence)},
    }


def _scales(source: Source) -> list[dict[str, Any]]:
    if source.definition is None:
        return [{} for _ in source.axes]
    return [
        {"unit": "micrometer", "scale": float(one)} for one in source.definition.element_size_um
    ]


def _preprocessing(source: Source, axes: list[str]) -> list[dict[str, Any]]:
    """Return how grey values are scaled, in the specification's own operations."""
    first, last = ({"id": "ensure_dtype", "kwargs": {"dtype": "float32"}} for _ in range(2))
    jointly = ["channel", *axes]
    if _is_8_bit(source):
        scaled = [{"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}]
    elif source.definition is None:
        # Mean 1/2 and standard deviation 1/6 of each slice, its channels together.
        scaled = [
            {"id": "zero_mean_unit_variance", "kwargs": {"axes": jointly, "eps": 1e-12}},
            {"id": "scale_linear", "kwargs": {"gain": 1 / 6, "offset": 0.5}},
        ]
    elif source.definition.normalization_type == 1:
        kwargs = {"axes": jointly, "min_percentile": 0.0, "max_percentile": 100.0, "eps": 1e-12}
        scaled = [{"id": "scale_range", "kwargs": kwargs}]
    elif source.definition.normalization_type == 2:
        scaled = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": jointly, "eps": 1e-12}}]
    elif source.definition.normalization_type == 3:
        raise InputError(
            f"{source.prototxt}: normalises by the greatest norm of a pixel, for which bioimage.io "
            f"has no operation; export it as ONNX"
        )
    else:
        scaled = []
    return [first, *scaled, last]


def _check(written: Path, path: PathLike) -> None:
    """See that the specification takes a package; a name or a licence may be none for it."""
    logger.disable("bioimageio")
    try:
        found = load_description(written, perform_io_checks=False)
    finally:
        logger.enable("bioimageio")
    if isinstance(found, InvalidDescr):
        errors = [error for detail in found.validation_summary.details for error in detail.errors]
        if not any(error.loc for error in errors):
            # Of no entry: the library itself fails, as 0.5.12 does with pydantic 2.14.
            raise InputError(
                f"{path}: bioimageio.spec {version('bioimageio.spec')} does not run with pydantic "
                f"{version('pydantic')}: pip install 'pydantic<2.14'"
            )
        said = "; ".join(f"{'.'.join(map(str, error.loc))}: {error.msg}" for error in errors)
        raise InputError(f"{path}: bioimage.io refuses what it would say: {said[:400]}")
