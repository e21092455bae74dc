"""Which network, tile and rates a run is given, by its slices, the device and the budget; and why.

Each choice comes with a sentence that gives its reason, for a person to read.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from unet.experiment.network_files import Stage, geometry_of
from unet.experiment.options import AVERAGED, FEWEST_MAPS, MOST_MAPS, PLAIN
from unet.network.geometry import FEWEST_LEVELS, LEVELS, MOST_LEVELS, Geometry
from unet.network.nets import RATES, TRAIN_TILES, WIDTHS

#: A wider network has to have time for so many iterations: isbi2012_slim came to a Rand error of
#: 0.127 with 5,500, of 0.058 with 22,000; fewer of a larger network are no gain.
ENOUGH_FOR_WIDER = 6000
MINUTES_CPU, MINUTES_GPU = 20.0, 60.0
# One of so many parts of the iterations is the last stage, which begins at so much of the rate.
_PARTS, _REFINED_RATE = 8, 0.3
# Of the time, what may go into judging plain networks as well as averaged ones.
_JUDGING = 0.2
#: Fewer iterations of a last stage make a network worse: 7 after 53 took the Rand error from 0.47
#: to 0.69, for Adam begins anew.
LEAST_REFINED = 25
# A trained network is near already: 120 steps on 3 slices of another animal took isbi2012_slim, on
# 2 others, from a Rand error of 0.083 and a pixel error of 0.089 to 0.037 and 0.053 at the whole
# rate, to 0.032 and 0.059 at 0.3 of it, to 0.042 and 0.073 at 0.1. A shorter first stage gained
# nothing: 0.048 and 0.056 with the gaps' weight for the last eighth, 0.057 and 0.063 for half.
_PRETRAINED_RATE = 0.5
# Input size from so many maps on: the paper's.
_WIDE = 32
_SMALLER = 0.8


class Chosen(NamedTuple):
    """A value and the words that say why."""

    value: Any
    reason: str


def seen(levels: int) -> int:
    """Return how many pixels, along an axis, an unpadded network of so many levels sees.

    >>> [seen(levels) for levels in (2, 3, 4, 5)]
    [41, 89, 185, 377]
    """
    return 2 * geometry_of(levels, padded=False).border + 1


def choose_levels(size: tuple[int, int], cell: float | None = None) -> Chosen:
    """Choose the poolings by the size of slices, and by the mean diameter of cells, if known.

    >>> choose_levels((512, 512)).value, choose_levels((100, 512)).value
    (4, 3)
    >>> choose_levels((512, 512), cell=200).value
    5
    """
    side = min(size)
    levels = LEVELS
    while levels > FEWEST_LEVELS and seen(levels) > side:
        levels -= 1
    if levels < LEVELS:
        return Chosen(
            levels,
            f"one of {levels + 1} would see {seen(levels + 1)} pixels, and slices have {side}",
        )
    if cell is not None and cell > seen(LEVELS) and side >= seen(MOST_LEVELS):
        return Chosen(
            MOST_LEVELS,
            f"cells are {cell:.0f} pixels large, and {LEVELS} levels see {seen(LEVELS)}",
        )
    return Chosen(LEVELS, f"as in the paper: they see {seen(LEVELS)} pixels")


def choose_tile(geometry: Geometry, maps: int, size: tuple[int, int]) -> Chosen:
    """Choose the input size: what networks of this width train with, smaller if slices are.

    >>> [choose_tile(geometry_of(4, False), maps, (512, 512)).value for maps in (64, 16)]
    [572, 444]
    >>> choose_tile(geometry_of(3, False), 16, (100, 100)).value
    188
    """
    usual = TRAIN_TILES["unet" if maps > _WIDE else "unet_slim"]
    # Large enough for a whole slice turned by any angle is more than is needed.
    whole = geometry.input_size(max(size))
    tile = min(usual, whole)
    tile -= (tile - geometry.pad_input) % geometry.downsample_factor
    if whole <= usual:
        return Chosen(tile, "a whole slice")
    if maps > _WIDE:
        return Chosen(tile, "the paper's")
    return Chosen(tile, "smaller than the paper's 572, so that there are more steps")


def smaller_tile(geometry: Geometry, tile: int) -> int | None:
    """Return the input size to try where one does not fit into memory; None: there is none.

    >>> [smaller_tile(geometry_of(4, False), tile) for tile in (444, 188)]
    [348, None]
    """
    smaller = int(tile * _SMALLER)
    smaller -= (smaller - geometry.pad_input) % geometry.downsample_factor
    return smaller if smaller >= geometry.smallest else None


def widths(asked: int | None) -> list[int]:
    """Return the maps after the first convolution that may be chosen, the fewest first."""
    return [asked] if asked else [FEWEST_MAPS, 2 * FEWEST_MAPS, MOST_MAPS]


def rate_of(solver: str, maps: int, is_pretrained: bool = False) -> float:
    """Return the rate to begin with: between those of 16 and 64 maps, evenly in logarithms.

    Half of it for a network that begins as a trained one.

    >>> rate_of("Adam", 16), rate_of("Adam", 64), rate_of("Adam", 32)
    (0.001, 0.0001, 0.000316)
    >>> rate_of("Adam", 16, is_pretrained=True)
    0.0005
    """
    narrow, wide = (RATES[solver][name] for name in ("unet_slim", "unet"))
    share = math.log(maps / WIDTHS["unet_slim"]) / math.log(WIDTHS["unet"] / WIDTHS["unet_slim"])
    # A trained network that another one begins as may have fewer maps, or more.
    rate = narrow * (wide / narrow) ** min(1, max(0, share))
    return float(f"{_PRETRAINED_RATE * rate if is_pretrained else rate:.3g}")


def judgements(seconds: float | None, judging: float) -> int:
    """Return how many networks of two stages are judged, each in so many seconds, of a time.

    At least one of each stage; None: no time is set. The network that a run begins as is judged
    beside these.

    >>> judgements(None, 30), judgements(1200, 30), judgements(360, 20), judgements(360, 60)
    (4, 4, 3, 2)
    """
    return 4 if seconds is None else min(4, max(2, int(_JUDGING * seconds / judging)))


def judged(stages: int, many: int) -> list[list[str]]:
    """Return which networks of each stage are judged, of so many in all.

    The plain one of each, then averaged ones, of the last stage first. On ISBI 2012 the mean over
    the last quarter of 49 to 1,500 steps, at rates that fall to 0, was the better one in 2 of 6
    trainings: between 0.006 below the Rand error of the plain network and 0.007 above it.

    >>> judged(2, 3), judged(1, 2)
    ([['plain'], ['plain', 'averaged']], [['plain', 'averaged']])
    """
    averaged = many - stages
    return [
        [PLAIN, AVERAGED] if stages - number < averaged else [PLAIN]
        for number in range(1, stages + 1)
    ]


def stages(iterations: int, rate: float, w0: float) -> list[Stage]:
    """Return the stages: all pixels alike, then, at a third of the rate, the gaps' weight.

    >>> [one.iterations for one in stages(800, 0.001, 5.0)]
    [700, 100]
    >>> stages(800, 0.001, 0.0)
    [Stage(iterations=800, base_lr=0.001, weighted=False)]
    >>> stages(100, 0.001, 5.0)
    [Stage(iterations=100, base_lr=0.001, weighted=False)]
    """
    last = iterations // _PARTS if w0 else 0
    if last < LEAST_REFINED:
        last = 0
    both = [Stage(iterations - last, rate, False)]
    if last:
        both.append(Stage(last, float(f"{_REFINED_RATE * rate:.3g}"), True))
    return both
