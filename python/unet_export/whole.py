"""Scores as large as the image around a network's own, which tools that cut a halo off can tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unet.network.geometry import Geometry
from unet_export.graph import Value
from unet_export.network import Written


def halo(axis: Geometry) -> int:
    """Return how many scores at each edge are of no use, whatever the size.

    border + f - 1 for sizes that lose f - 1 pixels more at the end; then the next multiple of f,
    so that blocks are multiples of f as well, and lie at such.
    """
    factor = axis.downsample_factor
    return -(-(axis.border + factor - 1) // factor) * factor


def smallest_block(axis: Geometry) -> int:
    """Return the smallest size of a block of which something is left without the halo."""
    return axis.downsample_factor + 2 * halo(axis)


def window(axis: Geometry, size: int) -> tuple[int, int]:
    """Return the part of `size` pixels that the network is given: its first pixel, and its size.

    From there on its scores lie behind the halo.
    """
    first, factor, pad = halo(axis) - axis.border, axis.downsample_factor, axis.pad_input
    return first, (size - first - pad) // factor * factor + pad


def placed(scores: np.ndarray, axes: Sequence[Geometry], shape: Sequence[int]) -> np.ndarray:
    """Return scores (channels, ...) of `window`s among zeros, where they lie in an image."""
    result = np.zeros((scores.shape[0], *shape), scores.dtype)
    inner, where = [slice(None)], [slice(None)]
    for axis, size in zip(axes, scores.shape[1:]):
        inner.append(slice(axis.margin, size - axis.margin))
        where.append(slice(halo(axis), halo(axis) + size - 2 * axis.margin))
    result[tuple(where)] = scores[tuple(inner)]
    return result


def make_whole(written: Written, axes: Sequence[Geometry], source: Value, score: Value) -> Written:
    """Lay a network's graph between `window` and `placed`, for every size.

    Parameters
    ----------
    written : Written
        A network whose output is `score`; its graph is changed.
    axes : sequence of Geometry
    source, score : str
        What the input and the output are called.
    """
    graph, number = written.graph, len(axes)
    within, graph.nodes = graph.nodes, []
    graph.scope = "whole"
    factors = graph.whole([axis.downsample_factor for axis in axes])
    pads = graph.whole([axis.pad_input for axis in axes])
    first = graph.whole([halo(axis) - axis.border for axis in axes])
    image = graph.name("image")
    sizes = graph.sizes(image, 2)
    most = graph.node("Sub", [graph.node("Sub", [sizes, first]), pads])
    taken = graph.node("Mul", [graph.node("Div", [most, factors]), factors])
    stops = graph.node("Add", [graph.node("Add", [taken, pads]), first])
    pixels = range(2, 2 + number)
    cut = graph.slice(image, first, stops, pixels)
    renamed = {source: cut}
    for node in within:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    graph.nodes += within
    margins = [axis.margin for axis in axes]
    if any(margins):
        ends = [-margin if margin else None for margin in margins]
        score = graph.slice(score, margins, ends, pixels)
    before = graph.whole([halo(axis) for axis in axes])
    after = graph.node("Sub", [graph.node("Sub", [sizes, before]), graph.sizes(score, 2)])
    none = graph.whole([0, 0])
    sides = graph.node("Concat", [none, before, none, after], axis=0)
    graph.node("Pad", [score, sides], "scores", mode="constant")
    (given,), (out,) = written.inputs.values(), written.outputs.values()
    return Written(graph, {"image": given}, {"scores": [*out[:2], *given[2:]]})
