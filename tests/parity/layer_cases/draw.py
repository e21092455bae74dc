"""What draws a case of a layer type, and the table of those that do."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from tests.parity.harness import Case

CASES: dict[str, Callable[[Draw], Case]] = {}


class Draw:
    """Draws shapes, values and choices for one case.

    Parameters
    ----------
    kind : str
        The layer type.
    number : int
        Of the case.
    """

    def __init__(self, kind: str, number: int) -> None:
        self.rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
        self.kind, self.number = kind, number

    def whole(self, least: int, most: int) -> int:
        """Draw a whole number, both ends included."""
        return int(self.rng.integers(least, most + 1))

    def flip(self, chance: float = 0.5) -> bool:
        """Draw true or false."""
        return bool(self.rng.random() < chance)

    def one(self, *choices):
        """Draw one of several."""
        return choices[self.whole(0, len(choices) - 1)]

    def number_text(self, least: float, most: float) -> str:
        """Draw a number that a prototxt can hold exactly."""
        return f"{np.round(self.rng.uniform(least, most) * 16) / 16:g}"

    def shape(self, least_axes: int = 1, most_axes: int = 4, most: int = 6) -> tuple[int, ...]:
        """Draw a shape; sizes of 1 come often."""
        axes = self.whole(least_axes, most_axes)
        return tuple(1 if self.flip(0.2) else self.whole(1, most) for _ in range(axes))

    def planes(self, least: int = 1, most: int = 11) -> tuple[int, int, int, int]:
        """Draw the shape of a batch of pictures."""
        return (
            self.whole(1, 3),
            self.whole(1, 5),
            self.whole(least, most),
            self.whole(least, most),
        )

    def values(self, shape: tuple[int, ...], low: float = -1.0, high: float = 1.3) -> np.ndarray:
        """Draw distinct values: no maximum is shared, few lie on a kink, sums are far from 0."""
        count = int(np.prod(shape))
        spread = low + (np.arange(count) + 0.5) / max(count, 1) * (high - low)
        return self.rng.permutation(spread).reshape(shape).astype(np.float32)

    def numbers(self, shape: tuple[int, ...], stop: int) -> np.ndarray:
        """Draw whole numbers below `stop`."""
        return self.rng.integers(0, stop, shape).astype(np.float32)

    def axis(self, axes: int) -> int:
        """Draw an axis, sometimes counted from the end."""
        axis = self.whole(0, axes - 1)
        return axis - axes if self.flip(0.3) else axis


def cases_of(kind: str):
    """Enter a function in the table (a decorator)."""

    def enter(function: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
        CASES[kind] = function
        return function

    return enter


def case(
    draw: Draw,
    inputs: list[np.ndarray],
    tops: list[tuple[int, ...]],
    options: str = "",
    *,
    in_place: bool = False,
    backward: bool = True,
    phase: int = 1,
    loss: bool = False,
    learnt: Sequence[int] | None = None,
) -> Case:
    """Make a net of one layer of the type that is drawn for.

    Parameters
    ----------
    draw : Draw
    inputs : list of array
        Values of the bottoms.
    tops : list of shape
        A top each, whose diff is drawn as well.
    options : str
        What stands in the layer beside its name, type, bottoms and tops.
    in_place : bool
        Whether the top is the bottom: a layer that copies comes first.
    backward : bool
    phase : int
        0: TRAIN, 1: TEST.
    loss : bool
        Whether the first top is a loss, whose diff is its weight.
    learnt : sequence of int, optional
        The bottoms that a gradient may flow to, all by default: these come from a layer that
        learns.
    """
    text = ["force_backward: true"] if learnt is None else []
    for index, array in enumerate(inputs):
        dims = " ".join(f"dim: {size}" for size in array.shape)
        text.append(
            f'layer {{ name: "in{index}" type: "Input" top: "in{index}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    bottoms = [f"in{index}" for index in range(len(inputs))]
    names = [f"out{index}" for index in range(len(tops))]
    if in_place:
        text.append('layer { name: "copy" type: "Power" bottom: "in0" top: "out0" }')
        bottoms[0] = "out0"
    for index in learnt or ():
        text.append(
            f'layer {{ name: "learnt{index}" type: "Bias" bottom: "in{index}" '
            f'top: "learnt{index}" bias_param {{ axis: 0 num_axes: -1 }} }}'
        )
        bottoms[index] = f"learnt{index}"
    wiring = " ".join([f'bottom: "{name}"' for name in bottoms])
    wiring += " " + " ".join([f'top: "{name}"' for name in names])
    if loss and draw.flip(0.4):
        options += f" loss_weight: {draw.number_text(0.25, 3)}"
    if learnt is not None and not loss:
        # Nothing runs backward but under a loss.
        options += " loss_weight: 1" * len(tops)
    text.append(f'layer {{ name: "layer" type: "{draw.kind}" {wiring} {options} }}')
    diffs = {
        name: draw.values(shape)
        for name, shape in zip(names, tops)
        if not (loss and name == "out0")
    }
    return Case(
        "\n".join(text),
        {f"in{index}": array for index, array in enumerate(inputs)},
        diffs,
        phase=phase,
        backward=backward,
    )


def filler(draw: Draw) -> str:
    """Draw a filler; the harness then sets parameters itself."""
    return draw.one('type: "xavier"', 'type: "gaussian" std: 0.1', 'type: "constant" value: 0.5')
