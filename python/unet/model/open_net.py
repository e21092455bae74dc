"""Open a network that segments: find its files, read its text in whatever form, see that it fits.

A deploy prototxt opens as it is. The authors' networks of 2015 (V1 prototxt) and those of
caffe_unet (2019, in a .modeldef.h5) are texts for training without an input; their programs put one
before the text, and so does this.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
from google.protobuf import text_format

from unet.errors import InputError
from unet.files.names import PathLike
from unet.files.weights import StoredBlob, stored_blobs
from unet.machine.engine import in_full_precision
from unet.model.modeldef import SUFFIX, WEIGHTS_SUFFIX, check_segments, read_modeldef
from unet.network.geometry import Geometry
from unet.segmentation.tile_size import shape_net

DEPLOY = "deploy.prototxt"
# Of a model folder; the last is the authors' of 2015.
WEIGHTS = ("weights.caffemodel", "weights.caffemodel.h5", "phseg_v5.caffemodel")

# What a run begins with that leaves a model folder.
_CHOICES = "choices.json"
_COMMENT = re.compile(r"#.*")
_V1 = re.compile(r"\blayers\s*:?\s*\{")
_INPUT = re.compile(r"(?m)^\s*input\s*:|\btype\s*:\s*[\"']Input[\"']")


def shipped() -> dict[str, Path]:
    """Return the folders of the networks that come with the project, by name.

    They lie beside the package, where a wheel has put them, else in models/ of the checkout.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "models", package.parents[1] / "models"):
        found = sorted(path.parent for path in folder.glob("*/deploy.prototxt"))
        if found:
            return {path.name: path for path in found}
    return {}


def find_model(weights: PathLike, net: PathLike | None = None) -> tuple[Path, Path]:
    """Find a network's prototxt (or .modeldef.h5) and weights: (net, weights).

    `weights` is as for `find_weights`. Without `net` it lies beside the weights: of
    NAME.caffemodel.h5 NAME.modeldef.h5, else deploy.prototxt, else NAME-train.prototxt, as the
    authors published theirs. An InputError if a file is missing.
    """
    weights = find_weights(weights)
    prototxt = _beside(weights) if net is None else Path(net)
    if not prototxt.is_file():
        if net is not None:
            raise InputError(f"{prototxt}: there is no such file; name another with --net")
        raise InputError(
            f"{weights}: no {DEPLOY} lies beside it; put the network's there, or name it with "
            f"unet segment --net (and see that this is a file of weights)"
        )
    return prototxt, weights


def find_weights(weights: PathLike) -> Path:
    """Find the file of weights that a user means; an InputError if it is missing.

    It is the file itself; in a folder weights.caffemodel, weights.caffemodel.h5 or, of the release
    of 2015, phseg_v5.caffemodel; by its name that of a network that comes with the project; or
    NAME.caffemodel.h5 beside NAME.modeldef.h5.
    """
    weights = Path(weights)
    if not weights.exists():
        weights = shipped().get(str(weights), weights)
    if weights.is_dir():
        found = next((weights / name for name in WEIGHTS if (weights / name).is_file()), None)
        if found is None:
            is_begun = (weights / _CHOICES).is_file()
            remedy = ": its training has judged none yet; wait, or go on with it" * is_begun
            raise InputError(
                f"{weights}: is no model folder, for it holds no {' or '.join(WEIGHTS)}{remedy}"
            )
        return found
    if not weights.is_file():
        names = ", ".join(shipped())
        raise InputError(
            f"{weights}: there is no such file with weights, nor a model folder, nor a network of "
            f"this name that comes with the project: {names or 'none does'}"
        )
    if weights.name.endswith(SUFFIX):
        beside = weights.with_name(weights.name[: -len(SUFFIX)] + WEIGHTS_SUFFIX)
        if not beside.is_file():
            raise InputError(
                f"{weights}: defines a network and holds no weights; name those that belong to it, "
                f"{beside.name}"
            )
        return beside
    return weights


