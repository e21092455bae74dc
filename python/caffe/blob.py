"""A Blob: a shape and two arrays, data and diff: tensors to layers, live numpy arrays to users."""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable

import numpy as np
import torch

from caffe import common, late_checks
from caffe.argument_checks import not_converted
from caffe.containers import Shown
from caffe.errors import CaffeError

Shape = tuple[int, ...]

# Caffe counts elements in a 32-bit int; a larger blob is a mistake there and here.
MAX_COUNT = 2**31 - 1
# Caffe's kMaxBlobAxes.
MAX_AXES = 32


class Side:
    """One of the two arrays of a blob: where its newest values lie, and who is looking at them.

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
        "_host",
        "_host_newest",
        "_host_same",
        "_pending",
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
        self._tensor: torch.Tensor | None = None
        # All values, flat, that there was memory for before the shape became smaller.
        self._spare: torch.Tensor | None = None
        self._host: torch.Tensor | None = None
        self._host_newest = False
        # Whether a GPU has fetched the host's copy, and been given no other values since.
        self._host_same = False
        # Reached once the GPU has brought its values to the host's copy.
        self._coming: torch.cuda.Event | None = None
        # Reached once the GPU has fetched what the host's copy holds.
        self._upload: torch.cuda.Event | None = None
        self._pending: Callable[[], torch.Tensor | None] | None = None
        # The array last handed out, as long as somebody holds it or a view of it, and its memory.
        self._array: weakref.ref[np.ndarray] | None = None
        self._array_tensor: torch.Tensor | None = None

    def tensor(self) -> torch.Tensor:
        """Return the newest values, float32, on the current device, zeros if there are none yet."""
        tensor = self.activation()
        if tensor.dtype != torch.float32:
            tensor = self._tensor = tensor.to(torch.float32)
        return tensor

    def activation(self) -> torch.Tensor:
        """Return the same in the type that it was computed in; see `common.set_precision`."""
        where = common.current_device()
        tensor = self._tensor
        if tensor is not None and tensor.device == where and not self._host_newest:
            return tensor
        self._settle()
        if self._host_newest and where.type != "cpu":
            if tensor is not None and tensor.device == where and tensor.dtype == torch.float32:
                # In the layout that it had: a convolution's weights keep theirs.
                self._tensor = torch.empty_like(tensor)
            else:
                self._tensor = torch.empty(self.shape, device=where)
            self._fetch(self._tensor)
            return self._tensor
        if self._host_newest:
            source = self._host
            self._host_newest = False
        else:
            source = self._tensor
        self._host_same = False
        if source is None:
            self._tensor = torch.zeros(self.shape, device=where)
        elif source.device != where:
            self._tensor = source.to(where)
        else:
            self._tensor = source
        return self._tensor

    def _fetch(self, target: torch.Tensor) -> None:
        """Have a GPU fetch the host's copy into `target`."""
        # Who holds the array may write into it at any time: the GPU is to be done by then.
        self._upload = common.upload(self._host, target, wait=self.is_held())
        self._host_newest, self._host_same = False, True

    def set(self, tensor: torch.Tensor) -> None:
        """Take `tensor` as the new values; an array that somebody holds is updated in place."""
        if tensor.shape != self.shape:
            raise CaffeError(f"a blob of shape {self.shape} was given values {tuple(tensor.shape)}")
        self._pending = self._spare = self._coming = None
        self._host_newest = self._host_same = False
        if self.is_held() and tensor.device.type == "cpu":
            memory = self._array_tensor
            if memory.data_ptr() != tensor.data_ptr() or memory.stride() != tensor.stride():
                memory.copy_(tensor)
                # Not the very tensor of the array: a layer may give what it gets other memory.
                tensor = memory.detach()
        self._tensor = tensor

    def defer(self, make: Callable[[], torch.Tensor | None]) -> None:
        """Forget the values; `make` gives new ones (None: zeros) if somebody looks."""
        if self.is_held() and common.current_device().type == "cpu":
            made = make()
            self.set(torch.zeros(self.shape) if made is None else made)
            return
        self._tensor = self._spare = self._coming = None
        self._host_newest = self._host_same = False
        self._pending = make

    def clear(self) -> None:
        """Set all values to zero, without touching memory nobody looks at."""
        self.defer(_zeros)

    def set_window(self, window: tuple[slice, ...], part: torch.Tensor) -> None:
        """Take values that are `part` inside `window` and 0 outside, without writing the zeros."""
        self.defer(_Window(self.shape, window, part))

    def lie_in(self, memory: torch.Tensor) -> None:
        """Have the newest values lie in `memory`, where a CUDA graph reads them."""
        if self._host_newest and self._pending is None:
            self._fetch(memory)
        else:
            newest = self.activation()
            if newest is not memory:
                memory.copy_(newest)
        self._tensor, self._spare = memory, None

    def send(self) -> None:
        """Have a GPU bring the values to the host while it computes on, for who looks later."""
        # An array that somebody holds is brought up to date when he asks for it.
        if common.current_device().type != "cuda" or self._host_newest or self.is_held():
            return
        if self._host is None:
            self._host = common.host_memory(self.shape)
        self._coming = common.download(self.tensor(), self._host)
        self._host_same = False

    def state(self) -> tuple[object, ...]:
        """Return what `restore` takes, to bring back the values that a CUDA graph makes anew."""
        return self._tensor, self._spare, self._pending

    def restore(self, state: tuple[object, ...]) -> None:
        """Be again as at the time of `state`."""
        self._tensor, self._spare, self._pending = state
        self._host_newest = self._host_same = False
        self._coming = None

    def add_to(self, total: torch.Tensor) -> None:
        """Add the values to a tensor."""
        if isinstance(self._pending, _Window):
            # Not by +=, which would then copy the window onto itself.
            total[self._pending.window].add_(self._pending.part)
        else:
            total.add_(self.activation())

    def is_clear(self) -> bool:
        """Tell whether the values are zeros that no memory was touched for."""
        untouched = self._tensor is None and not self._host_newest
        return untouched and (self._pending is None or self._pending is _zeros)

    def is_deferred(self) -> bool:
        """Tell whether the values are made, or refused, only when somebody looks."""
        return self._pending is not None

    def is_held(self) -> bool:
        """Tell whether somebody holds the numpy array, or a view of it."""
        if self._array is None:
            return False
        if self._array() is None:
            self._array = self._array_tensor = None
            return False
        return True

    @property
    def source(self) -> Side:
        """The side whose values these are: itself, but for an alias."""
        return self

    def accumulate(self, tensor: torch.Tensor) -> None:
        """Add `tensor`, which the side may keep as its own, to the values, in float32."""
        tensor = tensor.to(torch.float32)
        if self.is_clear():
            self.set(tensor)
        else:
            self.tensor().add_(tensor)

    def discard(self) -> None:
        """Give the memory back, if nobody holds the array: the next pass writes all values anew."""
        if not self._host_newest and not self.is_held():
            # Also what was given back, and is refused to whoever reads it.
            self._tensor = self._spare = self._pending = self._coming = None

    def reshape(self, shape: Shape) -> None:
        """Change the shape; values that there is memory for keep their place in the flat order."""
        if shape == self.shape:
            return
        count = math.prod(shape)
        kept = spare = None
        newest = self._host if self._host_newest else self._tensor
        if newest is not None and self._pending is None:
            spare = newest.contiguous().view(-1)
            if self._spare is not None and self._spare.data_ptr() == spare.data_ptr():
                spare = self._spare
            if count <= spare.numel():
                kept = spare[:count].view(shape)
            else:
                spare = None
        self._spare = spare
        self.shape = shape
        self._host = self._coming = None
        self._host_newest = False
        self._array = self._array_tensor = None
        self._tensor = kept

    def numpy(self) -> np.ndarray:
        """Return the newest values as a live C-contiguous float32 array."""
        if common.current_device().type == "cpu":
            tensor = self.tensor()
            if not tensor.is_contiguous() or tensor.dtype != torch.float32:
                tensor = self._tensor = tensor.to(torch.float32).contiguous()
            return self._export(tensor)
        if self._upload is not None:
            self._upload.synchronize()
            self._upload = None
        if self._coming is not None:
            self._coming.synchronize()
            self._coming = None
            late_checks.settle()
            self._host_newest = True
        if not self._host_newest:
            # Of what was discarded the host's copy keeps what it held: it is about to be written.
            discarded = self._tensor is None and self._pending is None
            same = self._host_same and self.is_fed and not self.changes_in_place
            if self._host is None or not (discarded or same):
                tensor = self.tensor()
                if self._host is None:
                    self._host = common.host_memory(self.shape)
                self._host.copy_(tensor)
                late_checks.settle()
            self._host_newest = True
        return self._export(self._host)

    def _export(self, tensor: torch.Tensor) -> np.ndarray:
        array = self._array() if self.is_held() else None
        if array is None or self._array_tensor.data_ptr() != tensor.data_ptr():
            array = tensor.detach().numpy()
            # Every view keeps the array alive, so a weak reference tells whether anybody looks.
            self._array = weakref.ref(array)
            self._array_tensor = tensor.detach()
        return array

    def _settle(self) -> None:
        if self._pending is not None:
            make, self._pending = self._pending, None
            try:
                made = make()
            except CaffeError:
                self._pending = make
                raise
            if made is not None:
                self._tensor = made


