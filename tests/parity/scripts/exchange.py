"""What the scripts that run on both engines share."""

from __future__ import annotations

import os
import sys
import tempfile
import zlib

# Genuine Caffe reads it once, when it is imported; fatal messages must still be seen.
os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np

import caffe


def text_file(text, suffix=".prototxt"):
    """Write text to a temporary file and return its path; pycaffe takes nets from files only."""
    handle, path = tempfile.mkstemp(suffix=suffix, dir=os.path.dirname(sys.argv[2]))
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return path


def draw_parameters(net):
    """Draw every parameter from its layer's name and shape alone, with He's standard deviation.

    Fillers draw from each engine's own random numbers, so they cannot be compared.
    """
    for layer, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            seed = zlib.crc32(f"{layer} {index}".encode())
            values = np.random.RandomState(seed).standard_normal(blob.data.shape)
            fan_in = blob.data.size / blob.data.shape[0] if index == 0 and blob.data.ndim else 50.0
            blob.data[...] = values * np.sqrt(2.0 / fan_in)
        if net.layer_dict[layer].type == "BatchNorm":
            # Mean, variance, and the factor both are multiplied with.
            blobs[1].data[...] = 0.5 + np.abs(blobs[1].data)
            blobs[2].data[...] = 2


def gradients(net):
    """Return the diffs of all parameters."""
    return {
        f"gradient {layer} {index}": np.array(blob.diff)
        for layer, blobs in net.params.items()
        for index, blob in enumerate(blobs)
    }


def parameters(net):
    """Return the values of all parameters."""
    return {
        f"parameter {layer} {index}": np.array(blob.data)
        for layer, blobs in net.params.items()
        for index, blob in enumerate(blobs)
    }


def given():
    """Return the arrays of the .npz file that the first argument names."""
    with np.load(sys.argv[1]) as arrays:
        return dict(arrays)


def give(results):
    """Write results to the .npz file that the second argument names."""
    np.savez(sys.argv[2], **results)


caffe.set_mode_cpu()
