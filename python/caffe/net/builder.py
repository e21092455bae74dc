"""NetBuilder: from a NetParameter to layers that are set up, wired, and know which run backward.

The lines of the log are genuine Caffe's (net.cpp, layer_factory.hpp) in its order. Not written: the
nets that its recurrent layers build inside themselves, and what its data layers say beside the list
and number of HDF5 files.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from functools import partial
from itertools import zip_longest

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.files import caffemodel
from caffe.layers import Layer, create
from caffe.log import Log, number
from caffe.net.node import NetParts, Node, note_layer, run_step
from caffe.proto import caffe_pb2

_log = Log("net.cpp")
_factory_log = Log("layer_factory.hpp")

_FLOAT_BYTES = 4


def _weights(blob: Blob, weight: float, count: int) -> torch.Tensor | None:
    """Return the diff of a top with a loss weight, which once had so many elements.

    As in genuine Caffe, one that grows loses its weight.
    """
    return torch.full(blob.shape, weight) if blob.count <= count else None


def _has_inner_layer(param: caffe_pb2.LayerParameter) -> bool:
    # Genuine Caffe's have a Softmax or Bias layer of their own, of the same name.
    if param.type == "Scale":
        return param.scale_param.bias_term
    return param.type in ("SoftmaxWithLoss", "InfogainLoss")


class NetBuilder:
    """Makes the layers, blobs and parameters of a net from its description, `source` in errors.

    The description is filtered by state and has splits inserted.
    """

    def __init__(self, param: caffe_pb2.NetParameter, source: str) -> None:
        self._param = param
        self._parts = NetParts(source)
        self._owners: dict[str, tuple[Layer, int]] = {}
        # Numbers in `learnable` and the names of the multipliers that a layer has given there.
        self._mults_given: set[tuple[int, str]] = set()
        self._unread: OrderedDict[str, None] = OrderedDict()
        self._needs: dict[str, bool] = {}
        # Elements of all tops so far.
        self._count = 0

    def build(self) -> NetParts:
        """Return the net's parts.

        Raises
        ------
        CaffeError
            Names the layer, and the shapes if they are what does not fit.
        """
        parts = self._parts
        for layer_param in self._param.layer:
            try:
                self._append(layer_param)
            except CaffeError as error:
                error.layer = layer_param.name
                raise
        parts.outputs = sorted(self._unread)
        self._find_rectified()
        self._find_spent()
        self._limit_backward()
        for node in reversed(parts.nodes):
            needs = "needs" if node.needs_backward else "does not need"
            _log.info(f"{node.name} {needs} backward computation.")
        for name in parts.outputs:
            _log.info(f"This network produces output {name}")
        _log.info("Network initialization done.")
        if self._param.force_backward:
            self._force_backward()
        return parts

    def _append(self, param: caffe_pb2.LayerParameter) -> None:
        if not param.HasField("phase"):
            param.phase = self._param.state.phase
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise CaffeError(
                f"layer '{param.name}': propagate_down needs one value per bottom "
                f"({len(param.bottom)}), has {len(param.propagate_down)}"
            )
        # Before setup: BatchNorm then gives its statistics the lr_mult 0, yet runs backward.
        learns = [spec.lr_mult != 0 for spec in param.param]
        _factory_log.info(f"Creating layer {param.name}")
        try:
            layer = create(param)
        except Exception as error:
            note_layer(error, param.name, param.type, "__init__")
            raise
        layer._source, layer.blobs_of_net = self._parts.source, self._parts.blobs
        bottoms = [self._parts.blobs[name] for name in param.bottom]
        for name in param.bottom:
            self._unread.pop(name, None)
        top_names, tops = self._make_tops(layer, param, bottoms)
        _log.info(f"Creating Layer {param.name}")
        for name in param.bottom:
            _log.info(f"{param.name} <- {name}")
        for name, blob in zip(top_names, tops):
            _log.info(f"{param.name} -> {name}{' (in-place)' if blob in bottoms else ''}")
        if _has_inner_layer(param):
            _factory_log.info(f"Creating layer {param.name}")
        layer.check_blob_counts(len(bottoms), len(tops))
        for proto in param.blobs:
            # A prototxt may carry the values of its parameters.
            values = caffemodel.blob_to_array(proto)
            layer.blobs.add_blob(*values.shape).set_data(torch.from_numpy(values))
        shapes = [blob.shape for blob in bottoms]
        run_step(layer, "setup", bottoms, tops)
        run_step(layer, "reshape", bottoms, tops)
        for blob, shape in zip(bottoms, shapes):
            if blob.count != math.prod(shape) and layer.type != "Python":
                # Genuine Caffe computes the new values where the old ones are still read.
                raise layer.fail(
                    f"cannot work in place: it makes {blob.shape} of {shape}; give the top another "
                    "name"
                )
        if layer.of_four_axes and len(bottoms[0].shape) > 4:
            layer.beyond_bvlc(f"works on a blob of {len(bottoms[0].shape)} axes")
        loss_weights = self._set_loss_weights(layer, param, top_names, tops)
        self._log_tops(param.name, tops, loss_weights)
        self._add_params(layer, param)
        learns += [True] * (len(layer.blobs) - len(learns))
        layer.param_propagate_down = learns
        # A blob that needs a gradient makes its reader run backward, whatever propagate_down says.
        needs = any(self._needs[name] for name in param.bottom) or any(layer.param_propagate_down)
        for name in top_names:
            self._needs[name] = needs
        node = Node(
            param.name, layer, bottoms, tops, list(param.bottom), top_names, loss_weights, needs
        )
        node.bottom_needs = list(param.propagate_down) or [
            self._needs[name] for name in param.bottom
        ]
        node.seen_shapes = tuple(blob.shape for blob in bottoms)
        self._parts.nodes.append(node)

    def _log_tops(self, name: str, tops: list[Blob], loss_weights: list[float]) -> None:
        _log.info(f"Setting up {name}")
        for blob, weight in zip(tops, loss_weights):
            shape = "".join(f"{size} " for size in blob.shape)
            _log.info(f"Top shape: {shape}({blob.count})")
            if weight:
                _log.info(f"    with loss weight {number(weight)}")
            self._count += blob.count
        _log.info(f"Memory required for data: {_FLOAT_BYTES * self._count}")

    def _make_tops(
        self, layer: Layer, param: caffe_pb2.LayerParameter, bottoms: list[Blob]
    ) -> tuple[list[str], list[Blob]]:
        names, tops = list(param.top), []
        for index, name in enumerate(param.top):
            if index < len(param.bottom) and name == param.bottom[index]:
                tops.append(bottoms[index])
                bottoms[index].data_memory.source.changes_in_place += 1
                self._unread[name] = None
            elif name in self._parts.blobs:
                raise layer.fail(f"top '{name}' is already made by {self._made_by(name, param)}")
            else:
                tops.append(self._new_blob(name))
        while layer.auto_tops and len(tops) < layer.top_range[0]:
            names.append("(automatic)")
            tops.append(self._new_blob(names[-1]))
            # It is no output of the net.
            del self._unread[names[-1]]
        if param.type == "Input":
            self._parts.inputs.extend(param.top)
        return names, tops

    def _made_by(self, name: str, param: caffe_pb2.LayerParameter) -> str:
        """Return the layer that makes a blob, and what to do if another one does so too."""
        maker = next((node for node in self._parts.nodes if name in node.top_names), None)
        if maker is None:
            return "the layer itself: its tops need a name each"
        told = f"layer '{maker.name}' ({maker.layer.type})"
        if not maker.bottoms and not param.bottom:
            return (
                f"{told}: where one is for training and the other for testing, give them include "
                "{ phase: TRAIN } and include { phase: TEST }"
            )
        return f"{told}: only a layer that works in place gives its bottom's name to its top"

    def _new_blob(self, name: str) -> Blob:
        blob = self._parts.blobs[name] = Blob()
        self._unread[name] = None
        return blob

    def _set_loss_weights(
        self, layer: Layer, param: caffe_pb2.LayerParameter, names: list[str], tops: list[Blob]
    ) -> list[float]:
        given = list(param.loss_weight)
        if given and len(given) != len(tops):
            raise layer.fail(f"needs one loss_weight per top ({len(tops)}), has {len(given)}")
        if not given and layer.auto_tops:
            given = [1.0] + [0.0] * (len(tops) - 1)
            # So it stands in the caffemodels that are saved.
            param.loss_weight.extend(given)
        weights = given or [0.0] * len(tops)
        for name, blob, weight in zip(names, tops, weights):
            self._parts.loss_weights[name] = weight
            if weight:
                # Made when a pass begins: a net may be described that no memory holds.
                blob.diff_memory.set_lazy(partial(_weights, blob, weight, blob.count))
        return weights

    def _add_params(self, layer: Layer, param: caffe_pb2.LayerParameter) -> None:
        if len(param.param) > len(layer.blobs):
            raise layer.fail(
                f"has {len(layer.blobs)} parameter blob(s), {len(param.param)} param given"
            )
        for index, blob in enumerate(layer.blobs):
            spec = param.param[index] if index < len(param.param) else caffe_pb2.ParamSpec()
            if spec.name and spec.name in self._owners:
                self._share(layer, index, spec)
                continue
            if spec.name:
                self._owners[spec.name] = (layer, index)
            self._mults_given.update(
                (len(self._parts.learnable), name)
                for name in ("lr_mult", "decay_mult")
                if spec.HasField(name)
            )
            self._parts.learnable.append(blob)
            self._parts.lr_mults.append(spec.lr_mult)
            self._parts.decay_mults.append(spec.decay_mult)

    def _share(self, layer: Layer, index: int, spec: caffe_pb2.ParamSpec) -> None:
        owner, owned = self._owners[spec.name]
        _log.info(
            f"Sharing parameters '{spec.name}' owned by layer '{owner.name}', param index {owned}"
        )
        theirs, mine = owner.blobs[owned], layer.blobs[index]
        permissive = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
        same = theirs.count == mine.count if permissive else theirs.shape == mine.shape
        if not same:
            hint = "" if permissive else "; share_mode: PERMISSIVE asks for the same count only"
            raise layer.fail(
                f"shares parameter '{spec.name}' with layer '{owner.name}', whose shape is "
                f"{theirs.shape}, not {mine.shape}{hint}"
            )
        if theirs.shape == mine.shape:
            layer.blobs[index] = theirs
        else:
            mine.view_as(theirs, mine.shape)
        self._share_mults(layer, theirs, spec)

    def _share_mults(self, layer: Layer, blob: Blob, spec: caffe_pb2.ParamSpec) -> None:
        # Whichever layer gives a multiplier first gives it for all.
        index = next(i for i, learnable in enumerate(self._parts.learnable) if learnable is blob)
        for name, values in (
            ("lr_mult", self._parts.lr_mults),
            ("decay_mult", self._parts.decay_mults),
        ):
            if not spec.HasField(name):
                continue
            given = getattr(spec, name)
            if (index, name) in self._mults_given and values[index] != given:
                raise layer.fail(
                    f"gives the shared parameter '{spec.name}' {name} {given:g}, another layer "
                    f"gave it {values[index]:g}: they must be the same"
                )
            self._mults_given.add((index, name))
            values[index] = given

    def _find_rectified(self) -> None:
        for node, following in itertools.pairwise(self._parts.nodes):
            node.rectifies = (
                hasattr(node.layer, "forward_rectified")
                and following.layer.type == "ReLU"
                and not following.layer.layer_param.relu_param.negative_slope
                and following.top_names == following.bottom_names == node.top_names
            )

    def _find_spent(self) -> None:
        # Blob -> the one whose data it shares.
        source = {name: name for name in self._parts.blobs}
        for node in self._parts.nodes:
            if node.layer.shares_tops:
                source.update(dict.fromkeys(node.top_names, source[node.bottom_names[0]]))
        kept = {source[name] for name in self._parts.outputs}
        for node in self._parts.nodes:
            # What a user fills is the user's.
            if node.layer.keeps_tops:
                kept.update(node.top_names)
        seen = set(kept)
        for node in reversed(self._parts.nodes):
            for blob in (*node.bottom_names, *node.top_names):
                name = source[blob]
                if name not in seen:
                    seen.add(name)
                    node.spent.append(name)
        seen = set(kept)
        for node in self._parts.nodes:
            for blob in node.top_names:
                name = source[blob]
                # What the net was fed with is small, and looked at.
                if name not in seen and node.bottoms:
                    node.spent_backward.append(name)
                seen.add(name)

    def _limit_backward(self) -> None:
        """Run backward only where a loss lies above and something that learns below."""
        under_loss: set[str] = set()
        skipped: set[str] = set()
        for node in reversed(self._parts.nodes):
            weights = node.loss_weights
            contributes = any(
                name in under_loss or weight
                for name, weight in zip_longest(node.top_names, weights, fillvalue=0.0)
            )
            unwanted = bool(node.tops) and all(
                name in skipped and not weight for name, weight in zip(node.top_names, weights)
            )
            if unwanted:
                node.bottom_needs = [False] * len(node.bottoms)
            if unwanted or not contributes:
                node.needs_backward = False
            for index, name in enumerate(node.bottom_names):
                if contributes:
                    under_loss.add(name)
                else:
                    node.bottom_needs[index] = False
                if not node.bottom_needs[index]:
                    skipped.add(name)

    def _force_backward(self) -> None:
        for node in self._parts.nodes:
            node.needs_backward = True
            node.bottom_needs = [
                need or node.layer.allows_force_backward(index)
                for index, need in enumerate(node.bottom_needs)
            ]
            node.layer.param_propagate_down = [True] * len(node.layer.blobs)
