"""A stand-in for a GPU: PyTorch's meta device, which knows shapes, types and devices, no values.

The engine computes on it as on a GPU. Every operation is looked at: one that mixes devices fails,
stricter than on a GPU, which takes single numbers from the CPU (in a CUDA graph they would stay
what they were when it was recorded); where the host would wait for the GPU, or copy values to it,
is noted, and zeros are given in place of values, so that the pass goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import caffe
from caffe import device, graphs

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
        """Return it without the line: "nonzero, layers/select.py reshape"."""
        return f"{self.what}, {self.file} {self.function}"


class WrongDeviceError(Exception):
    """An operation was given tensors of the GPU and of the CPU."""


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


class OnGPU(torch.Tensor):
    """A tensor that says it lies on the stand-in, and keeps its values on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnGPU:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=META,
        )
        made.values = values
        return made

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def tolist(self) -> list | float:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the stand-in")


class ValuedStandIn(StandIn):
    """The same with values: what the GPU would compute is computed, on the CPU.

    The engine takes the ways that it takes on a GPU, and keeps what lies there apart from what lies
    on the host; so its results can be compared.

    Attributes
    ----------
    graphs : list
        Those captured so far; see `repeating`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graphs: list[_Graph] = []
        self._graph: _Graph | None = None

    def _compute(self, func: Any, args: tuple, kwargs: dict) -> Any:
        known = {
            id(leaf.values): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnGPU)
        }
        args, kwargs = tree_map_only(OnGPU, lambda leaf: leaf.values, (args, kwargs))
        target = META
        if "device" in kwargs:
            target = torch.device(kwargs["device"] or META)
            kwargs["device"] = torch.device("cpu")
        elif func is aten.copy_.default and id(args[0]) not in known:
            target = torch.device("cpu")
        result = self._computed(func, args, kwargs)
        if target != META:
            return result

        def there(leaf: torch.Tensor) -> OnGPU:
            return known[id(leaf)] if id(leaf) in known else OnGPU(leaf)

        return tree_map_only(torch.Tensor, there, result)

    def _computed(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if self._graph is not None:
            return self._graph.note(func, args, kwargs)
        return func(*args, **kwargs)

    def captured(self, parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        """Do what `caffe.graphs` has CUDA do: note what is computed; return what computes it."""
        state = self.generator.get_state()
        captured: list[_Graph] = []
        try:
            for part in parts:
                self._graph = _Graph()
                captured.append(self._graph)
                part()
        finally:
            self._graph = None
            for graph in reversed(captured):
                graph.forget_values()
            self.generator.set_state(state)
        self.graphs += captured
        return [graph.compute for graph in captured]


class _Graph:
    """What is computed, to be computed again into the same memory, as CUDA graphs are."""

    def __init__(self) -> None:
        self._calls: list[tuple[Any, tuple, dict, Any]] = []
        # By its address, memory that was there before, and what it held.
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: dict[int, torch.Tensor] = {}

    def note(self, func: Any, args: tuple, kwargs: dict) -> Any:
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


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@contextmanager
def computing_on_stand_in(
    monkeypatch: pytest.MonkeyPatch, kind: type[StandIn] = StandIn
) -> Iterator[StandIn]:
    """Let the engine compute on a stand-in."""
    mode = kind()
    of_cpu = device.generator

    def generator(where: torch.device | None = None) -> torch.Generator:
        where = META if where is None else where
        return mode.generator if where == META else of_cpu(where)

    with monkeypatch.context() as patch:
        patch.setattr(device, "current", lambda: META)
        patch.setattr(device, "generator", generator)
        patch.setattr(device, "_gains_by_bf16", lambda where: True)
        patch.setattr(caffe, "set_mode_gpu", lambda: None)
        with mode:
            yield mode


def repeating(monkeypatch: pytest.MonkeyPatch, gpu: ValuedStandIn) -> None:
    """Let passes be repeated as graphs on the stand-in, once `caffe.set_graphs` wants it."""
    monkeypatch.setattr(graphs, "wanted", lambda: graphs._on)
    monkeypatch.setattr(graphs, "_captured", gpu.captured)
    monkeypatch.setattr(graphs, "_no_waits", nullcontext)
    monkeypatch.setattr(torch.cuda.CUDAGraph, "register_generator_state", None, raising=False)
