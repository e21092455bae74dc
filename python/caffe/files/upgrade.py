"""Bring older formats of nets and solvers up to the current one, as genuine Caffe does."""

from __future__ import annotations

import os
import re

from caffe.errors import CaffeError
from caffe.files import upgrade_release2015
from caffe.files.upgrade_v0 import assign, v0_to_v1
from caffe.log import Log, log_error, log_info, log_warning
from caffe.proto import caffe_pb2

_log = Log("upgrade_proto.cpp")

# LayerType of V1 -> type; those left out are their words capitalised, as INNER_PRODUCT is.
_V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
# Fields of V1LayerParameter with a meaning of their own; the others are the layer's under the
# same names.
_V1_OWN = {"type", "param", "blob_share_mode", "blobs_lr", "weight_decay", "layer"}

_DATA_LAYERS = {
    "DATA": "data_param",
    "IMAGE_DATA": "image_data_param",
    "WINDOW_DATA": "window_data_param",
}
_TRANSFORMATIONS = ("scale", "mean_file", "crop_size", "mirror")

_DONE = "Successfully upgraded file specified using"

_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def net_needs_upgrade(param: caffe_pb2.NetParameter) -> bool:
    """Return whether a net is of an older format."""
    return bool(param.layers or param.input or _old_batch_norms(param))


def upgrade_net_as_needed(param: caffe_pb2.NetParameter, source: str) -> bool:
    """Bring a net, `source` in errors, up to the current format, in place.

    Layers of the V0 and V1 formats, transformation fields among the fields of data layers, input
    fields, and parameters of BatchNorm layers that a solver must not train. What is done is logged.

    Returns
    -------
    bool
        Whether all of it could be kept: V0 has fields that the current format has no place for.

    Raises
    ------
    CaffeError
        If the net mixes formats, or its fields contradict each other.
    """
    complete = True
    if param.layers and param.layer:
        raise CaffeError(
            f"{source}: has both 'layers' (the V1 format) and 'layer'; write all as 'layer' "
            'with types in quotes: layer { type: "ReLU" }',
            _v1_name(param.layers[0]),
        )
    if any(layer.HasField("layer") for layer in param.layers):
        complete = _upgrade_v0(param, source)
    if any(_transformation(layer) for layer in param.layers):
        _attempt("deprecated transformation parameters", source)
        for layer in param.layers:
            _move_transformation(layer)
        log_info(f"{_DONE} deprecated data transformation parameters.")
        log_warning(
            "Note that future Caffe releases will only support transform_param messages for "
            "transformation fields."
        )
    if param.layers:
        _attempt("deprecated V1LayerParameter", source)
        of_release = upgrade_release2015.is_of_release(param)
        for old in param.layers:
            _v1_layer(old, param.layer.add())
        param.ClearField("layers")
        if of_release:
            upgrade_release2015.adapt(param, source)
        log_info(f"{_DONE} deprecated V1LayerParameter")
    if param.input:
        _attempt("deprecated input fields", source)
        _upgrade_input(param, source)
        log_info(f"{_DONE} deprecated input fields.")
        log_warning(
            "Note that future Caffe releases will only support input layers and not input fields."
        )
    if batch_norms := _old_batch_norms(param):
        log_info(f"Attempting to upgrade batch norm layers using deprecated params: {source}")
        for layer in batch_norms:
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
        log_info("Successfully upgraded batch norm layers using deprecated params.")
    return complete


def _attempt(what: str, source: str) -> None:
    log_info(f"Attempting to upgrade input file specified using {what}: {source}")


def _upgrade_v0(param: caffe_pb2.NetParameter, source: str) -> bool:
    _attempt("deprecated V0LayerParameter", source)
    complete = v0_to_v1(param, source)
    if complete:
        log_info(f"{_DONE} deprecated V0LayerParameter")
    else:
        log_error(
            "Warning: had one or more problems upgrading V0NetParameter to NetParameter "
            "(see above); continuing anyway."
        )
    log_warning(
        "Note that future Caffe releases will not support V0NetParameter; use "
        "./build/tools/upgrade_net_proto_text for prototxt and "
        "./build/tools/upgrade_net_proto_binary for model weights upgrade this and any other "
        "net protos to the new format."
    )
    return complete


def _old_batch_norms(param: caffe_pb2.NetParameter) -> list[caffe_pb2.LayerParameter]:
    # The statistics are running means: older nets had to say that they are not trained.
    return [layer for layer in param.layer if layer.type == "BatchNorm" and len(layer.param) == 3]


def _v1_name(layer: caffe_pb2.V1LayerParameter) -> str:
    return layer.layer.name if layer.HasField("layer") else layer.name


def _v1_type(layer: caffe_pb2.V1LayerParameter) -> str:
    name = caffe_pb2.V1LayerParameter.LayerType.Name(layer.type)
    return _V1_TYPES.get(name, name.replace("_", " ").title().replace(" ", ""))


