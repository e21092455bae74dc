"""Pictures into blobs and back, judged by genuine caffe.io."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caffe import io
from caffe.proto import caffe_pb2

# What both engines run: the same pictures through the same functions.
PROGRAM = """
import sys
import numpy as np
from caffe import io

rng = np.random.RandomState(0)
out = {}
sizes = [((7, 9, 3), (14, 18), 1), ((7, 9, 3), (5, 6), 1), ((20, 30, 1), (7, 9), 1),
         ((7, 9, 4), (14, 18), 1), ((8, 8, 2), (5, 6), 3), ((7, 9, 3), (14, 18), 0),
         ((20, 19, 3), (7, 9), 0), ((7, 9, 3), (7, 9), 1)]
for number, (shape, size, order) in enumerate(sizes):
    out["resize%d" % number] = io.resize_image(rng.rand(*shape) * 300 - 20, size, order)
out["resize even"] = io.resize_image(np.full((4, 5, 3), 7.0), (2, 3))
sizes = [((7, 9, 3), (5, 6)), ((8, 9, 1), (5, 5)), ((8, 8, 2), (8, 8))]
for number, (shape, size) in enumerate(sizes):
    out["oversample%d" % number] = io.oversample([rng.rand(*shape) for _ in range(2)], size)
t = io.Transformer({"data": (1, 3, 6, 7)})
small, large = rng.rand(6, 7, 3), rng.rand(12, 11, 3)
out["nothing set"] = t.preprocess("data", small)
t.set_transpose("data", (2, 0, 1))
t.set_channel_swap("data", (2, 0, 1))
t.set_raw_scale("data", 255.0)
t.set_mean("data", rng.rand(3) * 100)
t.set_input_scale("data", 0.1)
out["preprocess"] = t.preprocess("data", small)
out["deprocess"] = t.deprocess("data", out["preprocess"])
out["preprocess resized"] = t.preprocess("data", large)
t.set_mean("data", rng.rand(3, 9, 9) * 100)
out["mean"] = t.mean["data"]
out["preprocess by a mean picture"] = t.preprocess("data", small)
t.set_mean("data", rng.rand(3, 6, 7) * 100)
out["preprocess by a mean picture of its size"] = t.preprocess("data", small)
arrays = [rng.rand(2, 3), rng.rand(1), rng.rand(2, 1, 1, 3)]
text = io.arraylist_to_blobprotovector_str(arrays)
out["vector"] = np.frombuffer(text, np.uint8)
for number, array in enumerate(io.blobprotovector_str_to_arraylist(text)):
    out["vector%d" % number] = array
blob = io.array_to_blobproto(arrays[0], arrays[0] + 1)
out["blob"] = np.frombuffer(blob.SerializeToString(), np.uint8)
out["blob data"], out["blob diff"] = io.blobproto_to_array(blob), io.blobproto_to_array(blob, True)
for kind in (np.uint8, np.float32, np.int64, bool):
    datum = io.array_to_datum((rng.rand(2, 3, 4) * 9).astype(kind), label=5)
    out["datum " + kind.__name__] = np.frombuffer(datum.SerializeToString(), np.uint8)
    out["array " + kind.__name__] = io.datum_to_array(datum)
np.savez(sys.argv[2], **out)
"""


def test_functions_give_what_genuine_ones_give(ours, reference):
    mine, theirs = ours.run(PROGRAM), reference.run(PROGRAM)
    assert mine.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert mine[name].shape == expected.shape, name
        assert mine[name].dtype == expected.dtype, name
        np.testing.assert_allclose(mine[name], expected, rtol=1e-5, atol=1e-4, err_msg=name)


@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
        elements=st.floats(width=32),
    )
)
def test_a_blob_keeps_shape_and_values(array):
    np.testing.assert_array_equal(io.blobproto_to_array(io.array_to_blobproto(array)), array)


def test_old_blobs_have_four_axes():
    blob = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=1, data=[3, 4])
    np.testing.assert_array_equal(io.blobproto_to_array(blob), [[[[3]], [[4]]]])


def test_blobs_of_doubles_are_read():
    blob = caffe_pb2.BlobProto(double_data=[3, 4], double_diff=[5, 6])
    blob.shape.dim.append(2)
    np.testing.assert_array_equal(io.blobproto_to_array(blob), [3, 4])
    np.testing.assert_array_equal(io.blobproto_to_array(blob, return_diff=True), [5, 6])


def test_a_blob_of_other_numbers_than_its_shape_says_is_refused():
    blob = caffe_pb2.BlobProto(data=[1, 2])
    blob.shape.dim.append(3)
    with pytest.raises(ValueError, match="reshape"):
        io.blobproto_to_array(blob)


def test_preprocessing_leaves_the_picture_alone():
    transformer = io.Transformer({"data": (1, 3, 4, 5)})
    transformer.set_raw_scale("data", 255)
    picture = np.ones((4, 5, 3), np.float32)
    transformer.preprocess("data", picture)
    assert (picture == 1).all()


def test_an_even_mean_picture_is_resized():
    transformer = io.Transformer({"data": (1, 3, 4, 5)})
    transformer.set_mean("data", np.full((3, 9, 9), 7.0))
    np.testing.assert_array_equal(transformer.mean["data"], np.full((3, 4, 5), 7))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("set_mean", np.zeros(2)),
        ("set_mean", np.zeros((7, 8))),
        ("set_mean", np.zeros((2, 2, 2, 2))),
        ("set_transpose", (1, 0)),
        ("set_channel_swap", (1, 0)),
    ],
)
def test_a_setting_that_does_not_fit_the_input_is_refused(setting, value):
    transformer = io.Transformer({"data": (1, 3, 4, 5)})
    with pytest.raises(Exception, match="data"):
        getattr(transformer, setting)("data", value)
    with pytest.raises(Exception, match="label is not one of the net inputs"):
        getattr(transformer, setting)("label", value)


@pytest.mark.parametrize(
    ("picture", "coloured", "grey"),
    [
        (np.array([[0, 255], [51, 102]], np.uint8), [0, 1, 0.2, 0.4], [0, 1, 0.2, 0.4]),
        (np.array([[0, 65535]], np.uint16), [0, 1], [0, 1]),
        (np.full((1, 1, 3), 51, np.uint8), [0.2], [0.2]),
        (np.full((1, 1, 4), (51, 51, 51, 255), np.uint8), [0.2], [0.2]),
    ],
)
def test_pictures_are_loaded_from_0_to_1(picture, coloured, grey, tmp_path):
    imageio = pytest.importorskip("skimage.io")
    path = tmp_path / "picture.png"
    imageio.imsave(str(path), picture, check_contrast=False)
    loaded = io.load_image(path)
    assert (loaded.shape, loaded.dtype) == ((*picture.shape[:2], 3), np.float32)
    np.testing.assert_allclose(loaded[..., 0].ravel(), coloured, atol=1e-6)
    np.testing.assert_array_equal(loaded[..., 0], loaded[..., 2])
    loaded = io.load_image(path, color=False)
    assert (loaded.shape, loaded.dtype) == ((*picture.shape[:2], 1), np.float32)
    np.testing.assert_allclose(loaded.ravel(), grey, atol=1e-6)


def test_crops_larger_than_the_picture_are_refused():
    with pytest.raises(ValueError, match="crops of"):
        io.oversample([np.zeros((4, 5, 3))], (5, 5))


def test_a_datum_needs_three_axes():
    with pytest.raises(ValueError, match="three axes"):
        io.array_to_datum(np.zeros((3, 3)))