class AliasSide(Side):
    """The values of another side in another shape of as many elements."""

    __slots__ = ("of",)

    def __init__(self, of: Side, shape: Shape) -> None:
        super().__init__(shape)
        self.of = of

    def tensor(self) -> torch.Tensor:
        return self.of.tensor().reshape(self.shape)

    def activation(self) -> torch.Tensor:
        return self.of.activation().reshape(self.shape)

    def set(self, tensor: torch.Tensor) -> None:
        self.of.set(tensor.reshape(self.of.shape))

    def defer(self, make: Callable[[], torch.Tensor | None]) -> None:
        def made() -> torch.Tensor | None:
            values = make()
            return None if values is None else values.reshape(self.of.shape)

        self.of.defer(made)

    def clear(self) -> None:
        self.of.clear()

    def accumulate(self, tensor: torch.Tensor) -> None:
        self.of.accumulate(tensor.reshape(self.of.shape))

    def reshape(self, shape: Shape) -> None:
        raise CaffeError(f"the shape {self.shape} is that of {self.of.shape}: reshape that blob")

    def is_clear(self) -> bool:
        return self.of.is_clear()

    def is_held(self) -> bool:
        return self.of.is_held()

    @property
    def source(self) -> Side:
        return self.of.source

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


class Blob:
    """A blob of Caffe: data and diff of one shape.

    Parameters
    ----------
    shape : sequence of int
        Its shape; () is a scalar.
    """

    __slots__ = ("data_side", "diff_side")

    def __init__(self, shape: Shape = ()) -> None:
        shape = _checked(shape)
        self.data_side = Side(shape)
        self.diff_side = Side(shape)

    @Shown
    def data(self) -> np.ndarray:
        """The values, float32, live: writing into them changes the blob."""
        return self.data_side.numpy()

    @Shown
    def diff(self) -> np.ndarray:
        """The gradients, float32, live: writing into them changes the blob."""
        return self.diff_side.numpy()

    @Shown
    def shape(self) -> Shape:
        """The shape."""
        return self.data_side.shape

    @Shown
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def _legacy(self, axis: int) -> int:
        shape = self.shape
        if len(shape) > 4:
            raise CaffeError(
                f"num, channels, height and width need at most 4 axes, the shape is {shape}"
            )
        return shape[axis] if axis < len(shape) else 1

    @Shown
    def num(self) -> int:
        """The first axis of up to four, 1 if there is none."""
        return self._legacy(0)

    @Shown
    def channels(self) -> int:
        """The second axis of up to four, 1 if there is none."""
        return self._legacy(1)

    @Shown
    def height(self) -> int:
        """The third axis of up to four, 1 if there is none."""
        return self._legacy(2)

    @Shown
    def width(self) -> int:
        """The fourth axis of up to four, 1 if there is none."""
        return self._legacy(3)

    def reshape(self, *dims: int, **names: int) -> None:
        """Change the shape; its axes have no names.

        Raises
        ------
        CaffeError
            If an axis is negative or the blob would hold 2^31 elements or more.
        """
        if names:
            raise CaffeError("Blob.reshape takes no kwargs: give the axes in order")
        shape = _checked(dims)
        if shape != self.data_side.shape:
            self.data_side.reshape(shape)
            self.diff_side.reshape(shape)

    def share_data(self, other: Blob) -> None:
        """Use the data of `other` as one's own from now on."""
        self.data_side = other.data_side

    def share_diff(self, other: Blob) -> None:
        """Use the diff of `other` as one's own from now on."""
        self.diff_side = other.diff_side


def _checked(dims: Shape) -> Shape:
    if len(dims) > MAX_AXES:
        raise CaffeError(f"a blob cannot have {len(dims)} axes: {MAX_AXES} are the most")
    shape = tuple(map(_whole, dims))
    if any(dim < 0 for dim in shape):
        raise CaffeError(f"a blob cannot have the shape {shape}: an axis is negative")
    if math.prod(filter(None, shape)) > MAX_COUNT:
        raise CaffeError(f"a blob of shape {shape} has more than 2^31 - 1 elements")
    return shape


def _whole(dim: int) -> int:
    try:
        return operator.index(dim)
    except TypeError:
        hint = "; write reshape(*shape)" if isinstance(dim, (list, tuple)) else ""
        raise not_converted("int", dim, f"{dim!r} is not a whole number{hint}") from None
