"""Passes through a net's layers, forward and backward; blobs are freed after their last use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from caffe import late_checks, pages
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.log import Log, number
from caffe.net.node import NetParts, Node, run_step
from caffe.synced_memory import SyncedMemory

_log = Log("net.cpp")


def read_losses(terms: Sequence[torch.Tensor]) -> float:
    """Return the sum of single numbers on one device; on a GPU the host waits for them, once.

    Raises
    ------
    CaffeError
        If the passes up to here were given values that a layer refuses.
    """
    return sum(late_checks.read(torch.stack(list(terms)))) if terms else 0.0


class Passes:
    """The passes through a net.

    Parameters
    ----------
    parts : NetParts
    debug_info : bool
        Whether each pass writes to the log what flows through the net.

    Attributes
    ----------
    callbacks : dict of str to list of callable
        "before_forward", "after_forward", "before_backward", "after_backward" -> what is called
        with the index of each layer.
    last_used_by : dict of int to list of int
        Layer -> indices in `learnable` of the parameters that backward uses there for the last
        time.
    retain_data, retain_diffs : bool
        See `Net`.
    is_updated : bool
        Whether a solver's update has changed the parameters since the last pass.
    """

    def __init__(self, parts: NetParts, debug_info: bool) -> None:
        self.source = parts.source
        self.nodes = parts.nodes
        self.blobs = parts.blobs
        self.learnable = parts.learnable
        self.debug_info = debug_info
        self.retain_diffs = True
        self.retain_data = True
        self.is_updated = False
        self.callbacks: dict[str, list[Callable[[int], None]]] = {
            "before_forward": [],
            "after_forward": [],
            "before_backward": [],
            "after_backward": [],
        }
        # Backward goes through layers that share a parameter from the last to the first.
        self.last_used_by: dict[int, list[int]] = {}
        first_user: dict[SyncedMemory, int] = {}
        for index, node in reversed(list(enumerate(parts.nodes))):
            if node.needs_backward:
                first_user.update((blob.data_memory.source, index) for blob in node.layer.blobs)
        for which, blob in enumerate(parts.learnable):
            user = first_user.get(blob.data_memory.source)
            if user is not None:
                self.last_used_by.setdefault(user, []).append(which)
        # Blobs whose diff was given back, to be made again if somebody looks.
        self.released: list[Blob] = []

    @property
    def is_watched(self) -> bool:
        """Whether somebody is told of each layer as it runs."""
        return self.debug_info or any(self.callbacks.values())

    def _call(self, kind: str, index: int) -> None:
        for callback in self.callbacks[kind]:
            callback(index)

    @staticmethod
    def reshape(node: Node, always: bool = False) -> None:
        """Shape a layer's tops, if its bottoms have other shapes than the last time."""
        shapes = tuple(blob.data_memory.shape for blob in node.bottoms)
        if always or node.layer.always_reshape or shapes != node.seen_shapes:
            run_step(node.layer, "reshape", node.bottoms, node.tops)
            node.seen_shapes = shapes

    def run(
        self,
        keep: Collection[str] = (),
        backward: bool = False,
        after_layer: Callable[[int], None] | None = None,
    ) -> list[torch.Tensor]:
        """Run all layers forward, with `backward` then backward as in a solver's step.

        The blobs in `keep` are not given back; `after_layer` is called with each layer's index as
        soon as it has run backward. Returns the terms of the loss, for `read_losses`.
        """
        terms = self.forward(range(len(self.nodes)), keep, backward)
        if backward:
            self.send_losses()
            self.backward_all(after_layer)
        return terms

    def loss_memories(self) -> list[SyncedMemory]:
        """Return the values of the losses that are single numbers."""
        return [
            blob.data_memory
            for node in self.nodes
            for blob, weight in zip(node.tops, node.loss_weights)
            if weight and not blob.shape and blob.data_memory.source is blob.data_memory
        ]

    def send_losses(self) -> None:
        """Have a GPU bring the losses to the host before it goes on with the backward pass."""
        for memory in self.loss_memories():
            memory.send()

    @torch.no_grad()
    def forward(
        self, indices: Sequence[int], keep: Collection[str] = (), before_backward: bool = False
    ) -> list[torch.Tensor]:
        """Run layers forward; return the terms of the loss, for `read_losses`."""
        losses = []
        self._forget_released()
        # Whoever is called back after each layer sees each layer's own result.
        fuse = not (
            self.debug_info or self.callbacks["before_forward"] or self.callbacks["after_forward"]
        )
        give_back = not (self.retain_data or before_backward)
        rectified = False
        with pages.passed_on(kept=give_back):
            for index in indices:
                node = self.nodes[index]
                if rectified:
                    rectified = False
                    if give_back:
                        self._give_back(node.spent, keep)
                    continue
                self._call("before_forward", index)
                self.reshape(node)
                if not (node.layer.keeps_tops or node.layer.shares_tops):
                    for blob in node.tops:
                        if blob not in node.bottoms:
                            blob.data_memory.discard()
                rectified = fuse and node.rectifies and index < indices[-1]
                step = "forward_rectified" if rectified else "forward"
                run_step(node.layer, step, node.bottoms, node.tops)
                for blob, weight in zip(node.tops, node.loss_weights):
                    if weight:
                        losses.append((blob.data_tensor() * blob.diff_tensor()).sum())
                if self.debug_info:
                    _log_forward(node)
                self._call("after_forward", index)
                if give_back:
                    self._give_back(node.spent, keep)
        return losses

    def discard(self) -> None:
        """Give back the memory of what layers have computed, as after a pass that was broken off.

        What users hold, and what they have given, stays.
        """
        # Values that no layer computes from others lie there, also for layers that pass them on.
        given = {b.data_memory.source for n in self.nodes if not n.bottoms for b in n.tops}
        for node in self.nodes:
            for blob, weight in zip(node.tops, node.loss_weights):
                if not (node.layer.keeps_tops or blob.data_memory.source in given):
                    blob.data_memory.source.discard()
                # Else it holds the weight of a loss.
                if not weight:
                    blob.diff_memory.source.discard()
        pages.give_back()

    def _give_back(self, names: Collection[str], keep: Collection[str] = ()) -> None:
        for name in names:
            memory = self.blobs[name].data_memory
            kept = any(self.blobs[n].data_memory.source is memory for n in keep if n in self.blobs)
            if not kept and not memory.is_exported:
                memory.set_lazy(lambda name=name: self._refuse_released(name))

    def _refuse_released(self, name: str) -> None:
        raise CaffeError(
            f"{self.source}: blob '{name}' was not kept: name it to forward(), or set the net's "
            "retain_data to True before the forward pass"
        )

    def backward_all(self, after_layer: Callable[[int], None] | None = None) -> None:
        """Run all layers backward, as in a solver's step."""
        self.backward(len(self.nodes) - 1, 0, not self.retain_diffs, after_layer)

    @torch.no_grad()
    def backward(
        self,
        start: int,
        end: int,
        release: bool = False,
        after_layer: Callable[[int], None] | None = None,
    ) -> None:
        """Run the layers from `start` down to `end` backward; `after_layer` as of `run`.

        With `release`, diffs of intermediate blobs are given back as soon as they are used.
        """
        self._forget_released()
        for index in range(start, end - 1, -1):
            node = self.nodes[index]
            self._call("before_backward", index)
            if node.needs_backward:
                self.backward_layer(index, release)
                if self.debug_info:
                    _log_backward(node)
                if release:
                    self._release_diffs(node)
                if after_layer is not None:
                    after_layer(index)
            self._call("after_backward", index)
            if not self.retain_data:
                self._give_back(node.spent_backward)

    @torch.no_grad()
    def backward_layer(self, index: int, release: bool = False) -> None:
        """Run one layer backward, also where no loss lies above or nothing learns."""
        node = self.nodes[index]
        node.layer.releases_diffs = release
        run_step(node.layer, "backward", node.tops, node.bottom_needs, node.bottoms)

    def _forget_released(self) -> None:
        # A new pass begins: what the last one released cannot be made again.
        for blob in self.released:
            blob.diff_memory.clear()
        self.released = []

    def _release_diffs(self, node: Node) -> None:
        # What a layer has used of its tops' diffs no other layer needs.
        for blob, weight in zip(node.tops, node.loss_weights):
            memory = blob.diff_memory
            if blob in node.bottoms or memory.source is not memory:
                continue
            if not weight and not memory.is_exported:
                memory.set_lazy(lambda memory=memory: self._recompute_diff(memory))
                self.released.append(blob)

    @torch.no_grad()
    def _recompute_diff(self, wanted: SyncedMemory) -> torch.Tensor:
        """Run backward again, keeping all diffs; parameters and their diffs come out unchanged.

        After a solver's update a parameter's diff is what was taken from its data, so that
        data + diff are the values of the pass.
        """
        kept = [(blob, blob.diff_tensor().clone()) for blob in self.learnable]
        values = [(blob, blob.data_tensor().clone()) for blob in self.learnable]
        if self.is_updated:
            for blob, diff in kept:
                blob.data_tensor().add_(diff)
        # Whoever is called back has seen this pass already.
        callbacks, self.callbacks = self.callbacks, {kind: [] for kind in self.callbacks}
        debug_info, self.debug_info = self.debug_info, False
        try:
            self.backward(len(self.nodes) - 1, 0)
        finally:
            self.callbacks, self.debug_info = callbacks, debug_info
            for (blob, diff), (_, data) in zip(kept, values):
                blob.set_diff(diff)
                blob.data_tensor().copy_(data)
        self.retain_diffs = True
        return wanted.tensor()


