"""Layer by layer: what ONNX Runtime computes of an export is what the engine computes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs pip install onnx onnxruntime (Python 3.11)")

from tests.unet_export.running import assert_equal, open_net
from unet.errors import InputError
from unet_export.network import write_network


def text_of(layer: str, shapes: list[tuple[int, ...]], tops: int = 1) -> str:
    """Return the text of a net of one layer over inputs of these shapes."""
    text = ""
    for number, shape in enumerate(shapes):
        dims = " ".join(f"dim: {size}" for size in shape)
        text += (
            f'layer {{ name: "in{number}" type: "Input" top: "in{number}" '
            f"input_param {{ shape {{ {dims} }} }} }}\n"
        )
    kind, _, param = layer.partition(" ")
    bottoms = " ".join(f'bottom: "in{number}"' for number in range(len(shapes)))
    given = " ".join(f'top: "out{number}"' for number in range(tops))
    return text + f'layer {{ name: "the layer" type: "{kind}" {bottoms} {given} {param} }}'


IMAGE, VOLUME, ROW = (2, 4, 11, 14), (1, 2, 7, 8, 9), (3, 5)
ONE_BOTTOM = [
    *[(f"{kind}", IMAGE) for kind in ("Sigmoid", "TanH", "AbsVal", "BNLL", "ReLU", "ELU", "PReLU")],
    *[(f"{kind}", IMAGE) for kind in ("Swish", "Dropout", "Softmax", "MVN", "LRN", "Split")],
    *[(f"{kind}", VOLUME) for kind in ("ReLU", "PReLU", "BatchNorm", "MVN", "Softmax")],
    *[(f"{kind}", ROW) for kind in ("PReLU", "MVN", "Softmax", "BatchNorm")],
    ("ReLU relu_param { negative_slope: 0.1 }", IMAGE),
    ("ELU elu_param { alpha: 0.7 }", IMAGE),
    ("PReLU prelu_param { channel_shared: true }", IMAGE),
    ("Swish swish_param { beta: 2 }", IMAGE),
    ("Clip clip_param { min: -0.5 max: 0.7 }", IMAGE),
    ("Clip clip_param { min: 0.5 max: -0.7 }", IMAGE),
    ("Threshold threshold_param { threshold: 0.2 }", IMAGE),
    ("Power power_param { power: 2 scale: 0.5 shift: 1 }", IMAGE),
    ("Power power_param { power: 1 scale: 0.5 shift: 1 }", IMAGE),
    ("Power power_param { power: 3 scale: 0 shift: 2 }", IMAGE),
    ("Exp exp_param { base: 2 scale: 0.5 shift: 1 }", IMAGE),
    ("Exp", IMAGE),
    ("Softmax softmax_param { axis: 2 }", IMAGE),
    ("BatchNorm", IMAGE),
    ("BatchNorm batch_norm_param { use_global_stats: false }", IMAGE),
    ("MVN mvn_param { normalize_variance: false }", IMAGE),
    ("MVN mvn_param { across_channels: true }", IMAGE),
    ("LRN lrn_param { local_size: 3 alpha: 2 beta: 0.6 k: 1.5 }", IMAGE),
    ("LRN lrn_param { local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL }", IMAGE),
    ("Scale", IMAGE),
    ("Scale scale_param { bias_term: true }", IMAGE),
    ("Scale scale_param { axis: 0 num_axes: 2 bias_term: true }", ROW),
    ("Scale scale_param { num_axes: 0 }", IMAGE),
    ("Bias", IMAGE),
    ("Bias bias_param { axis: -1 }", ROW),
    ("ValueTransformation value_transformation_param { offset { v: -0.5 } }", IMAGE),
    (
        "ValueTransformation value_transformation_param { scale { v: 1 v: 2 v: 3 v: 4 } "
        "offset { v: 4 v: 3 v: 2 v: 1 } }",
        IMAGE,
    ),
    ("Convolution convolution_param { num_output: 3 kernel_size: 3 }", IMAGE),
    ("Convolution convolution_param { num_output: 3 kernel_size: 3 bias_term: false }", IMAGE),
    (
        "Convolution convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 pad_h: 1 pad_w: 2 "
        "stride_h: 2 stride_w: 1 dilation: 2 group: 2 }",
        IMAGE,
    ),
    ("Convolution convolution_param { num_output: 3 kernel_size: 3 pad: 1 pad: 0 pad: 2 }", VOLUME),
    ("Convolution convolution_param { num_output: 3 kernel_size: 2 }", (2, 3, 9)),
    ("Deconvolution convolution_param { num_output: 3 kernel_size: 2 stride: 2 }", IMAGE),
    (
        "Deconvolution convolution_param { num_output: 6 kernel_size: 4 stride: 3 pad: 1 "
        "dilation: 2 group: 2 }",
        IMAGE,
    ),
    ("Deconvolution convolution_param { num_output: 2 kernel_size: 2 stride: 2 }", VOLUME),
    ("InnerProduct inner_product_param { num_output: 6 }", IMAGE),
    ("InnerProduct inner_product_param { num_output: 6 bias_term: false axis: 2 }", IMAGE),
    ("InnerProduct inner_product_param { num_output: 6 transpose: true }", ROW),
    ("Flatten", IMAGE),
    ("Flatten flatten_param { axis: 1 end_axis: 2 }", IMAGE),
    ("Flatten flatten_param { axis: 0 }", IMAGE),
    ("Reshape reshape_param { shape { dim: 0 dim: 2 dim: -1 } }", IMAGE),
    ("Reshape reshape_param { shape { dim: -1 dim: 2 } axis: 1 num_axes: 1 }", IMAGE),
    ("Tile tile_param { axis: 1 tiles: 3 }", IMAGE),
    ("Tile tile_param { axis: -1 tiles: 2 }", IMAGE),
    *[
        (f"Reduction reduction_param {{ operation: {kind} axis: {axis} coeff: 0.5 }}", IMAGE)
        for kind, axis in (("SUM", 1), ("ASUM", 2), ("SUMSQ", 3), ("MEAN", 1), ("MEAN", 0))
    ],
    ("ArgMax argmax_param { axis: 1 }", IMAGE),
    ("ArgMax argmax_param { axis: 1 top_k: 3 }", IMAGE),
    ("ArgMax argmax_param { axis: 1 top_k: 2 out_max_val: true }", IMAGE),
    ("ArgMax argmax_param { top_k: 3 }", IMAGE),
    ("ArgMax argmax_param { top_k: 2 out_max_val: true }", ROW),
    ("Pooling pooling_param { global_pooling: true }", IMAGE),
    ("Pooling pooling_param { global_pooling: true pool: AVE }", VOLUME),
    ("Pooling pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR pad: 1 }", IMAGE),
    ("Pooling pooling_param { kernel_size: 2 stride: 2 pool: STOCHASTIC }", IMAGE),
    ("Pooling pooling_param { kernel_size: 2 stride: 2 pool: AVE }", VOLUME),
    ("Pooling pooling_param { kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 2 pad_w: 1 }", IMAGE),
    ("Pooling pooling_param { kernel_size: 1 stride: 3 }", IMAGE),
]


@pytest.mark.parametrize(("layer", "shape"), ONE_BOTTOM)
def test_a_layer_gives_the_same_for_every_size(tmp_path, layer, shape):
    net = open_net(tmp_path / "net.prototxt", text_of(layer, [shape]))
    sizes = [{"in0": shape}]
    # Parameters of InnerProduct are for one size of pixels, and so is what Scale lies along.
    fixed = layer.startswith("InnerProduct") or "axis: 0 num_axes" in layer or "-1 }" in layer
    sizes.append({"in0": (shape[0] + (not fixed or len(shape) > 2), *shape[1:])})
    if not fixed and len(shape) > 2:
        sizes.append({"in0": (*shape[:2], *(size + k for k, size in enumerate(shape[2:], 1)))})
    assert_equal(net, sizes[: 1 if "axis: 0" in layer else None])


def test_logarithms_of_what_is_positive(tmp_path):
    text = text_of("Log log_param { base: 10 scale: 2 shift: 0.5 }", [IMAGE])
    net = open_net(tmp_path / "net.prototxt", text)
    assert_equal(net, [{"in0": IMAGE}], draw=np.random.default_rng(0).random)


def test_pooling_rounds_up_and_clips_as_caffe_does_for_every_geometry(tmp_path):
    for pool in ("MAX", "AVE"):
        for kernel, stride, pad in [
            *[(k, s, p) for k in (2, 3) for s in (1, 2, 3) for p in (0, 1) if s <= k],
            (3, 2, 2),
            (3, 3, 2),
            (4, 3, 3),
        ]:
            layer = (
                f"Pooling pooling_param {{ pool: {pool} kernel_size: {kernel} stride: {stride} "
                f"pad: {pad} }}"
            )
            net = open_net(tmp_path / "net.prototxt", text_of(layer, [(1, 2, 9, 10)]))
            assert_equal(net, [{"in0": (1, 2, 9 + k, 10 + k)} for k in range(4)])


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        ("Eltwise", [IMAGE, IMAGE, IMAGE]),
        ("Eltwise eltwise_param { operation: PROD }", [IMAGE, IMAGE]),
        ("Eltwise eltwise_param { operation: MAX }", [IMAGE, IMAGE, IMAGE]),
        ("Eltwise eltwise_param { coeff: 1 coeff: -2 }", [IMAGE, IMAGE]),
        ("Concat", [IMAGE, (2, 3, 11, 14)]),
        ("Concat", [IMAGE, (2, 3, 17, 16)]),
        ("Concat", [(1, 2, 5, 6, 7), (1, 3, 7, 10, 9)]),
        ("Concat concat_param { axis: 2 }", [IMAGE, (2, 4, 5, 14)]),
        ("Crop crop_param { offset: 2 offset: 3 }", [(2, 3, 20, 22), IMAGE]),
        ("Crop crop_param { axis: 1 offset: 1 }", [(2, 6, 20, 22), IMAGE]),
        ("Crop", [(1, 3, 9, 9, 9), VOLUME]),
        ("Scale scale_param { axis: 0 }", [IMAGE, (2, 4)]),
        ("Bias bias_param { axis: 2 }", [IMAGE, (11, 14)]),
    ],
)
def test_layers_of_several_bottoms(tmp_path, layer, shapes):
    net = open_net(tmp_path / "net.prototxt", text_of(layer, shapes))
    assert_equal(net, [{f"in{number}": shape for number, shape in enumerate(shapes)}])


def test_a_concat_cuts_what_is_larger_at_another_size_than_the_network_was_opened_at(tmp_path):
    text = """
        layer { name: "data" type: "Input" top: "data"
                input_param { shape { dim: 1 dim: 2 dim: 16 dim: 16 } } }
        layer { name: "p" type: "Pooling" bottom: "data" top: "p"
                pooling_param { kernel_size: 4 stride: 4 } }
        layer { name: "u" type: "Deconvolution" bottom: "p" top: "u"
                convolution_param { num_output: 3 kernel_size: 4 stride: 4 } }
        layer { name: "c" type: "Concat" bottom: "data" bottom: "u" top: "c" }
    """
    net = open_net(tmp_path / "net.prototxt", text)
    assert_equal(net, [{"data": (1, 2, *sizes)} for sizes in ((16, 16), (18, 20), (22, 34))])


def test_a_crop_follows_sizes_that_are_known_when_it_runs(tmp_path):
    text = text_of("Crop crop_param { offset: 2 }", [(1, 3, 20, 22), (1, 1, 8, 9)])
    net = open_net(tmp_path / "net.prototxt", text)
    assert_equal(
        net,
        [
            {"in0": (1, 3, 30, 22), "in1": (1, 1, 25, 9)},
            {"in0": (1, 3, 20, 40), "in1": (1, 1, 5, 38)},
        ],
    )


@pytest.mark.parametrize(
    ("layer", "tops"),
    [
        ("Slice", 2),
        ("Slice slice_param { slice_point: 1 slice_point: 2 }", 3),
        ("Slice slice_param { axis: 3 }", 2),
        ("Slice slice_param { axis: 2 slice_point: 3 }", 2),
    ],
)
def test_slices(tmp_path, layer, tops):
    net = open_net(tmp_path / "net.prototxt", text_of(layer, [IMAGE], tops))
    assert_equal(net, [{"in0": IMAGE}, {"in0": (2, 4, 13, 16)}])


def test_numbers_look_up_rows(tmp_path):
    text = text_of("Embed embed_param { input_dim: 7 num_output: 3 }", [(2, 5)])
    net = open_net(tmp_path / "net.prototxt", text)
    random = np.random.default_rng(0)
    assert_equal(net, [{"in0": (2, 5)}], draw=lambda shape: random.integers(0, 7, shape))
    text = text_of("BatchReindex", [(4, 3), (6,)])
    net = open_net(tmp_path / "net.prototxt", text)
    assert_equal(
        net, [{"in0": (4, 3), "in1": (6,)}], draw=lambda shape: random.integers(0, 4, shape)
    )


@pytest.mark.parametrize(
    ("layer", "shapes", "said"),
    [
        (
            "Im2col convolution_param { kernel_size: 3 }",
            [IMAGE],
            "layer 'the layer' is of type Im2col",
        ),
        ("Pooling pooling_param { kernel_size: 1 stride: 2 pool: AVE }", [IMAGE], "'the layer'"),
        ("Filter", [IMAGE, (2,)], "of type Filter"),
    ],
)
def test_what_onnx_cannot_say_is_named(tmp_path, layer, shapes, said):
    net = open_net(tmp_path / "net.prototxt", text_of(layer, shapes))
    with pytest.raises(InputError, match="ONNX cannot say") as told:
        write_network(net)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
