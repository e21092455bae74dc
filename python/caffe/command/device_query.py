"""`caffe device_query`: what the GPUs are."""

from __future__ import annotations

import argparse

import torch

from caffe import common
from caffe.command import arguments
from caffe.log import Log

_log = Log("caffe.cpp")
_common = Log("common.cpp")

# What genuine Caffe calls a property -> PyTorch's name of it. Releases of PyTorch differ in which
# they have; others than these no release has.
PROPERTIES = {
    "Major revision number": "major",
    "Minor revision number": "minor",
    "Name": "name",
    "Total global memory": "total_memory",
    "Total shared memory per block": "shared_memory_per_block",
    "Warp size": "warp_size",
    "Number of multiprocessors": "multi_processor_count",
}


def device_query(flags: argparse.Namespace) -> None:
    """Write the properties of the GPUs that -gpu names."""
    _log.info(f"Querying GPUs {flags.gpu}")
    for gpu in arguments.gpus(flags.gpu):
        common.set_device(gpu)
        properties = torch.cuda.get_device_properties(gpu)
        _line("Device id", gpu)
        for title, name in PROPERTIES.items():
            if hasattr(properties, name):
                _line(title, getattr(properties, name))


def _line(title: str, value: object) -> None:
    _common.info(f"{title + ':':<31}{value}")