def _mean(values: torch.Tensor) -> str:
    return number(values.abs().sum() / max(1, values.numel()))


def _log_forward(node: Node) -> None:
    """Write the mean magnitudes of what a layer has made, and of its parameters."""
    head = f"    [Forward] Layer {node.name}"
    for name, blob in zip(node.top_names, node.tops):
        _log.info(f"{head}, top blob {name} data: {_mean(blob.data_tensor())}")
    specs = node.layer.layer_param.param
    for index, blob in enumerate(node.layer.blobs):
        name = (specs[index].name if index < len(specs) else "") or index
        _log.info(f"{head}, param blob {name} data: {_mean(blob.data_tensor())}")


def _log_backward(node: Node) -> None:
    """Write the mean magnitudes of the diffs that a layer has made."""
    head = f"    [Backward] Layer {node.name}"
    for name, blob, needed in zip(node.bottom_names, node.bottoms, node.bottom_needs):
        if needed:
            _log.info(f"{head}, bottom blob {name} diff: {_mean(blob.diff_tensor())}")
    for index, blob in enumerate(node.layer.blobs):
        if node.layer.param_propagate_down[index]:
            _log.info(f"{head}, param blob {index} diff: {_mean(blob.diff_tensor())}")


def log_parameters(learnable: Sequence[Blob]) -> None:
    """Write the norms of all parameters and of their diffs to the log."""
    data = [blob.data_tensor().flatten() for blob in learnable]
    diffs = [blob.diff_tensor().flatten() for blob in learnable]
    norms = [
        [
            sum(float(torch.linalg.vector_norm(t, order)) ** order for t in ts)
            for ts in (data, diffs)
        ]
        for order in (1, 2)
    ]
    l1, l2 = norms[0], [value**0.5 for value in norms[1]]
    _log.error(
        "    [Backward] All net params (data, diff): "
        f"L1 norm = ({number(l1[0])}, {number(l1[1])}); "
        f"L2 norm = ({number(l2[0])}, {number(l2[1])})"
    )
