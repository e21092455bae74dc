"""Blobs: live arrays, shapes, memory that outlives its blob."""

import gc

import numpy as np
import pytest
import torch

from caffe.blob import Blob
from caffe.errors import CaffeError


def test_writing_into_the_array_changes_what_layers_read():
    blob = Blob((2, 3))
    blob.data[0, 1] = 7
    assert blob.data_tensor()[0, 1] == 7


def test_a_held_array_sees_the_values_of_the_next_pass():
    blob = Blob((4,))
    array = blob.data
    part = array[1:3]
    blob.set_data(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert array.tolist() == [1, 2, 3, 4]
    assert part.tolist() == [2, 3]
    part[:] = 9
    assert blob.data_tensor().tolist() == [1, 9, 9, 4]


def test_nothing_is_copied_for_an_array_that_nobody_holds():
    blob = Blob((4,))
    blob.data[:] = 1
    gc.collect()
    new = torch.arange(4.0)
    blob.set_data(new)
    assert blob.data_tensor() is new


def test_an_array_outlives_its_blob():
    blob = Blob((3,))
    array = blob.data
    array[:] = 5
    del blob
    gc.collect()
    assert array.tolist() == [5, 5, 5]


def test_the_array_is_contiguous_nchw_whatever_the_layout_computed_in():
    blob = Blob((1, 3, 4, 5))
    values = torch.randn(1, 3, 4, 5)
    blob.set_data(values.contiguous(memory_format=torch.channels_last))
    array = blob.data
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, values.numpy())
    array.reshape(-1)[0] = 42
    assert blob.data_tensor()[0, 0, 0, 0] == 42


def test_reshape_keeps_the_values_that_still_fit():
    blob = Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape(4)
    assert blob.data.tolist() == [0, 1, 2, 3]
    blob.reshape(2, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3]]


def test_legacy_axes_count_as_one_where_missing():
    blob = Blob((7, 5))
    assert (blob.num, blob.channels, blob.height, blob.width) == (7, 5, 1, 1)
    with pytest.raises(CaffeError, match="at most 4 axes"):
        Blob((1, 1, 1, 1, 1)).num  # noqa: B018  (the property raises)


@pytest.mark.parametrize("shape", [(-1, 2), (2**16, 2**16)])
def test_impossible_shapes_are_refused_before_memory_is_taken(shape):
    with pytest.raises(CaffeError, match=r"shape|axis"):
        Blob(shape)


@pytest.mark.gpu
def test_on_a_gpu_the_array_is_brought_up_to_date_when_asked_for_and_written_back():
    import caffe

    caffe.set_mode_gpu()
    try:
        blob = Blob((2,))
        blob.set_data(torch.tensor([1.0, 2.0], device="cuda"))
        array = blob.data
        assert array.tolist() == [1, 2]
        array[0] = 9
        assert blob.data_tensor().tolist() == [9, 2]
    finally:
        caffe.set_mode_cpu()