def _beside(weights: Path) -> Path:
    """Return the file of the network that a file of weights belongs to."""
    stem, deploy = weights.name[: -len(WEIGHTS_SUFFIX)], weights.parent / DEPLOY
    candidates = [deploy, weights.with_name(f"{weights.stem}-train.prototxt")]
    if weights.name.endswith(WEIGHTS_SUFFIX):
        candidates.insert(0, weights.with_name(stem + SUFFIX))
    return next((path for path in candidates if path.is_file()), deploy)


def load_net(caffe: ModuleType, prototxt: PathLike, weights: PathLike) -> tuple[Any, Geometry]:
    """Load a network that segments, and see that it is one and that all its weights are there.

    Parameters
    ----------
    caffe : module
        As `unet.machine.engine.open_engine` gives it.
    prototxt, weights : path
        As `find_model` gives them.

    Returns
    -------
    net : caffe.Net
        In phase TEST; blob `data` in, `score` out.
    geometry : Geometry

    Raises
    ------
    InputError
        If the network does not turn `data` into scores of the same scale in `score`; if these
        depend on where in a tile they lie; if a layer's weights are missing in the file or not
        finite; if the file holds those of layers that the network lacks; if it is HDF5 and damaged,
        or not all of it lies in it. Damage of another file is the engine's error.
    """
    source, stored = os.fspath(prototxt), stored_in(weights)
    net, text = open_deployed(caffe, prototxt, stored)
    # Nobody looks at the maps between (genuine Caffe keeps them regardless).
    net.retain_data = False
    _check_blobs(net, source)
    try:
        geometry = _geometry_of(text)
    except InputError as error:
        raise InputError(
            f"{source}: {error}: it is no U-Net whose tiles can be put together"
        ) from None
    _check_sizes(net, geometry, source)
    read_weights(net, prototxt, weights, stored)
    # In bfloat16 a GPU rounds otherwise for another size of tile.
    with in_full_precision(caffe):
        _check_seams(net, geometry, source, os.fspath(weights))
    return net, geometry


def read_weights(
    net: Any, prototxt: PathLike, weights: PathLike, stored: dict[str, list[StoredBlob]]
) -> None:
    """Read a network's weights; `stored` is what the file holds, by `stored_in`.

    An InputError if a layer's are missing or not finite, or there are some that no layer has.
    """
    # What the file does not give would silently stay random.
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = np.nan
    net.copy_from(os.fspath(weights))
    bad = [
        name
        for name, blobs in net.params.items()
        if not all(np.isfinite(blob.data).all() for blob in blobs)
    ]
    if bad:
        raise InputError(
            f"{weights}: holds no weights, or NaN, for {_listed(bad)} of {prototxt}; name the "
            f"network that they were trained for with --net"
        )
    strange = [name for name in stored if name not in net.params]
    if strange:
        raise InputError(
            f"{weights}: holds weights for {_listed(strange)}, which {prototxt} lacks; name the "
            f"network that they were trained for with --net"
        )


def stored_in(weights: PathLike) -> dict[str, list[StoredBlob]]:
    """Return the blobs that a file of weights holds, by layer; none of a torn .caffemodel."""
    try:
        return stored_blobs(weights)
    except InputError:
        if h5py.is_hdf5(os.fspath(weights)):
            raise
        # The engine tells more of a torn .caffemodel.
        return {}


def open_deployed(
    caffe: ModuleType, net: PathLike, stored: dict[str, list[StoredBlob]]
) -> tuple[Any, str]:
    """Open a network in phase TEST, its parameters not yet read; also return its text.

    `stored` (`unet.files.weights.stored_blobs`) tells how many channels the input has, where the
    network's text does not. An InputError if a model definition is damaged or its network does not
    segment images; errors in the network are the engine's.
    """
    if is_modeldef(net):
        definition = read_modeldef(net)
        check_segments(definition, net)
        text = definition.model_prototxt
    else:
        text = Path(net).read_bytes().decode("utf-8", "replace")
        if not _V1.search(_COMMENT.sub("", text)) or _INPUT.search(_COMMENT.sub("", text)):
            return caffe.Net(os.fspath(net), caffe.TEST), text
    if _INPUT.search(_COMMENT.sub("", text)):
        return open_text(caffe, text, net), text
    opened = open_text(caffe, _with_input(text, 1), net)
    # The first layer with parameters reads the input.
    kernel = stored.get(next(iter(opened.params), ""))
    channels = kernel[0].shape[1] if kernel and len(kernel[0].shape) > 1 else 1
    return (opened if channels == 1 else open_text(caffe, _with_input(text, channels), net)), text


