"""The net and the devices that flags name."""

from __future__ import annotations

import re

import torch

from caffe import common
from caffe.command.flags import Flags
from caffe.errors import CaffeError
from caffe.net.net import Net


def required(flags: Flags, name: str, what: str) -> str:
    """Return a flag's value.

    Raises
    ------
    CaffeError
        If it is not given.
    """
    if not flags[name]:
        raise CaffeError(f"need {what}: -{name} FILE")
    return flags[name]


def iterations(flags: Flags) -> int:
    """Return the number of iterations to run.

    Raises
    ------
    CaffeError
        If there is none.
    """
    if flags.iterations < 1:
        raise CaffeError(f"-iterations {flags.iterations}: give a positive number")
    return flags.iterations


def stages(flags: Flags) -> list[str]:
    """Return the stages of the net's state."""
    return flags.stage.split(",")


def net(flags: Flags, phase: int) -> Net:
    """Make the net that -model, -level and -stage name."""
    return Net(flags.model, phase, level=flags.level, stages=stages(flags))


def gpus(text: str) -> list[int]:
    """Return the GPUs that -gpu names.

    Raises
    ------
    CaffeError
        If it names none that is there.
    """
    if not text:
        return []
    if text == "all":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise CaffeError("-gpu all: there is no GPU, PyTorch finds no CUDA device here")
        return list(range(count))
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise CaffeError(f"-gpu {text}: give numbers of GPUs, commas between them, or all")
    return [int(number) for number in text.split(",")]


def compute_on(gpu: int | None) -> None:
    """Compute on a GPU, or the CPU.

    Raises
    ------
    CaffeError
        If there is no such GPU.
    """
    if gpu is None:
        common.set_mode_cpu()
    else:
        common.set_device(gpu)
        common.set_mode_gpu()
