"""Dask arrays in, dask arrays out; Zarr arrays in: the same values as of arrays in memory."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import unet.model.model
from unet import load

dask_array = pytest.importorskip("dask.array", reason="needs dask")
STACK = np.random.default_rng(0).integers(0, 256, (3, 300, 280), np.uint8)
GREY = dict(intensity=(0, 255))


@pytest.fixture(scope="module")
def model():
    return load("isbi2012_slim", device="cpu")


def lazy_stack(stack: np.ndarray, read: list[tuple[int, ...]]):
    """Return a dask array that notes which of its chunks are computed."""

    def chunk(block: np.ndarray, block_info=None) -> np.ndarray:
        read.append(block_info[0]["chunk-location"])
        return block

    lazy = dask_array.from_array(stack, (1, 100, 100))
    return lazy.map_blocks(chunk, dtype=stack.dtype, meta=np.empty((0, 0, 0), stack.dtype))


@pytest.mark.parametrize("options", [GREY, dict(normalise=True, tta="rotate")])
def test_a_dask_array_comes_out_with_the_values_of_an_array_in_memory(model, options):
    lazy = model.segment(dask_array.from_array(STACK, (2, 100, 280)), **options)
    assert isinstance(lazy, dask_array.Array)
    assert (lazy.shape, lazy.dtype) == (STACK.shape, np.float32)
    np.testing.assert_array_equal(lazy.compute(), model.segment(STACK, **options))


def test_nothing_is_computed_before_it_is_asked_for(model):
    read = []
    lazy = model.segment(lazy_stack(STACK, read), **GREY)
    assert read == []
    lazy[1, :10, :10].compute()
    assert {z for z, _, _ in read} == {1}


def test_blocks_of_a_large_slice_ask_for_what_their_tiles_show(model):
    large, read = np.tile(STACK[:1], (1, 3, 3)), []
    # So little memory that a slice is cut into blocks.
    options = dict(GREY, memory=80e6, tile=316)
    lazy = model.segment(lazy_stack(large, read), **options)
    first = lazy.blocks[0, 0, 0]
    assert first.size < large.size
    first.compute()
    assert 0 < len(set(read)) < 9 * 9
    np.testing.assert_array_equal(lazy.compute(), model.segment(large, **options))


def test_blocks_of_a_slice_that_is_normalised_are_given_all_of_it(model, monkeypatch):
    monkeypatch.setattr(unet.model.model, "choose_block", lambda *_: (64, 112))
    small = STACK[:2, :100, :150]
    lazy = model.segment(dask_array.from_array(small), normalise=True)
    assert lazy.chunks == ((1, 1), (64, 36), (112, 38))
    np.testing.assert_array_equal(lazy.compute(), model.segment(small, normalise=True))


def test_a_single_slice(model):
    lazy = model.segment(dask_array.from_array(STACK[0]), **GREY)
    np.testing.assert_array_equal(lazy.compute(), model.segment(STACK[0], **GREY))


def test_zarr_arrays_are_read_slice_by_slice(model, tmp_path):
    zarr = pytest.importorskip("zarr", reason="needs zarr")
    stored = zarr.open_array(
        str(tmp_path / "s.zarr"), mode="w", shape=STACK.shape, chunks=(1, 300, 280), dtype="u1"
    )
    stored[:] = STACK
    np.testing.assert_array_equal(model.segment(stored, **GREY), model.segment(STACK, **GREY))


@pytest.mark.slow
def test_processes_of_a_cluster_compute_what_is_asked_for(model):
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
    lazy = model.segment(dask_array.from_array(STACK, (1, 300, 280)), **GREY)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        computed = client.compute(lazy).result()
    np.testing.assert_array_equal(computed, model.segment(STACK, **GREY))


def test_a_model_is_pickled_by_the_names_of_its_files(model):
    pickled = pickle.dumps(model)
    assert len(pickled) < 1000
    one, two = pickle.loads(pickled), pickle.loads(pickled)
    assert one is two and repr(one) == repr(model)
    np.testing.assert_array_equal(one.segment(STACK[:1]), model.segment(STACK[:1]))
