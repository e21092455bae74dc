"""Loops over vectors, compiled: against numpy."""

import numpy as np
import pytest
import torch

from caffe.layers.winograd import simd
from caffe.layers.winograd.simd import Builder, Int, Pointer

binding = pytest.importorskip("llvmlite.binding")


def test_loops_loads_sums_and_stores():
    def body(
        builder: Builder, first: Pointer, second: Pointer, result: Pointer, rows: Int, columns: Int
    ):
        with builder.loop(rows) as row, builder.loop(columns, simd.LANES) as column:
            index = row * columns + column
            result.store(index, first.load(index) * 2.5 - second.load(column) + first.load(index))

    function = simd.compiled(body)
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 48)).astype("f4"), rng.normal(size=48).astype("f4")
    result = np.full((4, 48), 7, "f4")
    function(first.ctypes.data, second.ctypes.data, result.ctypes.data, 3, 48)
    np.testing.assert_allclose(result[:3], 3.5 * first - second, rtol=1e-5, atol=1e-6)
    # What lies behind is left alone.
    assert np.all(result[3] == 7)


def test_strided_loads_minima_relu_and_choices():
    def body(builder: Builder, values: Pointer, result: Pointer, **sizes: Int):
        stride, limit = sizes["stride"], sizes["limit"]
        with builder.loop(limit) as row:
            vector = values.load_strided(row.minimum(limit), stride)
            result.store(row * simd.LANES, vector.relu().where(row + 1 >= limit))

    function = simd.compiled(body, "stride", "limit")
    values = np.random.default_rng(1).normal(size=64).astype("f4")
    values[3 + 1] = np.nan
    result = np.full((2, simd.LANES), 7, "f4")
    function(values.ctypes.data, result.ctypes.data, 3, 2)
    assert np.all(result[0] == 0)
    wanted = values[1 : 1 + 3 * simd.LANES : 3]
    np.testing.assert_array_equal(result[1], np.where(wanted < 0, 0, wanted))


def test_strided_stores():
    def body(builder: Builder, values: Pointer, result: Pointer, stride: Int):
        result.store_strided(stride, stride, values.load(stride))

    function = simd.compiled(body)
    values, result = np.arange(30, dtype="f4"), np.full(64, -1, "f4")
    function(values.ctypes.data, result.ctypes.data, 3)
    np.testing.assert_array_equal(result[3 : 3 + 3 * simd.LANES : 3], values[3 : 3 + simd.LANES])
    assert (result == -1).sum() == 64 - simd.LANES


def test_streamed_lines_and_what_is_fetched_from_anywhere():
    def body(builder: Builder, values: Pointer, result: Pointer, rows: Int, far: Int):
        with builder.loop(rows) as row:
            half = row // 2
            where = (row - half + half.where(half >= 1)) * simd.LANES
            values.at(far).fetch(row * far)
            result.stream(where, values.load(where))
        builder.fence()

    function = simd.compiled(body)
    room = np.zeros(4 * simd.LANES + simd.LANES, "f4")
    # A line of the cache is streamed whole.
    result = room[-room.ctypes.data % (4 * simd.LANES) // 4 :][: 4 * simd.LANES]
    values = np.random.default_rng(3).normal(size=4 * simd.LANES).astype("f4")
    # Where no memory is at all.
    function(values.ctypes.data, result.ctypes.data, 3, 2**40)
    np.testing.assert_array_equal(result[: 3 * simd.LANES], values[: 3 * simd.LANES])
    assert not result[3 * simd.LANES :].any()


def test_a_loop_of_none_is_not_run():
    def body(builder: Builder, result: Pointer, count: Int):
        with builder.loop(count) as row:
            result.store(row, result.load(row) * 0)

    function = simd.compiled(body)
    result = np.ones(simd.LANES, "f4")
    function(result.ctypes.data, 0)
    function(result.ctypes.data, -5)
    assert np.all(result == 1)


def test_a_loop_accumulates_products_and_calls_what_was_compiled():
    def inner(builder: Builder, left: Pointer, right: Pointer, result: Pointer, count: Int):
        def add(k, sums):
            row = right.load(k * simd.LANES)
            return [total + row * left.broadcast(k + n) for n, total in enumerate(sums)]

        for n, total in enumerate(builder.accumulate(count, 1, [builder.zeros()] * 2, add)):
            result.store(n * simd.LANES, total)

    product = simd.compiled(inner)

    def outer(
        builder: Builder, left: Pointer, right: Pointer, result: Pointer, function: Int, times: Int
    ):
        with builder.loop(times, times) as number:
            builder.call(function, left.at(number + 1), right, result, times - 2)

    function = simd.compiled(outer)
    rng = np.random.default_rng(2)
    left = rng.normal(size=8).astype("f4")
    right = rng.normal(size=(5, simd.LANES)).astype("f4")
    result = np.full((3, simd.LANES), 7, "f4")
    arrays = (array.ctypes.data for array in (left, right, result))
    function(*arrays, product.address, 7)
    wanted = [left[1:6] @ right, left[2:7] @ right]
    np.testing.assert_allclose(result[:2], wanted, rtol=1e-5, atol=1e-6)
    assert np.all(result[2] == 7)


@pytest.mark.parametrize(
    ("computes", "processor", "held"),
    [
        ("AVX512", {"avx": True, "avx2": True, "avx512f": True}, 12),
        ("AVX2", {"avx": True, "avx2": True, "avx512f": True, "avx512vl": True}, 6),
        ("AVX2", {"avx": True, "avx2": True, "avx512f": False}, 6),
        ("DEFAULT", {}, 3),
    ],
)
def test_code_takes_no_instructions_that_pytorch_leaves_alone(
    monkeypatch, computes, processor, held
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: computes)
    features = binding.targets.FeatureMap(processor)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: features)
    assert simd.accumulators.__wrapped__() == held
    assert ("+avx512" in simd._features().flatten()) == (computes == "AVX512")
