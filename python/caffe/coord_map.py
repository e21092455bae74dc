"""How coordinates of one top lie in another's, and the Crop layer that makes two tops fit.

A map is (axis, a, b): along each spatial axis after `axis` the coordinate x of one top is a x + b
of another. An axis of None fits any.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from caffe.net_spec import Function, Top, layers

Map = tuple[int | None, np.ndarray | float, np.ndarray | float]

# Layers that leave coordinates as they are.
PASS_THROUGH_LAYERS = [
    "AbsVal", "BNLL", "BatchNorm", "Bias", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log", "MVN",
    "PReLU", "Power", "ReLU", "Scale", "Sigmoid", "Split", "TanH", "Threshold",
]  # fmt: skip
_WINDOWED = ("Convolution", "Pooling", "Im2col")


class UndefinedMapException(Exception):
    """A layer has no map of coordinates."""


class AxisMismatchException(Exception):
    """Two maps are about different axes."""


def _own(params: Mapping, name: str) -> Mapping:
    # Parameters stand in the layer's own message, or directly in the layer as NetSpec allows.
    return params.get(name, params)


def conv_params(fn: Function) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return axis, stride, extent of the (dilated) kernel and padding of a windowed layer.

    Raises
    ------
    AssertionError
        If it says pad_h and the like, which have no place for other numbers of axes.
    KeyError
        If it has no kernel_size.
    """
    name = "pooling_param" if fn.type_name == "Pooling" else "convolution_param"
    params = _own(fn.params, name)
    kernel = np.array(params["kernel_size"], ndmin=1)
    named = {f"{what}_{side}" for what in ("pad", "kernel", "stride") for side in "hw"}
    assert not named & set(params), "cropping does not support legacy _h/_w params"
    dilation = np.array(params.get("dilation", 1), ndmin=1)
    return (
        params.get("axis", 1),
        np.array(params.get("stride", 1), ndmin=1),
        (kernel - 1) * dilation + 1,
        np.array(params.get("pad", 0), ndmin=1),
    )


def crop_params(fn: Function) -> tuple[int, np.ndarray]:
    """Return axis and offset of a Crop layer."""
    params = _own(fn.params, "crop_param")
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """Return the map from a layer's input to its output.

    Raises
    ------
    UndefinedMapException
        If the layer has none.
    """
    if fn.type_name in _WINDOWED:
        axis, stride, kernel, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad = conv_params(fn)
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return None, 1, 0
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        # A map counts the axis before the spatial ones, Crop the first that it cuts.
        return axis - 1, 1, -offset
    raise UndefinedMapException(f"a {fn.type_name} layer has no map of coordinates")


def compose(base_map: Map, next_map: Map) -> Map:
    """Return the map that goes through `next_map`, then through `base_map`.

    Raises
    ------
    AxisMismatchException
        If they are about different axes.
    """
    (first, scale, shift), (second, next_scale, next_shift) = base_map, next_map
    if first is not None and second is not None and first != second:
        raise AxisMismatchException(
            f"maps along axes {first} and {second} cannot follow each other"
        )
    axis = second if first is None else first
    return axis, scale * next_scale, scale * next_shift + shift


def inverse(coord_map: Map) -> Map:
    """Return the map that goes back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """Return the map between two tops that have an ancestor in common.

    Raises
    ------
    RuntimeError
        If they have none, or no chain of maps leads there.
    """

    def inputs(top: Top) -> tuple[Top, ...]:
        # What a Crop is cut like is not an ancestor of its values.
        return top.fn.inputs[:1] if top.fn.type_name == "Crop" else top.fn.inputs

    def reached(start: Top) -> dict[Top, Map]:
        """Return the map to `start` from each of its ancestors that one leads from."""
        found: dict[Top, Map] = {start: (None, 1, 0)}
        frontier = [start]
        while frontier:
            top = frontier.pop()
            try:
                step = coord_map(top.fn)
            except UndefinedMapException:
                continue
            for below in inputs(top):
                if below not in found:
                    found[below] = compose(found[top], step)
                    frontier.append(below)
        return found

    from_maps, to_maps = reached(top_from), reached(top_to)
    for ancestor, there in from_maps.items():
        if ancestor in to_maps:
            return compose(to_maps[ancestor], inverse(there))
    raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def crop(top_from: Top, top_to: Top) -> Top:
    """Return a Crop layer that cuts `top_from` to the size of `top_to`, at the place that fits.

    Raises
    ------
    AssertionError
        If the two have different scales, or the offset is negative or no whole number.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    assert (np.asarray(scale) == 1).all(), f"scale mismatch on crop (a = {scale})"
    assert (np.asarray(shift) <= 0).all(), f"cannot crop negative offset (b = {shift})"
    whole = np.round(shift)
    assert (whole == shift).all(), f"cannot crop noninteger offset (b = {shift})"
    offset = (-whole).astype(int)
    param = dict(axis=axis + 1, offset=offset.tolist() if offset.ndim else int(offset))
    return layers.Crop(top_from, top_to, crop_param=param)
