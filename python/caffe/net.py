"""A Net: layers set up from a prototxt, run forward and backward, with parameters to share and save."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
import torch

from caffe import prototxt, weights_io
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.graph import filter_net, insert_splits
from caffe.layers import BlobVec, Layer, create
from caffe.proto import caffe_pb2

TRAIN = caffe_pb2.TRAIN
TEST = caffe_pb2.TEST


class Net:
    """A network, as pycaffe shows it.

    Parameters
    ----------
    network_file : path or caffe_pb2.NetParameter
        The prototxt.
    phase_or_weights, legacy_phase
        `Net(file, phase)` or, as in old scripts, `Net(file, weights, phase)`.
    level : int
        Level of the NetState.
    stages : sequence of str, optional
        Stages of the NetState.
    weights : path, optional
        A .caffemodel or HDF5 file whose parameters are copied by layer name.

    Attributes
    ----------
    blobs, params, layer_dict, blob_loss_weights, top_names, bottom_names : collections.OrderedDict
        By name, in the order of the net.
    layers : list of Layer
    inputs, outputs : list of str
        Blobs of Input layers; blobs that nobody reads.

    Raises
    ------
    CaffeError
        If the net cannot be made; names the file and line, or the layer and the shapes.
    """

    def __init__(
        self,
        network_file: str | os.PathLike | caffe_pb2.NetParameter,
        phase_or_weights: int | str | os.PathLike | None = None,
        legacy_phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | os.PathLike | None = None,
        phase: int | None = None,
    ) -> None:
        if legacy_phase is not None:
            weights, phase = phase_or_weights, legacy_phase
        elif phase is None:
            phase = phase_or_weights
        if phase not in (TRAIN, TEST):
            raise CaffeError(f"the phase must be caffe.TRAIN or caffe.TEST, not {phase!r}")
        if isinstance(network_file, caffe_pb2.NetParameter):
            param, self.source = network_file, network_file.name or "<net>"
        else:
            self.source = os.fspath(network_file)
            param = prototxt.read_net(network_file)
        state_given = caffe_pb2.NetParameter()
        state_given.CopyFrom(param)
        state_given.state.phase = phase
        state_given.state.level = level
        if stages:
            del state_given.state.stage[:]
            state_given.state.stage.extend(stages)
        self._build(insert_splits(filter_net(state_given)))
        if weights is not None:
            self.copy_from(weights)

    # -- making the net ------------------------------------------------------------------------

    def _build(self, param: caffe_pb2.NetParameter) -> None:
        self.param = param
        self.name = param.name
        self.phase = param.state.phase
        self.layers: list[Layer] = []
        self.blobs: OrderedDict[str, Blob] = OrderedDict()
        self.top_names: OrderedDict[str, list[str]] = OrderedDict()
        self.bottom_names: OrderedDict[str, list[str]] = OrderedDict()
        self.blob_loss_weights: OrderedDict[str, float] = OrderedDict()
        self.inputs: list[str] = []
        self.learnable: list[Blob] = []
        self.lr_mults: list[float] = []
        self.decay_mults: list[float] = []
        self._bottoms: list[list[Blob]] = []
        self._tops: list[list[Blob]] = []
        self._need_backward: list[bool] = []
        self._bottom_need_backward: list[list[bool]] = []
        self._seen_shapes: list[tuple | None] = []
        self._param_owner: dict[str, tuple[int, int]] = {}
        self._callbacks: dict[str, list] = {
            kind: [] for kind in ("before_forward", "after_forward", "before_backward", "after_backward")
        }
        # Set by training programs that never look: intermediate diffs are then made on demand only.
        self.retain_diffs = True
        unread: OrderedDict[str, None] = OrderedDict()
        needs: dict[str, bool] = {}
        for layer_param in param.layer:
            self._append(layer_param, unread, needs)
        self._limit_backward(needs)
        self.outputs = list(unread)
        self.layer_dict = OrderedDict(zip(self._layer_names, self.layers))
        self._released: list[Blob] = []
        # Whether a solver's update has changed the parameters since the last pass.
        self._updated = False

    def _append(
        self, param: caffe_pb2.LayerParameter, unread: OrderedDict, needs: dict[str, bool]
    ) -> None:
        if not param.HasField("phase"):
            param.phase = self.phase
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise CaffeError(
                f"layer '{param.name}': propagate_down needs one value per bottom "
                f"({len(param.bottom)}), has {len(param.propagate_down)}"
            )
        layer = create(param)
        bottom = [self.blobs[name] for name in param.bottom]
        bottom_needs = [needs[name] for name in param.bottom]
        if param.propagate_down:
            bottom_needs = list(param.propagate_down)
        layer_needs = any(needs[name] for name in param.bottom)
        for name in param.bottom:
            unread.pop(name, None)
        top = []
        for place, name in enumerate(param.top):
            if place < len(param.bottom) and name == param.bottom[place]:
                top.append(bottom[place])
                bottom[place].changed_in_place = True
            elif name in self.blobs:
                raise CaffeError(
                    f"layer '{param.name}': top '{name}' is already made by an earlier layer; only "
                    "a layer that works in place may give its bottom's name to its top"
                )
            else:
                blob = Blob()
                self.blobs[name] = blob
                top.append(blob)
            unread[name] = None
        names = list(param.top)
        if layer.auto_tops:
            while len(top) < layer.top_range[0]:
                blob = Blob()
                names.append("(automatic)")
                self.blobs[names[-1]] = blob
                unread[names[-1]] = None
                top.append(blob)
        if param.type == "Input":
            self.inputs.extend(param.top)
        self.top_names[param.name] = names
        self.bottom_names[param.name] = list(param.bottom)
        layer.check_blob_counts(len(bottom), len(top))
        self._adopt_blobs(layer, param)
        self._checked(layer, layer.setup, bottom, top)
        self._checked(layer, layer.reshape, bottom, top)
        self._set_loss_weights(layer, param, names, top)
        self._add_params(layer, param)
        learns = [self._param_lr(param, place) != 0 for place in range(len(layer.blobs))]
        layer.param_propagate_down = learns
        layer_needs = layer_needs or any(learns)
        for name in names:
            needs[name] = layer_needs
        self.layers.append(layer)
        self._bottoms.append(bottom)
        self._tops.append(top)
        self._need_backward.append(layer_needs)
        self._bottom_need_backward.append(bottom_needs)
        self._seen_shapes.append(tuple(blob.shape for blob in bottom))

    def _adopt_blobs(self, layer: Layer, param: caffe_pb2.LayerParameter) -> None:
        # A prototxt may carry values of its parameters (a caffemodel used as a prototxt).
        for proto in param.blobs:
            values = weights_io.blob_to_array(proto)
            blob = layer.blobs.add_blob(*values.shape)
            blob.data_side.set(torch.from_numpy(values))

    @staticmethod
    def _checked(layer: Layer, step, *blobs) -> None:
        try:
            step(*blobs)
        except RuntimeError as error:
            if isinstance(error, CaffeError):
                raise
            shapes = ", ".join(str(blob.shape) for blob in blobs[0])
            raise layer.fail(f"{error} (bottoms: {shapes or 'none'})") from error

    def _set_loss_weights(
        self, layer: Layer, param: caffe_pb2.LayerParameter, names: list[str], top: list[Blob]
    ) -> None:
        given = list(param.loss_weight)
        if given and len(given) != len(top):
            raise layer.fail(f"needs one loss_weight per top ({len(top)}), has {len(given)}")
        if not given and layer.auto_tops:
            given = [1.0] + [0.0] * (len(top) - 1)
        layer.loss_weights = given or [0.0] * len(top)
        for name, blob, weight in zip(names, top, layer.loss_weights):
            self.blob_loss_weights[name] = weight
            if weight:
                blob.diff_side.set(torch.full(blob.shape, weight))

    def _param_lr(self, param: caffe_pb2.LayerParameter, place: int) -> float:
        return param.param[place].lr_mult if place < len(param.param) else 1.0

    def _add_params(self, layer: Layer, param: caffe_pb2.LayerParameter) -> None:
        if len(param.param) > len(layer.blobs):
            raise layer.fail(f"has {len(layer.blobs)} parameter blob(s), {len(param.param)} param given")
        for place, blob in enumerate(layer.blobs):
            spec = param.param[place] if place < len(param.param) else caffe_pb2.ParamSpec()
            owner = self._param_owner.get(spec.name) if spec.name else None
            if owner is None:
                if spec.name:
                    self._param_owner[spec.name] = (len(self.layers), place)
                self.learnable.append(blob)
                self.lr_mults.append(spec.lr_mult)
                self.decay_mults.append(spec.decay_mult)
                continue
            first = self.layers[owner[0]]
            shared = first.blobs[owner[1]]
            permissive = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
            if shared.count != blob.count or (not permissive and shared.shape != blob.shape):
                raise layer.fail(
                    f"shares parameter '{spec.name}' with layer '{first.name}', whose shape is "
                    f"{shared.shape}, not {blob.shape}"
                )
            if shared.shape == blob.shape:
                layer.blobs[place] = shared
            else:
                raise layer.fail(f"parameter '{spec.name}' can be shared in one shape only")

    def _limit_backward(self, needs: dict[str, bool]) -> None:
        """Run backward only where a loss lies above and something to learn below."""
        under_loss: set[str] = set()
        skipped: set[str] = set()
        for index in reversed(range(len(self.layers))):
            name = self._layer_names[index]
            tops, bottoms = self.top_names[name], self.bottom_names[name]
            layer = self.layers[index]
            contributes = any(
                top in under_loss or weight
                for top, weight in zip_longest(tops, layer.loss_weights, fillvalue=0.0)
            )
            skip = all(top in skipped and not weight for top, weight in zip(tops, layer.loss_weights))
            if self._need_backward[index] and skip and tops:
                self._need_backward[index] = False
                self._bottom_need_backward[index] = [False] * len(bottoms)
            if not contributes:
                self._need_backward[index] = False
            for place, bottom in enumerate(bottoms):
                if contributes:
                    under_loss.add(bottom)
                else:
                    self._bottom_need_backward[index][place] = False
                if not self._bottom_need_backward[index][place]:
                    skipped.add(bottom)
        if self.param.force_backward:
            for index, layer in enumerate(self.layers):
                self._need_backward[index] = True
                self._bottom_need_backward[index] = [
                    need or layer.allows_force_backward(place)
                    for place, need in enumerate(self._bottom_need_backward[index])
                ]
                layer.param_propagate_down = [True] * len(layer.blobs)

    # -- running it ----------------------------------------------------------------------------

    @property
    def _layer_names(self) -> list[str]:
        return list(self.top_names)

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self.blobs.values())

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.outputs]

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    def _top_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(n) for n in self.top_names[self._layer_names[index]]]

    def _bottom_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(n) for n in self.bottom_names[self._layer_names[index]]]

    @property
    def params(self) -> OrderedDict[str, BlobVec]:
        """The parameter blobs of every layer that has any, by layer name."""
        return OrderedDict(
            (name, layer.blobs) for name, layer in self.layer_dict.items() if layer.blobs
        )

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

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs' shapes."""
        for index in range(len(self.layers)):
            self._reshape_layer(index, always=True)

    def _reshape_layer(self, index: int, always: bool = False) -> None:
        layer, bottom = self.layers[index], self._bottoms[index]
        shapes = tuple(blob.data_side.shape for blob in bottom)
        if always or layer.always_reshape or shapes != self._seen_shapes[index]:
            self._checked(layer, layer.reshape, bottom, self._tops[index])
            self._seen_shapes[index] = shapes

    @torch.no_grad()
    def _forward(self, start: int, end: int) -> float:
        loss = 0.0
        self._forget_released()
        for index in range(start, end + 1):
            self._call("before_forward", index)
            layer, bottom, top = self.layers[index], self._bottoms[index], self._tops[index]
            self._reshape_layer(index)
            if layer.type not in ("Input", "DummyData"):
                for blob in top:
                    if blob not in bottom:
                        blob.data_side.discard()
            layer.forward(bottom, top)
            for blob, weight in zip(top, layer.loss_weights):
                if weight:
                    loss += float((blob.data_side.tensor() * blob.diff_side.tensor()).sum())
            self._call("after_forward", index)
        return loss

    @torch.no_grad()
    def _backward(self, start: int, end: int, release: bool = False) -> None:
        self._forget_released()
        for index in range(start, end - 1, -1):
            if not self._need_backward[index]:
                continue
            self._call("before_backward", index)
            layer = self.layers[index]
            layer.releases_diffs = release
            layer.backward(
                self._tops[index], self._bottom_need_backward[index], self._bottoms[index]
            )
            if release:
                self._release_diffs(index)
            self._call("after_backward", index)

    def _forget_released(self) -> None:
        # A new pass begins: what the last one released cannot be made again.
        for blob in self._released:
            blob.diff_side.clear()
        self._released = []

    def _release_diffs(self, index: int) -> None:
        # What a layer has used of its tops' diffs nobody needs again, but somebody may look: a look
        # runs the pass again (see _recompute_diff).
        for blob, weight in zip(self._tops[index], self.layers[index].loss_weights):
            in_place = any(blob is other for other in self._bottoms[index])
            if not weight and not in_place and not blob.diff_side.is_held():
                blob.diff_side.defer(lambda side=blob.diff_side: self._recompute_diff(side))
                self._released.append(blob)

    @torch.no_grad()
    def _recompute_diff(self, wanted) -> torch.Tensor | None:
        """Run backward again, keeping all diffs; parameters and their diffs come out unchanged.

        After a solver's update a parameter's diff is what was taken from its data, so that data + diff
        are the values of the pass.
        """
        kept = [(blob, blob.diff_side.tensor().clone()) for blob in self.learnable]
        values = [(blob, blob.data_side.tensor().clone()) for blob in self.learnable]
        if self._updated:
            for blob, diff in kept:
                blob.data_side.tensor().add_(diff)
        try:
            self._backward(len(self.layers) - 1, 0)
        finally:
            for (blob, diff), (_, data) in zip(kept, values):
                blob.diff_side.set(diff)
                blob.data_side.tensor().copy_(data)
        self.retain_diffs = True
        return wanted.tensor()

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
        self._forward(first, last)
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
            raise CaffeError(f"the net has no layer '{layer}'") from None

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise CaffeError(f"the net has no blob '{name}'")
        return self.blobs[name]

    def _fill(
        self, values: Mapping[str, np.ndarray], names: Sequence[str], kind: str, diff: bool
    ) -> None:
        if set(values) != set(names):
            raise CaffeError(
                f"values for {sorted(values)} do not match the net's {kind} blobs {sorted(names)}"
            )
        for name, value in values.items():
            blob = self.blobs[name]
            if len(value) != blob.shape[0]:
                raise CaffeError(
                    f"{kind} '{name}' holds {blob.shape[0]} items, {len(value)} were given"
                )
            (blob.diff if diff else blob.data)[...] = value

    @property
    def _batch(self):
        return self._batches

    def _batches(self, arrays: Mapping[str, Sequence[np.ndarray]]):
        """Cut arrays into batches of the net's size, the last one filled up with zeros."""
        total = len(next(iter(arrays.values())))
        size = next(iter(self.blobs.values())).shape[0]
        for first in range(0, total, size):
            batch = {}
            for name, values in arrays.items():
                part = np.asarray(values[first : first + size])
                missing = size - len(part)
                if missing:
                    part = np.concatenate([part, np.zeros((missing, *part.shape[1:]))])
                batch[name] = part
            yield batch

    def forward_all(
        self, blobs: Sequence[str] | None = None, **kwargs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run forward over any number of items, in batches; return the stacked outputs."""
        collected: dict[str, list[np.ndarray]] = {
            name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])
        }
        for batch in self._batches(kwargs):
            for name, values in self.forward(blobs=blobs, **batch).items():
                collected[name].extend(np.atleast_1d(values).copy())
        total = len(next(iter(kwargs.values())))
        return {name: np.asarray(values[:total]) for name, values in collected.items()}

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **kwargs: np.ndarray,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Run forward and backward over any number of items; `kwargs` hold inputs and output diffs."""
        blobs, diffs = list(blobs or []), list(diffs or [])
        all_outputs = {name: [] for name in dict.fromkeys([*self.outputs, *blobs])}
        all_diffs = {name: [] for name in dict.fromkeys([*self.inputs, *diffs])}
        for batch in self._batches(kwargs):
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
        raise CaffeError("the net has no MemoryData layer")

    # -- parameters ----------------------------------------------------------------------------

    def clear_param_diffs(self) -> None:
        """Set the diffs of all parameters to zero."""
        for blob in self.learnable:
            blob.diff_side.clear()
        self._updated = False

    def share_with(self, other: Net) -> None:
        """Use the parameters of `other` wherever a layer of the same name has them."""
        for name, blobs in other.params.items():
            if name not in self.layer_dict:
                continue
            own = self.layer_dict[name].blobs
            if len(own) != len(blobs):
                raise CaffeError(f"layer '{name}': {len(own)} parameter blobs here, {len(blobs)} there")
            for place, (mine, theirs) in enumerate(zip(own, blobs)):
                if mine.shape != theirs.shape:
                    raise CaffeError(
                        f"layer '{name}', parameter {place}: shape {mine.shape} here, "
                        f"{theirs.shape} there"
                    )
                mine.share_data(theirs)

    def copy_from(self, path: str | os.PathLike) -> None:
        """Copy parameters by layer name from a .caffemodel or HDF5 file.

        Layers that the file lacks keep their values; layers that the net lacks are passed over.

        Raises
        ------
        CaffeError
            If the file cannot be read, or a shape differs: the message names layer and both shapes.
        """
        path = os.fspath(path)
        for name, arrays in weights_io.read_weights(path).items():
            if name not in self.layer_dict:
                continue
            blobs = self.layer_dict[name].blobs
            if len(blobs) != len(arrays):
                raise CaffeError(
                    f"{path}: layer '{name}' has {len(arrays)} parameter blob(s), "
                    f"the net's has {len(blobs)}"
                )
            for place, (blob, array) in enumerate(zip(blobs, arrays)):
                if not _same_shape(blob.shape, array.shape):
                    raise CaffeError(
                        f"{path}: layer '{name}', parameter {place}: the file's shape is "
                        f"{array.shape}, the net's is {blob.shape}"
                    )
            for blob, array in zip(blobs, arrays):
                target = blob.data_side.tensor()
                target.copy_(torch.from_numpy(array).view(blob.shape))

    def load_hdf5(self, path: str | os.PathLike) -> None:
        """Copy parameters from an HDF5 file; as `copy_from`."""
        self.copy_from(path)

    def save(self, path: str | os.PathLike) -> None:
        """Write all parameters to a .caffemodel."""
        weights_io.write_caffemodel(path, self.param, self._arrays("data"))

    def save_hdf5(self, path: str | os.PathLike, write_diff: bool = False) -> None:
        """Write all parameters, with `write_diff` their diffs too, to an HDF5 file."""
        diffs = self._arrays("diff") if write_diff else None
        weights_io.write_weights_hdf5(path, self._arrays("data"), diffs)

    def _arrays(self, side: str) -> dict[str, list[np.ndarray]]:
        return {
            name: [getattr(blob, f"{side}_side").tensor().cpu().contiguous().numpy() for blob in blobs]
            for name, blobs in self.params.items()
        }


def _same_shape(ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    # Old files pad every shape with ones in front to four axes.
    if ours == theirs:
        return True
    return len(theirs) == 4 and (1,) * (4 - len(ours)) + tuple(ours) == tuple(theirs)
