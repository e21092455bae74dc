"""CUDA graphs: a net's pass is recorded once, and then run by the GPU without the host's help.

A step of the U-Net is several hundred launches, which take the host longer than the GPU needs to
compute them. What is recorded are all layers but those without bottoms: these fetch data, on the
host as a rule, and run before. Each pass is recorded the third time that it runs with the same
shapes; the first two show whether it can be.
"""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch

from caffe import common, late_checks
from caffe.argument_checks import takes
from caffe.errors import CaffeError, is_short_of_memory
from caffe.layers.base import BuiltInLayer
from caffe.log import log_info
from caffe.net.node import Node
from caffe.net.passes import Passes
from caffe.synced_memory import SyncedMemory

# Each holds the memory of a whole pass.
_MOST = 2
# Passes of each kind that run as usual before one is recorded.
_BEFORE = 2

# Layers that work on the host, or go on from what the last pass has left in Python's variables.
_CHANGING = {
    *("CreateDeformation", "F1", "HDF5Output", "IoU", "LSTM", "LSTMUnit", "RNN"),
    "ValueAugmentation",
}

_on = False


@takes(on=bool)
def set_graphs(on: bool) -> None:
    """Choose whether GPUs repeat passes as CUDA graphs, which saves the host's time.

    Not in genuine Caffe; off by default. Results stay what they are. A net whose passes cannot be
    repeated so runs as usual, and a line of the log says why: one with Python layers that have
    bottoms, for example, or with layers whose work depends on values. A net holds the memory of one
    pass for each of the last two kinds of it (shapes, training or not) that it has run.
    """
    global _on
    _on = on


def wanted() -> bool:
    """Tell whether passes are to be repeated as graphs on the current device."""
    return _on and common.current_device().type == "cuda"


def _obstacle(nodes: Sequence[Node]) -> str | None:
    """Return what keeps the passes of a net's layers from being repeated, if anything."""
    if not hasattr(torch.cuda.CUDAGraph, "register_generator_state"):
        return f"PyTorch {torch.__version__} cannot repeat random numbers in them"
    for node in nodes:
        kind = node.layer.type
        told = f"layer '{node.name}' ({kind})"
        layer = node.layer
        changing = kind in _CHANGING or layer.always_reshape or not isinstance(layer, BuiltInLayer)
        if node.bottoms and changing:
            return f"{told} may do something else in each pass"
        if not node.bottoms and (node.needs_backward or node.layer.blobs):
            return f"{told} has parameters and no bottom"
        if not node.bottoms and any(b.data_memory.source.changes_in_place for b in node.tops):
            return f"a layer works in place on what {told} gives"
    return None


@contextmanager
def _no_waits() -> Iterator[None]:
    """Have PyTorch raise an error where the host waits for the GPU: graphs cannot."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        # That this is a prototype.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _captured(parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
    """Let the GPU note what functions launch, instead of computing it.

    Returns what launches the same, for each; to be called in this order.
    """
    where = common.current_device()
    before = torch.cuda.current_stream(where)
    graphs: list[torch.cuda.CUDAGraph] = []
    try:
        with torch.cuda.device(where):
            for part in parts:
                graph = torch.cuda.CUDAGraph()
                graph.register_generator_state(common.generator(where))
                # What one part leaves in memory the next one finds there.
                pool = graphs[0].pool() if graphs else None
                stream, mode = _stream(where), "thread_local"
                with torch.cuda.graph(graph, pool, stream, capture_error_mode=mode):
                    part()
                graphs.append(graph)
    except BaseException:
        # Where the capture cannot be ended PyTorch stays on its stream.
        torch.cuda.set_stream(before)
        raise
    return [graph.replay for graph in graphs]


@functools.cache
def _stream(where: torch.device) -> torch.cuda.Stream:
    """Return the stream that passes are captured on; PyTorch's own is of one device only."""
    return torch.cuda.Stream(where)


