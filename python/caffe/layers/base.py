"""What every layer is: its checks, its shapes, forward, backward."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from google.protobuf.message import Message

from caffe import late_checks
from caffe.blob import Blob
from caffe.containers import Shown, Vector
from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.layers import fillers, scalars_on_gpu
from caffe.proto import caffe_pb2

Blobs = Sequence[Blob]
# What a Python layer must define, with its arguments.
_METHODS = {
    "setup": "self, bottom, top",
    "reshape": "self, bottom, top",
    "forward": "self, bottom, top",
    "backward": "self, top, propagate_down, bottom",
}


def _own_names(cls: type) -> list[str]:
    """Return what a class and its parents define by themselves, not by way of `Layer`."""
    return [name for parent in cls.__mro__ if parent not in Layer.__mro__ for name in vars(parent)]


def _location_of(cls: type) -> str:
    """Return " (FILE:LINE)" of a class, or nothing where that is not known."""
    try:
        return f" ({inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]})"
    except (OSError, TypeError):
        return ""


class BlobVec(Vector[Blob]):
    """A list of blobs that makes new ones, as a layer's parameters are."""

    kind = Blob
    hint = "; to change values write blobs[i].data[...] = array"

    def add_blob(self, *shape: int) -> Blob:
        """Append a blob of zeros of the given shape."""
        blob = Blob(shape)
        self.append(blob)
        return blob

    def _replace(self, index: int, item: Blob) -> None:
        # Genuine Caffe would read and write beyond the end of what is smaller.
        if item.shape != self[index].shape:
            raise TypeError(
                f"Invalid assignment: a blob of shape {item.shape} in the place of one of shape "
                f"{self[index].shape}"
            )
        super()._replace(index, item)

    def _cut(self, part: slice, items: list[Blob]) -> None:
        raise TypeError("a layer's parameters cannot be removed: the layer needs them")


