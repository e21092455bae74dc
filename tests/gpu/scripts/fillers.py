"""Draw parameters and DummyData by every filler: one seed gives the same on every device."""

from __future__ import annotations

import numpy as np

import caffe
from exchange import give, parameters, text_file

FILLERS = {
    "constant": "value: 0.25",
    "uniform": "min: -1 max: 2",
    "gaussian": "mean: 1 std: 0.5",
    "positive_unitball": "",
    "xavier": "",
    "msra": "variance_norm: AVERAGE",
    "bilinear": "",
}
results = {}
for number, (kind, options) in enumerate(FILLERS.items()):
    caffe.set_random_seed(number)
    filler = f'type: "{kind}" {options}'
    net = caffe.Net(
        text_file(f"""
        layer {{ name: "data" type: "DummyData" top: "x" dummy_data_param {{
          shape {{ dim: 2 dim: 3 dim: 6 dim: 6 }} data_filler {{ {filler} }} }} }}
        layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y"
          convolution_param {{ num_output: 3 kernel_size: 4 group: 3 bias_term: false
          weight_filler {{ {filler} }} }} }}
        layer {{ name: "product" type: "InnerProduct" bottom: "y" top: "z"
          inner_product_param {{ num_output: 9 weight_filler {{
          type: "gaussian" std: 1 sparse: 3 }} }} }}"""),
        caffe.TRAIN,
    )
    for turn in range(2):
        net.forward()
        results[f"{kind} {turn} x"] = np.array(net.blobs["x"].data)
    results.update({f"{kind} {name}": values for name, values in parameters(net).items()})
give(results)
