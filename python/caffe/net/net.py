"""A Net: made from a file, run from and to layers, its blobs and parameters by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from caffe import common, device_memory
from caffe.argument_checks import PATH, WHOLE, kind_of, not_converted, refused, takes
from caffe.blob import Blob
from caffe.containers import OrderedDict, Shown
from caffe.errors import CaffeError, NotAKeyError, NotAnItemError, did_you_mean
from caffe.files import prototxt
from caffe.files.atomic import check_there
from caffe.layers import BlobVec, Layer
from caffe.log import Log, is_logged
from caffe.net import batches, cuda_graphs, parameters
from caffe.net.builder import NetBuilder
from caffe.net.filter import filter_net
from caffe.net.insert_splits import insert_splits
from caffe.net.node import LayerVec
from caffe.net.passes import Passes, read_losses
from caffe.proto import caffe_pb2

TRAIN = caffe_pb2.TRAIN
TEST = caffe_pb2.TEST

_log = Log("net.cpp")


class Net:
    """A network, as pycaffe shows it.

    Parameters
    ----------
    network_file : path or caffe_pb2.NetParameter
        The prototxt.
    phase : int
        TRAIN or TEST. Old scripts write `Net(file, weights, phase)`, which will do too.
    level : int, optional
        Level of the NetState; 0 by default.
    stages : sequence of str, optional
        Stages of the NetState.
    weights : path, optional
        A .caffemodel or HDF5 file whose parameters are copied by layer name.
    source : str, optional
        The file that a NetParameter was read from.

    Attributes
    ----------
    blobs, params, layer_dict, blob_loss_weights, top_names, bottom_names : collections.OrderedDict
        By name, in the order of the net.
    layers : list of Layer
    inputs, outputs : list of str
        Blobs of Input layers; blobs that nobody reads.
    learnable : list of Blob
        Parameter blobs, shared ones once; not in genuine Caffe, as what follows.
    lr_mults, decay_mults : list of float
        Of each learnable blob.
    last_used_by : dict of int to list of int
        Layer -> indices in `learnable` of the parameters that backward uses there for the last
        time.

    Raises
    ------
    CaffeError
        If the net cannot be made; names the file and line, or the layer and the shapes.
    ArgumentError
        If an argument is of another type, such as the phase as text.
    """

    @takes(network_file=(*PATH, caffe_pb2.NetParameter), level=(*PATH, WHOLE))
    def __init__(
        self,
        network_file: str | os.PathLike | caffe_pb2.NetParameter,
        phase: int | str | os.PathLike | None = None,
        level: int | None = None,
        stages: Sequence[str] | None = None,
        weights: str | os.PathLike | None = None,
        *,
        source: str | None = None,
    ) -> None:
        given = phase
        if isinstance(phase, PATH):
            weights, phase, level = phase, level, None
        if not isinstance(phase, WHOLE):
            raise refused(
                "Net.__init__",
                (self, network_file, given),
                f"the phase is to be caffe.TRAIN or caffe.TEST, not {_told_phase(given)}",
            )
        if level is not None and not isinstance(level, WHOLE):
            raise refused(
                "Net.__init__",
                (self, network_file, given, level),
                f"level is to be a whole number, not {kind_of(level)}",
            )
        if stages is not None and len(stages):
            for stage in stages:
                if not isinstance(stage, str):
                    raise not_converted("std::string", stage, "stages are names")
        if weights is not None and not isinstance(weights, PATH):
            raise not_converted("std::string", weights, "weights are a file's path")
        if phase not in (TRAIN, TEST):
            raise CaffeError(f"the phase must be caffe.TRAIN or caffe.TEST, not {phase!r}")
        if isinstance(network_file, caffe_pb2.NetParameter):
            param, source = network_file, source or network_file.name or "<net>"
        else:
            source = os.fspath(network_file)
            check_there(source)
            param = prototxt.read_net(network_file)
        if weights is not None:
            check_there(os.fspath(weights))
        state_given = caffe_pb2.NetParameter()
        state_given.CopyFrom(param)
        state_given.state.phase = phase
        if level or param is not network_file:
            state_given.state.level = level or 0
        if stages:
            del state_given.state.stage[:]
            state_given.state.stage.extend(stages)
        try:
            filtered = filter_net(state_given)
            if is_logged():
                text = prototxt.to_text(filtered).rstrip()
                _log.info(f"Initializing net from parameters: \n{text}")
            self._build(insert_splits(filtered, state_given), source)
        except CaffeError as error:
            if param is network_file:
                raise
            raise prototxt.located_in_file(error, network_file) from error
        if weights is not None:
            self.copy_from(weights)

    def _build(self, param: caffe_pb2.NetParameter, source: str) -> None:
        parts = NetBuilder(param, source).build()
        device_memory.tune_allocator(4 * sum(blob.count for blob in parts.blobs.values()))
        self._parts = parts
        self._passes = Passes(parts, param.debug_info)
        self._graphs = cuda_graphs.CudaGraphs(self._passes)
        self.source = source
        self.learnable = parts.learnable
        self.lr_mults, self.decay_mults = parts.lr_mults, parts.decay_mults
        self.last_used_by = self._passes.last_used_by
        self.param = param
        self.name = param.name
        self.phase = param.state.phase
        self._layers = LayerVec(parts.nodes)
        # The dictionaries and lists of names are the user's own, to change at will.
        self._shown_blobs = OrderedDict(
            parts.blobs, "write net.blobs['{name}'].data[...] = array to change its values"
        )
        self._shown_layers = OrderedDict(
            ((node.name, node.layer) for node in parts.nodes),
            "a layer is changed in the prototxt",
        )
        self._shown_params = OrderedDict(
            ((node.name, node.layer.blobs) for node in parts.nodes if node.layer.blobs),
            "write net.params['{name}'][0].data[...] = array to change its values",
        )
        self._shown_tops = OrderedDict((node.name, [*node.top_names]) for node in parts.nodes)
        self._shown_bottoms = OrderedDict((node.name, [*node.bottom_names]) for node in parts.nodes)
        self._shown_inputs, self._shown_outputs = [*parts.inputs], [*parts.outputs]

    # -- what it shows -------------------------------------------------------------------------

    @Shown
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs by name, in the order they are made."""
        return self._shown_blobs

    @Shown
    def params(self) -> OrderedDict[str, BlobVec]:
        """The parameter blobs of every layer that has any, by layer name."""
        return self._shown_params

    @Shown
    def layers(self) -> LayerVec:
        """The layers in order."""
        return self._layers

    @Shown
    def layer_dict(self) -> OrderedDict[str, Layer]:
        """The layers by name."""
        return self._shown_layers

    @Shown
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The names of the blobs that each layer makes, by layer name."""
        return self._shown_tops

    @Shown
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The names of the blobs that each layer reads, by layer name."""
        return self._shown_bottoms

    @Shown
    def inputs(self) -> list[str]:
        """The names of the blobs of Input layers."""
        return self._shown_inputs

    @Shown
    def outputs(self) -> list[str]:
        """The names of the blobs that nobody reads."""
        return self._shown_outputs

    @Shown
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """What each blob counts in the loss, by name; made anew each time."""
        return OrderedDict(self._parts.loss_weights, "give the layer a loss_weight in the prototxt")

    # -- running it ----------------------------------------------------------------------------

    @property
    def _layer_names(self) -> list[str]:
        return [node.name for node in self._parts.nodes]

    @property
    def _blob_names(self) -> list[str]:
        return list(self._parts.blobs)

    @property
    def _blobs(self) -> BlobVec:
        return BlobVec(self._parts.blobs.values())

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.outputs]

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self._parts.loss_weights.values())

    def _top_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(name) for name in self._parts.nodes[index].top_names]

    def _bottom_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(name) for name in self._parts.nodes[index].bottom_names]

    @property
    def retain_data(self) -> bool:
        """Whether blobs keep their data after a pass.

        Programs that look at nothing but the outputs, and the blobs that they name to forward(),
        and never call backward(), set this to False: blobs are then given back as soon as no layer
        needs them any more; in a solver's steps that is when backward is done with them.
        """
        return self._passes.retain_data

    @retain_data.setter
    def retain_data(self, value: bool) -> None:
        self._passes.retain_data = value

    @property
    def retain_diffs(self) -> bool:
        """Whether intermediate blobs keep their diffs after a solver's step.

        Programs that never look at them set this to False: diffs are then given back as soon as
        they are used, and made again if somebody looks after all.
        """
        return self._passes.retain_diffs

    @retain_diffs.setter
    def retain_diffs(self, value: bool) -> None:
        self._passes.retain_diffs = value

    @property
    def debug_info(self) -> bool:
        """Whether each pass writes to the log what flows through the net."""
        return self._passes.debug_info

    @debug_info.setter
    def debug_info(self, value: bool) -> None:
        self._passes.debug_info = value

    def before_forward(self, callback: Callable[[int], None]) -> None:
        """Have `callback(layer index)` called before each layer runs forward."""
        self._passes.callbacks["before_forward"].append(callback)

    def after_forward(self, callback: Callable[[int], None]) -> None:
        """Have `callback(layer index)` called after each layer has run forward."""
        self._passes.callbacks["after_forward"].append(callback)

    def before_backward(self, callback: Callable[[int], None]) -> None:
        """Have `callback(layer index)` called before each layer runs backward."""
        self._passes.callbacks["before_backward"].append(callback)

    def after_backward(self, callback: Callable[[int], None]) -> None:
        """Have `callback(layer index)` called after each layer has run backward."""
        self._passes.callbacks["after_backward"].append(callback)

    def has_callbacks(self, kind: str) -> bool:
        """Tell whether anything is called: "before_forward", "after_forward", ..."""
        return bool(self._passes.callbacks[kind])

    @takes(start=WHOLE, end=WHOLE)
    def _forward(self, start: int, end: int) -> float:
        return read_losses(self._passes.forward(range(start, end + 1)))

    @takes(start=WHOLE, end=WHOLE)
    def _backward(self, start: int, end: int) -> None:
        self._passes.backward(start, end)

    def backward_layer(self, index: int) -> None:
        """Run one layer backward, also where no loss lies above or nothing learns."""
        self._passes.backward_layer(index)

    def run_pass(
        self,
        keep: Sequence[str] = (),
        backward: bool = False,
        after_layer: Callable[[int], None] | None = None,
    ) -> list[torch.Tensor]:
        """Run all layers, as a CUDA graph where that is wanted and may be; as `Passes.run`."""
        return self._graphs.run_pass(keep, backward, after_layer)

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs' shapes."""
        for node in self._parts.nodes:
            self._passes.reshape(node, always=True)

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Run layers forward.

        Parameters
        ----------
        blobs : sequence of str, optional
            Blobs to return beside the outputs.
        start, end : str, optional
            First and last layer to run.
        **kwargs : ndarray
            Values for all input blobs.

        Returns
        -------
        dict
            Output blob name -> live float32 array.
        """
        names = self._layer_names
        first = 0 if start is None else self._index_of(start)
        last = len(self.layers) - 1 if end is None else self._index_of(end)
        wanted = list(blobs or [])
        outputs = list(self.top_names[names[last]]) if end is not None else list(self.outputs)
        if kwargs:
            self._fill(kwargs, self.inputs, "input", diff=False)
        if (first, last) == (0, len(self.layers) - 1):
            self.run_pass(wanted)
        else:
            self._passes.forward(range(first, last + 1), wanted)
        return {name: self._blob(name).data for name in dict.fromkeys(outputs + wanted)}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Run layers backward.

        Parameters
        ----------
        diffs : sequence of str, optional
            Blobs whose diff is returned beside the inputs'.
        start, end : str, optional
            First (upper) and last (lower) layer to run.
        **kwargs : ndarray
            Diffs for all output blobs.

        Returns
        -------
        dict
            Blob name -> live float32 array of its diff.
        """
        first = len(self.layers) - 1 if start is None else self._index_of(start)
        last = 0 if end is None else self._index_of(end)
        wanted = list(diffs or [])
        outputs = list(self.bottom_names[end]) if end is not None else list(self.inputs)
        if kwargs:
            self._fill(kwargs, self.outputs, "output", diff=True)
        self._backward(first, last)
        return {name: self._blob(name).diff for name in dict.fromkeys(outputs + wanted)}

    def _index_of(self, layer: str) -> int:
        try:
            return self._layer_names.index(layer)
        except ValueError:
            hint = did_you_mean(str(layer), self._layer_names)
            if layer in self._blob_names:
                hint = "; it is a blob, start and end name layers"
            raise NotAnItemError(
                f"{layer!r} is not in list: the net has no layer of this name{hint}"
            ) from None

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            hint = did_you_mean(str(name), self._blob_names)
            raise NotAKeyError(f"{name!r}: the net has no blob of this name{hint}")
        return self.blobs[name]

    def _fill(
        self, values: Mapping[str, np.ndarray], names: Sequence[str], kind: str, diff: bool
    ) -> None:
        for name, value in self._checked(values, names, kind, diff):
            blob = self.blobs[name]
            self._write(name, blob.diff if diff else blob.data, value)

    def _checked(
        self, values: Mapping[str, np.ndarray], names: Sequence[str], kind: str, diff: bool
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield values by name, of all blobs that are to be filled, and of as many items."""
        if set(values) != set(names):
            raise CaffeError(
                f"{'Top diff' if diff else 'Input blob'} arguments do not match net {kind}s: "
                f"{sorted(values)} were given, the net has {sorted(names)}"
            )
        for name, value in values.items():
            blob = self.blobs[name]
            shape = np.shape(value) if isinstance(value, (list, tuple)) else value.shape
            if shape[:1] != blob.shape[:1]:
                raise CaffeError(
                    f"{'Diff' if diff else 'Input'} is not batch sized: '{name}' is of shape "
                    f"{blob.shape}, values of shape {shape} were given; reshape the blob first: "
                    f"net.blobs['{name}'].reshape(*array.shape)"
                )
            yield name, value

    @staticmethod
    def _write(name: str, array: np.ndarray, value: np.ndarray) -> None:
        try:
            array[...] = value
        except ValueError as error:
            raise ValueError(
                f"{error}: '{name}' is of the latter shape; reshape the blob first: "
                f"net.blobs['{name}'].reshape(*array.shape)"
            ) from None

    def _batch(self, arrays: Mapping[str, Sequence[np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Cut arrays into batches of the net's size, as pycaffe's method of this name does."""
        return batches.cut(arrays, next(iter(self.blobs.values())).shape[0])

    def forward_all(
        self, blobs: Sequence[str] | None = None, **kwargs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run forward over any number of items, in batches; return the stacked outputs.

        A GPU fetches the next batch, and gives back what it made of the last one, while it
        computes.
        """
        collected: dict[str, list[np.ndarray]] = {
            name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])
        }
        for outputs in self._forward_batches(list(collected), blobs, kwargs):
            for name, values in outputs.items():
                collected[name].extend(np.atleast_1d(values))
        total = len(next(iter(kwargs.values())))
        return {name: np.asarray(values[:total]) for name, values in collected.items()}

    def _forward_batches(
        self,
        names: Sequence[str],
        blobs: Sequence[str] | None,
        arrays: Mapping[str, Sequence[np.ndarray]],
    ) -> Iterator[dict[str, np.ndarray]]:
        cut = self._batch(arrays)
        if common.current_device().type == "cpu":
            for batch in cut:
                outputs = self.forward(blobs=blobs, **batch)
                yield {name: values.copy() for name, values in outputs.items()}
            return
        inputs = (dict(self._checked(batch, self.inputs, "input", diff=False)) for batch in cut)
        wanted = {name: self._blob(name) for name in [*self.inputs, *names]}
        yield from batches.forward_overlapped(
            inputs, wanted, names, self._write, lambda: self.run_pass(blobs or [])
        )

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **kwargs: np.ndarray,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Run both ways over any number of items; `kwargs` hold inputs and output diffs."""
        blobs, diffs = list(blobs or []), list(diffs or [])
        all_outputs = {name: [] for name in dict.fromkeys([*self.outputs, *blobs])}
        all_diffs = {name: [] for name in dict.fromkeys([*self.inputs, *diffs])}
        for batch in self._batch(kwargs):
            upward = {name: batch[name] for name in self.inputs if name in batch}
            downward = {name: batch[name] for name in self.outputs if name in batch}
            for name, values in self.forward(blobs=blobs, **upward).items():
                all_outputs[name].extend(np.atleast_1d(values).copy())
            for name, values in self.backward(diffs=diffs, **downward).items():
                all_diffs[name].extend(np.atleast_1d(values).copy())
        total = len(next(iter(kwargs.values())))
        return (
            {name: np.asarray(values[:total]) for name, values in all_outputs.items()},
            {name: np.asarray(values[:total]) for name, values in all_diffs.items()},
        )

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Hand arrays to the net's MemoryData layer."""
        for layer in self.layers:
            if hasattr(layer, "set_arrays"):
                layer.set_arrays(data, labels)
                return
        raise CaffeError(
            "set_input_arrays may only be called if the first layer is a MemoryDataLayer: "
            "this net has none"
        )

    # -- parameters ----------------------------------------------------------------------------

    def clear_param_diffs(self) -> None:
        """Set the diffs of all parameters to zero."""
        for blob in self.learnable:
            blob.diff_memory.clear()
        self._passes.is_updated = False

    def mark_updated(self) -> None:
        """Say that a solver has taken the diffs of the parameters from their data."""
        self._passes.is_updated = True

    def share_with(self, other: Net) -> None:
        """Use the parameters of `other` wherever a layer of the same name has them."""
        if not isinstance(other, Net):
            why = f"other is to be a Net, not {kind_of(other)}"
            raise refused("Net.share_with", (self, other), why)
        parameters.share(self._parts.layers, other._parts.layers)

    @takes(path=PATH)
    def copy_from(self, path: str | os.PathLike) -> None:
        """Copy parameters by layer name from a .caffemodel or HDF5 file.

        Layers that the file lacks keep their values; layers that the net lacks are passed over.

        Raises
        ------
        CaffeError
            If the file cannot be read, or a shape differs: the message names layer and both shapes.
        """
        parameters.copy_from(path, self._parts.layers)

    @takes(path=PATH)
    def load_hdf5(self, path: str | os.PathLike) -> None:
        """Copy parameters from an HDF5 file; as `copy_from`."""
        self.copy_from(path)

    @takes(path=PATH)
    def save(self, path: str | os.PathLike) -> None:
        """Write all parameters to a .caffemodel."""
        parameters.save(path, self.param, self._parts.layers)

    @takes(path=PATH)
    def save_hdf5(self, path: str | os.PathLike, write_diff: bool = False) -> None:
        """Write all parameters, with `write_diff` their diffs too, to an HDF5 file."""
        parameters.save_hdf5(path, self._parts.layers, write_diff)


def _told_phase(given: object) -> str:
    """Return what was given as the phase, or in its place."""
    if given is None:
        return "left out"
    if not isinstance(given, PATH):
        return kind_of(given)
    name = os.fspath(given)
    if name in ("TRAIN", "TEST"):
        return f"the text {name!r}"
    return f"left out after the weights {name!r}"
