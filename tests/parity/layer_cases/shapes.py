"""Cases of layers that move and choose values."""

from __future__ import annotations

import numpy as np

from tests.parity.harness import Case
from tests.parity.layer_cases.draw import Draw, case, cases_of


@cases_of("Flatten")
def flatten(draw: Draw) -> Case:
    shape = draw.shape(1, 5)
    first = draw.whole(0, len(shape) - 1)
    last = draw.whole(first, len(shape) - 1)
    top = (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])
    options = f"flatten_param {{ axis: {first} end_axis: {last - len(shape)} }}"
    return case(draw, [draw.values(shape)], [top], options)


@cases_of("Reshape")
def reshape(draw: Draw) -> Case:
    shape = draw.shape(1, 5)
    first = draw.whole(0, len(shape))
    last = draw.whole(first, len(shape))
    middle = list(shape[first:last])
    new: list[int] = []
    for size in middle:
        for part in (2, 3):
            if size % part == 0 and draw.flip():
                new.append(part)
                size //= part
        new.append(size)
    dims = [
        0 if place < len(middle) and middle[place] == size and draw.flip(0.3) else size
        for place, size in enumerate(new)
    ]
    if dims and draw.flip():
        dims[draw.whole(0, len(dims) - 1)] = -1
    text = "".join(f" dim: {size}" for size in dims)
    axis = first - len(shape) - 1 if draw.flip(0.3) else first
    options = f"reshape_param {{ shape {{ {text} }} axis: {axis} num_axes: {last - first} }}"
    return case(draw, [draw.values(shape)], [(*shape[:first], *new, *shape[last:])], options)


@cases_of("Tile")
def tile(draw: Draw) -> Case:
    shape, times = draw.shape(1, 4), draw.whole(1, 4)
    axis = draw.axis(len(shape))
    top = list(shape)
    top[axis] *= times
    options = f"tile_param {{ axis: {axis} tiles: {times} }}"
    return case(draw, [draw.values(shape)], [tuple(top)], options)


def _axis_field(draw: Draw, axis: int, old_name: str) -> str:
    # The old field counts from the front only.
    return f"{old_name if axis >= 0 and draw.flip(0.3) else 'axis'}: {axis}"


@cases_of("Concat")
def concat(draw: Draw) -> Case:
    shape, count = draw.shape(1, 5), draw.whole(1, 4)
    axis = draw.axis(len(shape))
    inputs, total = [], 0
    for _ in range(count):
        part = list(shape)
        part[axis] = draw.whole(1, 4)
        total += part[axis]
        inputs.append(draw.values(tuple(part)))
    top = list(shape)
    top[axis] = total
    options = f"concat_param {{ {_axis_field(draw, axis, 'concat_dim')} }}"
    return case(draw, inputs, [tuple(top)], options)


@cases_of("Slice")
def slice_(draw: Draw) -> Case:
    shape = list(draw.shape(1, 5))
    axis, count = draw.axis(len(shape)), draw.whole(1, 4)
    if draw.flip():
        parts = [draw.whole(1, 3) for _ in range(count)]
        points = "".join(f" slice_point: {point}" for point in np.cumsum(parts)[:-1])
    else:
        parts, points = [draw.whole(1, 3)] * count, ""
    shape[axis] = sum(parts)
    tops = []
    for part in parts:
        top = list(shape)
        top[axis] = part
        tops.append(tuple(top))
    options = f"slice_param {{ {_axis_field(draw, axis, 'slice_dim')} {points} }}"
    return case(draw, [draw.values(tuple(shape))], tops, options)


@cases_of("Crop")
def crop(draw: Draw) -> Case:
    shape = draw.shape(1, 5, 8)
    axis = draw.axis(len(shape))
    first = axis % len(shape)
    wanted = [draw.whole(1, size) for size in shape[first:]]
    if draw.flip():
        offsets = [draw.whole(0, size - part) for size, part in zip(shape[first:], wanted)]
    else:
        least = min(size - part for size, part in zip(shape[first:], wanted))
        offsets = [draw.whole(0, least)] if draw.flip() else []
    text = "".join(f" offset: {offset}" for offset in offsets)
    top = (*shape[:first], *wanted)
    reference = (*(draw.whole(1, 3) for _ in shape[:first]), *wanted)
    inputs = [draw.values(shape), draw.values(reference)]
    return case(draw, inputs, [top], f"crop_param {{ axis: {axis} {text} }}")


@cases_of("ArgMax")
def argmax(draw: Draw) -> Case:
    shape = draw.shape(2, 4)
    with_axis, both = draw.flip(), draw.flip()
    axis = draw.axis(len(shape))
    candidates = shape[axis] if with_axis else int(np.prod(shape[1:]))
    top_k = draw.whole(1, min(candidates, 5))
    if with_axis:
        top = list(shape)
        top[axis] = top_k
    else:
        top = [shape[0], 2 if both else 1, top_k]
    text = f"top_k: {top_k} out_max_val: {str(both).lower()}"
    text += f" axis: {axis}" if with_axis else ""
    data = draw.numbers(shape, 4) if draw.flip(0.3) else draw.values(shape)
    return case(draw, [data], [tuple(top)], f"argmax_param {{ {text} }}", backward=False)


@cases_of("BatchReindex")
def batch_reindex(draw: Draw) -> Case:
    shape, count = draw.shape(1, 4), draw.whole(1, 7)
    inputs = [draw.values(shape), draw.numbers((count,), shape[0])]
    return case(draw, inputs, [(count, *shape[1:])], learnt=[0])


@cases_of("Filter")
def filter_(draw: Draw) -> Case:
    items, count = draw.whole(2, 6), draw.whole(1, 3)
    selector = (draw.rng.random(items) < 0.6).astype(np.float32)
    selector[draw.whole(0, items - 1)] = 1
    inputs = [draw.values((items, *draw.shape(0, 3))) for _ in range(count)]
    tops = [(int(selector.sum()), *array.shape[1:]) for array in inputs]
    return case(draw, [*inputs, selector], tops, learnt=range(count))


@cases_of("Reduction")
def reduction(draw: Draw) -> Case:
    shape = draw.shape(1, 5)
    axis = draw.axis(len(shape))
    options = (
        f"reduction_param {{ operation: {draw.one('SUM', 'ASUM', 'SUMSQ', 'MEAN')} axis: {axis} "
        f"coeff: {draw.number_text(-2, 2)} }}"
    )
    return case(draw, [draw.values(shape)], [shape[: axis % len(shape)]], options)


@cases_of("Silence")
def silence(draw: Draw) -> Case:
    return case(draw, [draw.values(draw.shape()) for _ in range(draw.whole(1, 3))], [])


@cases_of("Parameter")
def parameter(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    dims = "".join(f" dim: {size}" for size in shape)
    return case(draw, [], [shape], f"parameter_param {{ shape {{ {dims} }} }}")
