"""Nets of the V0 format (2013: every parameter of a layer in one message) as nets of V1."""

from __future__ import annotations

from google.protobuf.message import Message

from caffe.errors import CaffeError
from caffe.log import log_error
from caffe.proto import caffe_pb2

# The type of V0 -> (the type of V1, the message that its parameters moved to).
_TYPES = {
    "accuracy": ("ACCURACY", ""),
    "bnll": ("BNLL", ""),
    "concat": ("CONCAT", "concat_param"),
    "conv": ("CONVOLUTION", "convolution_param"),
    "data": ("DATA", "data_param"),
    "dropout": ("DROPOUT", "dropout_param"),
    "euclidean_loss": ("EUCLIDEAN_LOSS", ""),
    "flatten": ("FLATTEN", ""),
    "hdf5_data": ("HDF5_DATA", "hdf5_data_param"),
    "hdf5_output": ("HDF5_OUTPUT", "hdf5_output_param"),
    "im2col": ("IM2COL", ""),
    "images": ("IMAGE_DATA", "image_data_param"),
    "infogain_loss": ("INFOGAIN_LOSS", "infogain_loss_param"),
    "innerproduct": ("INNER_PRODUCT", "inner_product_param"),
    "lrn": ("LRN", "lrn_param"),
    "multinomial_logistic_loss": ("MULTINOMIAL_LOGISTIC_LOSS", ""),
    "pool": ("POOLING", "pooling_param"),
    "relu": ("RELU", ""),
    "sigmoid": ("SIGMOID", ""),
    "softmax": ("SOFTMAX", ""),
    "softmax_loss": ("SOFTMAX_LOSS", ""),
    "split": ("SPLIT", ""),
    "tanh": ("TANH", ""),
    "window_data": ("WINDOW_DATA", "window_data_param"),
}
_WEIGHTED = ("conv", "innerproduct")
_WINDOWED = ("conv", "pool")
_SOURCED = ("data", "hdf5_data", "images", "window_data")

# The field of V0 -> (its new name, the types that have it).
_FIELDS = {
    "num_output": ("num_output", _WEIGHTED),
    "biasterm": ("bias_term", _WEIGHTED),
    "weight_filler": ("weight_filler", _WEIGHTED),
    "bias_filler": ("bias_filler", _WEIGHTED),
    "pad": ("pad", _WINDOWED),
    "kernelsize": ("kernel_size", _WINDOWED),
    "group": ("group", ("conv",)),
    "stride": ("stride", _WINDOWED),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", (*_SOURCED, "infogain_loss")),
    "batchsize": ("batch_size", _SOURCED),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}
_TRANSFORMATIONS = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}
_KEPT = ("name", "input", "input_dim", "force_backward")
_LISTS = ("blobs", "blobs_lr", "weight_decay")


def v0_to_v1(param: caffe_pb2.NetParameter, source: str) -> bool:
    """Turn the V0 layers of `param.layers` into V1 layers, in place.

    Padding layers vanish: the convolution or pooling that reads one pads by itself. So do fields of
    the net that V0 did not have.

    Returns
    -------
    bool
        Whether every field of the layers has a place in V1; those without one are left out.

    Raises
    ------
    CaffeError
        If a layer is of another format or an unknown type, or reads a padding layer it cannot.
    """
    new = caffe_pb2.NetParameter()
    complete = True
    for old in _without_padding(param, source):
        layer = new.layers.add(bottom=old.bottom, top=old.top)
        complete &= _convert(old.layer, layer, source)
    for field, _ in param.ListFields():
        if field.name not in _KEPT:
            param.ClearField(field.name)
    param.layers.extend(new.layers)
    return complete


def _without_padding(
    param: caffe_pb2.NetParameter, source: str
) -> list[caffe_pb2.V1LayerParameter]:
    kept: list[caffe_pb2.V1LayerParameter] = []
    maker: dict[str, caffe_pb2.V1LayerParameter | None] = dict.fromkeys(param.input)
    for connection in param.layers:
        layer = connection.layer
        if not connection.HasField("layer"):
            raise CaffeError(
                f"{source}: layer '{connection.name}' is V1 in a net of V0 layers", connection.name
            )
        for place, bottom in enumerate(connection.bottom):
            if bottom not in maker:
                raise CaffeError(
                    f"{source}: layer '{layer.name}': unknown bottom '{bottom}'", layer.name
                )
            padding = maker[bottom]
            if padding is None or padding.layer.type != "padding":
                continue
            if (
                layer.type not in _WINDOWED
                or len(connection.bottom) != 1
                or len(padding.bottom) != 1
                or len(padding.top) != 1
            ):
                raise CaffeError(
                    f"{source}: layer '{layer.name}' ({layer.type}) reads the padding layer "
                    f"'{padding.layer.name}'; only a conv or pool layer of one bottom can, and "
                    "the padding layer has one bottom and one top",
                    layer.name,
                )
            layer.pad = padding.layer.pad
            connection.bottom[place] = padding.bottom[0]
        for top in connection.top:
            maker[top] = connection
        if layer.type != "padding":
            kept.append(connection)
    return kept


def _convert(old: caffe_pb2.V0LayerParameter, new: caffe_pb2.V1LayerParameter, source: str) -> bool:
    complete = True
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type") and old.type not in _TYPES:
        raise CaffeError(f"{source}: layer '{old.name}': V0 has no type '{old.type}'", old.name)
    kind, message = _TYPES.get(old.type, ("NONE", ""))
    if old.HasField("type"):
        new.type = caffe_pb2.V1LayerParameter.LayerType.Value(kind)
    for field, value in old.ListFields():
        if field.name in ("name", "type"):
            continue
        if field.name in _LISTS:
            getattr(new, field.name).MergeFrom(value)
        elif field.name in _TRANSFORMATIONS:
            setattr(new.transform_param, _TRANSFORMATIONS[field.name], value)
        elif field.name == "hdf5_output_param" and old.type == "hdf5_output":
            new.hdf5_output_param.MergeFrom(value)
        else:
            name, types = _FIELDS.get(field.name, ("", ()))
            if old.type in types:
                assign(getattr(new, message), name, value)
            else:
                # As in genuine Caffe, no error: such nets trained for years.
                log_error(
                    f"{source}: layer '{old.name}': {old.type} has no parameter {field.name}; "
                    "it is left out"
                )
                complete = False
    return complete


def assign(message: Message, name: str, value) -> None:
    """Set field `name` of a message, or append to it, whatever its kind."""
    target = getattr(message, name)
    if isinstance(target, Message):
        target.CopyFrom(value)
        target.SetInParent()
    elif hasattr(target, "MergeFrom"):
        target.extend(value if hasattr(value, "MergeFrom") else [value])
    else:
        setattr(message, name, value)