class _Recording:
    """One pass, recorded: the graph, and all that Python set while it was.

    The pass is given what is in `read` (data, parameters, weights of losses), and makes what is in
    `made`. `forward` returns the terms of the loss.
    """

    def __init__(
        self,
        passes: Passes,
        read: list[SyncedMemory],
        made: list[SyncedMemory],
        forward: Callable[[], list[torch.Tensor]],
        backward: Callable[[], None] | None,
    ) -> None:
        # Memory that the graph reads; what the memories hold is brought there before each replay.
        self._read = [(memory, memory.native()) for memory in read]
        layers = [node.layer for node in passes.nodes]
        attributes = [dict(vars(layer)) for layer in layers]
        states = [memory.state() for memory in made]
        losses = passes.loss_memories() if backward is not None else []

        def noted() -> None:
            self._terms = forward()
            self._losses = [(memory, memory.state()) for memory in losses]

        parts = [noted] if backward is None else [noted, backward]
        try:
            with late_checks.recorded() as self._checks:
                self._replays = _captured(parts)
            # What was given back is no longer there, for who looks; the graph's memory is.
            self._spent = [(memory, memory.state()) for memory, _ in self._read if memory.is_lazy]
            kept = [(memory, tensor) for memory, tensor in self._read if not memory.is_lazy]
            if any(memory.native() is not tensor for memory, tensor in kept):
                raise CaffeError("a layer gives other memory to values that it reads")
        finally:
            # Nothing was computed: what was read still lies where it lay.
            for memory, tensor in self._read:
                memory.restore((tensor, None, None))
        # What was not touched stays the user's.
        self._made = [
            (memory, memory.state())
            for memory, before in zip(made, states)
            if memory not in losses
            and any(new is not old for new, old in zip(memory.state(), before))
        ]
        self._kept = [
            (layer, {k: v for k, v in vars(layer).items() if before.get(k) is not v})
            for layer, before in zip(layers, attributes)
        ]
        self._released = list(passes.released)
        self._passes = passes

    def __call__(self) -> list[torch.Tensor]:
        """Run it on what its memories hold now; return the terms of the loss."""
        for memory, tensor in self._read:
            memory.move_to(tensor)
        first, *others = self._replays
        first()
        for memory, state in self._losses:
            memory.restore(state)
            memory.send()
        for replay in others:
            replay()
        for memory, state in [*self._made, *self._spent]:
            memory.restore(state)
        for layer, kept in self._kept:
            vars(layer).update(kept)
        self._passes.released = list(self._released)
        # Copies: the next run writes where this one has written.
        for check in self._checks:
            late_checks.add(check.flag.clone(), check.error)
        return [term.clone() for term in self._terms]


