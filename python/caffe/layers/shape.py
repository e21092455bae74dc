"""Layers that move values without computing: Split, Concat, Slice, Flatten, Tile, ..."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from google.protobuf.message import Message

from caffe.blob import MAX_AXES, Blob
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.proto import caffe_pb2


def _axis(layer: BuiltInLayer, param: Message, older: str, shape: tuple[int, ...]) -> int:
    """Return the axis that a parameter names as `axis`, or by the older word."""
    if not param.HasField(older):
        return layer.canonical_axis(param.axis, shape)
    if param.HasField("axis"):
        raise layer.fail(f"takes either axis or {older}, both are given")
    return layer.canonical_axis(getattr(param, older), shape)


def alone(part: torch.Tensor) -> torch.Tensor:
    """Return a part of a larger tensor without the rest of it, which it would keep in memory.

    On a GPU time matters more than memory.
    """
    return part if part.device.type != "cpu" else part.clone(memory_format=torch.preserve_format)


class SharingLayer(BuiltInLayer):
    """A layer whose bottoms and top may lie in one memory as long as nobody writes there."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._changes = [blob.data_memory.source.changes_in_place for blob in bottom]

    def may_share(self, bottom: Blobs, index: int, top: Blob) -> bool:
        """Tell whether nobody will write into values that a bottom and the top share."""
        if top.data_memory.changes_in_place or not self.stays(bottom, index):
            return False
        return not top.data_memory.native().is_contiguous()

    def stays(self, bottom: Blobs, index: int) -> bool:
        """Tell whether nobody will write into a bottom's values after this layer.

        No later layer may work in place there. Users write only where values lie in C's order:
        others are copied for who looks at them.
        """
        memory = bottom[index].data_memory
        later = memory.source.changes_in_place > self._changes[index]
        return not later and not memory.native().is_contiguous()