def is_modeldef(net: PathLike) -> bool:
    """Tell whether a network is given as a model definition of caffe_unet, by its name."""
    return os.fspath(net).endswith(SUFFIX)


def _with_input(text: str, channels: int) -> str:
    try:
        size = _geometry_of(text).smallest
    except (InputError, text_format.ParseError):
        # Told when the network is opened.
        size = Geometry().smallest
    # On the text's first line, so that errors name the lines of the file.
    dims = " ".join(f"input_dim: {dim}" for dim in (1, channels, size, size))
    return f'input: "data" {dims} state {{ phase: TEST }} {text}'


def open_text(caffe: ModuleType, text: str, source: PathLike) -> Any:
    """Open a network from its text, in phase TEST; errors name `source`."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.prototxt")
        Path(path).write_text(text, encoding="utf-8")
        try:
            return caffe.Net(path, caffe.TEST)
        except RuntimeError as error:
            raise type(error)(str(error).replace(path, os.fspath(source))) from None


def _listed(names: list[str]) -> str:
    quoted = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"layer{'s' if len(names) > 1 else ''} {quoted}{more}"


def _check_blobs(net: Any, source: str) -> None:
    if list(net.inputs) != ["data"] or "score" not in net.blobs:
        raise InputError(
            f"{source}: a network that segments has one input, 'data', and a blob 'score', but its "
            f"inputs are {list(net.inputs)}; name the deploy prototxt"
        )
    if len(net.blobs["data"].shape) != 4:
        raise InputError(f"{source}: the input 'data' must have 4 axes: 1, channels, height, width")
    if net.blobs["score"].shape[1] < 2:
        raise InputError(f"{source}: 'score' has one channel, but needs one for each class")


def _geometry_of(text: str) -> Geometry:
    from caffe.proto import caffe_pb2

    return Geometry.of(text_format.Merge(text, caffe_pb2.NetParameter()))


def _check_sizes(net: Any, geometry: Geometry, source: str) -> None:
    # Two sizes, each on its own axis.
    sizes = geometry.smallest, geometry.smallest + geometry.downsample_factor
    for tile in (sizes, sizes[::-1]):
        wanted = tuple(geometry.output_size(size) + 2 * geometry.margin for size in tile)
        try:
            shape_net(net, tile)
            given: object = tuple(net.blobs["score"].shape[2:])
        except RuntimeError as error:
            given = f"an error ({error})"
        if given != wanted:
            raise InputError(
                f"{source}: an input of {tile} gives {given} instead of {wanted}: it is no U-Net "
                f"whose tiles can be put together"
            )


def _check_seams(net: Any, geometry: Geometry, source: str, weights: str) -> None:
    # Whatever the text says, values tell whether tiles can be put together.
    factor, size, margin = geometry.downsample_factor, geometry.smallest, geometry.margin
    image = np.random.RandomState(0).rand(size + factor, size + factor).astype(np.float32)
    overlap = slice(-geometry.output_size(size) - margin, -margin or None)
    corners = []
    for part in (image, image[factor:, factor:]):
        shape_net(net, part.shape)
        net.blobs["data"].data[...] = part
        net.forward(["score"])
        corners.append(net.blobs["score"].data[0, :, overlap, overlap].copy())
    large, small = corners
    if not np.isfinite(corners).all():
        raise InputError(
            f"{weights}: the scores that the network gives are NaN or infinite: the file is "
            f"damaged, or the training diverged: train anew, at a lower rate"
        )
    if np.abs(large - small).max() > 1e-3 * np.abs(large).max():
        raise InputError(
            f"{source}: the scores of a pixel depend on where in the tile it lies, so tiles cannot "
            f"be put together: it is no U-Net whose tiles can be put together"
        )
