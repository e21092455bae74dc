"""A network that trains in milliseconds: what the tests of training share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import ndimage

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2
from unet.network.u_net import weighted_softmax_loss
from unet.preparation.training_set import TrainingSetWriter

TILE = 188


def training_set(path: Path, slices: int = 3) -> None:
    """Write slices of blobs: bright cells on dark ground, a strip that is not annotated."""
    shape = (slices, 18, 22)
    random = np.random.default_rng(5)
    attributes = dict(classes=2, grey_low=0.0, grey_high=255.0)
    with TrainingSetWriter(path, shape, np.uint8, attributes) as writer:
        for z in range(slices):
            field = ndimage.gaussian_filter(random.normal(size=shape[1:]), 2)
            labels = (field > 0).astype(np.uint8)
            raw = np.clip(120 + 600 * field + random.normal(0, 15, shape[1:]), 0, 255)
            labels[:, :3] = 255
            writer.write(z, raw.astype(np.uint8), labels, (labels != 255).astype(np.float32))


def net(data: str, workers: int) -> caffe_pb2.NetParameter:
    """Return a net with drop-out that maps tiles of 188 to scores of 4x4."""
    train = dict(slices=[0, 2], seed=7, workers=workers, augmentation=dict(std=5.0, contrast=0.2))
    feeds = []
    for phase, config in ((caffe.TRAIN, train), (caffe.TEST, dict(slices=[2, 3]))):
        n = NetSpec()
        param = json.dumps(dict(file=data, tile=TILE, **config))
        n["data"], n["label"], n["weight"] = L.Python(
            name="tiles",
            ntop=3,
            python_param=dict(module="unet.layers", layer="TrainingTiles", param_str=param),
            include=dict(phase=phase),
        )
        feeds.extend(n.to_proto().layer)
    # The 7 x 7 middle of the tile, one pixel around the 4 x 4 that are scored.
    filler = dict(weight_filler=dict(type="msra"), bias_filler=dict(type="constant"))
    n["middle"] = L.Crop(n["data"], n["label"], axis=2, offset=92)
    n["maps"] = L.Convolution(n["middle"], num_output=8, kernel_size=3, pad=1, **filler)
    n["maps_relu"] = L.ReLU(n["maps"], in_place=True)
    n["maps_dropout"] = L.Dropout(n["maps"], dropout_ratio=0.5, in_place=True)
    n["pooled"] = L.Pooling(n["maps"], pool=P.Pooling.MAX, kernel_size=3, stride=1, pad=1)
    n["score"] = L.Convolution(n["pooled"], num_output=2, kernel_size=1, **filler)
    weighted_softmax_loss(n, "score", "weight", 2)
    test, train = dict(phase=caffe.TEST), dict(phase=caffe.TRAIN)
    n["accuracy"] = L.Accuracy(n["score"], n["label"], ignore_label=255, include=test)
    n["silence"] = L.Silence(n["label"], ntop=0, include=train)
    made = n.to_proto()
    made.layer.insert(0, feeds[0])
    return made


def write_training(folder: Path, workers: int = 0, **solver: object) -> Path:
    """Write training set, nets and solver into a folder; return the solver's path.

    Parameters
    ----------
    folder : Path
    workers : int
    **solver
        Fields in place of the small solver's: 12 steps, a snapshot every 4, a test every 3.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data.h5"
    training_set(data)
    (folder / "train_val.prototxt").write_text(str(net(str(data), workers)))
    fields = dict(
        net=str(folder / "train_val.prototxt"),
        test_iter=[2],
        test_interval=3,
        base_lr=0.01,
        lr_policy="poly",
        power=1.0,
        momentum=0.9,
        weight_decay=0.001,
        max_iter=12,
        snapshot=4,
        snapshot_prefix=str(folder / "run" / "small"),
        random_seed=11,
        type="SGD",
    )
    fields.update(solver)
    path = folder / "solver.prototxt"
    path.write_text(str(caffe_pb2.SolverParameter(**fields)))
    return path
