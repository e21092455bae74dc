"""Curves as SVG: values lie where the axes say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from unet.report.charts import Line, chart, thinned, ticks


def drawn(*lines: Line, **more) -> ElementTree.Element:
    options = dict(x_label="x", y_label="y", x_range=(0, 10), y_range=(0, 2), described="a chart")
    # With its legend it is no single element.
    return ElementTree.fromstring(f"<div>{chart(lines, **{**options, **more})}</div>")


def texts(element: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {one.text: one for one in element.iter("text")}


def test_a_value_lies_at_its_tick():
    picture = drawn(Line("line", [0, 10, 30], [0.5, 1, 1.5], "test"), x_range=(0, 30))
    labels = texts(picture)
    (path,) = picture.iter("path")
    points = [tuple(map(float, p.split())) for p in path.get("d")[1:].split("L")]
    x = float(labels["10"].get("x"))
    # The words stand 4 units below their line.
    y = [float(labels[tick].get("y")) - 4 for tick in ("0.5", "1", "1.5")]
    assert points[1] == pytest.approx((x, y[1]))
    assert [point[1] for point in points] == pytest.approx(y)


def test_values_that_are_none_are_left_out():
    picture = drawn(Line("line", [0, 1, 2], [0, float("nan"), 1], "test"))
    (path,) = picture.iter("path")
    assert path.get("d").count("L") == 1
    assert not re.search("nan|inf", ElementTree.tostring(picture, "unicode"))


def test_single_values_are_points():
    picture = drawn(Line("line", [1], [1], "test"))
    assert not list(picture.iter("path"))
    assert len(list(picture.iter("circle"))) == 1


@pytest.mark.parametrize("lines", [(), (Line("none", [], [], "test"),)])
def test_nothing_yet_is_a_pair_of_axes(lines):
    picture = drawn(*lines)
    assert {"x", "y", "0", "10"} <= set(texts(picture))


def test_a_range_of_nothing_is_drawn():
    picture = drawn(Line("line", [0, 1], [0, 0], "test"), x_range=(0, 0), y_range=(0, 0))
    assert not re.search("nan|inf", ElementTree.tostring(picture, "unicode"))


def test_a_mark_stands_at_its_value():
    picture = drawn(Line("line", [0, 10], [0, 2], "test"), mark=(4, "here"))
    (line,) = [one for one in picture.iter("line") if one.get("class") == "mark"]
    assert line.get("x1") == texts(picture)["4"].get("x")
    assert "here" in texts(picture)


def test_names_in_a_legend_are_text():
    picture = drawn(Line("<b>&", [0, 1], [0, 1], "test"))
    assert [one.find("i").tail for one in picture.iter("span")] == ["<b>&"]


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.0003), (0.5, 0.93), (-3, 12345), (0, 1e9)])
def test_ticks_are_round_inside_and_few(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert low - 1e-9 <= found[0] and found[-1] <= high * (1 + 1e-9)
    steps = np.diff(found)
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
    assert f"{steps[0]:.0e}"[0] in "125"


def test_many_points_become_means_of_neighbours():
    x = np.arange(10000.0)
    fewer, means = thinned(x, 3 * x, 100)
    assert len(fewer) == 100
    assert means == pytest.approx(3 * fewer)
    assert fewer[0] == pytest.approx(np.mean(x[:100]))
