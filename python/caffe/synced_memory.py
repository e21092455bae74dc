"""SyncedMemory: values, tensors to layers and arrays to users, and where the newest lie."""

from __future__ import annotations

import enum
import math
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch

from caffe import common, device_memory, late_checks
from caffe.errors import CaffeError

Shape = tuple[int, ...]


class Head(enum.Enum):
    """Where the newest values of a SyncedMemory lie; Caffe's SyncedHead, and two more."""

    # Nowhere: zeros, if somebody looks.
    UNINITIALIZED = enum.auto()
    # Nowhere: a function makes them, if somebody looks.
    LAZY = enum.auto()
    # In the tensor that layers read and write, on the device that computes (which may be the CPU).
    AT_DEVICE = enum.auto()
    # There, and the GPU is bringing a copy to the host.
    COMING = enum.auto()
    # In the host's copy, where a user may have written; the tensor is older, or there is none.
    AT_HOST = enum.auto()
    # In both: a GPU has fetched the host's copy.
    SYNCED = enum.auto()


class SyncedMemory:
    """One of the two arrays of a blob.

    Layers read and write tensors (any device and memory layout); users see a C-contiguous float32
    numpy array. On the CPU both are the same memory: an array that somebody still holds is written
    in place by the next pass. On a GPU the array is a copy in host memory, brought up to date, and
    taken to be changed, each time it is asked for, as in genuine Caffe. That memory is pinned, so
    that the GPU fetches what was written while the host goes on.
    """

    __slots__ = (
        "__weakref__",
        "_array",
        "_array_tensor",
        "_coming",
        "_head",
        "_host",
        "_make",
        "_spare",
        "_tensor",
        "_upload",
        "changes_in_place",
        "is_fed",
        "shape",
    )

    def __init__(self, shape: Shape = ()) -> None:
        self.shape = shape
        # How many layers of the net work in place on these values.
        self.changes_in_place = 0
        # Whether only the user gives them, as those of an Input layer.
        self.is_fed = False
        self._head = Head.UNINITIALIZED
        self._tensor: torch.Tensor | None = None
        # All values, flat, that there was memory for before the shape became smaller.
        self._spare: torch.Tensor | None = None
        self._host: torch.Tensor | None = None
        # While they are LAZY: what makes them.
        self._make: Callable[[], torch.Tensor | None] | None = None
        # While they are COMING: reached once they have come.
        self._coming: torch.cuda.Event | None = None
        # Reached once the GPU has fetched what the host's copy holds.
        self._upload: torch.cuda.Event | None = None
        # The array last handed out, as long as somebody holds it or a view of it, and its memory.
        self._array: weakref.ref[np.ndarray] | None = None
        self._array_tensor: torch.Tensor | None = None

    def tensor(self) -> torch.Tensor:
        """Return the newest values, float32, on the current device, zeros if there are none yet."""
        tensor = self.native()
        if tensor.dtype != torch.float32:
            tensor = self._tensor = tensor.to(torch.float32)
        return tensor

    def native(self) -> torch.Tensor:
        """Return the same in the type that it was computed in; see `common.set_precision`."""
        where = common.current_device()
        tensor = self._tensor
        if tensor is not None and tensor.device == where and self._head is not Head.AT_HOST:
            return tensor
        self._make_lazy_values()
        if self._head is Head.AT_HOST and where.type != "cpu":
            if tensor is not None and tensor.device == where and tensor.dtype == torch.float32:
                # In the layout that it had: a convolution's weights keep theirs.
                self._tensor = torch.empty_like(tensor)
            else:
                self._tensor = torch.empty(self.shape, device=where)
            self._fetch(self._tensor)
            return self._tensor
        newest = self._host if self._head is Head.AT_HOST else self._tensor
        if newest is None:
            newest = torch.zeros(self.shape, device=where)
        self._put(Head.AT_DEVICE, newest.to(where))
        return self._tensor

    def _put(self, head: Head, tensor: torch.Tensor | None) -> None:
        self._head, self._tensor = head, tensor
        self._make = self._coming = None

    def _fetch(self, target: torch.Tensor) -> None:
        """Have a GPU fetch the host's copy into `target`."""
        # Who holds the array may write into it at any time: the GPU is to be done by then.
        self._upload = device_memory.upload(self._host, target, wait=self.is_exported)
        self._head = Head.SYNCED

    def set(self, tensor: torch.Tensor) -> None:
        """Take `tensor` as the new values; an array that somebody holds is updated in place."""
        if tensor.shape != self.shape:
            raise CaffeError(f"a blob of shape {self.shape} was given values {tuple(tensor.shape)}")
        if self.is_exported and tensor.device.type == "cpu":
            memory = self._array_tensor
            if memory.data_ptr() != tensor.data_ptr() or memory.stride() != tensor.stride():
                memory.copy_(tensor)
                # Not the very tensor of the array: a layer may give what it gets other memory.
                tensor = memory.detach()
        self._spare = None
        self._put(Head.AT_DEVICE, tensor)

    def set_lazy(self, make: Callable[[], torch.Tensor | None]) -> None:
        """Forget the values; `make` gives new ones (None: zeros) if somebody looks."""
        if self.is_exported and common.current_device().type == "cpu":
            made = make()
            self.set(torch.zeros(self.shape) if made is None else made)
            return
        self._spare = None
        self._put(Head.LAZY, None)
        self._make = make

    def clear(self) -> None:
        """Set all values to zero, without touching memory nobody looks at."""
        self.set_lazy(_zeros)

    def set_window(self, window: tuple[slice, ...], part: torch.Tensor) -> None:
        """Take values that are `part` inside `window` and 0 outside, without writing the zeros."""
        self.set_lazy(_Window(self.shape, window, part))

    def set_joined(self, parts: Sequence[torch.Tensor], axis: int) -> None:
        """Take values that are `parts` joined, without doing so before somebody asks for them."""
        self.set_lazy(_Joined(parts, axis))

    def parts(self, axis: int) -> list[torch.Tensor]:
        """Return what, joined along an axis, `native` returns; only to be read."""
        if isinstance(self._make, _Joined) and self._make.axis == axis:
            return list(self._make.parts)
        return [self.native()]

    def move_to(self, memory: torch.Tensor) -> None:
        """Have the newest values lie in `memory`, where a CUDA graph reads them."""
        if self._head is Head.AT_HOST:
            self._fetch(memory)
        else:
            newest = self.native()
            if newest is not memory:
                memory.copy_(newest)
        self._tensor, self._spare = memory, None

    def send(self) -> None:
        """Have a GPU bring the values to the host while it computes on, for who looks later."""
        # An array that somebody holds is brought up to date when he asks for it.
        at_host = self._head is Head.AT_HOST or self.is_exported
        if common.current_device().type != "cuda" or at_host:
            return
        if self._host is None:
            self._host = device_memory.host_memory(self.shape)
        self._coming = device_memory.download(self.tensor(), self._host)
        self._head = Head.COMING

    def state(self) -> tuple[object, ...]:
        """Return what `restore` takes, to bring back the values that a CUDA graph makes anew."""
        return self._tensor, self._spare, self._make

    def restore(self, state: tuple[object, ...]) -> None:
        """Be again as at the time of `state`."""
        tensor, self._spare, make = state
        empty = Head.UNINITIALIZED if make is None else Head.LAZY
        self._put(empty if tensor is None else Head.AT_DEVICE, tensor)
        self._make = make

    def add_to(self, total: torch.Tensor) -> None:
        """Add the values to a tensor."""
        if isinstance(self._make, _Window):
            # Not by +=, which would then copy the window onto itself.
            total[self._make.window].add_(self._make.part)
        else:
            total.add_(self.native())

    def accumulate(self, tensor: torch.Tensor) -> None:
        """Add `tensor`, which the memory may keep as its own, to the values, in float32."""
        tensor = tensor.to(torch.float32)
        if self.is_clear:
            self.set(tensor)
        else:
            self.tensor().add_(tensor)

    def discard(self) -> None:
        """Give the memory back, if nobody holds the array: the next pass writes all values anew."""
        if self._head is not Head.AT_HOST and not self.is_exported:
            # Also what was given back, and is refused to whoever reads it.
            self._spare = None
            self._put(Head.UNINITIALIZED, None)

    @property
    def is_clear(self) -> bool:
        """Whether the values are zeros that no memory was touched for."""
        return self._head is Head.UNINITIALIZED or self._make is _zeros

    @property
    def is_lazy(self) -> bool:
        """Whether the values are made, or refused, only when somebody looks."""
        return self._head is Head.LAZY

    @property
    def is_exported(self) -> bool:
        """Whether somebody holds the numpy array, or a view of it."""
        if self._array is None:
            return False
        if self._array() is None:
            self._array = self._array_tensor = None
            return False
        return True

    @property
    def source(self) -> SyncedMemory:
        """The memory whose values these are: itself, but for a view."""
        return self

    def reshape(self, shape: Shape) -> None:
        """Change the shape; values that there is memory for keep their place in the flat order."""
        if shape == self.shape:
            return
        if isinstance(self._make, _Joined):
            self._make_lazy_values()
        count = math.prod(shape)
        kept = spare = None
        newest = self._host if self._head is Head.AT_HOST else self._tensor
        if newest is not None:
            spare = newest.contiguous().view(-1)
            if self._spare is not None and self._spare.data_ptr() == spare.data_ptr():
                spare = self._spare
            if count <= spare.numel():
                kept = spare[:count].view(shape)
            else:
                spare = None
        make = self._make
        self._spare = spare
        self.shape = shape
        self._host = self._array = self._array_tensor = None
        self.restore((kept, spare, make))

    def numpy(self) -> np.ndarray:
        """Return the newest values as a live C-contiguous float32 array."""
        if common.current_device().type == "cpu":
            tensor = self.tensor()
            if not tensor.is_contiguous():
                tensor = self._tensor = tensor.contiguous()
            return self._export(tensor)
        if self._upload is not None:
            self._upload.synchronize()
            self._upload = None
        if self._head is Head.COMING:
            self._coming.synchronize()
            self._put(Head.AT_DEVICE, self._tensor)
            late_checks.settle()
        elif self._head is not Head.AT_HOST and not self._host_will_do():
            tensor = self.tensor()
            if self._host is None:
                self._host = device_memory.host_memory(self.shape)
            self._host.copy_(tensor)
            late_checks.settle()
        self._head = Head.AT_HOST
        return self._export(self._host)

    def _host_will_do(self) -> bool:
        """Tell whether what the host's copy holds need not be brought up to date."""
        if self._host is None:
            return False
        # Of what was discarded the host's copy keeps what it held: it is about to be written.
        fed = self._head is Head.SYNCED and self.is_fed and not self.changes_in_place
        return fed or self._head is Head.UNINITIALIZED

    def _export(self, tensor: torch.Tensor) -> np.ndarray:
        array = self._array() if self.is_exported else None
        if array is None or self._array_tensor.data_ptr() != tensor.data_ptr():
            array = tensor.detach().numpy()
            # Every view keeps the array alive, so a weak reference tells whether anybody looks.
            self._array = weakref.ref(array)
            self._array_tensor = tensor.detach()
        return array

    def _make_lazy_values(self) -> None:
        if self._head is not Head.LAZY:
            return
        make = self._make
        # What makes them may look at them, and finds zeros.
        self._put(Head.UNINITIALIZED, None)
        try:
            made = make()
        except CaffeError:
            self.restore((None, None, make))
            raise
        if made is not None:
            self._put(Head.AT_DEVICE, made)


