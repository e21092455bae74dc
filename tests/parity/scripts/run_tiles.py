"""Deliver training tiles through the Python layer: one by one, and after a seek.

The third argument is the HDF5 file.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np

import caffe
from exchange import text_file

CONFIG = {"file": sys.argv[3], "tile": [188, 204], "slices": [1, 3], "seed": 7}
CONFIG["augmentation"] = {"contrast": 0.2, "brightness": 0.1, "gamma": 0.3}


def net(phase, **changes):
    """Return a net of the data layer alone."""
    text = json.dumps(json.dumps(dict(CONFIG, **changes)))
    layer = 'name: "tiles" type: "Python" top: "data" top: "label" top: "weight"'
    source = f'module: "unet.layers" layer: "TrainingTiles" param_str: {text}'
    return caffe.Net(text_file(f"layer {{ {layer} python_param {{ {source} }} }}"), phase)


def children():
    """Return the numbers of the processes that this one has started."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(number) for number in file.read().split()]


def mistake(run):
    """Return the name of an error and what it says."""
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


results = {}
for workers in (0, 2):
    one = net(caffe.TRAIN, workers=workers)
    for index in (0, 1, 2, 9):
        if index == 9:
            one.layers[0].seek(9)
        one.forward()
        for name in one.blobs:
            results[f"{workers} {index} {name}"] = one.blobs[name].data.copy()
one.backward()
os.kill(children()[0], signal.SIGKILL)
results["killed"] = np.array(mistake(lambda: [one.forward() for _ in range(9)]))
results["left"] = np.array(len(children()))

test = net(caffe.TEST)
results["epoch"] = np.array(test.layers[0].tiles_per_epoch)
test.forward()
for name in test.blobs:
    results[f"test {name}"] = test.blobs[name].data.copy()

results["unknown key"] = np.array(mistake(lambda: net(caffe.TRAIN, sede=1)))
results["no file"] = np.array(mistake(lambda: net(caffe.TRAIN, file="none.h5")))
np.savez(sys.argv[2], **results)
