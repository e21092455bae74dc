"""Initial values of parameters (Caffe's FillerParameter)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from caffe import common
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

# A parameter beyond this fits in no .caffemodel: 2 GiB. What asks for more is a mistake.
MAX_COUNT = 2**29 - 1


def _fan(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> float:
    count = math.prod(shape)
    fan_in = count / shape[0]
    fan_out = count / shape[1] if len(shape) > 1 else count
    norm = param.variance_norm
    if norm == caffe_pb2.FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if norm == caffe_pb2.FillerParameter.FAN_OUT else fan_in


def _random() -> torch.Generator:
    return common.generator(torch.device("cpu"))


def _constant(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    return torch.full(shape, param.value)


def _uniform(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    return torch.empty(shape).uniform_(param.min, param.max, generator=_random())


def _gaussian(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    values = torch.empty(shape).normal_(param.mean, param.std, generator=_random())
    if param.sparse >= 0:
        # On average `sparse` inputs of each output stay: outputs are the first axis (InnerProduct).
        keep = torch.full(shape, min(1.0, param.sparse / shape[0]))
        values *= torch.bernoulli(keep, generator=_random())
    return values


def _xavier(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    scale = math.sqrt(3.0 / _fan(shape, param))
    return torch.empty(shape).uniform_(-scale, scale, generator=_random())


def _msra(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    std = math.sqrt(2.0 / _fan(shape, param))
    return torch.empty(shape).normal_(0.0, std, generator=_random())


def _positive_unitball(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    values = torch.rand(shape, generator=_random()).view(shape[0], -1)
    return (values / values.sum(1, keepdim=True)).view(shape)


def _bilinear(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    if len(shape) != 4 or shape[2] != shape[3]:
        raise CaffeError(f"the bilinear filler needs a square 4-D blob, not {shape}")
    size = shape[3]
    factor = math.ceil(size / 2)
    centre = (2 * factor - 1 - factor % 2) / (2.0 * factor)
    line = 1 - (torch.arange(size) / factor - centre).abs()
    return (line[:, None] * line[None, :]).expand(shape).clone()


FILLERS: dict[str, Callable[[tuple[int, ...], caffe_pb2.FillerParameter], torch.Tensor]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "xavier": _xavier,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "bilinear": _bilinear,
}


def fill(shape: tuple[int, ...], param: caffe_pb2.FillerParameter) -> torch.Tensor:
    """Make the initial values of a parameter.

    Parameters
    ----------
    shape : tuple of int
        Its shape. N, the fan-in, is the product of all axes but the first.
    param : caffe_pb2.FillerParameter
        "msra" draws from N(0, 2/N), as Ronneberger et al. 2015, Sec. 3 asks.

    Returns
    -------
    torch.Tensor
        float32, on the CPU.

    Raises
    ------
    CaffeError
        If there is no filler of that type, or it cannot fill this shape.
    """
    if math.prod(shape) > MAX_COUNT:
        raise CaffeError(f"values of shape {tuple(shape)} are more than {MAX_COUNT}")
    if param.type not in FILLERS:
        raise CaffeError(f"unknown filler '{param.type}'; there are {', '.join(sorted(FILLERS))}")
    return FILLERS[param.type](tuple(shape), param)
