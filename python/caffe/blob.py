"""A Blob: a shape and two arrays, data and diff: tensors to layers, live numpy arrays to users."""

from __future__ import annotations

import math
import operator

import numpy as np
import torch

from caffe.argument_checks import not_converted
from caffe.containers import Shown
from caffe.errors import CaffeError
from caffe.synced_memory import ReshapedView, Shape, SyncedMemory

# Caffe counts elements in a 32-bit int; a larger blob is a mistake there and here.
MAX_COUNT = 2**31 - 1
# Caffe's kMaxBlobAxes.
MAX_AXES = 32


class Blob:
    """A blob of Caffe: data and diff of one shape.

    Parameters
    ----------
    shape : sequence of int
        Its shape; () is a scalar.
    """

    __slots__ = ("data_memory", "diff_memory")

    def __init__(self, shape: Shape = ()) -> None:
        shape = _checked(shape)
        self.data_memory: SyncedMemory | ReshapedView = SyncedMemory(shape)
        self.diff_memory: SyncedMemory | ReshapedView = SyncedMemory(shape)

    @Shown
    def data(self) -> np.ndarray:
        """The values, float32, live: writing into them changes the blob."""
        return self.data_memory.numpy()

    @Shown
    def diff(self) -> np.ndarray:
        """The gradients, float32, live: writing into them changes the blob."""
        return self.diff_memory.numpy()

    def data_tensor(self) -> torch.Tensor:
        """Return the newest data, float32, on the current device."""
        return self.data_memory.tensor()

    def diff_tensor(self) -> torch.Tensor:
        """Return the newest diff, float32, on the current device."""
        return self.diff_memory.tensor()

    def set_data(self, tensor: torch.Tensor) -> None:
        """Take `tensor` as the new data; an array that somebody holds is updated in place."""
        self.data_memory.set(tensor)

    def set_diff(self, tensor: torch.Tensor) -> None:
        """Take `tensor` as the new diff; as `set_data`."""
        self.diff_memory.set(tensor)

    @Shown
    def shape(self) -> Shape:
        """The shape."""
        return self.data_memory.shape

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
        if shape != self.data_memory.shape:
            self.data_memory.reshape(shape)
            self.diff_memory.reshape(shape)

    def share_data(self, other: Blob) -> None:
        """Use the data of `other` as one's own from now on."""
        self.data_memory = other.data_memory

    def view_as(self, other: Blob, shape: Shape) -> None:
        """Have the data and diff of `other` from now on, in a shape of as many elements."""
        self.data_memory = ReshapedView(other.data_memory, shape)
        self.diff_memory = ReshapedView(other.diff_memory, shape)


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
