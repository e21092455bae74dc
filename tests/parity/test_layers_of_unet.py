"""Every standard layer type that the networks of prototxt/ use, held against genuine Caffe."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.harness import Case, assert_close, at_once, run_cases

RANDOM = np.random.default_rng(20)


def values(*shape: int, positive: bool = False) -> np.ndarray:
    """Draw distinct float32 values, away from the kinks of ReLU and max pooling."""
    count = int(np.prod(shape))
    spread = (np.arange(count) + 0.5) / count * 2 - (0 if positive else 1)
    return RANDOM.permutation(spread).reshape(shape).astype(np.float32)


def layer_case(
    layer: str,
    *inputs: np.ndarray,
    tops: dict[str, tuple[int, ...]] | None = None,
    phase: int = 1,
    backward: bool = True,
) -> Case:
    """Make a net of one layer, whose bottoms are in0, in1, ... and whose tops get random diffs."""
    text = ["force_backward: true"]
    for index, array in enumerate(inputs):
        dims = " ".join(f"dim: {n}" for n in array.shape)
        text.append(
            f'layer {{ name: "in{index}" type: "Input" top: "in{index}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    bottoms = " ".join(f'bottom: "in{index}"' for index in range(len(inputs)))
    text.append(layer.replace("BOTTOMS", bottoms))
    return Case(
        "\n".join(text),
        {f"in{index}": array for index, array in enumerate(inputs)},
        {top: values(*shape) for top, shape in (tops or {}).items()},
        phase=phase,
        backward=backward,
    )


def convolution(options: str, kind: str = "Convolution") -> str:
    return (
        f'layer {{ name: "layer" type: "{kind}" BOTTOMS top: "out" '
        f"convolution_param {{ {options} }} }}"
    )


def simple(kind: str, options: str = "", tops: str = 'top: "out"') -> str:
    return f'layer {{ name: "layer" type: "{kind}" BOTTOMS {tops} {options} }}'


X = (2, 3, 7, 9)

CASES = {
    "convolution 3x3": layer_case(
        convolution("num_output: 4 kernel_size: 3"), values(*X), tops={"out": (2, 4, 5, 7)}
    ),
    "convolution 3x3 without bias": layer_case(
        convolution("num_output: 4 kernel_size: 3 bias_term: false"),
        values(*X),
        tops={"out": (2, 4, 5, 7)},
    ),
    "convolution 3x3 of many channels": layer_case(
        convolution("num_output: 256 kernel_size: 3 weight_filler { type: 'msra' }"),
        values(2, 128, 23, 24),
        tops={"out": (2, 256, 21, 22)},
    ),
    "convolution 3x3 of many channels, padded, without bias": layer_case(
        convolution(
            "num_output: 384 kernel_size: 3 pad_h: 1 pad_w: 2 bias_term: false "
            "weight_filler { type: 'msra' }"
        ),
        values(1, 256, 20, 21),
        tops={"out": (1, 384, 20, 23)},
    ),
    "convolution 1x1": layer_case(
        convolution("num_output: 2 kernel_size: 1"), values(*X), tops={"out": (2, 2, 7, 9)}
    ),
    "convolution with padding, stride, dilation and groups": layer_case(
        convolution(
            "num_output: 4 kernel_h: 3 kernel_w: 2 pad_h: 2 pad_w: 1 stride: 2 dilation: 2 group: 2"
        ),
        values(2, 4, 9, 8),
        tops={"out": (2, 4, 5, 4)},
    ),
    "deconvolution 2x2": layer_case(
        convolution("num_output: 2 kernel_size: 2 stride: 2", "Deconvolution"),
        values(*X),
        tops={"out": (2, 2, 14, 18)},
    ),
    "deconvolution 3x2, as many steps apart, without bias": layer_case(
        convolution(
            "num_output: 2 kernel_h: 3 kernel_w: 2 stride_h: 3 stride_w: 2 bias_term: false",
            "Deconvolution",
        ),
        values(*X),
        tops={"out": (2, 2, 21, 18)},
    ),
    "deconvolution with padding and groups": layer_case(
        convolution(
            "num_output: 4 kernel_size: 4 stride: 2 pad: 1 group: 2 bias_term: false",
            "Deconvolution",
        ),
        values(1, 2, 5, 6),
        tops={"out": (1, 4, 10, 12)},
    ),
    "max pooling 2x2": layer_case(
        simple("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
        values(2, 3, 8, 10),
        tops={"out": (2, 3, 4, 5)},
    ),
    "max pooling rounds up": layer_case(
        simple("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
        values(2, 3, 7, 9),
        tops={"out": (2, 3, 4, 5)},
    ),
    "max pooling of equal values": layer_case(
        simple("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
        np.ones((1, 2, 4, 4), np.float32),
        tops={"out": (1, 2, 2, 2)},
    ),
    "relu": layer_case(simple("ReLU"), values(*X), tops={"out": X}),
    "leaky relu": layer_case(
        simple("ReLU", "relu_param { negative_slope: 0.1 }"), values(*X), tops={"out": X}
    ),
    "relu at zero": layer_case(simple("ReLU"), np.zeros(X, np.float32), tops={"out": X}),
    "crop from an offset": layer_case(
        simple("Crop", "crop_param { axis: 2 offset: 1 offset: 3 }"),
        values(*X),
        values(2, 3, 4, 5),
        tops={"out": (2, 3, 4, 5)},
    ),
    "crop with one offset for all axes": layer_case(
        simple("Crop", "crop_param { axis: 2 offset: 2 }"),
        values(*X),
        values(1, 1, 4, 5),
        tops={"out": (2, 3, 4, 5)},
    ),
    "concat": layer_case(
        simple("Concat", "concat_param { axis: 1 }"),
        values(2, 3, 4, 5),
        values(2, 1, 4, 5),
        tops={"out": (2, 4, 4, 5)},
    ),
    "eltwise product": layer_case(
        simple("Eltwise", "eltwise_param { operation: PROD }"),
        values(*X),
        values(*X),
        tops={"out": X},
    ),
    "eltwise sum with coefficients": layer_case(
        simple("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }"),
        values(*X),
        values(*X),
        tops={"out": X},
    ),
    "eltwise maximum of three": layer_case(
        simple("Eltwise", "eltwise_param { operation: MAX }"),
        values(*X),
        values(*X),
        values(*X),
        tops={"out": X},
    ),
    "eltwise maximum of equal values": layer_case(
        simple("Eltwise", "eltwise_param { operation: MAX }"),
        np.ones(X, np.float32),
        np.ones(X, np.float32),
        tops={"out": X},
    ),
    "slice into equal parts": layer_case(
        simple("Slice", "slice_param { axis: 1 }", 'top: "a" top: "b" top: "c"'),
        values(*X),
        tops={"a": (2, 1, 7, 9), "b": (2, 1, 7, 9), "c": (2, 1, 7, 9)},
    ),
    "slice at a point": layer_case(
        simple("Slice", "slice_param { axis: 1 slice_point: 2 }", 'top: "a" top: "b"'),
        values(*X),
        tops={"a": (2, 2, 7, 9), "b": (2, 1, 7, 9)},
    ),
    "exp": layer_case(simple("Exp"), values(*X), tops={"out": X}),
    "exp with base, scale and shift": layer_case(
        simple("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }"), values(*X), tops={"out": X}
    ),
    "log": layer_case(simple("Log"), values(*X, positive=True), tops={"out": X}),
    "log with base, scale and shift": layer_case(
        simple("Log", "log_param { base: 10 scale: 2 shift: 1 }"),
        values(*X, positive=True),
        tops={"out": X},
    ),
    "power": layer_case(
        simple("Power", "power_param { power: 2 scale: 0.5 shift: 3 }"), values(*X), tops={"out": X}
    ),
    "power of a half": layer_case(
        simple("Power", "power_param { power: 0.5 shift: 3 }"), values(*X), tops={"out": X}
    ),
    "reduction to a sum": layer_case(
        simple("Reduction"), values(*X, positive=True), tops={"out": ()}
    ),
    "reduction to a mean, scaled": layer_case(
        simple("Reduction", "reduction_param { operation: MEAN coeff: -2 }"),
        values(*X, positive=True),
        tops={"out": ()},
    ),
    "reduction as a loss": layer_case(
        simple("Reduction", "reduction_param { operation: MEAN coeff: 2 } loss_weight: 3"),
        values(*X, positive=True),
    ),
    "reduction along the last axes": layer_case(
        simple("Reduction", "reduction_param { operation: SUMSQ axis: 2 }"),
        values(*X, positive=True),
        tops={"out": (2, 3)},
    ),
    "softmax": layer_case(simple("Softmax"), values(*X), tops={"out": X}),
    "softmax far apart": layer_case(simple("Softmax"), 1e4 * values(*X), tops={"out": X}),
    "dropout in phase TEST": layer_case(simple("Dropout"), values(*X), tops={"out": X}),
    "accuracy": layer_case(
        simple("Accuracy", "accuracy_param { ignore_label: 255 }"),
        values(2, 2, 7, 9),
        RANDOM.choice([0, 1, 255], (2, 1, 7, 9)).astype(np.float32),
        backward=False,
    ),
    "accuracy of equal scores": layer_case(
        simple("Accuracy"),
        np.zeros((2, 2, 7, 9), np.float32),
        RANDOM.integers(0, 2, (2, 1, 7, 9)).astype(np.float32),
        backward=False,
    ),
    "accuracy where nothing is annotated": layer_case(
        simple("Accuracy", "accuracy_param { ignore_label: 255 }"),
        values(2, 2, 7, 9),
        np.full((2, 1, 7, 9), 255, np.float32),
        backward=False,
    ),
    "silence": layer_case(simple("Silence", tops=""), values(*X)),
    # A blob that two layers read: the diffs of both add up.
    "split": Case(
        """
        force_backward: true
        layer { name: "in0" type: "Input" top: "in0" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "a" type: "Power" bottom: "in0" top: "a" power_param { scale: 2 } }
        layer { name: "b" type: "Power" bottom: "in0" top: "b" power_param { scale: 5 } }
        """,
        {"in0": values(2, 3)},
        {"a": values(2, 3), "b": values(2, 3)},
    ),
    "in place": Case(
        """
        force_backward: true
        layer { name: "in0" type: "Input" top: "in0"
                input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } } }
        layer { name: "conv" type: "Convolution" bottom: "in0" top: "x"
                convolution_param { num_output: 3 kernel_size: 3 } }
        layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }
        layer { name: "scale" type: "Power" bottom: "x" top: "out" power_param { scale: 3 } }
        """,
        {"in0": values(1, 2, 5, 5)},
        {"out": values(1, 3, 3, 3)},
    ),
}


@pytest.fixture(scope="module")
def results(ours, reference):
    return at_once(lambda engine: run_cases(engine, CASES), ours, reference)


@pytest.mark.parametrize("name", CASES)
def test_equals_genuine_caffe(results, name):
    got, wanted = results
    # Many channels are convolved with fewer products, which round more.
    assert_close(got[name], wanted[name], relative=5e-5 if "many channels" in name else 1e-5)


DROPOUT = """
import caffe, numpy as np
from exchange import give, text_file
caffe.set_random_seed(7)
net = caffe.Net(text_file('''
force_backward: true
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 300 dim: 1000 } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.3 } }
'''), caffe.TRAIN)
net.blobs["x"].data[...] = 2
net.forward()
net.blobs["y"].diff[...] = 5
net.backward()
y, dx = net.blobs["y"].data, net.blobs["x"].diff
again = y.copy()
net.forward()
give({"levels": np.unique(y), "dropped": np.mean(y == 0), "gradient": np.unique(dx),
      "follows": np.array_equal(again > 0, dx > 0),
      "differs": np.mean((again > 0) != (net.blobs["y"].data > 0))})