class CudaGraphs:
    """The passes of a net that are repeated as CUDA graphs."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._sources = [i for i, node in enumerate(passes.nodes) if not node.bottoms]
        self._others = [i for i, node in enumerate(passes.nodes) if node.bottoms]
        # By all that must stay as it was: how often it ran as usual, then the recording.
        self._known: OrderedDict[Hashable, int | _Recording] = OrderedDict()
        self._refused = False

    def _forget(self) -> bool:
        """Give back the memory of what was recorded; tell whether there was any."""
        recorded = any(isinstance(known, _Recording) for known in self._known.values())
        self._known.clear()
        return recorded

    def _refuse(self, reason: str) -> None:
        self._refused = True
        self._known.clear()
        log_info(f"{self._passes.source}: passes are not repeated as CUDA graphs: {reason}")

    def run_pass(
        self,
        keep: Sequence[str],
        both: bool,
        after_layer: Callable[[int], None] | None,
    ) -> list[torch.Tensor]:
        """Run all layers, as a graph where that is wanted and may be; as `Passes.run`.

        Without enough memory for it the net gives back what it holds, so that a smaller pass may
        fit; one forward that fits without the memory of earlier graphs is run.
        """
        passes = self._passes
        try:
            if wanted() and not (after_layer or passes.is_watched):
                terms = self._run(keep, both)
                if terms is not None:
                    return terms
            return passes.run(keep, both, after_layer)
        except RuntimeError as error:
            if not is_short_of_memory(error):
                raise
            passes.discard()
            # What a pass backward has added to gradients cannot be taken back.
            if not self._forget() or both:
                raise
        # Beyond the except: the error holds what the attempt took until it is forgotten.
        return passes.run(keep)

    def _run(self, keep: Sequence[str], both: bool) -> list[torch.Tensor] | None:
        """Run all layers forward, with `both` then backward; as `Passes.run`.

        Returns None, and runs nothing, if this net's passes cannot be repeated.
        """
        if self._refused:
            return None
        passes = self._passes
        passes.forward(self._sources, keep, both)
        for index in self._others:
            passes.reshape(passes.nodes[index])

        def forward() -> list[torch.Tensor]:
            return passes.forward(self._others, keep, both)

        def run() -> list[torch.Tensor]:
            terms = forward()
            if both:
                passes.send_losses()
                passes.backward_all()
            return terms

        key = self._key(keep, both)
        found = self._known.pop(key, 0)
        if found == 0:
            obstacle = _obstacle(passes.nodes)
            if obstacle:
                self._refuse(obstacle)
            else:
                self._remember(key, 1)
            return run()
        # Of an iteration's earlier passes: this one's are added to them.
        gradients = [
            (blob.diff_memory, blob.diff_tensor().clone())
            for blob in passes.learnable
            if both and not blob.diff_memory.is_clear
        ]
        sources = [blob.data_memory.source for i in self._sources for blob in passes.nodes[i].tops]
        given = [(memory, (memory.native(), None, None)) for memory in sources]
        try:
            if isinstance(found, int) and found < _BEFORE:
                with _no_waits():
                    terms = run()
                self._remember(key, found + 1)
                return terms
            for memory, _ in gradients:
                memory.clear()
            if isinstance(found, int):
                found = _Recording(
                    passes,
                    *self._memories(both),
                    forward,
                    passes.backward_all if both else None,
                )
        except (CaffeError, RuntimeError) as error:
            self._refuse(str(error).partition("\n")[0])
            if both:
                # What the attempt has added to them.
                for blob in passes.learnable:
                    blob.diff_memory.clear()
            for memory, before in gradients:
                memory.set(before)
            for memory, state in given:
                memory.restore(state)
            found = None
        # Beyond the except: the error holds what the attempt took until it is forgotten.
        if found is None:
            passes.discard()
            return run()
        self._remember(key, found)
        terms = found()
        for memory, before in gradients:
            memory.set(before.add_(memory.tensor()))
        return terms

    def _remember(self, key: Hashable, value: int | _Recording) -> None:
        self._known[key] = value
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def _key(self, keep: Sequence[str], both: bool) -> Hashable:
        passes = self._passes
        shapes = tuple(blob.shape for index in self._sources for blob in passes.nodes[index].tops)
        memories = [
            memory
            for blob in passes.blobs.values()
            for memory in (blob.data_memory, blob.diff_memory)
        ]
        layers = [node.layer for node in passes.nodes]
        parameters = [blob.data_memory for layer in layers for blob in layer.blobs]
        return (
            (tuple(keep), both, passes.retain_data, passes.retain_diffs),
            (common.current_device(), common.get_precision(), shapes),
            tuple(map(id, [*memories, *parameters, *layers])),
        )

    def _memories(self, both: bool) -> tuple[list[SyncedMemory], list[SyncedMemory]]:
        """Return the memories that a pass reads, and those that it makes."""
        passes = self._passes
        read = [blob.data_memory for i in self._sources for blob in passes.nodes[i].tops]
        read += [blob.data_memory for node in passes.nodes for blob in node.layer.blobs]
        for node in passes.nodes:
            tops = zip(node.tops, node.loss_weights)
            read += [blob.diff_memory for blob, weight in tops if weight]
        made = [blob.data_memory for blob in passes.blobs.values()]
        if both:
            made += [blob.diff_memory for blob in passes.blobs.values()]
            made += [blob.diff_memory for blob in passes.learnable]
        read = list(dict.fromkeys(memory.source for memory in read))
        made = list(dict.fromkeys(memory.source for memory in made))
        return read, [memory for memory in made if memory not in read]
