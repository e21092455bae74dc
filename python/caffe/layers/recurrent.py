"""Recurrent layers: RNN, LSTM, and one step of an LSTM, LSTMUnit.

Time is the first axis, streams the second. Gradients flow back through all steps of a pass.

References
----------
Donahue et al., Long-term Recurrent Convolutional Networks, CVPR 2015, Sec. 3 and App. A.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer


class _ForgetGate(torch.autograd.Function):
    """flag * sigmoid(x), with genuine Caffe's derivative y (1 - y) by x.

    That of the sigmoid alone where the flag is 0 or 1, as it should be; genuine Caffe takes the
    product for a sigmoid in between and beyond, too.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
        y = flag * torch.sigmoid(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (y,) = ctx.saved_tensors
        return grad * y * (1 - y), None


def _lstm_step(
    cell: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cell and hidden state after one step; gates are input, forget, output, candidate."""
    enter, keep, leave, candidate = gates.chunk(4, -1)
    new = torch.sigmoid(enter) * torch.tanh(candidate)
    new = new + _ForgetGate.apply(keep, cont[..., None]) * cell
    return new, torch.sigmoid(leave) * torch.tanh(new)


class _Recurrent(BuiltInLayer, ABC):
    """What recurrent layers share: sequences, the state between passes, and going back.

    Notes
    -----
    Bottoms: x (time, streams, ...); where each sequence goes on (1) and begins (0), (time,
    streams); optionally x of no time (streams, ...); with expose_hidden the states before the first
    step. Tops: the output; with expose_hidden the states after the last step. Without it a pass
    begins with the states that the last one ended with. As in genuine Caffe gradients flow neither
    into nor out of these states, and those of x and of all parameters are computed whether or not
    somebody needs them.
    """

    states = 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.recurrent_param
        self.maps, self.exposed = param.num_output, param.expose_hidden
        if self.maps < 1:
            raise self.fail("needs a positive num_output")
        hidden = self.states if self.exposed else 0
        if len(bottom) not in (2 + hidden, 3 + hidden) or len(top) != 1 + hidden:
            raise self.fail(
                f"takes {2 + hidden} or {3 + hidden} bottoms and {1 + hidden} top(s), "
                f"{len(bottom)} and {len(top)} given"
            )
        self.static = len(bottom) > 2 + hidden
        if len(bottom[0].shape) < 3:
            raise self.fail(
                f"the bottom needs time, streams and inputs, its shape is {bottom[0].shape}"
            )
        if not self.blobs:
            inputs = math.prod(bottom[0].shape[2:])
            static = math.prod(bottom[2].shape[1:]) if self.static else None
            for shape in self._parameter_shapes(inputs, static):
                biases = len(shape) == 1
                self.add_parameter(shape, param.bias_filler if biases else param.weight_filler)
        self.last_states: list[torch.Tensor] = []

    @abstractmethod
    def _parameter_shapes(self, inputs: int, static: int | None) -> list[tuple[int, ...]]:
        """Return the shapes of the parameters, for so many inputs of each kind."""

    @abstractmethod
    def _unroll(
        self,
        x: torch.Tensor,
        cont: torch.Tensor,
        static: torch.Tensor | None,
        states: list[torch.Tensor],
        weights: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return outputs of all steps and the states after the last one."""

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        time, streams = bottom[0].shape[:2]
        if bottom[1].shape != (time, streams):
            raise self.fail(
                f"the second bottom must be {(time, streams)}, as the first, not {bottom[1].shape}"
            )
        if self.static and bottom[2].shape[:1] != (streams,):
            raise self.fail(
                f"the third bottom needs {streams} items, its shape is {bottom[2].shape}"
            )
        top[0].reshape(time, streams, self.maps)
        self.hidden_shape = (1, streams, self.maps)
        for blob in top[1:]:
            blob.reshape(*self.hidden_shape)
        for blob in bottom[2 + self.static :]:
            if blob.shape != self.hidden_shape:
                raise self.fail(f"a state must be {self.hidden_shape}, not {blob.shape}")
        # Another number of streams: they begin anew.
        if self.last_states and self.last_states[0].shape != self.hidden_shape:
            self.last_states = []

    def _leaves(self, bottom: Blobs) -> list[torch.Tensor]:
        """Return all that gradients are wanted of: x, static x, weights."""
        x = bottom[0].data_tensor()
        leaves = [x.reshape(*x.shape[:2], -1)]
        if self.static:
            static = bottom[2].data_tensor()
            leaves.append(static.reshape(static.shape[0], -1))
        leaves += [blob.data_tensor() for blob in self.blobs]
        return [leaf.detach().clone().requires_grad_() for leaf in leaves]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.leaves = self._leaves(bottom)
        if self.exposed:
            states = [blob.data_tensor() for blob in bottom[2 + self.static :]]
        else:
            states = self.last_states or [self.leaves[0].new_zeros(self.hidden_shape)] * self.states
        with torch.enable_grad():
            outputs, ends = self._unroll(
                self.leaves[0],
                bottom[1].data_tensor(),
                self.leaves[1] if self.static else None,
                states,
                self.leaves[1 + self.static :],
            )
        self.outputs = outputs
        top[0].set_data(outputs.detach().clone())
        self.last_states = [end.detach().clone() for end in ends]
        for blob, end in zip(top[1:], self.last_states):
            blob.set_data(end.clone())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            raise self.fail("cannot propagate to where sequences go on")
        found = torch.autograd.grad(
            self.outputs, self.leaves, top[0].diff_tensor(), retain_graph=True
        )
        inputs = [bottom[0], bottom[2]] if self.static else [bottom[0]]
        for blob, grad in zip(inputs, found):
            blob.set_diff(grad.reshape(blob.shape))
        for blob, grad in zip(self.blobs, found[len(inputs) :]):
            blob.diff_memory.accumulate(grad)


@register("RNN")
class RNN(_Recurrent):
    """h = tanh(W_hh h + W_xh x + b_h), o = tanh(W_ho h + b_o)."""

    def _parameter_shapes(self, inputs: int, static: int | None) -> list[tuple[int, ...]]:
        maps = self.maps
        of_static = [] if static is None else [(maps, static)]
        return [(maps, inputs), (maps,), *of_static, (maps, maps), (maps, maps), (maps,)]

    def _unroll(self, x, cont, static, states, weights):
        *into, of_hidden, out, out_bias = weights
        driven = x @ into[0].t() + into[1]
        if static is not None:
            driven = driven + static @ into[2].t()
        hidden, outputs = states[0][0], []
        for now, flag in zip(driven, cont):
            hidden = torch.tanh((hidden * flag[:, None]) @ of_hidden.t() + now)
            outputs.append(torch.tanh(hidden @ out.t() + out_bias))
        return torch.stack(outputs), [hidden[None]]


@register("LSTM")
class LSTM(_Recurrent):
    """Long short-term memory, without peepholes."""

    states = 2

    def _parameter_shapes(self, inputs: int, static: int | None) -> list[tuple[int, ...]]:
        gates = 4 * self.maps
        of_static = [] if static is None else [(gates, static)]
        return [(gates, inputs), (gates,), *of_static, (gates, self.maps)]

    def _unroll(self, x, cont, static, states, weights):
        *into, of_hidden = weights
        driven = x @ into[0].t() + into[1]
        if static is not None:
            driven = driven + static @ into[2].t()
        (hidden, cell), outputs = (state[0] for state in states), []
        for now, flag in zip(driven, cont):
            gates = (hidden * flag[:, None]) @ of_hidden.t() + now
            cell, hidden = _lstm_step(cell, gates, flag)
            outputs.append(hidden)
        return torch.stack(outputs), [hidden[None], cell[None]]


@register("LSTMUnit")
class LSTMUnit(BuiltInLayer):
    """One step of an LSTM: cell, gates and where it goes on, to the next cell and hidden state."""

    bottom_range = (3, 3)
    top_range = (2, 2)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) != 3 or shape[0] != 1:
            raise self.fail(f"needs a cell of shape (1, streams, n), not {shape}")
        if bottom[1].shape != (1, shape[1], 4 * shape[2]) or bottom[2].shape != shape[:2]:
            raise self.fail(
                f"a cell of {shape} needs gates of {(1, shape[1], 4 * shape[2])} and flags of "
                f"{shape[:2]}, not {bottom[1].shape} and {bottom[2].shape}"
            )
        for blob in top:
            blob.reshape(*shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.leaves = [blob.data_tensor().detach().clone().requires_grad_() for blob in bottom[:2]]
        with torch.enable_grad():
            self.results = _lstm_step(*self.leaves, bottom[2].data_tensor())
        for blob, result in zip(top, self.results):
            blob.set_data(result.detach().clone())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[2]:
            raise self.fail("cannot propagate to where sequences go on")
        grads = [blob.diff_tensor() for blob in top]
        found = torch.autograd.grad(self.results, self.leaves, grads, retain_graph=True)
        # As in genuine Caffe: both, whichever is needed.
        for blob, grad in zip(bottom, found):
            blob.set_diff(grad)
