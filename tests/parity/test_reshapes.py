"""Nets whose inputs change shape between passes, held against genuine Caffe and fresh nets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest

from tests.parity.harness import SCRIPTS, Arrays, Engine, assert_close

# Larger, smaller, of other proportions, and back.
PLANES = [(2, 3, 8, 9), (3, 3, 11, 7), (1, 3, 6, 6), (2, 3, 12, 13), (2, 3, 8, 9)]
BATCHES = [(2, 3, 8, 9), (4, 3, 8, 9), (1, 3, 8, 9), (2, 3, 8, 9)]
ROWS = [(4, 5), (7, 5), (1, 5), (4, 5)]
FEWER = [(7, 5), (4, 5), (1, 5), (7, 5)]


class Reshaped:
    """A net with the inputs of its passes."""

    def __init__(
        self,
        layers: str,
        shapes: Mapping[str, Sequence[tuple[int, ...]]],
        *,
        phase: int = 1,
        backward: bool = True,
        whole: Mapping[str, int] | None = None,
        positive: bool = False,
    ) -> None:
        self.phase, self.backward = phase, backward
        inputs = "".join(
            f'layer {{ name: "{blob}" type: "Input" top: "{blob}" '
            f"input_param {{ SHAPE_OF_{blob} }} }}\n"
            for blob in shapes
        )
        self.net = f"force_backward: {str(backward).lower()}\n{inputs}{layers}"
        random = np.random.default_rng(9)
        self.passes: list[dict[str, np.ndarray]] = []
        for sizes in zip(*shapes.values()):
            values = {}
            for blob, shape in zip(shapes, sizes):
                if blob in (whole or {}):
                    drawn = random.integers(0, whole[blob], shape)
                else:
                    # All distinct, so that rounding chooses no maximum.
                    count = int(np.prod(shape))
                    drawn = random.permutation(np.linspace(-1, 1.2, count)).reshape(shape)
                    drawn = np.abs(drawn) + 0.1 if positive else drawn
                values[blob] = drawn.astype(np.float32)
            self.passes.append(values)


def layer(
    kind: str, options: str = "", bottoms: str = "x", tops: str = "y", name: str = "l"
) -> str:
    """Return the text of one layer."""
    wiring = "".join(f' bottom: "{blob}"' for blob in bottoms.split())
    wiring += "".join(f' top: "{blob}"' for blob in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{wiring} {options} }}\n'


def planes(kind: str, options: str = "", **more) -> Reshaped:
    """Return a net of one layer on pictures that change their size."""
    return Reshaped(layer(kind, options), {"x": PLANES}, **more)


def pairs(kind: str, options: str = "", shapes=PLANES, **more) -> Reshaped:
    """Return a net of one layer on two blobs of the same shape."""
    return Reshaped(layer(kind, options, "x z"), {"x": shapes, "z": shapes}, **more)


def labelled(kind: str, options: str = "", scores=PLANES, labels=None, **more) -> Reshaped:
    """Return a net of one loss on scores and labels."""
    labels = labels or [(n, 1, *sizes) for n, _, *sizes in scores]
    return Reshaped(layer(kind, options, "x z"), {"x": scores, "z": labels}, whole={"z": 3}, **more)


def cases() -> dict[str, Reshaped]:
    """Return nets of most layer types, and some of several layers."""
    conv = "convolution_param { num_output: 4 kernel_size: 3 "
    unit = "kernel_size: 3 stride: 2 "
    found = {
        "Convolution": planes("Convolution", conv + "pad: 1 }"),
        "Convolution strided": planes("Convolution", conv + "stride: 2 dilation: 2 }"),
        "Convolution grouped": planes(
            "Convolution", "convolution_param { num_output: 6 kernel_size: 2 group: 3 }"
        ),
        "Convolution 1x1": planes(
            "Convolution", "convolution_param { num_output: 5 kernel_size: 1 }"
        ),
        "Deconvolution": planes("Deconvolution", conv + "stride: 2 }"),
        "Deconvolution padded": planes("Deconvolution", conv + "pad: 1 stride: 3 }"),
        "Pooling max": planes("Pooling", f"pooling_param {{ pool: MAX {unit} }}"),
        "Pooling average": planes("Pooling", f"pooling_param {{ pool: AVE {unit} pad: 1 }}"),
        "Pooling global": planes("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
        "Pooling places": Reshaped(
            layer("Pooling", f"pooling_param {{ pool: MAX {unit} }}", tops="y places"),
            {"x": PLANES},
            backward=False,
        ),
        "LRN": planes("LRN", "lrn_param { local_size: 3 alpha: 0.5 }"),
        "LRN within": planes("LRN", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }"),
        "BatchNorm training": planes("BatchNorm", phase=0),
        "BatchNorm": planes("BatchNorm"),
        "MVN": planes("MVN"),
        "MVN across": planes("MVN", "mvn_param { across_channels: true }"),
        "Scale": planes("Scale", "scale_param { bias_term: true }"),
        "Bias": planes("Bias"),
        "Scale by a blob": Reshaped(
            layer("Scale", "scale_param { axis: 0 }", "x z"),
            {"x": PLANES, "z": [shape[:2] for shape in PLANES]},
        ),
        "Bias of a blob": Reshaped(
            layer("Bias", "bias_param { axis: 2 }", "x z"),
            {"x": PLANES, "z": [shape[2:] for shape in PLANES]},
        ),
        "PReLU": planes("PReLU"),
        "Dropout": planes("Dropout"),
        "Eltwise": pairs("Eltwise", "eltwise_param { coeff: 2 coeff: -1 }"),
        "Eltwise product": pairs("Eltwise", "eltwise_param { operation: PROD }"),
        "Eltwise maximum": pairs("Eltwise", "eltwise_param { operation: MAX }"),
        "Concat": pairs("Concat"),
        "Concat batches": pairs("Concat", "concat_param { axis: 0 }"),
        "Slice": Reshaped(
            layer("Slice", "slice_param { slice_point: 1 }", tops="y w"), {"x": PLANES}
        ),
        "Slice rows": Reshaped(
            layer("Slice", "slice_param { axis: 2 slice_point: 2 }", tops="y w"), {"x": PLANES}
        ),
        "Split": Reshaped(layer("Split", tops="y w"), {"x": PLANES}),
        "Crop": Reshaped(
            layer("Crop", "crop_param { offset: 1 offset: 0 }", "x z"),
            {"x": PLANES, "z": [(*shape[:2], 5, 4) for shape in PLANES]},
        ),
        "Flatten": planes("Flatten"),
        "Reshape": planes("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }"),
        "Tile": planes("Tile", "tile_param { axis: 2 tiles: 3 }"),
        "SPP": planes("SPP", "spp_param { pyramid_height: 2 }"),
        "Softmax": planes("Softmax"),
        "Im2col": planes("Im2col", "convolution_param { kernel_size: 3 pad: 1 }"),
        "Reduction": planes("Reduction", "reduction_param { operation: SUMSQ axis: 1 }"),
        "ArgMax": planes("ArgMax", "argmax_param { axis: 1 top_k: 2 }", backward=False),
        "SoftmaxWithLoss": labelled("SoftmaxWithLoss", "loss_param { ignore_label: 1 }"),
        "SoftmaxWithLoss full": labelled("SoftmaxWithLoss", "loss_param { normalization: FULL }"),
        "SigmoidCrossEntropyLoss": pairs("SigmoidCrossEntropyLoss"),
        "EuclideanLoss": pairs("EuclideanLoss"),
        "Accuracy": labelled("Accuracy", backward=False),
        "HingeLoss": labelled("HingeLoss", scores=ROWS, labels=[r[:1] for r in ROWS]),
        "MultinomialLogisticLoss": labelled(
            "MultinomialLogisticLoss", scores=ROWS, labels=[r[:1] for r in ROWS], positive=True
        ),
        "ContrastiveLoss": Reshaped(
            layer("ContrastiveLoss", bottoms="x z w"),
            # More items than at first genuine Caffe writes where it must not.
            {"x": FEWER, "z": FEWER, "w": [r[:1] for r in FEWER]},
            whole={"w": 2},
        ),
        "InnerProduct": Reshaped(
            layer("InnerProduct", "inner_product_param { num_output: 4 }"), {"x": BATCHES}
        ),
        "InnerProduct of rows": Reshaped(
            layer("InnerProduct", "inner_product_param { num_output: 4 axis: -1 }"),
            {"x": [(2, 4, 5), (3, 2, 5), (1, 1, 5), (2, 4, 5)]},
        ),
        "Embed": Reshaped(
            layer("Embed", "embed_param { num_output: 4 input_dim: 6 }"),
            {"x": [(3,), (5, 2), (1,), (3,)]},
            whole={"x": 6},
            backward=False,
        ),
        "BatchReindex": Reshaped(
            layer("BatchReindex", bottoms="x z"),
            {"x": ROWS, "z": [(3,), (9,), (2,), (3,)]},
            whole={"z": 1},
            backward=False,
        ),
        "Threshold": planes("Threshold", backward=False),
        "in place": Reshaped(
            layer("Convolution", conv + "}", tops="y", name="a")
            + layer("ReLU", "relu_param { negative_slope: 0.1 }", "y", "y", "b")
            + layer("Scale", "scale_param { bias_term: true }", "y", "y", "c")
            + layer("Dropout", "", "y", "y", "d")
            + layer("TanH", "", "y", "y", "e")
            + layer("Power", "power_param { scale: 2 shift: 1 }", "y", "w", "f"),
            {"x": PLANES},
        ),
        "in place on a shared memory": Reshaped(
            layer("Convolution", conv + "pad: 1 }", "x", "a", "a")
            + layer("Flatten", "", "a", "b", "b")
            + layer("ReLU", "relu_param { negative_slope: 0.5 }", "b", "b", "c")
            + layer("Convolution", conv + "pad: 1 }", "x", "d", "d")
            + layer("Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: -1 } }", "d", "e", "e")
            + layer("TanH", "", "e", "e", "f"),
            {"x": PLANES},
        ),
        "several readers": Reshaped(
            layer("Convolution", conv + "pad: 1 }", "x", "a", "a")
            + layer("Sigmoid", "", "a", "b", "b")
            + layer("Flatten", "", "a", "c", "c")
            + layer("Concat", "", "a b", "f", "f")
            + layer("Pooling", "pooling_param { kernel_size: 2 }", "f", "g", "g")
            + layer("Eltwise", "", "a b", "h", "h"),
            {"x": PLANES},
        ),
        "losses everywhere": Reshaped(
            layer("Convolution", conv + "} loss_weight: 0.25", "x", "a", "a")
            + layer("Sigmoid", "loss_weight: -2", "a", "b", "b")
            + layer("Pooling", "pooling_param { kernel_size: 2 } loss_weight: 0.5", "b", "c", "c")
            + layer("Reduction", "loss_weight: 3", "a", "d", "d"),
            {"x": PLANES},
        ),
    }
    for kind in ("ReLU", "Sigmoid", "TanH", "AbsVal", "BNLL", "ELU", "Swish", "Power", "Exp"):
        found[kind] = planes(kind)
    found["Log"] = planes("Log", positive=True)
    found["Clip"] = planes("Clip", "clip_param { min: -0.5 max: 0.5 }")
    for kind, states in (("RNN", 1), ("LSTM", 2)):
        # Genuine Caffe knows one number of steps only.
        times = [(4, 2, 3), (4, 5, 3), (4, 1, 3), (4, 2, 3)]
        state = [(1, shape[1], 3) for shape in times]
        hidden = ["h", "c"][:states]
        found[kind] = Reshaped(
            layer(
                kind,
                "recurrent_param { num_output: 3 expose_hidden: true }",
                " ".join(["x", "go", *hidden]),
                " ".join(["y", *(f"{name}_end" for name in hidden)]),
            ),
            {"x": times, "go": [shape[:2] for shape in times], **dict.fromkeys(hidden, state)},
            whole={"go": 2},
        )
    return found


CASES = cases()


def run(engine: Engine, *how: str, names: Iterable[str] = tuple(CASES)) -> dict[str, Arrays]:
    """Run nets on an engine, in one process."""
    nets = {
        name: {
            **{key: getattr(CASES[name], key) for key in ("net", "phase", "backward")},
            **{
                f"input|{number}|{blob}": values
                for number, inputs in enumerate(CASES[name].passes)
                for blob, values in inputs.items()
            },
        }
        for name in names
    }
    return engine.run_each(SCRIPTS / "run_reshapes.py", nets, *how)


@pytest.fixture(scope="module")
def passes(ours: Engine, reference: Engine) -> tuple[dict, dict, dict]:
    """Return the passes of all nets: on this engine, on genuine Caffe, by fresh nets."""
    return run(ours), run(reference), run(ours, "fresh")


@pytest.mark.parametrize("name", CASES)
def test_passes_after_reshapes_equal_genuine_caffes(passes, name):
    assert_close(passes[0][name], passes[1][name])


# In genuine Caffe, and so here, a loss_weight of a blob that is no loss by type gets lost when the
# blob takes new memory.
@pytest.mark.parametrize("name", [name for name in CASES if name != "losses everywhere"])
def test_passes_after_reshapes_equal_those_of_a_net_made_in_that_shape(passes, name):
    got, _, fresh = passes
    assert_close(got[name], fresh[name], relative=1e-6)


PARTS = [
    "names",
    "parts",
    "callbacks",
    "sharing",
    "permissive",
    "propagate",
    "first",
    "live",
]


@pytest.fixture(scope="module")
def behaviour(ours: Engine, reference: Engine) -> tuple[Arrays, Arrays]:
    """Return what scripts/net_behaviour.py sees on both engines."""
    return ours.run(SCRIPTS / "net_behaviour.py"), reference.run(SCRIPTS / "net_behaviour.py")


@pytest.mark.parametrize("part", PARTS)
def test_nets_behave_as_in_genuine_caffe(behaviour, part):
    got, wanted = (
        {key: value for key, value in results.items() if key.startswith(f"{part} ") or key == part}
        for results in behaviour
    )
    assert got.keys() == wanted.keys()
    texts = [key for key, value in wanted.items() if value.dtype.kind in "SU"]
    for key in texts:
        assert got.pop(key).tolist() == wanted.pop(key).tolist(), key
    if wanted:
        assert_close(got, wanted)
