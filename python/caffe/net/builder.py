"""From a NetParameter to layers that are set up, wired and know where gradients must flow."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError, memory_is_full
from caffe.files import caffemodel
from caffe.layers import Layer, create
from caffe.net import net_log
from caffe.proto import caffe_pb2


@dataclass
class Place:
    """A layer at its place in a net."""

    name: str
    layer: Layer
    bottoms: list[Blob]
    tops: list[Blob]
    bottom_names: list[str]
    top_names: list[str]
    # Of each top, in the loss.
    loss_weights: list[float]
    # Whether backward runs here at all, and into which bottoms.
    needs_backward: bool = False
    bottom_needs: list[bool] = field(default_factory=list)
    # The bottoms' shapes that the layer was last shaped for.
    seen_shapes: tuple[tuple[int, ...], ...] = ()
    # Whether the next layer is a ReLU in place that this one can run together with itself.
    rectifies: bool = False
    # Names of the blobs that nobody reads after this layer, forward and backward.
    spent: list[str] = field(default_factory=list)
    spent_backward: list[str] = field(default_factory=list)


def _weights(blob: Blob, weight: float, count: int) -> torch.Tensor | None:
    """Return the diff of a top with a loss weight, which once had so many elements.

    As in genuine Caffe, one that grows loses its weight.
    """
    return torch.full(blob.shape, weight) if blob.count <= count else None


def checked(layer: Layer, step: str, *blobs: object) -> None:
    """Run a method of a layer; what PyTorch then complains of names the layer.

    What a layer in Python raises stays what it is.

    Parameters
    ----------
    layer : Layer
    step : str
        The method's name.
    *blobs
        What it takes.

    Raises
    ------
    CaffeError
        Names the layer and the shapes of its bottoms.
    """
    try:
        getattr(layer, step)(*blobs)
    except CaffeError as error:
        # Blobs and fillers do not know whose they are.
        if error.layer is not None:
            raise
        raise layer.fail(str(error)) from error
    except Exception as error:
        full = isinstance(error, torch.cuda.OutOfMemoryError)
        told = isinstance(error, (RuntimeError, IndexError, ArithmeticError))
        if not full and (layer.type == "Python" or not told):
            net_log.note_layer(error, layer.name, layer.type, step)
            raise
        bottoms = blobs[2] if step == "backward" else blobs[0]
        shapes = ", ".join(str(blob.shape) for blob in bottoms)
        reason = memory_is_full(error) if full else str(error)
        raise layer.fail(f"{reason} (bottoms: {shapes or 'none'})") from error


class Assembly:
    """The layers, blobs and parameters of a net, made from its description.

    Parameters
    ----------
    param : caffe_pb2.NetParameter
        Filtered by state and with splits inserted.
    source : str
        Where it comes from, a file as a rule.

    Attributes
    ----------
    places : list of Place
    blobs : collections.OrderedDict
        Name -> Blob, in the order they are made.
    loss_weights : collections.OrderedDict
        Blob name -> its weight in the loss.
    inputs : list of str
    outputs : list of str
        Blobs that nobody reads, in the order of their names.
    learnable : list of Blob
        Parameter blobs, shared ones once.
    lr_mults, decay_mults : list of float
        Of each learnable blob.

    Raises
    ------
    CaffeError
        Names the layer, and the shapes if they are what does not fit.
    """

    def __init__(self, param: caffe_pb2.NetParameter, source: str) -> None:
        self._source = source
        self.phase = param.state.phase
        self.places: list[Place] = []
        self.blobs: OrderedDict[str, Blob] = OrderedDict()
        self.loss_weights: OrderedDict[str, float] = OrderedDict()
        self.inputs: list[str] = []
        self.learnable: list[Blob] = []
        self.lr_mults: list[float] = []
        self.decay_mults: list[float] = []
        self._owners: dict[str, tuple[Layer, int]] = {}
        # Places in `learnable` and the names of the multipliers that a layer has given there.
        self._mults_given: set[tuple[int, str]] = set()
        self._unread: OrderedDict[str, None] = OrderedDict()
        self._needs: dict[str, bool] = {}
        self._log = net_log.BuildingLog()
        for layer_param in param.layer:
            try:
                self._append(layer_param)
            except CaffeError as error:
                error.layer = layer_param.name
                raise
        self.outputs = sorted(self._unread)
        self._find_rectified()
        self._find_spent()
        self._limit_backward()
        self._log.done(self)
        if param.force_backward:
            self._force_backward()

    def _append(self, param: caffe_pb2.LayerParameter) -> None:
        if not param.HasField("phase"):
            param.phase = self.phase
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise CaffeError(
                f"layer '{param.name}': propagate_down needs one value per bottom "
                f"({len(param.bottom)}), has {len(param.propagate_down)}"
            )
        # Before setup: BatchNorm then gives its statistics the lr_mult 0, yet runs backward.
        learns = [spec.lr_mult != 0 for spec in param.param]
        self._log.creating(param.name)
        try:
            layer = create(param)
        except Exception as error:
            net_log.note_layer(error, param.name, param.type, "__init__")
            raise
        layer._source = self._source
        bottoms = [self.blobs[name] for name in param.bottom]
        for name in param.bottom:
            self._unread.pop(name, None)
        top_names, tops = self._make_tops(layer, param, bottoms)
        self._log.wired(param, top_names, [blob in bottoms for blob in tops])
        layer.check_blob_counts(len(bottoms), len(tops))
        for proto in param.blobs:
            # A prototxt may carry the values of its parameters.
            values = caffemodel.blob_to_array(proto)
            layer.blobs.add_blob(*values.shape).set_data(torch.from_numpy(values))
        shapes = [blob.shape for blob in bottoms]
        checked(layer, "setup", bottoms, tops)
        checked(layer, "reshape", bottoms, tops)
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
        self._log.set_up(param.name, tops, loss_weights)
        self._add_params(layer, param)
        learns += [True] * (len(layer.blobs) - len(learns))
        layer.param_propagate_down = learns
        # A blob that needs a gradient makes its reader run backward, whatever propagate_down says.
        needs = any(self._needs[name] for name in param.bottom) or any(layer.param_propagate_down)
        for name in top_names:
            self._needs[name] = needs
        place = Place(
            param.name, layer, bottoms, tops, list(param.bottom), top_names, loss_weights, needs
        )
        place.bottom_needs = list(param.propagate_down) or [
            self._needs[name] for name in param.bottom
        ]
        place.seen_shapes = tuple(blob.shape for blob in bottoms)
        self.places.append(place)

    def _make_tops(
        self, layer: Layer, param: caffe_pb2.LayerParameter, bottoms: list[Blob]
    ) -> tuple[list[str], list[Blob]]:
        names, tops = list(param.top), []
        for index, name in enumerate(param.top):
            if index < len(param.bottom) and name == param.bottom[index]:
                tops.append(bottoms[index])
                bottoms[index].data_memory.source.changes_in_place += 1
                self._unread[name] = None
            elif name in self.blobs:
                raise layer.fail(f"top '{name}' is already made by {self._made_by(name, param)}")
            else:
                tops.append(self._new_blob(name))
        while layer.auto_tops and len(tops) < layer.top_range[0]:
            names.append("(automatic)")
            tops.append(self._new_blob(names[-1]))
            # It is no output of the net.
            del self._unread[names[-1]]
        if param.type == "Input":
            self.inputs.extend(param.top)
        return names, tops

    def _made_by(self, name: str, param: caffe_pb2.LayerParameter) -> str:
        """Return the layer that makes a blob, and what to do if another one does so too."""
        maker = next((place for place in self.places if name in place.top_names), None)
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
        blob = self.blobs[name] = Blob()
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
            self.loss_weights[name] = weight
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
                (len(self.learnable), name)
                for name in ("lr_mult", "decay_mult")
                if spec.HasField(name)
            )
            self.learnable.append(blob)
            self.lr_mults.append(spec.lr_mult)
            self.decay_mults.append(spec.decay_mult)

    def _share(self, layer: Layer, index: int, spec: caffe_pb2.ParamSpec) -> None:
        owner, owned = self._owners[spec.name]
        self._log.shared(spec.name, owner.name, owned)
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
        number = next(i for i, learnable in enumerate(self.learnable) if learnable is blob)
        for name, values in (("lr_mult", self.lr_mults), ("decay_mult", self.decay_mults)):
            if not spec.HasField(name):
                continue
            given = getattr(spec, name)
            if (number, name) in self._mults_given and values[number] != given:
                raise layer.fail(
                    f"gives the shared parameter '{spec.name}' {name} {given:g}, another layer "
                    f"gave it {values[number]:g}: they must be the same"
                )
            self._mults_given.add((number, name))
            values[number] = given

    def _find_rectified(self) -> None:
        for place, following in itertools.pairwise(self.places):
            place.rectifies = (
                hasattr(place.layer, "forward_rectified")
                and following.layer.type == "ReLU"
                and not following.layer.layer_param.relu_param.negative_slope
                and following.top_names == following.bottom_names == place.top_names
            )

    def _find_spent(self) -> None:
        # Blob -> the one whose data it shares.
        source = {name: name for name in self.blobs}
        for place in self.places:
            if place.layer.shares_tops:
                source.update(dict.fromkeys(place.top_names, source[place.bottom_names[0]]))
        kept = {source[name] for name in self.outputs}
        for place in self.places:
            # What a user fills is the user's.
            if place.layer.keeps_tops:
                kept.update(place.top_names)
        seen = set(kept)
        for place in reversed(self.places):
            for blob in (*place.bottom_names, *place.top_names):
                name = source[blob]
                if name not in seen:
                    seen.add(name)
                    place.spent.append(name)
        seen = set(kept)
        for place in self.places:
            for blob in place.top_names:
                name = source[blob]
                # What the net was fed with is small, and looked at.
                if name not in seen and place.bottoms:
                    place.spent_backward.append(name)
                seen.add(name)

    def _limit_backward(self) -> None:
        """Run backward only where a loss lies above and something that learns below."""
        under_loss: set[str] = set()
        skipped: set[str] = set()
        for place in reversed(self.places):
            weights = place.loss_weights
            contributes = any(
                name in under_loss or weight
                for name, weight in zip_longest(place.top_names, weights, fillvalue=0.0)
            )
            unwanted = bool(place.tops) and all(
                name in skipped and not weight for name, weight in zip(place.top_names, weights)
            )
            if unwanted:
                place.bottom_needs = [False] * len(place.bottoms)
            if unwanted or not contributes:
                place.needs_backward = False
            for index, name in enumerate(place.bottom_names):
                if contributes:
                    under_loss.add(name)
                else:
                    place.bottom_needs[index] = False
                if not place.bottom_needs[index]:
                    skipped.add(name)

    def _force_backward(self) -> None:
        for place in self.places:
            place.needs_backward = True
            place.bottom_needs = [
                need or place.layer.allows_force_backward(index)
                for index, need in enumerate(place.bottom_needs)
            ]
            place.layer.param_propagate_down = [True] * len(place.layer.blobs)
