"""Feed nets from files and arrays: layers that read, training tiles with and without workers."""

from __future__ import annotations

import json
import os
import sys

import cv2
import h5py
import numpy as np

import caffe
from exchange import draw_parameters, give, parameters, text_file
from unet.preparation.training_set import write_training_set

FOLDER = os.path.dirname(sys.argv[2])
RESULTS = {}


def files():
    """Write pictures, HDF5 files, windows and a training set."""
    random = np.random.RandomState(5)
    with open(f"{FOLDER}/pictures.txt", "w") as listed:
        for number in range(5):
            cv2.imwrite(
                f"{FOLDER}/{number}.png", random.randint(0, 256, (12, 10, 3)).astype(np.uint8)
            )
            listed.write(f"{FOLDER}/{number}.png {number * 7}\n")
    with open(f"{FOLDER}/windows.txt", "w") as windows:
        windows.write(f"# 0\n{FOLDER}/0.png\n3\n12\n10\n2\n4 0.9 2 3 6 8\n1 0.1 0 1 4 11\n")
    with h5py.File(f"{FOLDER}/rows.h5", "w") as file:
        file["x"] = random.standard_normal((7, 2, 3)).astype(np.float32)
        file["y"] = random.randint(0, 9, (7, 1)).astype(np.int32)
    with open(f"{FOLDER}/rows.txt", "w") as listed:
        listed.write(f"{FOLDER}/rows.h5\n")
    labels = random.randint(0, 2, (3, 60, 50)).astype(np.uint8)
    labels[:, :9] = 255
    write_training_set(
        f"{FOLDER}/set.h5",
        random.randint(0, 256, (3, 60, 50)).astype(np.uint8),
        labels,
        random.uniform(1, 5, labels.shape).astype(np.float32),
        attributes=dict(classes=2, grey_low=0.0, grey_high=255.0),
    )


def readers():
    """Run layers that read, some batches of each."""
    shuffled = "shuffle: true"
    output = f'hdf5_output_param {{ file_name: "{FOLDER}/out.h5" }}'
    layers = {
        "HDF5Data": f'hdf5_data_param {{ source: "{FOLDER}/rows.txt" batch_size: 3 }}',
        "HDF5Data ": f'hdf5_data_param {{ source: "{FOLDER}/rows.txt" batch_size: 3 {shuffled} }}',
        "ImageData": f'image_data_param {{ source: "{FOLDER}/pictures.txt" batch_size: 2 '
        f"{shuffled} }} transform_param {{ crop_size: 7 mirror: true scale: 0.5 mean_value: 9 }}",
        "WindowData": f'window_data_param {{ source: "{FOLDER}/windows.txt" batch_size: 2 '
        "fg_fraction: 0.5 } transform_param { crop_size: 8 }",
        "MemoryData": "memory_data_param { batch_size: 2 channels: 2 height: 3 width: 4 }",
    }
    for name, options in layers.items():
        caffe.set_random_seed(3)
        net = caffe.Net(
            text_file(
                f'layer {{ name: "d" type: "{name.strip()}" top: "x" top: "y" {options} }}\n'
                'layer { name: "bent" type: "TanH" bottom: "x" top: "z" }\n'
                f'layer {{ name: "o" type: "HDF5Output" bottom: "x" bottom: "y" {output} }}\n'
            ),
            caffe.TRAIN,
        )
        if name == "MemoryData":
            values = np.random.RandomState(0).rand(6, 2, 3, 4).astype(np.float32)
            net.set_input_arrays(values, np.arange(6, dtype=np.float32))
        for turn in range(4):
            net.forward()
            for blob in net.blobs:
                RESULTS[f"{name} {turn} {blob}"] = np.array(net.blobs[blob].data)
        del net
        with h5py.File(f"{FOLDER}/out.h5", "r") as file:
            RESULTS.update({f"{name} written {key}": file[key][()] for key in file})


def tiles():
    """Train on the tiles that a Python layer delivers, cut here and by other processes."""
    for workers in (0, 2):
        config = {"file": f"{FOLDER}/set.h5", "tile": [188, 204], "seed": 7, "workers": workers}
        config["augmentation"] = {"grid": 3, "std": 10, "contrast": 0.2, "gamma": 0.3}
        param = json.dumps(json.dumps(config))
        solver = caffe.get_solver(
            text_file(f"""
            base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 type: "SGD" train_net_param {{
            layer {{ name: "tiles" type: "Python" top: "data" top: "label" top: "weight"
              python_param {{ module: "unet.layers" layer: "TrainingTiles" param_str: {param} }} }}
            layer {{ name: "conv" type: "Convolution" bottom: "data" top: "wide"
              convolution_param {{ num_output: 2 kernel_size: 5 }} }}
            layer {{ name: "crop" type: "Crop" bottom: "wide" bottom: "label" top: "score"
              crop_param {{ axis: 2 offset: 90 }} }}
            layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label"
              top: "loss" loss_param {{ ignore_label: 255 }} }}
            layer {{ name: "unused" type: "Silence" bottom: "weight" }} }}""")
        )
        draw_parameters(solver.net)
        for step in range(4):
            solver.step(1)
            for blob in ("data", "label", "weight", "loss"):
                RESULTS[f"{workers} workers, step {step} {blob}"] = np.array(
                    solver.net.blobs[blob].data
                )
        for name, values in parameters(solver.net).items():
            RESULTS[f"{workers} workers {name}"] = values


for part in (files, readers, tiles):
    part()
give(RESULTS)