def _v1_layer(old: caffe_pb2.V1LayerParameter, new: caffe_pb2.LayerParameter) -> None:
    if old.HasField("type"):
        new.type = _v1_type(old)
    for field, value in old.ListFields():
        if field.name in _V1_OWN:
            continue
        assign(new, field.name, value)
    specs = max(map(len, (old.param, old.blob_share_mode, old.blobs_lr, old.weight_decay)))
    for place in range(specs):
        spec = new.param.add()
        for values, name in (
            (old.param, "name"),
            (old.blob_share_mode, "share_mode"),
            (old.blobs_lr, "lr_mult"),
            (old.weight_decay, "decay_mult"),
        ):
            if place < len(values):
                setattr(spec, name, values[place])


def _transformation(layer: caffe_pb2.V1LayerParameter) -> dict[str, object]:
    """Return what stands among the fields of a data layer and belongs in its transform_param."""
    field = _DATA_LAYERS.get(caffe_pb2.V1LayerParameter.LayerType.Name(layer.type))
    data = getattr(layer, field) if field else None
    return {name: getattr(data, name) for name in _TRANSFORMATIONS if data and data.HasField(name)}


def _move_transformation(layer: caffe_pb2.V1LayerParameter) -> None:
    for name, value in _transformation(layer).items():
        setattr(layer.transform_param, name, value)
        field = _DATA_LAYERS[caffe_pb2.V1LayerParameter.LayerType.Name(layer.type)]
        getattr(layer, field).ClearField(name)


def _upgrade_input(param: caffe_pb2.NetParameter, source: str) -> None:
    inputs, shapes, dims = len(param.input), len(param.input_shape), len(param.input_dim)
    if shapes or dims:
        if (shapes or dims / 4) < inputs:
            raise CaffeError(
                f"{source}: {inputs} input(s) need an input_shape, or four input_dim, each; "
                f"there are {shapes} input_shape and {dims} input_dim"
            )
        rest = list(param.layer)
        param.ClearField("layer")
        layer = param.layer.add(name="input", type="Input", top=param.input)
        for place in range(inputs):
            dim = (
                param.input_shape[place].dim
                if shapes
                else param.input_dim[4 * place : 4 * place + 4]
            )
            layer.input_param.shape.add(dim=dim)
        param.layer.extend(rest)
    # Without shapes they say nothing: caffemodels name the inputs of the net they were trained in.
    for field in ("input", "input_shape", "input_dim"):
        param.ClearField(field)


def upgrade_solver(param: caffe_pb2.SolverParameter, source: str) -> caffe_pb2.SolverParameter:
    """Bring a solver, `source` in errors, up to the current format, in place; return it.

    The number `solver_type` becomes the name `type`; nets written in it are upgraded, too.

    Raises
    ------
    CaffeError
        If both `type` and `solver_type` are given, or a net in it cannot be upgraded.
    """
    upgrade_solver_as_needed(param, source)
    for field in ("net_param", "train_net_param"):
        if param.HasField(field):
            upgrade_net_as_needed(getattr(param, field), f"{source}: {field}")
    for place, net in enumerate(param.test_net_param):
        upgrade_net_as_needed(net, f"{source}: test_net_param {place}")
    return param


def upgrade_solver_as_needed(param: caffe_pb2.SolverParameter, source: str) -> None:
    """Turn the number `solver_type` of a solver into the name `type`; as `upgrade_solver`.

    Nets in it are left as they are.
    """
    if not param.HasField("solver_type"):
        return
    _attempt("deprecated 'solver_type' field (enum)'", source)
    if param.HasField("type"):
        raise CaffeError(f"{source}: give 'type' or the older 'solver_type', not both")
    param.type = _SOLVER_TYPES[caffe_pb2.SolverParameter.SolverType.Name(param.solver_type)]
    param.ClearField("solver_type")
    log_info(f"{_DONE} deprecated 'solver_type' field (enum) to 'type' field (string).")
    log_warning(
        "Note that future Caffe releases will only support 'type' field (string) for a solver's "
        "type."
    )


def name_snapshots(param: caffe_pb2.SolverParameter, source: str) -> None:
    """Give a solver, read from the file `source`, the snapshot_prefix that it needs, in place.

    The file's path without its suffix if it has none, and the file's name in it if it is a folder.

    Raises
    ------
    CaffeError
        If that is not UTF-8, as no text of a message can be.
    """
    named_after_file = not param.snapshot_prefix or os.path.isdir(param.snapshot_prefix)
    if named_after_file and re.search("[\ud800-\udfff]", source):
        raise CaffeError(
            f"{source}: snapshots cannot have the name of this file, which is not UTF-8; give it "
            "another one, or a snapshot_prefix"
        )
    if not param.snapshot_prefix:
        param.snapshot_prefix = os.path.splitext(source)[0]
        _log.info(f"snapshot_prefix was not specified and is set to {param.snapshot_prefix}")
    elif os.path.isdir(param.snapshot_prefix):
        stem = os.path.splitext(os.path.basename(source))[0]
        param.snapshot_prefix = os.path.join(param.snapshot_prefix, stem)
        _log.info(f"snapshot_prefix was a directory and is replaced to {param.snapshot_prefix}")
