"""A network in both: the engine that has it, and ONNX Runtime that reads what was exported."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import caffe
from unet_export.network import Written, model_of, write_network


def open_net(path: Path, text: str, seed: int = 0) -> caffe.Net:
    """Open a network whose parameters are drawn at random; what cannot be negative is not."""
    path.write_text(text)
    net = caffe.Net(str(path), caffe.TEST)
    random = np.random.default_rng(seed)
    for name, blobs in net.params.items():
        kind = net.layer_dict[name].type
        for index, blob in enumerate(blobs):
            values = random.normal(0, 0.5, blob.data.shape)
            blob.data[...] = np.abs(values) + 0.1 if (kind, index) != ("BatchNorm", 0) else values
            if kind not in ("BatchNorm",):
                blob.data[...] = values
    net.retain_data = True
    return net


def in_onnx(written: Written) -> onnxruntime.InferenceSession:
    """Return a session that runs a network on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    model = model_of(written.graph, written.inputs, written.outputs, "net", {})
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def outputs_of(net: caffe.Net, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the engine makes of inputs of whatever shape."""
    for name, values in inputs.items():
        net.blobs[name].reshape(*values.shape)
    net.reshape()
    for name, values in inputs.items():
        net.blobs[name].data[...] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: np.array(value) for name, value in net.forward().items()}


def assert_equal(
    net: caffe.Net,
    shapes: Sequence[Mapping[str, Sequence[int]]],
    draw: Any = None,
    tolerance: float = 1e-5,
) -> None:
    """See that ONNX Runtime gives what the engine gives, for inputs of each of these shapes."""
    written = write_network(net)
    session = in_onnx(written)
    random = np.random.default_rng(1)
    for sizes in shapes:
        inputs = {
            name: (draw or random.standard_normal)(shape).astype(np.float32)
            for name, shape in sizes.items()
        }
        wanted = outputs_of(net, inputs)
        found = dict(zip(wanted, session.run(list(wanted), inputs)))
        for name, values in wanted.items():
            assert found[name].shape == values.shape
            scale = max(1.0, float(np.abs(values).max()))
            np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * scale)
