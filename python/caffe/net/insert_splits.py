"""A Split layer for every blob that is read more than once; blobs that nobody makes are refused."""

from __future__ import annotations

import difflib

from caffe.errors import CaffeError
from caffe.net.filter import told_left_out
from caffe.proto import caffe_pb2

# As many blobs as an error lists.
_MOST_NAMES = 50


def _why_missing(
    blob: str, index: int, param: caffe_pb2.NetParameter, whole: caffe_pb2.NetParameter, made: set
) -> str:
    """Return why no layer before the one at `index` makes a blob, and what to do."""
    there = {layer.name for layer in param.layer}
    for layer in whole.layer:
        if blob in layer.top and layer.name not in there:
            return f": {told_left_out(layer, param.state)}"
    for layer in param.layer[index:]:
        if blob in layer.top and blob not in layer.bottom:
            return (
                f": layer '{layer.name}' ({layer.type}) makes it, but stands further down: "
                "move it up"
            )
    near = difflib.get_close_matches(blob, made, n=3)
    hint = f"did you mean {' or '.join(near)}? B" if near else "b"
    told = f"; {hint}lobs made so far: {_listed(sorted(made))}"
    kind = param.layer[index].type
    if not near and (kind.endswith("Loss") or kind == "Accuracy"):
        told += "; in a net without labels leave the layer out"
    return told


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return (", ".join(names[:_MOST_NAMES]) or "none") + (f" and {more} more" if more > 0 else "")


def insert_splits(
    param: caffe_pb2.NetParameter, whole: caffe_pb2.NetParameter | None = None
) -> caffe_pb2.NetParameter:
    """Return a copy of the net, as `filter_net` returns it, in which no blob has several readers.

    Of the `whole` net, before that, errors name the layers that were left out.

    Raises
    ------
    CaffeError
        If a layer reads a blob that no earlier layer makes.

    Notes
    -----
    Blob B of layer L, its top number i, read more than once (a loss weight counts as a reader),
    goes through a Split layer `B_L_i_split` with tops `B_L_i_split_0`, `B_L_i_split_1`, ...
    """
    # The maker of a blob is the last layer before its reader that has it as a top, in place or not.
    maker: dict[str, tuple[int, int]] = {}
    source: dict[tuple[int, int], tuple[int, int]] = {}
    readers: dict[tuple[int, int], int] = {}
    weight_of: dict[tuple[int, int], float] = {}
    for index, layer in enumerate(param.layer):
        for position, blob in enumerate(layer.bottom):
            if blob not in maker:
                why = _why_missing(blob, index, param, whole or param, set(maker))
                raise CaffeError(
                    f"layer '{layer.name}' ({layer.type}) reads blob '{blob}' (bottom {position}), "
                    f"which no layer before it makes{why}",
                    layer.name,
                )
            source[index, position] = maker[blob]
            readers[maker[blob]] = readers.get(maker[blob], 0) + 1
        for position, blob in enumerate(layer.top):
            maker[blob] = (index, position)
        for position, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                weight_of[index, position] = weight
                readers[index, position] = readers.get((index, position), 0) + 1

    result = caffe_pb2.NetParameter()
    result.CopyFrom(param)
    del result.layer[:]
    next_branch: dict[tuple[int, int], int] = {}
    for index, layer in enumerate(param.layer):
        copy = result.layer.add()
        copy.CopyFrom(layer)
        for position in range(len(copy.bottom)):
            top = source[index, position]
            if readers[top] > 1:
                branch = next_branch.get(top, 0)
                next_branch[top] = branch + 1
                name = _split_name(param, top)
                copy.bottom[position] = f"{name}_{branch}"
        for position, blob in enumerate(layer.top):
            top = (index, position)
            count = readers.get(top, 0)
            if count > 1:
                name = _split_name(param, top)
                split = result.layer.add(name=name, type="Split", bottom=[blob])
                split.top.extend(f"{name}_{branch}" for branch in range(count))
                if top in weight_of:
                    # The loss moves to the first branch; the layer itself no longer has it.
                    del copy.loss_weight[:]
                    split.loss_weight.extend([weight_of[top]] + [0.0] * (count - 1))
                    next_branch[top] = 1
    return result


def _split_name(param: caffe_pb2.NetParameter, top: tuple[int, int]) -> str:
    layer = param.layer[top[0]]
    return f"{layer.top[top[1]]}_{layer.name}_{top[1]}_split"
