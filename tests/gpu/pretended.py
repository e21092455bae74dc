"""A pretended GPU that computes: its tensors lie on the CPU, but say, and act as if, they did not.

The stand-in of tests/caffe/stand_in.py looks at each operation and has no values. This one has
them: what is old on one side, or comes to the wrong place, comes out wrong. It knows nothing of
streams: all is done at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from caffe import device

GPU = torch.device("cuda", 0)
aten = torch.ops.aten


class OnGPU(torch.Tensor):
    """A tensor of the pretended GPU.

    Parameters
    ----------
    held : Tensor
        Its values, on the CPU.
    """

    held: torch.Tensor

    # Operations come to `__torch_dispatch__`; before that, nothing is to be done with them.
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, held: torch.Tensor) -> OnGPU:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=held.device,
        )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return GPU

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


class _Looking(TorchDispatchMode):
    """Sees operations that make tensors of none."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGPU) else value


def _is_gpu(where: Any) -> bool:
    return where is not None and torch.device(where).type == "cuda"


def _computed(func: Any, args: tuple, kwargs: dict) -> Any:
    """Run an operation on the CPU; what it gives lies where its tensors lie."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    if not there and not _is_gpu(kwargs.get("device")):
        return func(*args, **kwargs)
    # Single numbers go along, and copies between the two.
    apart = [tensor for tensor in tensors if not isinstance(tensor, OnGPU) and tensor.dim()]
    if func is aten.copy_.default:
        func(*map(_held, args))
        return args[0]
    if there and apart:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    # What works in place gives back what it was given.
    known = {id(tensor.held): tensor for tensor in there}

    def shown(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else OnGPU(value)

    return tree_map(shown, func(*tree_map(_held, args), **tree_map(_held, kwargs)))


def _moved(to: Any) -> Any:
    """Return a Tensor.to that knows of the pretended GPU."""

    def moved(self: torch.Tensor, *args: Any, non_blocking: bool = False, **kwargs: Any) -> Any:
        places = [
            a for a in (*args, kwargs.pop("device", None)) if isinstance(a, (str, torch.device))
        ]
        others = [a for a in args if not isinstance(a, (str, torch.device))]
        is_there = isinstance(self, OnGPU)
        wanted = _is_gpu(places[0]) if places else is_there
        held = _held(self)
        found = to(held, *others, **kwargs) if others or kwargs else held
        if wanted == is_there:
            return self if found is held else (OnGPU(found) if wanted else found)
        found = found.clone() if found is held else found
        return OnGPU(found) if wanted else found

    return moved


class _Moment:
    """A stream or an event: there is nothing to wait for."""

    _chance = random.Random(1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def elapsed_time(self, other: _Moment) -> float:
        # Of several ways now one is the fastest, now another.
        return self._chance.random()

    def record(self, *args: Any) -> None:
        pass

    wait_stream = wait_event = synchronize = record


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let PyTorch say that there is a GPU, and compute on it."""
    moved = _moved(torch.Tensor.to)
    with monkeypatch.context() as patch:
        for name, value in {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "is_current_stream_capturing": lambda: False,
            "get_device_capability": lambda *where: (9, 0),
            "current_stream": lambda *where: _Moment(),
            "stream": lambda stream: nullcontext(),
            "Stream": _Moment,
            "Event": _Moment,
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.Tensor, "to", moved)
        patch.setattr(torch.Tensor, "cpu", lambda self: moved(self, "cpu"))
        patch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
        patch.setattr(torch.Tensor, "is_pinned", lambda self: True)
        patch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
        patch.setattr(device, "host_memory", torch.empty)
        patch.setitem(device._generators, GPU, torch.Generator())
        device._gains_by_bf16.cache_clear()
        try:
            with _Looking():
                yield
        finally:
            device._gains_by_bf16.cache_clear()
