"""The files that the Fiji plugin writes to finetune a net: pictures, lists, net and solver."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage

from caffe.files import prototxt
from caffe.proto import caffe_pb2
from tests import caffe_unet


def cells(shape: tuple[int, ...], seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of bright blobs, from 0 to 1, and their classes."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, int)
    for number in range(8):
        seeds = np.zeros(shape)
        seeds[tuple(random.integers(3, size - 3) for size in shape)] = 1
        labels[ndimage.distance_transform_edt(seeds == 0) < 4] = 1 + number % (classes - 1)
    picture = (labels > 0) * 0.6 + 0.2 + random.normal(0, 0.05, shape)
    return np.clip(picture, 0, 1).astype(np.float32), labels


def _write(path: Path, **values: np.ndarray) -> str:
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            # Items and channels before; small blocks, deflated.
            file.create_dataset(
                name, data=value[None, None].astype(np.float32), chunks=True, compression=3
            )
    return f"{path}\n"


def write_files(
    folder: Path,
    iterations: int = 4,
    interval: int = 2,
    levels: tuple[int, ...] = (1, 1),
    tile: tuple[int, ...] = (36, 36),
    classes: int = 2,
    width: int = 4,
    rate: float = 1e-3,
) -> Path:
    """Write the files of a job and return the solver's."""
    axes, borders = len(tile), [caffe_unet.border(level) for level in levels]
    train = [
        _write(
            folder / f"job_train_{number}.h5",
            data=picture,
            labels=labels,
            weights=np.where(labels > 0, 1, 0.2),
            weights2=np.where(labels > 0, 1, 0.1),
        )
        for number, shape in enumerate([(120 // axes,) * axes, (75 // axes,) * axes])
        for picture, labels in [cells(shape, number, classes)]
    ]
    inner = tuple(slice(border, size - border) for border, size in zip(borders, tile))
    valid = []
    for number in range(2):
        picture, labels = cells(tile, 10 + number, classes)
        valid.append(
            _write(
                folder / f"job_valid_0_{number}.h5",
                data3=picture,
                labels=labels[inner],
                weights=np.ones(labels.shape)[inner],
            )
        )
    for name, files in (("train", train), ("valid", valid)):
        (folder / f"job-{name}filelist.txt").write_text("".join(files))
    net = prototxt.parse_net(caffe_unet.editor_text(levels, width, tile, classes))
    net.layer[0].hdf5_data_param.source = f"{folder}/job-trainfilelist.txt"
    prototxt.write_text(
        with_validation(net, "data3", f"{folder}/job-validfilelist.txt"),
        folder / "job-model.prototxt",
    )
    solver = folder / "job-solver.prototxt"
    solver.write_text(
        f'net: "{folder}/job-model.prototxt"\nbase_lr: {rate}\nmomentum: 0.9\nmomentum2: 0.999\n'
        f'lr_policy: "fixed"\nmax_iter: {iterations}\ndisplay: 1\nsnapshot: {iterations}\n'
        f'snapshot_prefix: "{folder}/job-snapshot"\nsnapshot_format: HDF5\ntype: "Adam"\n'
        f"solver_mode: CPU\ntest_iter: 2\ntest_interval: {interval}\ndebug_info: false\n"
        "random_seed: 1\n"
    )
    return solver


def with_validation(net: caffe_pb2.NetParameter, blob: str, files: str) -> caffe_pb2.NetParameter:
    """Return a net with the layers around it by which the plugin validates, in TEST."""
    test = {"include": [{"phase": caffe_pb2.TEST}]}
    layers = [
        caffe_pb2.LayerParameter(
            name="loaddata_valid",
            type="HDF5Data",
            top=[blob, "labels", "weights"],
            hdf5_data_param={"batch_size": 1, "shuffle": False, "source": files},
            **test,
        ),
        *net.layer,
    ]
    detection = {"distance_mode": caffe_pb2.F1Parameter.EUCLIDEAN, "distance_threshold": 3}
    for name, kind, param in (
        ("loss_valid", "SoftmaxWithLoss", {}),
        ("IoU", "IoU", {}),
        ("F1_detection", "F1", {"f1_param": detection}),
        ("F1_segmentation", "F1", {}),
    ):
        bottoms = ["score", "labels", "weights"]
        layers.append(
            caffe_pb2.LayerParameter(
                name=name, type=kind, bottom=bottoms, top=[name], **param, **test
            )
        )
    return caffe_pb2.NetParameter(name=net.name, layer=layers)
