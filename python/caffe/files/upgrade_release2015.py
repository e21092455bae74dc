"""Bring the nets of u-net-release-2015-10-02 to what BVLC's layers mean by them.

They are V1 nets with two things that the authors had changed in their Caffe. A layer of type CROP,
which BVLC's V1 lacks, cuts its first bottom where its coordinates are those of the second. And the
filler "xavier" draws from N(0, 2/N), N = count / num of the blob, as BVLC's "msra" does, instead of
evenly. The first tells these nets from others: V1 nets with a CROP layer are taken for the
authors'. In nets of the current format, and in V1 nets without CROP, "xavier" is BVLC's.
"""

from __future__ import annotations

import numpy as np

from caffe.coord_map import (
    AxisMismatchException,
    Map,
    UndefinedMapException,
    compose,
    coord_map,
    inverse,
)
from caffe.errors import CaffeError
from caffe.log import log_info
from caffe.net_spec import Function
from caffe.proto import caffe_pb2

# Joined maps lie at the same coordinates, so any bottom tells them.
_JOINING = ("Concat", "Eltwise")
_START: Map = (None, 1, 0)
# Coordinates of halves and quarters are exact; those of thirds are not.
_ROUNDING = 1e-6


def is_of_release(param: caffe_pb2.NetParameter) -> bool:
    """Return whether a net, not yet upgraded, is one of the authors' of 2015."""
    return any(layer.type == caffe_pb2.V1LayerParameter.CROP for layer in param.layers)


def adapt(param: caffe_pb2.NetParameter, source: str) -> None:
    """Give crops their offsets, and "xavier" fillers the type "msra", in place.

    `is_of_release` held for the net, `source` in errors, and its layers are upgraded.

    Raises
    ------
    CaffeError
        If the place where a map is to be cut does not follow from the layers before it.
    """
    fillers = 0
    # Where each blob lies: the blob that its coordinates are counted in, and the map from there.
    places: dict[str, tuple[str, Map]] = {}
    for number, layer in enumerate(param.layer):
        for field in ("weight_filler", "bias_filler"):
            if layer.convolution_param.HasField(field):
                filler = getattr(layer.convolution_param, field)
                if filler.type == "xavier":
                    filler.type = "msra"
                    fillers += 1
        # The same blob may come from several layers, of which the net's state admits one.
        for bottom in layer.bottom:
            places.setdefault(bottom, (bottom, _START))
        # A stride of 0 leads nowhere; the layer itself refuses it.
        with np.errstate(all="ignore"):
            if layer.type == "Crop":
                _set_offset(layer, places, source)
            for top in layer.top:
                places[top] = _place(layer, places) or (f"{top} of layer {number}", _START)
    log_info(
        f"{source}: a net of u-net-release-2015-10-02: its crops are given the offsets that align "
        f"coordinates, its {fillers} 'xavier' fillers the type 'msra'"
    )


def _place(
    layer: caffe_pb2.LayerParameter, places: dict[str, tuple[str, Map]]
) -> tuple[str, Map] | None:
    if not layer.bottom:
        return None
    root, below = places[layer.bottom[0]]
    if layer.type in _JOINING:
        return root, below
    try:
        return root, compose(coord_map(_function(layer)), below)
    except (UndefinedMapException, AxisMismatchException, AssertionError, KeyError, ValueError):
        # The layer has no such map, or its parameters fit neither each other nor what is below.
        return None


def _function(layer: caffe_pb2.LayerParameter) -> Function:
    """Return a layer as `coord_map` takes it."""
    name = {"Pooling": "pooling_param", "Crop": "crop_param"}.get(layer.type, "convolution_param")
    fields = {
        # Lists that are empty count as absent, as in a NetSpec.
        field.name: value if isinstance(value, (int, float)) else list(value)
        for field, value in getattr(layer, name).ListFields()
        if field.message_type is None
    }
    return Function(layer.type, (), {name: fields})


def _set_offset(
    layer: caffe_pb2.LayerParameter, places: dict[str, tuple[str, Map]], source: str
) -> None:
    if len(layer.bottom) != 2:
        raise CaffeError(
            f"{source}: layer '{layer.name}': type CROP takes the map to crop and its reference, "
            f"not {len(layer.bottom)} bottom(s)",
            layer.name,
        )
    (root, there), (other, reference) = (places[bottom] for bottom in layer.bottom)
    try:
        axis, scale, shift = compose(reference, inverse(there))
    except (AxisMismatchException, ValueError):
        axis, scale, shift = None, 0.0, 0.0
    scale, offset = np.atleast_1d(scale).astype(float), -np.atleast_1d(shift).astype(float)
    whole = np.round(offset)
    if root != other or not np.abs(scale - 1).max() <= _ROUNDING or not np.isfinite(offset).all():
        problem = "does not follow from the layers before"
    elif whole.min() < 0 or np.abs(offset - whole).max() > _ROUNDING:
        problem = f"would be at {', '.join(f'{value:g}' for value in offset)}"
    else:
        layer.crop_param.axis = 2 if axis is None else axis + 1
        layer.crop_param.offset[:] = whole.astype(int).tolist()
        return
    cut, like = layer.bottom
    raise CaffeError(
        f"{source}: layer '{layer.name}': where '{cut}' is to be cut to lie as '{like}' {problem}; "
        'write the net in the current format: layer { type: "Crop" crop_param { offset: ... } }',
        layer.name,
    )
