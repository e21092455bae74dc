"""Cases of layers that work element by element."""

from __future__ import annotations

from collections.abc import Callable

from tests.parity.harness import Case
from tests.parity.layer_cases.draw import Draw, case, cases_of


def _neuron(kind: str, options: Callable[[Draw], str], low: float, high: float, in_place: bool):
    @cases_of(kind)
    def make(draw: Draw) -> Case:
        shape = draw.shape()
        scale = draw.one(1.0, 1.0, 0.1, 4.0) if low < 0 else 1.0
        inputs = [draw.values(shape, low * scale, high * scale)]
        return case(draw, inputs, [shape], options(draw), in_place=in_place and draw.flip(0.3))


def _relu(draw: Draw) -> str:
    return f"relu_param {{ negative_slope: {draw.number_text(0, 0.5)} }}" if draw.flip() else ""


_neuron("ReLU", _relu, -1, 1, True)
_neuron("Sigmoid", lambda draw: "", -3, 3, True)
_neuron("TanH", lambda draw: "", -3, 3, True)
_neuron("AbsVal", lambda draw: "", -1, 1, False)
_neuron("BNLL", lambda draw: "", -5, 5, False)
_neuron("ELU", lambda draw: f"elu_param {{ alpha: {draw.number_text(0.25, 2)} }}", -3, 3, True)
_neuron("Swish", lambda draw: f"swish_param {{ beta: {draw.number_text(0.25, 2)} }}", -3, 3, False)
_neuron("Exp", lambda draw: _affine(draw, "exp_param", draw.one("-1", "2", "10")), -1, 1, True)
_neuron("Log", lambda draw: _affine(draw, "log_param", draw.one("-1", "2", "10")), 0.2, 3, False)
_neuron(
    "Clip",
    lambda draw: (
        f"clip_param {{ min: {draw.number_text(-0.75, -0.25)} max: {draw.number_text(0, 0.75)} }}"
    ),
    -1,
    1,
    True,
)


def _affine(draw: Draw, name: str, base: str) -> str:
    return (
        f"{name} {{ base: {base} scale: {draw.number_text(0.25, 2)} "
        f"shift: {draw.number_text(0, 2)} }}"
    )


@cases_of("Power")
def power(draw: Draw) -> Case:
    shape = draw.shape()
    exponent = draw.one("0", "1", "2", "3", "0.5", "-1")
    options = (
        f"power_param {{ power: {exponent} scale: {draw.one('1', '0.5', '2', '0')} "
        f"shift: {draw.number_text(0.25, 2)} }}"
    )
    return case(draw, [draw.values(shape, 0.1, 2)], [shape], options)


@cases_of("Threshold")
def threshold(draw: Draw) -> Case:
    shape = draw.shape()
    options = f"threshold_param {{ threshold: {draw.number_text(-0.5, 0.5)} }}"
    return case(draw, [draw.values(shape)], [shape], options, backward=False)


@cases_of("PReLU")
def prelu(draw: Draw) -> Case:
    shape = draw.shape(2, 4)
    options = f"prelu_param {{ channel_shared: {draw.one('true', 'false')} }}"
    return case(draw, [draw.values(shape)], [shape], options, in_place=draw.flip(0.3))


@cases_of("Dropout")
def dropout(draw: Draw) -> Case:
    shape = draw.shape()
    options = f"dropout_param {{ dropout_ratio: {draw.number_text(0.1, 0.9)} }}"
    return case(draw, [draw.values(shape)], [shape], options, in_place=draw.flip(0.3))


@cases_of("Eltwise")
def eltwise(draw: Draw) -> Case:
    shape, count = draw.shape(), draw.whole(2, 4)
    operation = draw.one("PROD", "SUM", "MAX")
    options = f"operation: {operation}"
    if operation == "SUM" and draw.flip():
        options += "".join(f" coeff: {draw.number_text(-2, 2)}" for _ in range(count))
    if operation == "PROD":
        options += f" stable_prod_grad: {draw.one('true', 'false')}"
    inputs = [draw.values(shape, 0.1, 1) * draw.one(1, -1) for _ in range(count)]
    return case(draw, inputs, [shape], f"eltwise_param {{ {options} }}")
