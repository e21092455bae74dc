"""The network that the authors published for PhC-C2DH-U373, in the current format.

It computes what the text and the weights of u-net-release-2015-10-02 compute, under the same names.
"""

from __future__ import annotations

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe.proto import caffe_pb2
from unet.network.u_net import u_net

NAME = "phseg_v5"
WIDTH, CLASSES = 64, 2
# Pixels of this label are not annotated.
IGNORED = 2
TILE = 572


def phseg_v5_train_val() -> caffe_pb2.NetParameter:
    """Return the net that is trained and tested, from HDF5 files to loss.

    Notes
    -----
    The files have data sets `data`, float32 (tiles, 1, height, width), from 0 to 1, and `label`,
    (tiles, 1, height - 184, width - 184): 0, 1, or 2 for pixels that are not annotated.
    """
    n = NetSpec()
    # Stands for the data layers while the net is put together.
    n["data"], n["label"] = L.HDF5Data(name="loaddata", ntop=2)
    u_net(n, WIDTH, CLASSES, as_published=True)
    n["loss"] = L.SoftmaxWithLoss(n["score"], n["label"], loss_param=dict(ignore_label=IGNORED))
    n["accuracy"] = L.Accuracy(
        n["score"], n["label"], ignore_label=IGNORED, include=dict(phase=caffe.TEST)
    )
    net = caffe_pb2.NetParameter(name=NAME)
    for phase, files in ((caffe.TRAIN, "train"), (caffe.TEST, "test")):
        feed = NetSpec()
        feed["data"], feed["label"] = L.HDF5Data(
            name="loaddata",
            ntop=2,
            hdf5_data_param=dict(source=f"data/{NAME}/{files}.txt", batch_size=1),
            include=dict(phase=phase),
        )
        net.layer.extend(feed.to_proto().layer)
    net.layer.extend(n.to_proto().layer[1:])
    return net


def phseg_v5_deploy() -> caffe_pb2.NetParameter:
    """Return the net that segments: `data` in, `score` and its soft-max `prob` out."""
    n = NetSpec()
    n["data"] = L.Input(shape=dict(dim=[1, 1, TILE, TILE]))
    u_net(n, WIDTH, CLASSES, as_published=True)
    n["prob"] = L.Softmax(n["score"])
    net = n.to_proto()
    net.name = NAME
    return net


def phseg_v5_files() -> dict[str, object]:
    """Return the files of prototxt/phseg_v5: file name -> message."""
    return {
        "train_val.prototxt": phseg_v5_train_val(),
        "deploy.prototxt": phseg_v5_deploy(),
    }
