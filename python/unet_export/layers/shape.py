"""Layers that move values, add them up or look them up: Crop, Concat, Slice, InnerProduct, ..."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from unet_export.graph import Graph, Value
from unet_export.layers.table import Given, writes


@writes("Split", "Dropout")
def same(graph: Graph, given: Given) -> Sequence[Value]:
    """Hand a value on: in phase TEST Dropout does nothing."""
    return given.bottoms * len(given.tops)


@writes("Silence")
def nothing(graph: Graph, given: Given) -> Sequence[Value]:
    """Say nothing: it has no tops."""
    return []


@writes("Parameter")
def parameter(graph: Graph, given: Given) -> Sequence[Value]:
    """Give a parameter as a top."""
    return [graph.constant(given.blobs[0], given.tops[0])]


@writes("Crop")
def crop(graph: Graph, given: Given) -> Sequence[Value]:
    """Cut the first bottom at `offset` to the size of the second, known when the graph runs."""
    param, (x, reference) = given.param.crop_param, given.bottoms
    axis, rank = given.axis(param.axis), len(given.shapes[0])
    offsets = list(param.offset) or [0]
    offsets = graph.whole(offsets * (rank - axis) if len(offsets) == 1 else offsets)
    stops = graph.node("Add", [graph.sizes(reference, axis), offsets])
    return [graph.slice(x, offsets, stops, range(axis, rank), given.tops[0])]


@writes("Concat")
def concat(graph: Graph, given: Given) -> Sequence[Value]:
    """Join blobs; those with more pixels than the first one are cut in the middle (caffe_unet)."""
    param, first = given.param.concat_param, given.shapes[0]
    axis = param.concat_dim if param.HasField("concat_dim") else given.axis(param.axis)
    if axis >= 2 and any(
        shape[a] != first[a] for shape in given.shapes for a in range(2, len(first)) if a != axis
    ):
        raise given.fail("joins along an axis of pixels what differs along another")
    parts = given.bottoms[:1]
    for x in given.bottoms[1:]:
        if axis == 1 and given.cuts:
            wanted = graph.sizes(given.bottoms[0], 2)
            more = graph.node("Sub", [graph.sizes(x, 2), wanted])
            starts = graph.node("Div", [more, graph.whole([2])])
            stops = graph.node("Add", [starts, wanted])
            x = graph.slice(x, starts, stops, range(2, len(first)))
        parts.append(x)
    return [graph.node("Concat", parts, given.tops[0], axis=axis)]


@writes("Slice")
def slice_layer(graph: Graph, given: Given) -> Sequence[Value]:
    """Cut a blob along an axis at slice_point, or into equal parts."""
    param, (x,), tops = given.param.slice_param, given.bottoms, given.tops
    axis = param.slice_dim if param.HasField("slice_dim") else given.axis(param.axis)
    points = list(param.slice_point)
    if not points and axis != 1 and len(tops) > 1:
        parts = graph.whole([len(tops)])
        size = graph.node("Div", [graph.sizes(x, axis, axis + 1), parts])
        edges = [graph.node("Mul", [size, graph.whole([k])]) for k in range(len(tops) + 1)]
        return [
            graph.slice(x, start, stop, [axis], top)
            for start, stop, top in zip(edges, edges[1:], tops)
        ]
    if not points:
        size = given.shapes[0][axis] // len(tops)
        points = [size * k for k in range(1, len(tops))]
    starts, stops = [0, *points], [*points, None]
    return [
        graph.slice(x, [start], [stop], [axis], top)
        for start, stop, top in zip(starts, stops, tops)
    ]


@writes("Flatten")
def flatten(graph: Graph, given: Given) -> Sequence[Value]:
    """Take the axes from `axis` to `end_axis` as one."""
    param, (x,), (top,) = given.param.flatten_param, given.bottoms, given.tops
    first, last, rank = given.axis(param.axis), given.axis(param.end_axis), len(given.shapes[0])
    after = graph.sizes(x, last + 1) if last + 1 < rank else []
    return [graph.reshape(x, [[0] * first, [-1], after], top)]


@writes("Reshape")
def reshape(graph: Graph, given: Given) -> Sequence[Value]:
    """Give the axes from `axis` on new sizes: 0 copies one, -1 is what is left over."""
    param, (x,), rank = given.param.reshape_param, given.bottoms, len(given.shapes[0])
    first = param.axis if param.axis >= 0 else rank + param.axis + 1
    last = rank if param.num_axes == -1 else first + param.num_axes
    parts: list[Value | list[int]] = [graph.sizes(x, 0, first)] if first else []
    for index, size in enumerate(param.shape.dim):
        axis = first + index
        parts.append(graph.sizes(x, axis, axis + 1) if size == 0 else [size])
    if last < rank:
        parts.append(graph.sizes(x, last))
    return [graph.reshape(x, parts, given.tops[0])]


@writes("Tile")
def tile(graph: Graph, given: Given) -> Sequence[Value]:
    """Repeat a blob along an axis."""
    param, rank = given.param.tile_param, len(given.shapes[0])
    repeats = [param.tiles if axis == given.axis(param.axis) else 1 for axis in range(rank)]
    return [graph.node("Tile", [given.bottoms[0], graph.whole(repeats)], given.tops[0])]


@writes("InnerProduct")
def inner_product(graph: Graph, given: Given) -> Sequence[Value]:
    """Weights times the axes from `axis` on, taken as one vector, plus a bias."""
    param, (x,), (top,) = given.param.inner_product_param, given.bottoms, given.tops
    axis, weights = given.axis(param.axis), given.blobs[0].reshape(given.blobs[0].shape[-2:])
    weights = weights if param.transpose else weights.T
    rows = graph.reshape(x, [graph.sizes(x, 0, axis) if axis else [], [weights.shape[0]]])
    factors = [rows, graph.constant(weights, "weights")]
    if not param.bias_term:
        return [graph.node("MatMul", factors, top)]
    bias = graph.constant(given.blobs[1].reshape(-1), "bias")
    return [graph.node("Add", [graph.node("MatMul", factors), bias], top)]


@writes("Embed")
def embed(graph: Graph, given: Given) -> Sequence[Value]:
    """Row number x of the weights, for each x, plus a bias."""
    param, (top,) = given.param.embed_param, given.tops
    numbers = graph.node("Cast", given.bottoms, to=TensorProto.INT64)
    looked_up = [graph.constant(given.blobs[0], "weights"), numbers]
    if not param.bias_term:
        return [graph.node("Gather", looked_up, top, axis=0)]
    bias = graph.constant(given.blobs[1].reshape(-1), "bias")
    return [graph.node("Add", [graph.node("Gather", looked_up, axis=0), bias], top)]


@writes("BatchReindex")
def batch_reindex(graph: Graph, given: Given) -> Sequence[Value]:
    """Items of the first bottom, in the order of the numbers in the second."""
    numbers = graph.node("Cast", given.bottoms[1:], to=TensorProto.INT64)
    return [graph.node("Gather", [given.bottoms[0], numbers], given.tops[0], axis=0)]


@writes("Reduction")
def reduction(graph: Graph, given: Given) -> Sequence[Value]:
    """Coeff times the sum of x, |x| or x^2, or the mean, over the axes from `axis` on."""
    param, (x,), (top,) = given.param.reduction_param, given.bottoms, given.tops
    axes = list(range(given.axis(param.axis), len(given.shapes[0])))
    kind = param.ReductionOp.Name(param.operation)
    if kind == "ASUM":
        x = graph.node("Abs", [x])
    elif kind == "SUMSQ":
        x = graph.node("Mul", [x, x])
    if kind == "MEAN":
        total = graph.node("ReduceMean", [x], axes=axes, keepdims=0)
    else:
        total = graph.node("ReduceSum", [x, graph.whole(axes)], keepdims=0)
    return [graph.times(total, param.coeff, top)]


@writes("ArgMax")
def arg_max(graph: Graph, given: Given) -> Sequence[Value]:
    """Where the top_k largest values lie, and how large they are.

    Notes
    -----
    Of equal values Caffe takes the one with the larger index first and ONNX that with the smaller:
    they are looked at backwards.
    """
    param, (x,), (top,) = given.param.argmax_param, given.bottoms, given.tops
    rank, by_axis = len(given.shapes[0]), param.HasField("axis")
    axis = given.axis(param.axis) if by_axis else 1
    if not by_axis:
        x = graph.reshape(x, [graph.sizes(x, 0, 1), [-1]])
    backwards = graph.slice(x, [-1], graph.whole([-(2**31)]), [axis], steps=[-1])
    values, places = graph.several(
        "TopK", [backwards, graph.whole([param.top_k])], 2, axis=axis, largest=1, sorted=1
    )
    last = graph.node("Sub", [graph.sizes(x, axis, axis + 1), graph.whole([1])])
    places = graph.node("Cast", [graph.node("Sub", [last, places])], to=TensorProto.FLOAT)
    if by_axis:
        return [values if param.out_max_val else places]
    if param.out_max_val:
        one = graph.whole([1])
        places, values = (graph.node("Unsqueeze", [v, one]) for v in (places, values))
        places = graph.node("Concat", [places, values], axis=1)
    ahead = [2 if param.out_max_val else 1, param.top_k, *(1,) * (rank - 3)]
    return [graph.reshape(places, [graph.sizes(x, 0, 1), ahead], top)]
