"""Segment a picture in mirrored tiles: one at a time, and several under way at once."""

from __future__ import annotations

import numpy as np

import caffe
from exchange import draw_parameters, give, text_file
from unet.network.geometry import Geometry
from unet.segmentation.segment import segment_image
from unet.segmentation.tiles import Tiling

# A window of 185 pixels, as that of the U-Net, in few products.
NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 188 dim: 188 } } }
layer { name: "wide" type: "Convolution" bottom: "data" top: "wide"
  convolution_param { num_output: 4 kernel_size: 3 dilation: 92 } }
layer { name: "bend" type: "ReLU" bottom: "wide" top: "wide" }
layer { name: "score" type: "Convolution" bottom: "wide" top: "score"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""

y, x = np.mgrid[:70, :93]
picture = (np.sin(x / 7) * np.sin(y / 9) + 0.1 * np.cos(3 * x + y)).astype(np.float32)[None]
results = {}
tiling = Tiling.over(picture.shape[1:], (204, 220), Geometry())
net = caffe.Net(text_file(NET), caffe.TEST)
draw_parameters(net)
for retain in (True, False):
    net.retain_data = retain
    for tta in ("none", "dihedral"):
        for together in (1, 8):
            name = f"{tta}, {together} at once" + (", all kept" if retain else "")
            results[name] = segment_image(net, picture, tiling, tta, together=together)
give(results)
