"""Curves as SVG that stands in a page: axes with labels, lines, points, a mark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unet.report.markup import Markup, joined, tag

# In units of the picture, which is about as many pixels wide on a telephone.
_WIDTH, _HEIGHT = 340, 215
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 8, 24, 36
# More points than pixels of a line are only bytes.
_MOST_POINTS = 300


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes
    ----------
    name : str
        For the legend; empty: it is not in there.
    x, y : sequence of float
    style : str
        Class of the style sheet, which has the colour.
    points : bool
        Whether each value is marked.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    points: bool = False


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers, at most `most` + 1, from `low` to `high`.

    Examples
    --------
    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(f * power for f in (1, 2, 5, 10) if f * power * most >= span * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(k * step, digits) for k in range(first, last + 1)]


def thinned(x: np.ndarray, y: np.ndarray, most: int = _MOST_POINTS) -> tuple[np.ndarray, ...]:
    """Return at most `most` points of a line, each the mean of its neighbours: float64 (m,) each.

    Examples
    --------
    >>> thinned(np.arange(4.0), np.array([0, 2, 4, 6]), 2)
    (array([0.5, 2.5]), array([1., 5.]))
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)
    counts = np.diff(edges)
    return tuple(np.add.reduceat(one, edges[:-1]) / counts for one in (x, y))


def chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    mark: tuple[float, str] | None = None,
    described: str,
) -> Markup:
    """Draw lines in one pair of axes, with a legend below.

    Parameters
    ----------
    lines : sequence of Line
        Points that are not finite are left out; what lies above `y_range` is cut off.
    x_label, y_label : str
    x_range, y_range : tuple of float
        What the axes show.
    mark : tuple of (float, str), optional
        A place on the x axis and what is there.
    described : str
        What the chart shows, for those who do not see it.
    """
    (x0, x1), (y0, y1) = x_range, y_range
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def right(x: float) -> float:
        return round(_LEFT + wide * (x - x0) / (x1 - x0 or 1), 1)

    def down(y: float) -> float:
        return round(_TOP + high * (1 - (y - y0) / (y1 - y0 or 1)), 1)

    grid = []
    for y in ticks(y0, y1, 4):
        grid.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=down(y), y2=down(y)))
        grid.append(tag("text", f"{y:g}", x=_LEFT - 7, y=down(y) + 4, text_anchor="end"))
    for x in ticks(x0, x1, 5):
        anchor = "end" if right(x) > _WIDTH - 24 else "middle"
        at = _WIDTH - 1 if anchor == "end" else right(x)
        grid.append(tag("text", f"{x:,.10g}", x=at, y=_HEIGHT - 21, text_anchor=anchor))
    bottom = tag(
        "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_TOP + high, y2=_TOP + high, class_="axis"
    )
    labels = [
        tag("text", y_label, x=0, y=11, class_="label y"),
        tag("text", x_label, x=_WIDTH - 1, y=_HEIGHT - 4, text_anchor="end", class_="label"),
    ]
    drawn, keys = [], []
    for line in lines:
        places = [
            (right(x), down(min(y, y1 + (y1 - y0))))
            for x, y in zip(line.x, line.y)
            if math.isfinite(x) and math.isfinite(y)
        ]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        if len(places) > 1:
            name = line.name or y_label
            drawn.append(tag("path", d=path, class_=f"line {line.style}", data_name=name))
        if line.points or len(places) == 1:
            # Of many points the marks would be one thick line.
            shown = places if len(places) <= 40 else places[-1:]
            drawn += [tag("circle", cx=x, cy=y, r=2.6, class_=line.style) for x, y in shown]
        if line.name:
            swatch = tag("i", class_=line.style)
            keys.append(tag("span", swatch, line.name))
    if mark is not None:
        x, said = mark
        left = right(x) > _LEFT + wide * 0.6
        drawn.append(tag("line", x1=right(x), x2=right(x), y1=_TOP, y2=_TOP + high, class_="mark"))
        drawn.append(
            tag(
                "text",
                said,
                x=right(x) + (-6 if left else 6),
                y=_TOP + high - 8,
                text_anchor="end" if left else "start",
                class_="mark",
            )
        )
    # An inner picture cuts off what is above the axis.
    inner = dict(y=_TOP - 3, width=_WIDTH, height=high + 6)
    clip = tag("svg", *drawn, viewBox=f"0 {_TOP - 3} {_WIDTH} {high + 6}", **inner)
    picture = tag(
        "svg",
        tag("g", *grid, class_="grid"),
        bottom,
        joined(*labels),
        clip,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=described,
        class_="chart",
        # By these page.js reads values off the lines: what the axes show, and where they begin.
        data_x=f"{x0:g} {x1:g} {_LEFT} {wide}",
        data_y=f"{y0:g} {y1:g} {_TOP} {high}",
        data_label=x_label,
    )
    return joined(picture, tag("div", *keys, class_="keys") if keys else None)