class Layer:
    """A layer of a net.

    Derive from it for a layer in Python: define setup, reshape, forward and backward, and name
    the class in the prototxt: `type: "Python" python_param { module: "m" layer: "L" }`.

    Attributes
    ----------
    blobs : BlobVec
        The parameters; a Python layer may add its own with `self.blobs.add_blob(*shape)` in setup.
    type : str
        The type as in the prototxt.
    phase : int
        caffe.TRAIN or caffe.TEST.
    param_str : str
        The string of the prototxt (Python layers).

    Notes
    -----
    There are no methods to inherit: one that a class lacks or misspells would silently leave
    gradients of 0.
    """

    _kind = ""
    # The least and the largest number of bottoms and tops; None is any number.
    bottom_range: tuple[int, int | None] = (0, None)
    top_range: tuple[int, int | None] = (0, None)
    # Loss layers are given the tops that the prototxt leaves out.
    auto_tops = False
    # Layers whose shapes depend on more than their bottoms' shapes are reshaped before each pass.
    always_reshape = False
    # Tops that the user or setup fills, and forward leaves alone.
    keeps_tops = False
    # Tops whose data are the first bottom's own.
    shares_tops = False
    # Types that count axes as num, channels, height, width in genuine Caffe, and take no more.
    of_four_axes = False

    def __init__(self, layer_param: caffe_pb2.LayerParameter | None = None) -> None:
        self.layer_param = caffe_pb2.LayerParameter() if layer_param is None else layer_param
        self.name = self.layer_param.name
        self.phase = self.layer_param.phase
        self.param_str = ""
        self._blobs = BlobVec()
        self.param_propagate_down: list[bool] = []
        # While a solver trains, diffs of intermediate blobs are given back once they are used.
        self.releases_diffs = False
        # Where the net's description comes from, and the blobs that this layer and those before it
        # have made, by name.
        self._source = ""
        self.blobs_of_net: Mapping[str, Blob] = {}

    @Shown
    def blobs(self) -> BlobVec:
        """The parameters."""
        return self._blobs

    @Shown
    def type(self) -> str:
        """The type as in the prototxt."""
        return self._kind

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check the parameters and make the layer's own blobs; called once."""
        raise self._not_defined("setup")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Give the tops their shapes; called at first and when a bottom changes shape."""
        raise self._not_defined("reshape")

    # As in genuine Caffe there are no forward and backward here: hasattr() tells what a class has.
    def __getattr__(self, name: str) -> Any:
        raise self._not_defined(name)

    def _not_defined(self, name: str) -> AttributeError:
        cls = type(self)
        told = f"'{cls.__name__}' object has no attribute '{name}'"
        # Not by way of self: what __init__ has not made yet would be asked for here again.
        layer_param = vars(self).get("layer_param")
        own = _own_names(cls)
        if name in own:
            told += " to inherit: caffe.Layer has none, leave the call of it out"
        elif name in _METHODS and layer_param is not None:
            near = difflib.get_close_matches(name, own, n=1, cutoff=0.7)
            told += (
                f": layer '{layer_param.name}' needs def {name}({_METHODS[name]}) in class "
                f"{cls.__name__}{_location_of(cls)}"
                f"{f', which defines {near[0]!r}' if near else ''}"
            )
        return AttributeError(told, name=name, obj=self)

    def allows_force_backward(self, bottom_index: int) -> bool:
        """Tell whether `force_backward` reaches this bottom (not the labels of a loss)."""
        return True

    def fail(self, message: str) -> CaffeError:
        """Return an error that names this layer."""
        return CaffeError(f"layer '{self.name}' ({self.type}): {message}", self.name)

    def beyond_bvlc(self, what: str) -> None:
        """Say once in the log what the layer does that BVLC Caffe refuses, and whose does it."""
        prototxt.warn_beyond_bvlc(self._source, self.fail(what))

    def check_blob_counts(self, bottoms: int, tops: int) -> None:
        """Refuse a number of bottoms or tops that this type does not take; name what it takes."""
        for kind, count, (least, most) in (
            ("bottom", bottoms, self.bottom_range),
            ("top", tops, self.top_range),
        ):
            if count < least or (most is not None and count > most):
                wanted = str(least) if least == most else f"{least} to {most or 'any number'}"
                raise self.fail(f"takes {wanted} {kind} blob(s), {count} given")

    def canonical_axis(self, axis: int, shape: Sequence[int]) -> int:
        """Return `axis` counted from 0; negative ones count from the end.

        Raises
        ------
        CaffeError
            If the shape has no such axis.
        """
        if not -len(shape) <= axis < len(shape):
            raise self.fail(f"axis {axis} does not exist in a blob of shape {tuple(shape)}")
        return axis % len(shape)

    def check_numbers(self, numbers: torch.Tensor, stop: int, what: str) -> torch.Tensor:
        """Refuse whole numbers, such as labels, outside 0..stop - 1.

        Returns
        -------
        Tensor
            Numbers that are safe to index with. On a GPU, where the check is looked at later
            (`late_checks`), wrong ones are moved into the range: CUDA ends all work of a process
            that reads outside an array.

        Raises
        ------
        CaffeError
            Begins with `what`, and names the least and the largest found.
        """
        if not numbers.numel():
            return numbers

        def error() -> CaffeError:
            return self.fail(f"{what} must lie in 0..{stop - 1}, found {int(least)} to {int(most)}")

        least, most = numbers.aminmax()
        if scalars_on_gpu.on_host(numbers):
            if not 0 <= int(least) <= int(most) < stop:
                raise error()
            return numbers
        late_checks.add((least < 0) | (most >= stop), error)
        return numbers.clamp(0, stop - 1)

    def take_diff(self, top: Blob) -> torch.Tensor:
        """Return the diff of a top as a tensor that may be written into and kept."""
        diff = top.diff_memory.native()
        return diff if self.releases_diffs else diff.clone()


class BuiltInLayer(Layer):
    """A layer of this engine; what it need not do it inherits."""

    def add_parameter(self, shape: Sequence[int], filler: caffe_pb2.FillerParameter) -> None:
        """Append a parameter blob with the values of a filler."""
        self.blobs.add_blob(*shape).set_data(fillers.fill(tuple(shape), filler))

    def add_weights(self, shape: Sequence[int], biases: int, param: Message) -> None:
        """Make weights and, with `bias_term`, so many biases, by the fillers that `param` names."""
        if not self.blobs:
            self.add_parameter(shape, param.weight_filler)
            if param.bias_term:
                self.add_parameter((biases,), param.bias_filler)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check the parameters and make the layer's own blobs; called once."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Give the tops their shapes; called at first and when a bottom changes shape."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the tops' data from the bottoms' data."""

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Compute the diffs of bottoms and parameters from the tops' diffs."""


class NeuronLayer(BuiltInLayer):
    """A layer with one bottom and one top of the same shape, element by element."""

    bottom_range = top_range = (1, 1)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*bottom[0].shape)


class PointwiseLayer(NeuronLayer):
    """A neuron layer that is two functions of tensors, float32: its value and its gradient."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        self.in_place = bottom[0] is top[0]

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """Return the top's values, in memory of their own."""
        raise NotImplementedError

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the gradient of x for that of y, the top; in place x is y by now."""
        raise NotImplementedError

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].set_data(self.value(bottom[0].data_tensor()))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            x, y = bottom[0].data_tensor(), top[0].data_tensor()
            bottom[0].set_diff(self.gradient(top[0].diff_tensor(), x, y))
