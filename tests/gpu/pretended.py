"""A pretended GPU that computes: its tensors lie on the CPU, but say, and act as if, they did not.

The stand-in of tests/caffe/stand_in.py looks at each operation and has no values. This one has
them: what is old on one side, or comes to the wrong place, comes out wrong. It repeats passes as
CUDA graphs do. It knows nothing of streams: all is done at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from caffe import common, device_memory
from caffe.net import cuda_graphs

Repeats = list[Callable[[], None]]

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
    tensors = _tensors((args, kwargs))
    there = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    if not there and not _is_gpu(kwargs.get("device")):
        return func(*args, **kwargs)
    # Single numbers go along, and copies between the two.
    apart = [tensor for tensor in tensors if not isinstance(tensor, OnGPU) and tensor.dim()]
    if func is aten.copy_.default:
        _run(func, tree_map(_held, args), {})
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

    return tree_map(shown, _run(func, tree_map(_held, args), tree_map(_held, kwargs)))


class _Graph:
    """What is computed, to be computed again into the same memory, as CUDA graphs are."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable, tuple, dict, Any]] = []
        # By its address, memory that was there before, and what it held.
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: dict[int, torch.Tensor] = {}

    def note(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Compute something, so that its shape is known."""
        for tensor in _tensors((args, kwargs)):
            memory = tensor.untyped_storage()
            if memory._cdata not in self._before and memory._cdata not in self._made:
                self._before[memory._cdata] = memory, memory.clone()
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            memory = tensor.untyped_storage()
            if memory._cdata not in self._before:
                self._made.setdefault(memory._cdata, tensor)
        self._calls.append((func, args, kwargs, result))
        return result

    def forget_values(self) -> None:
        """Leave memory as it was: while a graph is captured a GPU computes nothing."""
        for memory, before in self._before.values():
            memory.copy_(before)
        for tensor in self._made.values():
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)

    def compute(self) -> None:
        """Compute all of it, on what memory holds now."""
        for func, args, kwargs, before in self._calls:
            for old, new in zip(_tensors(before), _tensors(func(*args, **kwargs))):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


# The graph that is captured now.
_captured_now: _Graph | None = None


def _run(func: Callable, args: tuple, kwargs: dict) -> Any:
    if _captured_now is not None:
        return _captured_now.note(func, args, kwargs)
    return func(*args, **kwargs)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _captured(parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
    """Do what `caffe.net.cuda_graphs` has CUDA do: note what is computed, and return it."""
    global _captured_now
    state = common.generator(GPU).get_state()
    captured: list[_Graph] = []
    try:
        for part in parts:
            _captured_now = _Graph()
            captured.append(_captured_now)
            part()
    finally:
        _captured_now = None
        for graph in reversed(captured):
            graph.forget_values()
        common.generator(GPU).set_state(state)
    return [graph.compute for graph in captured]


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
        found = _run(to, (held, *others), kwargs) if others or kwargs else held
        if wanted == is_there:
            return self if found is held else (OnGPU(found) if wanted else found)
        found = _run(torch.clone, (found,), {}) if found is held else found
        return OnGPU(found) if wanted else found

    return moved


class Moment:
    """A stream or an event: there is nothing to wait for."""

    _chance = random.Random(1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def elapsed_time(self, other: Moment) -> float:
        # Of several ways now one is the fastest, now another.
        return self._chance.random()

    def record(self, *args: Any) -> None:
        pass

    wait_stream = wait_event = synchronize = record


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Repeats]]:
    """Let PyTorch say that there is a GPU, and compute on it.

    Yields
    ------
    list
        Of each pass that is captured as a graph, what repeats its parts; it grows.
    """
    repeats: list[Repeats] = []

    def captured(parts: Sequence[Callable[[], None]]) -> Repeats:
        repeats.append(_captured(parts))
        return repeats[-1]

    moved = _moved(torch.Tensor.to)
    with monkeypatch.context() as patch:
        for name, value in {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "is_current_stream_capturing": lambda: False,
            "get_device_capability": lambda *where: (9, 0),
            "current_stream": lambda *where: Moment(),
            "stream": lambda stream: nullcontext(),
            "Stream": Moment,
            "Event": Moment,
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.Tensor, "to", moved)
        patch.setattr(torch.Tensor, "cpu", lambda self: moved(self, "cpu"))
        patch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
        patch.setattr(torch.Tensor, "is_pinned", lambda self: True)
        patch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
        patch.setattr(device_memory, "host_memory", torch.empty)
        patch.setattr(cuda_graphs, "_captured", captured)
        patch.setattr(cuda_graphs, "_no_waits", nullcontext)
        patch.setattr(torch.cuda.CUDAGraph, "register_generator_state", None, raising=False)
        patch.setitem(common._generators, GPU, torch.Generator())
        common._gains_by_bf16.cache_clear()
        try:
            with _Looking():
                yield repeats
        finally:
            common._gains_by_bf16.cache_clear()