class ReshapedView:
    """The values of another memory in another shape of as many elements; used as that is."""

    __slots__ = ("of", "shape")

    def __init__(self, of: SyncedMemory | ReshapedView, shape: Shape) -> None:
        self.of = of
        self.shape = shape

    def tensor(self) -> torch.Tensor:
        return self.of.tensor().reshape(self.shape)

    def native(self) -> torch.Tensor:
        return self.of.native().reshape(self.shape)

    def parts(self, axis: int) -> list[torch.Tensor]:
        return [self.native()]

    def set(self, tensor: torch.Tensor) -> None:
        self.of.set(tensor.reshape(self.of.shape))

    def set_lazy(self, make: Callable[[], torch.Tensor | None]) -> None:
        def made() -> torch.Tensor | None:
            values = make()
            return None if values is None else values.reshape(self.of.shape)

        self.of.set_lazy(made)

    def clear(self) -> None:
        self.of.clear()

    def set_window(self, window: tuple[slice, ...], part: torch.Tensor) -> None:
        self.set_lazy(_Window(self.shape, window, part))

    def add_to(self, total: torch.Tensor) -> None:
        total.add_(self.native())

    def accumulate(self, tensor: torch.Tensor) -> None:
        self.of.accumulate(tensor.reshape(self.of.shape))

    @property
    def is_clear(self) -> bool:
        return self.of.is_clear

    @property
    def is_exported(self) -> bool:
        return self.of.is_exported

    @property
    def source(self) -> SyncedMemory:
        return self.of.source

    def reshape(self, shape: Shape) -> None:
        raise CaffeError(f"the shape {self.shape} is that of {self.of.shape}: reshape that blob")

    def numpy(self) -> np.ndarray:
        return self.of.numpy().reshape(self.shape)


def _zeros() -> None:
    return None


class _Window:
    """Makes values that are 0 outside a window, when somebody asks for them whole."""

    def __init__(self, shape: Shape, window: tuple[slice, ...], part: torch.Tensor) -> None:
        self.shape, self.window, self.part = shape, window, part

    def __call__(self) -> torch.Tensor:
        whole = self.part.new_zeros(self.shape)
        whole[self.window] = self.part
        return whole


class _Joined:
    """Joins values along an axis, when somebody asks for them in one."""

    def __init__(self, parts: Sequence[torch.Tensor], axis: int) -> None:
        self.parts, self.axis = parts, axis

    def __call__(self) -> torch.Tensor:
        return torch.cat(list(self.parts), self.axis)
