"""Nets that only have the names of what is saved with them, and what is saved."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from caffe.files.caffemodel import read_layers
from caffe.proto import caffe_pb2


def net_of(names: Iterable[str]) -> caffe_pb2.NetParameter:
    """Return a net of convolutions of these names."""
    net = caffe_pb2.NetParameter(name="net")
    for name in names:
        layer = net.layer.add(name=name, type="Convolution", phase=caffe_pb2.TEST)
        layer.top.append("top")
        layer.convolution_param.num_output = 3
    return net


def read_weights(path: Path) -> dict[str, list[np.ndarray | None]]:
    """Return the parameters of the layers in a file that have any."""
    return {name: blobs for name, blobs in read_layers(path).items() if blobs}
