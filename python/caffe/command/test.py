"""`caffe test`: run a net forward, and write its outputs and their means."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from caffe.command import arguments
from caffe.log import Log, number
from caffe.net.net import TEST
from caffe.solvers.solver import output_text

_log = Log("caffe.cpp")


def test(flags: argparse.Namespace) -> None:
    """Score what -model and -weights name."""
    arguments.required(flags, "model", "a model definition to score")
    weights = arguments.required(flags, "weights", "model weights to score")
    iterations = arguments.iterations(flags)
    gpus = arguments.gpus(flags.gpu)
    arguments.compute_on(gpus[0] if gpus else None)
    if gpus:
        _log.info(f"Use GPU with device ID {gpus[0]}")
        _log.info(f"GPU device name: {torch.cuda.get_device_name(gpus[0])}")
    else:
        _log.info("Use CPU.")
    net = arguments.net(flags, TEST)
    net.retain_data = False
    net.copy_from(weights)
    _log.info(f"Running for {iterations} iterations.")
    sums = {name: 0.0 for name in net.outputs}
    loss = 0.0
    for batch in range(iterations):
        loss += net._forward(0, len(net.layers) - 1)
        for name in net.outputs:
            values = net.blobs[name].data.ravel().astype(np.float64)
            sums[name] = sums[name] + values
            for value in values:
                _log.info(f"Batch {batch}, {name} = {number(value)}")
    _log.info(f"Loss: {number(loss / iterations)}")
    for name, total in sums.items():
        for mean in total / iterations:
            _log.info(output_text(name, mean, net.blob_loss_weights[name]))
