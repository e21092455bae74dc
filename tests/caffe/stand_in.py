"""A stand-in for a GPU: PyTorch's meta device, which knows shapes, types and devices, no values.

The engine computes on it as on a GPU. Every operation is looked at: one that mixes devices fails,
stricter than on a GPU, which takes single numbers from the CPU (in a CUDA graph they would stay
what they were when it was recorded); where the host would wait for the GPU, or copy values to it,
is noted, and zeros are given in place of values, so that the pass goes on.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch
from google.protobuf import text_format
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import caffe
from caffe import common
from caffe.proto import caffe_pb2

ENGINE = Path(caffe.__file__).parent
META = torch.device("meta")
aten = torch.ops.aten

# Tells the stand-in's random numbers from all others.
_SEED = 20261126
# What makes the result's shape, or a number for Python, of values.
_BY_VALUE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Place(NamedTuple):
    """Where the engine does something; `line` tells a reader more, and is not compared."""

    what: str
    layer: str
    file: str
    function: str
    line: int

    @property
    def key(self) -> str:
        """Return it without the line: "nonzero, layers/argmax_filter.py reshape"."""
        return f"{self.what}, {self.file} {self.function}"


class WrongDeviceError(Exception):
    """An operation was given tensors of the GPU and of the CPU."""


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _place(what: str) -> Place:
    """Return which line of the engine runs, and for which type of layer ("" for none)."""
    frame: FrameType | None = sys._getframe(1)
    line, layer = None, ""
    while frame is not None and not layer:
        path = Path(frame.f_code.co_filename)
        own = frame.f_locals.get("self")
        if line is None and (ENGINE in path.parents or isinstance(own, caffe.Layer)):
            name = path.relative_to(ENGINE).as_posix() if ENGINE in path.parents else path.name
            line = (name, frame.f_code.co_name, frame.f_lineno)
        if isinstance(own, caffe.Layer):
            layer = own.type
        frame = frame.f_back
    return Place(what, layer, *(line or ("", "", 0)))


class StandIn(TorchDispatchMode):
    """Looks at every operation while the engine computes on the stand-in.

    Attributes
    ----------
    waits : list of Place
        Where the host would have waited.
    uploads : list of Place
        Where values were copied from the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Place] = []
        self.uploads: list[Place] = []
        self.generator = torch.Generator().manual_seed(_SEED)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        here = [tensor for tensor in tensors if tensor.device == META]
        name = func.overloadpacket.__name__
        if func in (aten._to_copy.default, aten.copy_.default):
            return self._copy(func, args, kwargs)
        if not here and kwargs.get("device") != META:
            return func(*args, **kwargs)
        if here and len(here) < len(tensors):
            told = ", ".join(f"{tuple(t.shape)} on {t.device.type}" for t in tensors)
            raise WrongDeviceError(f"{name} of tensors on two devices: {told}")
        generator = kwargs.get("generator")
        if generator is not None and generator.initial_seed() != _SEED:
            raise WrongDeviceError(f"{name} on the GPU with the random numbers of the CPU")
        by_mask = "index" in name and any(
            tensor.dtype in (torch.bool, torch.uint8) for tensor in _tensors(args[1])
        )
        if by_mask or (_BY_VALUE & set(func.tags) and func is not aten.index.Tensor):
            self.waits.append(_place(name))
        return self._compute(func, args, kwargs)

    def _copy(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if func is aten.copy_.default:
            target, source = args[0].device, args[1].device
        else:
            source = args[0].device
            target = torch.device(kwargs.get("device") or source)
        if source != target:
            if target == META:
                self.uploads.append(_place("upload"))
            else:
                self.waits.append(_place("download"))
        elif target != META:
            return func(*args, **kwargs)
        return self._compute(func, args, kwargs)

    def _compute(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Compute what is to be computed on the stand-in, or copied to or from it."""
        if func in _MADE_UP:
            return _MADE_UP[func](*args)
        if func is aten.copy_.default and args[0].device != META:
            return args[0].zero_()
        if func is aten._to_copy.default and torch.device(kwargs.get("device") or META) != META:
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)

    @contextmanager
    def seen(self) -> Iterator[StandIn]:
        """Note anew what happens from here on."""
        self.waits, self.uploads = [], []
        yield self


_MADE_UP: dict[Any, Callable] = {
    aten._local_scalar_dense.default: lambda tensor: 0,
    # All are other than 0.
    aten.nonzero.default: lambda tensor: tensor.new_empty(
        (tensor.numel(), tensor.dim()), dtype=torch.int64
    ),
}


@contextmanager
def computing_on_stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Let the engine compute on the stand-in."""
    mode = StandIn()
    of_cpu = common.generator

    def generator(where: torch.device | None = None) -> torch.Generator:
        where = META if where is None else where
        return mode.generator if where == META else of_cpu(where)

    with monkeypatch.context() as patch:
        patch.setattr(common, "current_device", lambda: META)
        patch.setattr(common, "generator", generator)
        patch.setattr(common, "_gains_by_bf16", lambda where: True)
        with mode:
            yield mode


def made(text: str, phase: int = caffe.TRAIN) -> caffe.Net:
    return caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), phase)


def forward(net: caffe.Net) -> float:
    return net._forward(0, len(net.layers) - 1)


def backward(net: caffe.Net) -> None:
    net.clear_param_diffs()
    net._backward(len(net.layers) - 1, 0)


def assert_all_lies_there(gpu: StandIn, net: caffe.Net) -> None:
    """Check devices, shapes and types of all blobs and parameters, and of what comes later."""
    blobs = [*net.blobs.values(), *net.learnable]
    with gpu.seen():
        for blob in blobs:
            for memory in (blob.data_memory, blob.diff_memory):
                values = memory.native()
                assert values.device == META
                assert values.shape == blob.shape
                assert values.dtype in (torch.float32, common.compute_dtype())
        # What a user wrote is fetched; nothing that the engine made comes from the CPU.
        assert {place.key for place in gpu.uploads} <= {"upload, device_memory.py upload"}
    for blob in net.learnable:
        assert blob.data_memory.native().dtype == torch.float32
        assert blob.diff_memory.native().dtype == torch.float32


def waits_of_gpu(run: Callable[[], object]) -> int:
    """Return how often PyTorch has the host wait for the GPU."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in told)
