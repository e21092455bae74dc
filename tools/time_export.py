"""How fast, and how near, ONNX Runtime computes what was exported; `benchmark.py onnx` calls it."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import unet
from unet.errors import InputError
from unet.segmentation.tile_size import shape_net
from unet.volumes import read_volume
from unet.volumes.intensity import scale_intensity

STACK = Path("data") / "isbi2012" / "train-volume.tif"


def onnx(options: argparse.Namespace) -> None:
    """Time a tile of --model by this engine and by ONNX Runtime in turns, and compare."""
    try:
        import onnxruntime

        from unet_export import write_onnx
    except ImportError as error:
        raise InputError(f"{error}: pip install onnx onnxruntime") from None
    # Read when the engine is imported.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    model = unet.load(options.model, device="cpu")
    model.geometry.check((options.tile,))
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(options.model, f"{folder}/net.onnx")
        wanted = onnxruntime.SessionOptions()
        wanted.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(f"{folder}/net.onnx", wanted)
    size, net = (options.tile, options.tile), model.net
    picture = scale_intensity(_picture(options.tile), None)[None, None]
    shape_net(net, size)
    outputs, name = list(net.outputs), net.inputs[0]
    seconds: dict[str, list[float]] = {"this engine": [], "ONNX Runtime": []}
    for number in range(options.rounds + 1):
        start = time.perf_counter()
        net.blobs[name].data[...] = picture
        ours = {key: np.array(value) for key, value in net.forward().items()}
        middle = time.perf_counter()
        theirs = dict(zip(outputs, session.run(outputs, {name: picture})))
        # The first round also pays for what is made once.
        if number:
            seconds["this engine"].append(middle - start)
            seconds["ONNX Runtime"].append(time.perf_counter() - middle)
    print(f"{options.model}, a tile of {size[0]}x{size[1]}, {options.threads} threads")
    for who, each in seconds.items():
        print(f"  {who:14s}{min(each):8.3f} s best, {statistics.median(each):.3f} s median")
    for key in outputs:
        difference = float(np.abs(ours[key] - theirs[key]).max())
        print(f"  {key}: largest difference {difference:.2g}, of values to {ours[key].max():.3g}")


def _picture(size: int) -> np.ndarray:
    """Return a picture, mirrored beyond its edges: of ISBI 2012 where that lies, else a phantom."""
    if STACK.exists():
        slice_ = read_volume(STACK)[20]
    else:
        from unet.datasets.phantom import phantom

        slice_ = phantom(slices=1)[0][0]
    return np.pad(slice_, max(0, size - min(slice_.shape)), mode="reflect")[:size, :size]
