"""A Net: layers run forward and backward, with parameters to share and save."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch

from caffe import device, net_log, prototxt, weights_io
from caffe.assembly import Assembly, Place, checked
from caffe.blob import Blob, Side
from caffe.errors import CaffeError
from caffe.graph import filter_net, insert_splits
from caffe.layers import BlobVec
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
        if level or param is not network_file:
            state_given.state.level = level
        if stages:
            del state_given.state.stage[:]
            state_given.state.stage.extend(stages)
        try:
            filtered = filter_net(state_given)
            net_log.parameters(filtered)
            self._build(insert_splits(filtered))
        except CaffeError as error:
            if param is network_file:
                raise
            raise prototxt.located_in_file(error, network_file) from error
        if weights is not None:
            self.copy_from(weights)

    def _build(self, param: caffe_pb2.NetParameter) -> None:
        made = Assembly(param)
        device.tune_allocator(4 * sum(blob.count for blob in made.blobs.values()))
        self.param = param
        self.name = param.name
        self.phase = param.state.phase
        self._places = made.places
        self.layers = [place.layer for place in made.places]
        self.layer_dict = OrderedDict((place.name, place.layer) for place in made.places)
        self.top_names = OrderedDict((place.name, place.top_names) for place in made.places)
        self.bottom_names = OrderedDict((place.name, place.bottom_names) for place in made.places)
        self.blobs = made.blobs
        self.blob_loss_weights = made.loss_weights
        self.inputs, self.outputs = made.inputs, made.outputs
        self.learnable = made.learnable
        self.lr_mults, self.decay_mults = made.lr_mults, made.decay_mults
        # Layer -> places in `learnable` of the parameters that backward uses there for the last
        # time: layers that share one are gone through from the last to the first.
        self.last_used_by: dict[int, list[int]] = {}
        first_user: dict[int, int] = {}
        for index, place in reversed(list(enumerate(made.places))):
            for blob in place.layer.blobs:
                first_user[id(blob.data_side)] = index
        for number, blob in enumerate(made.learnable):
            self.last_used_by.setdefault(first_user[id(blob.data_side)], []).append(number)
        self._callbacks: dict[str, list[Callable[[int], None]]] = {
            "before_forward": [],
            "after_forward": [],
            "before_backward": [],
            "after_backward": [],
        }
        # Programs that never look at the diffs of intermediate blobs set this to False: these are
        # then given back as soon as they are used, and made again if somebody looks after all.
        self.retain_diffs = True
        # Programs that look at nothing but the outputs, and the blobs that they name to forward(),
        # and never run backward, set this to False: blobs are then given back as soon as no layer
        # needs them any more.
        self.retain_data = True
        # Whether each pass writes to the log what flows through the net.
        self.debug_info = param.debug_info
        self._released: list[Blob] = []
        # Whether a solver's update has changed the parameters since the last pass.
        self._updated = False

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
        for place in self._places:
            self._reshape_layer(place, always=True)

    @staticmethod
    def _reshape_layer(place: Place, always: bool = False) -> None:
        shapes = tuple(blob.data_side.shape for blob in place.bottoms)
        if always or place.layer.always_reshape or shapes != place.seen_shapes:
            checked(place.layer, place.layer.reshape, place.bottoms, place.tops)
            place.seen_shapes = shapes

    @torch.no_grad()
    def _forward(self, start: int, end: int, keep: Collection[str] = ()) -> float:
        loss = 0.0
        self._forget_released()
        # Whoever is called back after each layer sees each layer's own result.
        fuse = not (
            self.debug_info or self._callbacks["before_forward"] or self._callbacks["after_forward"]
        )
        rectified = False
        for index in range(start, end + 1):
            place = self._places[index]
            if rectified:
                rectified = False
                self._give_back(place, keep)
                continue
            self._call("before_forward", index)
            self._reshape_layer(place)
            if not (place.layer.keeps_tops or place.layer.shares_tops):
                for blob in place.tops:
                    if blob not in place.bottoms:
                        blob.data_side.discard()
            rectified = fuse and place.rectifies and index < end
            if rectified:
                place.layer.forward_rectified(place.bottoms, place.tops)
            else:
                place.layer.forward(place.bottoms, place.tops)
            for blob, weight in zip(place.tops, place.layer.loss_weights):
                if weight:
                    loss += float((blob.data_side.tensor() * blob.diff_side.tensor()).sum())
            if self.debug_info:
                net_log.forward(place)
            self._call("after_forward", index)
            self._give_back(place, keep)
        return loss

    def _give_back(self, place: Place, keep: Collection[str]) -> None:
        if self.retain_data:
            return
        for name in place.spent:
            side = self.blobs[name].data_side
            kept = any(self.blobs[n].data_side.source is side for n in keep if n in self.blobs)
            if not kept and not side.is_held():
                side.defer(lambda name=name: self._refuse_released(name))

    def _refuse_released(self, name: str) -> None:
        raise CaffeError(
            f"{self.source}: blob '{name}' was not kept: name it to forward(), or set the net's "
            "retain_data to True before the forward pass"
        )

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
                place.layer.releases_diffs = release
                place.layer.backward(place.tops, place.bottom_needs, place.bottoms)
                if self.debug_info:
                    net_log.backward(place)
                if release:
                    self._release_diffs(place)
                if after_layer is not None:
                    after_layer(index)
            self._call("after_backward", index)

    def _forget_released(self) -> None:
        # A new pass begins: what the last one released cannot be made again.
        for blob in self._released:
            blob.diff_side.clear()
        self._released = []

    def _release_diffs(self, place: Place) -> None:
        # What a layer has used of its tops' diffs no other layer needs.
        for blob, weight in zip(place.tops, place.layer.loss_weights):
            if blob in place.bottoms or blob.diff_side.source is not blob.diff_side:
                continue
            if not weight and not blob.diff_side.is_held():
                blob.diff_side.defer(lambda side=blob.diff_side: self._recompute_diff(side))
                self._released.append(blob)

    @torch.no_grad()
    def _recompute_diff(self, wanted: Side) -> torch.Tensor:
        """Run backward again, keeping all diffs; parameters and their diffs come out unchanged.

        After a solver's update a parameter's diff is what was taken from its data, so that
        data + diff are the values of the pass.
        """
        kept = [(blob, blob.diff_side.tensor().clone()) for blob in self.learnable]
        values = [(blob, blob.data_side.tensor().clone()) for blob in self.learnable]
        if self._updated:
            for blob, diff in kept:
                blob.data_side.tensor().add_(diff)
        # Whoever is called back has seen this pass already.
        callbacks, self._callbacks = self._callbacks, {kind: [] for kind in self._callbacks}
        debug_info, self.debug_info = self.debug_info, False
        try:
            self._backward(len(self.layers) - 1, 0)
        finally:
            self._callbacks, self.debug_info = callbacks, debug_info
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
        self._forward(first, last, wanted)
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
            if np.shape(value)[:1] != blob.shape[:1]:
                raise CaffeError(
                    f"{kind} '{name}' is of shape {blob.shape}, values of shape "
                    f"{np.shape(value)} were given: the numbers of items differ"
                )
            (blob.diff if diff else blob.data)[...] = value

    def _batch(self, arrays: Mapping[str, Sequence[np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
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
        for batch in self._batch(kwargs):
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
        raise CaffeError("the net has no MemoryData layer")

    # -- parameters ----------------------------------------------------------------------------

    def clear_param_diffs(self) -> None:
        """Set the diffs of all parameters to zero."""
        for blob in self.learnable:
            blob.diff_side.clear()
        self._updated = False

    def share_with(self, other: Net) -> None:
        """Use the parameters of `other` wherever a layer of the same name has them."""
        net_log.ignored(name for name in other.layer_dict if name not in self.layer_dict)
        for name, blobs in other.params.items():
            if name not in self.layer_dict:
                continue
            own = self.layer_dict[name].blobs
            if len(own) != len(blobs):
                raise CaffeError(
                    f"layer '{name}': {len(own)} parameter blobs here, {len(blobs)} there"
                )
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
        shared = self._shared()
        for name, arrays in weights_io.read_layers(path).items():
            if name not in self.layer_dict:
                net_log.ignored([name])
                continue
            if not arrays:
                continue
            blobs = self.layer_dict[name].blobs
            # HDF5 files leave out what another layer owns and this one shares.
            while len(arrays) < len(blobs) and (name, len(arrays)) in shared:
                arrays.append(None)
            if len(blobs) != len(arrays):
                raise CaffeError(
                    f"{path}: layer '{name}' has {len(arrays)} parameter blob(s), "
                    f"the net's has {len(blobs)}"
                )
            for place, array in enumerate(arrays):
                if array is None and (name, place) not in shared:
                    raise CaffeError(f"{path}: layer '{name}', parameter {place} is missing")
            given = [
                (place, blob, array)
                for place, (blob, array) in enumerate(zip(blobs, arrays))
                if array is not None
            ]
            for place, blob, array in given:
                if not _same_shape(blob.shape, array.shape):
                    raise CaffeError(
                        f"{path}: layer '{name}', parameter {place}: the file's shape is "
                        f"{array.shape}, the net's is {blob.shape}"
                    )
            for _, blob, array in given:
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
        diffs = self._owned_arrays("diff") if write_diff else None
        weights_io.write_weights_hdf5(path, self._owned_arrays("data"), diffs)

    def _owned_arrays(self, side: str) -> dict[str, list[np.ndarray | None]]:
        # As genuine Caffe's HDF5 has them: every layer, a shared parameter at its first one.
        arrays: dict[str, list[np.ndarray | None]] = {name: [] for name in self.layer_dict}
        arrays.update(self._arrays(side))
        for name, index in self._shared():
            arrays[name][index] = None
        return arrays

    def _shared(self) -> set[tuple[str, int]]:
        """Return the layers and places of the parameters that an earlier layer owns."""
        shared: set[tuple[str, int]] = set()
        seen: set[Side] = set()
        for name, blobs in self.params.items():
            for index, blob in enumerate(blobs):
                side = blob.data_side.source
                if side in seen:
                    shared.add((name, index))
                seen.add(side)
        return shared

    def _arrays(self, side: str) -> dict[str, list[np.ndarray]]:
        return {
            name: [
                getattr(blob, f"{side}_side").tensor().cpu().contiguous().numpy() for blob in blobs
            ]
            for name, blobs in self.params.items()
        }


def _same_shape(ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    # Old files pad every shape with ones in front to four axes.
    if ours == theirs:
        return True
    return len(theirs) == 4 and (1,) * (4 - len(ours)) + tuple(ours) == tuple(theirs)