@register("Split")
class Split(BuiltInLayer):
    """Hand one blob to several readers; the gradients are added. Nets insert it by themselves.

    Notes
    -----
    Bottom and tops have the same data: who writes into one of them changes all.
    """

    bottom_range = (1, 1)
    top_range = (1, None)
    shares_tops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in top:
            blob.share_data(bottom[0])
            blob.diff_memory.reshape(bottom[0].shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            # A reader that is done without a gradient (as Crop's second) has no zeros to add.
            first, *others = [blob for blob in top if not blob.diff_memory.is_clear] or top[:1]
            total = self.take_diff(first)
            for blob in others:
                blob.diff_memory.add_to(total)
            bottom[0].set_diff(total)


@register("Concat")
class Concat(SharingLayer):
    """Join blobs along an axis (1 by default).

    Notes
    -----
    Bottoms whose pixels (axes from 2 on) are more than the first one's are cut to its size in the
    middle, as in caffe_unet (Falk et al., Nature Methods 16, 2019); their gradient is 0 outside.
    An odd difference has no middle, and is refused there, too.

    A single bottom and the top have the same data and diff.
    """

    bottom_range = (1, None)
    top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        super().setup(bottom, top)
        self.shares_tops = len(bottom) == 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.concat_param
        shape = bottom[0].shape
        self.axis = _axis(self, param, "concat_dim", shape)
        self.windows = [self._window(index, blob.shape, shape) for index, blob in enumerate(bottom)]
        self.sizes = [blob.shape[self.axis] for blob in bottom]
        if self.shares_tops:
            top[0].view_as(bottom[0], shape)
        else:
            top[0].reshape(*shape[: self.axis], sum(self.sizes), *shape[self.axis + 1 :])

    def _window(
        self, index: int, shape: tuple[int, ...], first: tuple[int, ...]
    ) -> tuple[slice, ...] | None:
        """Return what is taken of a bottom; None: all of it."""
        own = (*first[: self.axis], *shape[self.axis : self.axis + 1], *first[self.axis + 1 :])
        if len(shape) == len(first) and shape == own:
            return None
        more = [size - wanted for size, wanted in zip(shape, own)]
        if len(shape) != len(first) or min(more) < 0 or any(more[:2]):
            raise self.fail(
                f"bottoms may differ on axis {self.axis} only: bottom 0 is {first}, "
                f"bottom {index} is {shape}"
            )
        for axis, (size, wanted) in enumerate(zip(shape, own)):
            if (size - wanted) % 2:
                raise self.fail(
                    f"bottom {index} has {size} values on axis {axis} where bottom 0 has {wanted}: "
                    f"the difference of {size - wanted} is odd, so that no middle lies on bottom "
                    "0; change the input's size, or name the place in a Crop layer"
                )
        self.beyond_bvlc(
            f"cuts bottom {index} to the size of bottom 0 in the middle, as caffe_unet does"
        )
        return tuple(slice(m // 2, m // 2 + wanted) for m, wanted in zip(more, own))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.shares_tops:
            return
        parts = [
            blob.data_memory.native()[window or ...] for blob, window in zip(bottom, self.windows)
        ]
        if self.phase == caffe_pb2.TEST and self._stay(bottom, parts):
            # Convolutions read them where they lie.
            top[0].data_memory.set_joined(parts, self.axis)
            return
        joined = torch.cat(parts, self.axis)
        top[0].set_data(joined)
        # The bottoms' values now stand in the top as well: alias the bottoms to it.
        parts = joined.split(self.sizes, self.axis)
        for index, (window, part) in enumerate(zip(self.windows, parts)):
            memory = bottom[index].data_memory
            alike = window is None and memory.source is memory
            alike = alike and memory.native().dtype == part.dtype
            if alike and self.may_share(bottom, index, top[0]):
                # Not in place: a view would go on keeping what it was a view of.
                memory.set(part)

    def _stay(self, bottom: Blobs, parts: Sequence[torch.Tensor]) -> bool:
        """Tell whether values on the CPU, of one type, are still the same when the top is read."""
        alike = {(part.device.type, part.dtype) for part in parts} == {("cpu", torch.float32)}
        return alike and all(self.stays(bottom, index) for index in range(len(bottom)))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.shares_tops:
            return
        parts = self.take_diff(top[0]).split(self.sizes, self.axis)
        for blob, down, part, window in zip(bottom, propagate_down, parts, self.windows):
            if down and window is None:
                blob.set_diff(part)
            elif down:
                blob.diff_memory.set_window(window, alone(part))


@register("Slice")
class Slice(BuiltInLayer):
    """Cut a blob along an axis at slice_point, or into equal parts.

    Notes
    -----
    The bottom and a single top have the same data and diff.
    """

    bottom_range = (1, 1)
    top_range = (1, None)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.shares_tops = len(top) == 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.slice_param
        shape = bottom[0].shape
        self.axis = _axis(self, param, "slice_dim", shape)
        size = shape[self.axis]
        if param.slice_point:
            points = [0, *param.slice_point, size]
            if len(points) != len(top) + 1:
                raise self.fail(
                    f"{len(top)} tops need {len(top) - 1} slice_point(s), "
                    f"{len(param.slice_point)} given"
                )
            if any(stop <= start for start, stop in pairwise(points)):
                raise self.fail(
                    f"slice points {points[1:-1]} do not cut axis {self.axis} of {shape}"
                )
            self.sizes = [stop - start for start, stop in pairwise(points)]
        else:
            if size % len(top):
                raise self.fail(
                    f"axis {self.axis} of {shape} cannot be cut into {len(top)} equal parts"
                )
            self.sizes = [size // len(top)] * len(top)
        if self.shares_tops:
            top[0].view_as(bottom[0], shape)
            return
        for blob, part in zip(top, self.sizes):
            blob.reshape(*shape[: self.axis], part, *shape[self.axis + 1 :])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.shares_tops:
            return
        parts = bottom[0].data_tensor().split(self.sizes, self.axis)
        for blob, part in zip(top, parts):
            # Its own memory, also where the part lies in one piece.
            blob.set_data(part.clone(memory_format=torch.contiguous_format))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0] and not self.shares_tops:
            bottom[0].set_diff(torch.cat([b.diff_tensor() for b in top], self.axis))


@register("Silence")
class Silence(BuiltInLayer):
    """Take blobs as bottoms, so that they are not outputs of the net."""

    bottom_range = (1, None)
    top_range = (0, 0)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, down in zip(bottom, propagate_down):
            if down:
                blob.diff_memory.clear()


@register("Flatten")
class Flatten(BuiltInLayer):
    """Take the axes from `axis` to `end_axis` as one.

    Notes
    -----
    Bottom and top have the same data and diff: a layer that works in place on one changes both.
    """

    bottom_range = top_range = (1, 1)
    shares_tops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, shape = self.layer_param.flatten_param, bottom[0].shape
        first = self.canonical_axis(param.axis, shape)
        last = self.canonical_axis(param.end_axis, shape)
        if bottom[0] is top[0]:
            raise self.fail("cannot work in place")
        # end_axis before axis, if only by one: a new axis of size 1.
        joined = math.prod(shape[first : last + 1])
        top[0].view_as(bottom[0], (*shape[:first], joined, *shape[last + 1 :]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_tensor()
        if not data.is_contiguous():
            # Once, and not for each reader of the top.
            bottom[0].set_data(data.contiguous())


@register("Reshape")
class Reshape(Flatten):
    """Give the axes from `axis` on new sizes: 0 copies one, -1 is what is left over."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, shape = self.layer_param.reshape_param, bottom[0].shape
        if bottom[0] is top[0]:
            raise self.fail("cannot work in place")
        first = param.axis if param.axis >= 0 else len(shape) + param.axis + 1
        last = len(shape) if param.num_axes == -1 else first + param.num_axes
        if not 0 <= first <= last <= len(shape):
            raise self.fail(
                f"axis {param.axis} and num_axes {param.num_axes} leave the shape {shape}"
            )
        if len(param.shape.dim) > MAX_AXES:
            raise self.fail(f"gives {len(param.shape.dim)} dims, a blob has at most {MAX_AXES}")
        sizes = []
        for index, size in enumerate(param.shape.dim):
            if size == 0:
                if first + index >= len(shape):
                    raise self.fail(f"dim {index} copies axis {first + index} of {shape}")
                size = shape[first + index]
            sizes.append(size)
        if min(sizes, default=0) < -1 or sizes.count(-1) > 1:
            raise self.fail(f"dims {sizes} must be positive, 0, or once -1")
        total = math.prod(shape)
        around = math.prod(shape[:first]) * math.prod(shape[last:])
        if -1 in sizes:
            others = around * math.prod(size for size in sizes if size != -1)
            if not others or total % others:
                raise self.fail(f"{shape} cannot be divided into dims {sizes}")
            sizes[sizes.index(-1)] = total // others
        result = (*shape[:first], *sizes, *shape[last:])
        if math.prod(result) != total:
            raise self.fail(f"{shape} has {total} elements, {result} would have others")
        top[0].view_as(bottom[0], result)


@register("Tile")
class Tile(BuiltInLayer):
    """Repeat a blob along an axis."""

    bottom_range = top_range = (1, 1)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, shape = self.layer_param.tile_param, bottom[0].shape
        self.axis = self.canonical_axis(param.axis, shape)
        if param.tiles < 1:
            raise self.fail(f"tiles {param.tiles} must be positive")
        self.times = param.tiles
        top[0].reshape(*shape[: self.axis], shape[self.axis] * self.times, *shape[self.axis + 1 :])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_tensor()
        repeats = [self.times if axis == self.axis else 1 for axis in range(data.dim())]
        top[0].set_data(data.repeat(repeats))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            shape = bottom[0].shape
            grad = top[0].diff_tensor()
            tiled = grad.reshape(*shape[: self.axis], self.times, *shape[self.axis :])
            bottom[0].set_diff(tiled.sum(self.axis))