"""


def test_dropout_scales_what_it_keeps_and_drops_anew_in_every_pass(ours, reference):
    for engine in (ours, reference):
        result = engine.run(DROPOUT)
        np.testing.assert_allclose(result["levels"], [0, 2 / 0.7], rtol=1e-6)
        np.testing.assert_allclose(result["gradient"], [0, 5 / 0.7], rtol=1e-6)
        assert result["follows"], engine.name
        # 300,000 draws: standard deviation 0.0008.
        assert abs(result["dropped"] - 0.3) < 0.005, engine.name
        assert abs(result["differs"] - 2 * 0.3 * 0.7) < 0.005, engine.name


PYTHON_LAYER = """
import sys, types
import caffe, numpy as np
from exchange import give, text_file

class Scale(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str)
        self.calls = ["setup phase %d" % self.phase]
        self.blobs.add_blob(2)
        self.blobs[0].data[...] = [3, 4]
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data * self.blobs[0].data
    def backward(self, top, propagate_down, bottom):
        self.calls.append("backward %s" % list(propagate_down))
        self.blobs[0].diff[...] += (self.factor * bottom[0].data * top[0].diff).sum(axis=0)
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * top[0].diff * self.blobs[0].data

module = types.ModuleType("scale_layer")
module.Scale = Scale
sys.modules["scale_layer"] = module
net = caffe.Net(text_file('''
force_backward: true
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "scale" type: "Python" bottom: "x" top: "y"
        python_param { module: "scale_layer" layer: "Scale" param_str: "2.5" } }
layer { name: "square" type: "Power" bottom: "y" top: "z" power_param { power: 2 } }
'''), caffe.TEST)
net.blobs["x"].data[...] = np.arange(6).reshape(3, 2)
net.forward()
net.blobs["z"].diff[...] = 1
net.backward()
give({"z": net.blobs["z"].data, "dx": net.blobs["x"].diff, "dp": net.params["scale"][0].diff,
      "calls": np.array(net.layers[1].calls), "name": np.array(net.layers[1].param_str)})
"""


def test_a_python_layer_with_parameters(ours, reference):
    got, wanted = ours.run(PYTHON_LAYER), reference.run(PYTHON_LAYER)
    for name in ("calls", "name"):
        assert got.pop(name).tolist() == wanted.pop(name).tolist()
    assert_close(got, wanted, relative=1e-6)
