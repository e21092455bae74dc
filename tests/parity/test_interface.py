"""Coordinates and crops of nets, by the same script on both engines."""

from __future__ import annotations

import numpy as np

CROPS = """
import numpy as np
import caffe
from caffe import layers as L, params as P
from caffe.coord_map import coord_map_from_to, crop
from exchange import give

texts = {}
for number, (pad, cut, stride, dilation) in enumerate(
    [(100, 0, 1, 1), (0, 0, 1, 1), (1, 1, 1, 1), (0, 1, 2, 1), (5, 2, 1, 2), (3, 0, 2, 3)]
):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, 100, 100]))
    n.conv = L.Convolution(
        n.data, num_output=4, kernel_size=3, pad=pad, stride=stride, dilation=dilation
    )
    n.relu = L.ReLU(n.conv, in_place=True)
    n.pool = L.Pooling(n.relu, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.sum = L.Eltwise(n.pool, n.pool)
    n.up = L.Deconvolution(
        n.sum, convolution_param=dict(num_output=2, kernel_size=4, stride=2, pad=cut)
    )
    for name, (first, second) in {
        "a": (n.up, n.data), "b": (n.data, n.up), "c": (n.conv, n.up), "d": (n.up, n.conv)
    }.items():
        key = "%d %s" % (number, name)
        try:
            axis, scale, shift = coord_map_from_to(first, second)
            texts[key + " map"] = np.array([axis, np.squeeze(scale), np.squeeze(shift)], float)
            n[name] = crop(first, second)
        except (AssertionError, RuntimeError) as error:
            texts[key + " error"] = type(error).__name__
    texts["%d net" % number] = str(n.to_proto())
give(texts)
"""


def test_coordinates_and_crops_equal_genuine_caffes(ours, reference):
    got, wanted = ours.run(CROPS), reference.run(CROPS)
    assert set(got) == set(wanted)
    assert any("error" in key for key in wanted)
    for key, value in wanted.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)
