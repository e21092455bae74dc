"""A trained network: where its files are, whether they belong together, what a pass of it takes."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any, Union

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.hdf5 import check_weights, datasets, find, open_hdf5_file
from unet.machine.engine import in_full_precision
from unet.model.modeldef import SUFFIX as MODELDEF_SUFFIX
from unet.model.modeldef import WEIGHTS_SUFFIX
from unet.model.open_net import open_deployed
from unet.model.shipped import shipped
from unet.segmentation.tiles import BORDER, GRID, SMALLEST, PassCost

PathLike = Union[str, "os.PathLike[str]"]

DEPLOY = "deploy.prototxt"
WEIGHTS = ("weights.caffemodel", "weights.caffemodel.h5")


def find_model(weights: PathLike, net: PathLike | None = None) -> tuple[Path, Path]:
    """Find a network's prototxt and weights.

    Parameters
    ----------
    weights : path
        A .caffemodel or HDF5 file, or a model folder: weights.caffemodel or
        weights.caffemodel.h5, and deploy.prototxt.
    net : path, optional
        The prototxt, or a .modeldef.h5 of caffe_unet. By default beside the weights: of
        NAME.caffemodel.h5 NAME.modeldef.h5, else deploy.prototxt, else NAME-train.prototxt, as the
        authors published theirs.

    Returns
    -------
    net, weights : pathlib.Path

    Raises
    ------
    InputError
        If one of the files is missing.
    """
    weights = find_weights(weights)
    prototxt = _beside(weights) if net is None else Path(net)
    if not prototxt.is_file():
        if net is not None:
            raise InputError(f"{prototxt}: there is no such file; name another with --net")
        raise InputError(
            f"{weights}: no {DEPLOY} lies beside it; name the network's with --net (and see that "
            f"this is a file of weights)"
        )
    return prototxt, weights


def find_weights(weights: PathLike) -> Path:
    """Find the file of weights that a user means.

    Parameters
    ----------
    weights : path
        The file, or a model folder: the one that holds weights.caffemodel or
        weights.caffemodel.h5; or the name of a network that comes with the project.

    Raises
    ------
    InputError
        If it is missing, or a .modeldef.h5, which holds the network without its weights.
    """
    weights = Path(weights)
    if not weights.exists():
        weights = shipped().get(str(weights), weights)
    if weights.is_dir():
        found = next((weights / name for name in WEIGHTS if (weights / name).is_file()), None)
        if found is None:
            raise InputError(
                f"{weights}: is no model folder, for it holds no {' or '.join(WEIGHTS)}"
            )
        weights = found
    elif not weights.is_file():
        raise InputError(f"{weights}: there is no such file with weights, nor a model folder")
    if weights.name.endswith(MODELDEF_SUFFIX):
        stem = weights.name[: -len(MODELDEF_SUFFIX)]
        raise InputError(
            f"{weights}: defines a network and holds no weights; name those that belong to it, "
            f"{stem}{WEIGHTS_SUFFIX}"
        )
    return weights


def _beside(weights: Path) -> Path:
    """Return the file of the network that a file of weights belongs to."""
    stem, deploy = weights.name[: -len(WEIGHTS_SUFFIX)], weights.parent / DEPLOY
    candidates = [deploy, weights.with_name(f"{weights.stem}-train.prototxt")]
    if weights.name.endswith(WEIGHTS_SUFFIX):
        candidates.insert(0, weights.with_name(stem + MODELDEF_SUFFIX))
    return next((path for path in candidates if path.is_file()), deploy)


def load_net(caffe: ModuleType, prototxt: PathLike, weights: PathLike) -> Any:
    """Load a network that segments, and see that it is one and that all its weights are there.

    Parameters
    ----------
    caffe : module
        As `unet.machine.engine.open_engine` gives it.
    prototxt, weights : path
        Deploy prototxt: `data` in, `score` out; or a published network, as
        `unet.model.open_net.open_deployed` takes it. .caffemodel or HDF5 file.

    Returns
    -------
    caffe.Net
        In phase TEST.

    Raises
    ------
    InputError
        If the network does not turn n x n pixels of `data` into (n - 184) x (n - 184) of `score`;
        if these depend on where in a tile they lie; if a layer's weights are missing in the file or
        not finite; if the file holds those of layers that the network lacks; if it is HDF5 and
        damaged, or not all of it lies in it. Damage of another file is the engine's error.
    """
    check_weights(weights)
    net = open_deployed(caffe, prototxt, weights)
    # Nobody looks at the maps between (genuine Caffe keeps them regardless).
    net.retain_data = False
    _check_geometry(net, os.fspath(prototxt))
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
    strange = [name for name in _stored_layers(weights) if name not in net.params]
    if strange:
        raise InputError(
            f"{weights}: holds weights for {_listed(strange)}, which {prototxt} lacks; name the "
            f"network that they were trained for with --net"
        )
    # In bfloat16 a GPU rounds otherwise for another size of tile.
    with in_full_precision(caffe):
        _check_seams(net, os.fspath(prototxt), os.fspath(weights))
    return net


def _listed(names: list[str]) -> str:
    quoted = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"layer{'s' if len(names) > 1 else ''} {quoted}{more}"


def _stored_layers(weights: PathLike) -> list[str]:
    """Return the names of the layers that a file of weights holds, as far as it names them."""
    path = os.fspath(weights)
    if h5py.is_hdf5(path):
        with open_hdf5_file(path) as file:
            names = [name.rpartition("/")[0] for name, _ in datasets(find(file, "data"))]
        return list(dict.fromkeys(names))
    from caffe.proto import caffe_pb2

    message = caffe_pb2.NetParameter()
    message.ParseFromString(Path(path).read_bytes())
    return [layer.name for layer in [*message.layers, *message.layer] if layer.blobs]


def _check_geometry(net: Any, source: str) -> None:
    if list(net.inputs) != ["data"] or "score" not in net.blobs:
        raise InputError(
            f"{source}: a network that segments has one input, 'data', and a blob 'score', but its "
            f"inputs are {list(net.inputs)}; name the deploy prototxt"
        )
    if len(net.blobs["data"].shape) != 4:
        raise InputError(f"{source}: the input 'data' must have 4 axes: 1, channels, height, width")
    # Two sizes, each on its own axis: a network of another depth or with padding gets one wrong.
    for tile in ((SMALLEST, SMALLEST + GRID), (SMALLEST + GRID, SMALLEST)):
        wanted = tuple(size - 2 * BORDER for size in tile)
        try:
            shape_net(net, tile)
            given: object = tuple(net.blobs["score"].shape[2:])
        except RuntimeError as error:
            given = f"an error ({error})"
        if given != wanted:
            raise InputError(
                f"{source}: an input of {tile} gives {given} instead of {wanted}: it is no U-Net "
                f"with four unpadded levels"
            )
    if net.blobs["score"].shape[1] < 2:
        raise InputError(f"{source}: 'score' has one channel, but needs one for each class")


def _check_seams(net: Any, source: str, weights: str) -> None:
    # Padding within the net may keep all sizes: only values tell that tiles can be put together.
    picture = np.random.RandomState(0).rand(SMALLEST + GRID, SMALLEST + GRID).astype(np.float32)
    overlap, corners = SMALLEST - 2 * BORDER, []
    for part in (picture, picture[GRID:, GRID:]):
        shape_net(net, part.shape)
        net.blobs["data"].data[...] = part
        net.forward(["score"])
        corners.append(net.blobs["score"].data[0, :, -overlap:, -overlap:].copy())
    large, small = corners
    if not np.isfinite(corners).all():
        raise InputError(
            f"{weights}: the scores that the network gives are NaN or infinite: the file is "
            f"damaged, or the training diverged"
        )
    if np.abs(large - small).max() > 1e-3 * np.abs(large).max():
        raise InputError(
            f"{source}: the scores of a pixel depend on where in the tile it lies, so tiles cannot "
            f"be put together: it is no U-Net with four unpadded levels"
        )


def pass_cost(net: Any) -> PassCost:
    """Measure what a pass takes from the shapes of a net's maps; they are set anew.

    Parameters
    ----------
    net : caffe.Net
        As of `load_net`.
    """
    shape_net(net, (SMALLEST, SMALLEST))
    maps = _maps(net)
    before = list(maps.values())
    shape_net(net, (SMALLEST + GRID, SMALLEST + GRID))
    after = list(_maps(net).values())
    genuine = _is_genuine(net)
    sizes = np.array([row[0] for row in before])
    channels, work, columns = (np.array([row[k] for row in before]) for k in (1, 2, 3))
    return PassCost(
        sizes=sizes,
        growth=(np.array([row[0] for row in after]) - sizes) / GRID,
        channels=channels,
        live=np.ones((1, len(sizes)), bool) if genuine else _live(net, list(maps)),
        multiply_adds=work,
        # Genuine Caffe unrolls the windows of each convolution into a matrix, and keeps them all.
        # Else one copy of the largest map covers what was measured beside the blobs, but for the
        # 0.1 GB that the allocator keeps of small ones.
        workspace=columns if genuine else channels,
        workspaces_add=genuine,
    )


def _is_genuine(net: Any) -> bool:
    return type(net).__module__.endswith("_caffe")


# Layers whose tops show the memory of their first bottom: a crop only in this project's engine.
_ALIASES = ("Split", "Crop")


def _maps(net: Any) -> dict[str, tuple[tuple[int, int], int, int, int]]:
    """Return ((height, width), values, multiply-adds, unrolled values), for a pixel of each map."""
    maps = {}
    aliases = _ALIASES[:1] if _is_genuine(net) else _ALIASES
    for name, layer in net.layer_dict.items():
        # A layer in place shows its bottom's memory as well, under the same name.
        if layer.type not in aliases:
            for top in net.top_names[name]:
                shape = tuple(net.blobs[top].shape)
                maps[top] = (shape[2:], shape[1], 0, 0)
        if layer.type in ("Convolution", "Deconvolution"):
            # Each pixel of the map on the side of the lower resolution meets every weight once.
            sides = net.top_names if layer.type == "Convolution" else net.bottom_names
            weights = list(layer.blobs[0].shape)
            window = int(np.prod(weights[1:]))
            place = tuple(net.blobs[sides[name][0]].shape)[2:]
            maps[f"passing {name}"] = (place, 0, weights[0] * window, window)
    return maps


def _live(net: Any, maps: list[str]) -> np.ndarray:
    """Tell which of the maps are in memory while each layer runs: bool (layers, maps)."""
    row = {name: number for number, name in enumerate(maps)}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for moment, (name, layer) in enumerate(net.layer_dict.items()):
        bottoms, tops = net.bottom_names[name], net.top_names[name]
        if layer.type in _ALIASES:
            row.update((top, row[bottoms[0]]) for top in tops)
        for blob in (*bottoms, *tops):
            first.setdefault(row[blob], moment)
            last[row[blob]] = moment
    live = np.zeros((len(net.layer_dict), len(maps)), bool)
    for number in first:
        live[first[number] : last[number] + 1, number] = True
    for name in (*net.inputs, *net.outputs):
        live[:, row[name]] = True
    return live


def shape_net(net: Any, tile: tuple[int, int]) -> None:
    """Give a net, and all its maps, the input size `tile` = (height, width)."""
    data = net.blobs["data"]
    shape = (1, data.shape[1]) + tuple(tile)
    if tuple(data.shape) != shape:
        data.reshape(*shape)
        net.reshape()
