"""Layers run forward and backward, in order; what nobody needs any more is given back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from caffe import late_checks
from caffe.argument_checks import WHOLE, takes
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.net import cuda_graphs, net_log
from caffe.net.builder import Assembly, Place, checked
from caffe.synced_memory import SyncedMemory


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
    made : Assembly
        Its layers and blobs.
    source : str
        Where its description comes from; named in errors.
    debug_info : bool
        Whether each pass writes to the log what flows through the net.

    Attributes
    ----------
    learnable : list of Blob
        Parameter blobs, shared ones once.
    last_used_by : dict of int to list of int
        Layer -> places in `learnable` of the parameters that backward uses there for the last time.
    retain_diffs : bool
        Programs that never look at the diffs of intermediate blobs set this to False: these are
        then given back as soon as they are used, and made again if somebody looks after all.
    retain_data : bool
        Programs that look at nothing but the outputs, and the blobs that they name to forward(),
        and never call backward(), set this to False: blobs are then given back as soon as no layer
        needs them any more; in a solver's steps that is when backward is done with them.
    debug_info : bool
    """

    def __init__(self, made: Assembly, source: str, debug_info: bool) -> None:
        self.source = source
        self._made_blobs = made.blobs
        self.learnable = made.learnable
        self.retain_diffs = True
        self.retain_data = True
        self.debug_info = debug_info
        self._places = made.places
        # Layers that share a parameter are gone through from the last to the first.
        self.last_used_by: dict[int, list[int]] = {}
        first_user: dict[int, int] = {}
        for index, place in reversed(list(enumerate(made.places))):
            for blob in place.layer.blobs:
                first_user[id(blob.data_memory)] = index
        for number, blob in enumerate(made.learnable):
            self.last_used_by.setdefault(first_user[id(blob.data_memory)], []).append(number)
        self._callbacks: dict[str, list[Callable[[int], None]]] = {
            "before_forward": [],
            "after_forward": [],
            "before_backward": [],
            "after_backward": [],
        }
        self._released: list[Blob] = []
        self._graphs: cuda_graphs.Graphs | None = None
        # Whether a solver's update has changed the parameters since the last pass.
        self._updated = False

    def before_forward(self, callback) -> None:
        """Have `callback(layer index)` called before each layer runs forward."""
        self._callbacks["before_forward"].append(callback)

    def after_forward(self, callback) -> None:
        """Have `callback(layer index)` called after each layer has run forward."""
        self._callbacks["after_forward"].append(callback)

    def before_backward(self, callback) -> None:
        """Have `callback(layer index)` called before each layer runs backward."""
        self._callbacks["before_backward"].append(callback)

    def after_backward(self, callback) -> None:
        """Have `callback(layer index)` called after each layer has run backward."""
        self._callbacks["after_backward"].append(callback)

    def _call(self, kind: str, index: int) -> None:
        for callback in self._callbacks[kind]:
            callback(index)

    @staticmethod
    def _reshape_layer(place: Place, always: bool = False) -> None:
        shapes = tuple(blob.data_memory.shape for blob in place.bottoms)
        if always or place.layer.always_reshape or shapes != place.seen_shapes:
            checked(place.layer, "reshape", place.bottoms, place.tops)
            place.seen_shapes = shapes

    @takes(start=WHOLE, end=WHOLE)
    def _forward(self, start: int, end: int) -> float:
        return read_losses(self._flow(range(start, end + 1)))

    def _pass(
        self,
        keep: Sequence[str] = (),
        backward: bool = False,
        after_layer: Callable[[int], None] | None = None,
    ) -> list[torch.Tensor]:
        """Run all layers forward, with `backward` then backward as in a solver's step.

        Returns
        -------
        list of Tensor
            The terms of the loss, for `read_losses`.
        """
        last = len(self._places) - 1

        def back() -> None:
            self._backward(last, 0, not self.retain_diffs, after_layer)

        watched = self.debug_info or after_layer or any(self._callbacks.values())
        if cuda_graphs.wanted() and not watched:
            if self._graphs is None:
                self._graphs = cuda_graphs.Graphs(self)
            how = backward, self.retain_data, self.retain_diffs
            terms = self._graphs.run(keep, back if backward else None, how)
            if terms is not None:
                return terms
        terms = self._flow(range(last + 1), keep, backward)
        if backward:
            self.send_losses()
            back()
        return terms

    def loss_memories(self) -> list[SyncedMemory]:
        """Return the values of the losses that are single numbers."""
        return [
            blob.data_memory
            for place in self._places
            for blob, weight in zip(place.tops, place.loss_weights)
            if weight and not blob.shape and blob.data_memory.source is blob.data_memory
        ]

    def send_losses(self) -> None:
        """Have a GPU bring the losses to the host before it goes on with the backward pass."""
        for memory in self.loss_memories():
            memory.send()

    @torch.no_grad()
    def _flow(
        self, indices: Sequence[int], keep: Collection[str] = (), before_backward: bool = False
    ) -> list[torch.Tensor]:
        """Run layers forward; return the terms of the loss, for `read_losses`."""
        losses = []
        self._forget_released()
        # Whoever is called back after each layer sees each layer's own result.
        fuse = not (
            self.debug_info or self._callbacks["before_forward"] or self._callbacks["after_forward"]
        )
        give_back = not (self.retain_data or before_backward)
        rectified = False
        for index in indices:
            place = self._places[index]
            if rectified:
                rectified = False
                if give_back:
                    self._give_back(place.spent, keep)
                continue
            self._call("before_forward", index)
            self._reshape_layer(place)
            if not (place.layer.keeps_tops or place.layer.shares_tops):
                for blob in place.tops:
                    if blob not in place.bottoms:
                        blob.data_memory.discard()
            rectified = fuse and place.rectifies and index < indices[-1]
            step = "forward_rectified" if rectified else "forward"
            checked(place.layer, step, place.bottoms, place.tops)
            for blob, weight in zip(place.tops, place.loss_weights):
                if weight:
                    losses.append((blob.data_tensor() * blob.diff_tensor()).sum())
            if self.debug_info:
                net_log.forward(place)
            self._call("after_forward", index)
            if give_back:
                self._give_back(place.spent, keep)
        return losses

    def _give_back(self, names: Collection[str], keep: Collection[str] = ()) -> None:
        for name in names:
            memory = self._made_blobs[name].data_memory
            kept = any(
                self._made_blobs[n].data_memory.source is memory
                for n in keep
                if n in self._made_blobs
            )
            if not kept and not memory.is_exported:
                memory.set_lazy(lambda name=name: self._refuse_released(name))

    def _refuse_released(self, name: str) -> None:
        raise CaffeError(
            f"{self.source}: blob '{name}' was not kept: name it to forward(), or set the net's "
            "retain_data to True before the forward pass"
        )

    @takes(start=WHOLE, end=WHOLE)
    @torch.no_grad()
    def _backward(
        self,
        start: int,
        end: int,
        release: bool = False,
        after_layer: Callable[[int], None] | None = None,
    ) -> None:
        self._forget_released()
        for index in range(start, end - 1, -1):
            place = self._places[index]
            self._call("before_backward", index)
            if place.needs_backward:
                self._backward_alone(index, release)
                if self.debug_info:
                    net_log.backward(place)
                if release:
                    self._release_diffs(place)
                if after_layer is not None:
                    after_layer(index)
            self._call("after_backward", index)
            if not self.retain_data:
                self._give_back(place.spent_backward)

    @torch.no_grad()
    def _backward_alone(self, index: int, release: bool = False) -> None:
        """Run one layer backward, also where no loss lies above or nothing learns."""
        place = self._places[index]
        place.layer.releases_diffs = release
        checked(place.layer, "backward", place.tops, place.bottom_needs, place.bottoms)

    def _forget_released(self) -> None:
        # A new pass begins: what the last one released cannot be made again.
        for blob in self._released:
            blob.diff_memory.clear()
        self._released = []

    def _release_diffs(self, place: Place) -> None:
        # What a layer has used of its tops' diffs no other layer needs.
        for blob, weight in zip(place.tops, place.loss_weights):
            if blob in place.bottoms or blob.diff_memory.source is not blob.diff_memory:
                continue
            if not weight and not blob.diff_memory.is_exported:
                blob.diff_memory.set_lazy(
                    lambda memory=blob.diff_memory: self._recompute_diff(memory)
                )
                self._released.append(blob)

    @torch.no_grad()
    def _recompute_diff(self, wanted: SyncedMemory) -> torch.Tensor:
        """Run backward again, keeping all diffs; parameters and their diffs come out unchanged.

        After a solver's update a parameter's diff is what was taken from its data, so that
        data + diff are the values of the pass.
        """
        kept = [(blob, blob.diff_tensor().clone()) for blob in self.learnable]
        values = [(blob, blob.data_tensor().clone()) for blob in self.learnable]
        if self._updated:
            for blob, diff in kept:
                blob.data_tensor().add_(diff)
        # Whoever is called back has seen this pass already.
        callbacks, self._callbacks = self._callbacks, {kind: [] for kind in self._callbacks}
        debug_info, self.debug_info = self.debug_info, False
        try:
            self._backward(len(self._places) - 1, 0)
        finally:
            self._callbacks, self.debug_info = callbacks, debug_info
            for (blob, diff), (_, data) in zip(kept, values):
                blob.set_diff(diff)
                blob.data_tensor().copy_(data)
        self.retain_diffs = True
        return wanted.tensor()
