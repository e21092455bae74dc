"""The parts of a report about the result: held-out slices, worst places, scores."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unet.report.charts import Line, chart
from unet.report.differences import INVENTED, MERGED, MISSED, SPLIT, Place, differences
from unet.report.markup import Markup, joined, tag
from unet.report.pictures import (
    DIFFERENCE_COLOURS,
    LAYERS,
    class_colour,
    place_pictures,
    slice_pictures,
)
from unet.report.plots import PREDICTED, TRUE
from unet.report.run_files import SHORT, HeldOutSlice, Run, name_of_slice, number_of, unit_of

_HIGHER, _LOWER = "higher is better", "lower is better"
# Name, direction, meaning.
_MEANINGS = {
    "rand_error": ("Rand error", _LOWER, "pairs of pixels put into one cell, or two, wrongly"),
    "pixel_error": ("Pixel error", _LOWER, "1 − F-score of the pixels inside cells"),
    "warping_error": ("Warping error", _LOWER, "pixels whose mistake splits or merges cells"),
    "v_rand_thin": ("V_rand (thin)", _HIGHER, "the Rand score of the challenge since 2016"),
    "v_info_thin": ("V_info (thin)", _HIGHER, "shared information, of the challenge since 2016"),
    "SEG": ("SEG", _HIGHER, "mean overlap of true cells, cell tracking challenge"),
    "f1_mean": ("F1, mean", _HIGHER, "over overlaps (IoU) of 0.5 to 0.9 that are demanded"),
    "precision": ("Precision", _HIGHER, "found cells that are true, at IoU 0.5"),
    "recall": ("Recall", _HIGHER, "true cells that are found, at IoU 0.5"),
    "iou_mean": ("IoU, mean", _HIGHER, "intersection over union, mean of the classes"),
    "accuracy": ("Accuracy", _HIGHER, "pixels of the right class"),
}
#: The scores by which a result is known first.
HEADLINES = {
    "membranes": ("rand_error", "v_rand_thin", "pixel_error"),
    "cells": ("SEG", "f1_mean", "f1_0.50"),
    "classes": ("iou_mean", "accuracy"),
}


def meaning(name: str) -> tuple[str, str, str]:
    """Return what a score is called, in which direction it is better, and what it says."""
    if name in _MEANINGS:
        return _MEANINGS[name]
    group, _, rest = name.partition("_")
    if group == "f1" and re.fullmatch(r"0\.\d+", rest):
        return f"F1 at IoU {float(rest):g}", _HIGHER, "cells found with at least this overlap"
    if group == "iou":
        return f"IoU, class {rest}", _HIGHER, "intersection over union of its pixels"
    return name.replace("_", " "), "", ""


def _number(value: Any) -> str:
    number = number_of(value)
    return "–" if number is None else f"{number:.4f}"


def figures(run: Run) -> Markup | None:
    """Show the few numbers that matter most."""
    found = _dict(run.scores.get("scores"))
    tiles = [
        tag("div", tag("b", _number(found[name])), tag("span", meaning(name)[0]))
        for name in HEADLINES.get(run.kind, ())
        if name in found
    ]
    return tag("div", *tiles, class_="figures") if tiles else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _swatch(colour: Sequence[int], words: str) -> Markup:
    return tag("span", tag("i", style=f"background:rgb{tuple(colour)}".replace(" ", "")), words)


def _legend(kind: str, slices: Sequence[HeldOutSlice]) -> Markup:
    if kind == "classes":
        highest = max(int(max(one.truth.max(), one.result.max())) for one in slices)
        keys = [_swatch(class_colour(k), f"class {k}") for k in range(highest + 1)]
        keys.append(tag("span", "Differences have the colour of the true class."))
    elif kind == "cells":
        keys = [
            _swatch(DIFFERENCE_COLOURS[MISSED], "only in the truth"),
            _swatch(DIFFERENCE_COLOURS[INVENTED], "only in the result"),
            _swatch(DIFFERENCE_COLOURS[MERGED], "two cells taken for one"),
            _swatch(DIFFERENCE_COLOURS[SPLIT], "one cell taken for several"),
        ]
    else:
        keys = [
            _swatch(TRUE, "membrane in the truth; among the differences: missed"),
            _swatch(PREDICTED, "membrane in the result; among the differences: invented"),
        ]
    return tag("p", *keys, class_="legend")


def held_out(run: Run, slices: Sequence[HeldOutSlice]) -> Markup:
    """Show slices with raw, truth, result and differences, two of them on each side of a line."""
    layers = {"raw": "Raw", **LAYERS}
    names = {one.place: one.name for one in slices}
    stores, words = [], []
    for one in slices:
        pictures = slice_pictures(run.kind, one)
        images = [
            tag("img", src=address, alt="", data_layer=layer, decoding="async", loading="lazy")
            for layer, address in pictures.items()
        ]
        stores.append(tag("div", *images, class_="store", data_slice=one.place, hidden=True))
        words.append(tag("p", _said(run, one), class_="soft of-slice", data_slice=one.place))
    first = slices[0].place
    stage = tag(
        "div",
        tag("img", class_="raw", alt="The slice as it was given", **_size(slices[0])),
        tag("img", class_="over left", alt=""),
        tag("img", class_="over right", alt=""),
        tag(
            "input",
            type="range",
            min=0,
            max=100,
            value=50,
            aria_label="Line between the two pictures",
        ),
        tag("div", class_="divider"),
        tag("span", class_="tag l"),
        tag("span", class_="tag r"),
        class_="stage",
    )
    bars = [
        _segments("left", "Left", layers, "raw"),
        _segments("right", "Right", layers, "differences"),
    ]
    if len(slices) > 1:
        bars.insert(0, _segments("slice", "", names, first))
    else:
        bars.append(
            tag("input", type="radio", name="slice", value=first, checked=True, hidden=True)
        )
    return tag(
        "section",
        tag("h2", "What it makes of slices it has not seen"),
        tag(
            "p",
            f"Move the line: drag it, or use the arrow keys.{_left_out(run, slices)}",
            class_="soft",
        ),
        tag("div", *bars, class_="bar"),
        stage,
        _legend(run.kind, slices),
        *words,
        *stores,
        class_="viewer",
        data_layers=json.dumps(layers),
        id="slices",
    )


def _left_out(run: Run, slices: Sequence[HeldOutSlice]) -> str:
    """Say which of many slices are shown; nothing of all."""
    many = run.many_held_out()
    if len(slices) == many:
        return ""
    return (
        f" Shown are {len(slices)} of the {many} held out, so that the page stays small: the two"
        " with most wrong pixels, and others evenly spread."
    )


def _size(one: HeldOutSlice) -> dict[str, int]:
    height, width = one.truth.shape
    return {"width": width, "height": height}


def _segments(name: str, said: str, options: Mapping[Any, str], chosen: Any) -> Markup:
    labels = [
        tag(
            "label",
            tag("input", type="radio", name=name, value=key, checked=key == chosen),
            tag("span", words),
        )
        for key, words in options.items()
    ]
    group = tag("span", *labels, class_="segments", role="radiogroup", aria_label=said or "Slice")
    if not said:
        return tag("span", group, class_="pick all")
    return tag("span", tag("span", said, class_="said"), group, class_="pick")


def _capital(name: str) -> str:
    # Names of files keep their own.
    return name[:1].upper() + name[1:]


def _said(run: Run, one: HeldOutSlice) -> str:
    """Say how a slice came out."""
    told = differences(run.kind, one.truth, one.result)
    share = np.count_nonzero(told) / max(1, np.count_nonzero(one.truth >= 0))
    words = f"{_capital(one.name)}: {share:.1%} of the annotated pixels differ"
    rows = _list(run.scores.get("slices"))
    scores = _dict(rows[one.place]) if one.place < len(rows) else {}
    numbers = [
        f"{meaning(name)[0]} {_number(scores[name])}"
        for name in HEADLINES.get(run.kind, ())
        if name in scores
    ]
    return "; ".join([words, *numbers]) + "."


def worst(kind: str, places: Sequence[Place]) -> Markup | None:
    """Show the places in which most is wrong, enlarged."""
    if not places:
        return None
    shown = []
    for place in places:
        drawn = place_pictures(kind, place)
        crops = []
        for layer, said in (("raw", "raw"), ("truth", "truth"), ("result", "result")):
            base = tag("img", src=drawn["raw"], alt=said if layer == "raw" else "")
            over = tag("img", src=drawn[layer], alt=said) if layer != "raw" else None
            crops.append(tag("div", base, over, class_="crop"))
        middle = [
            first + (part.start + part.stop) // 2
            for first, part in zip(place.slice.corner, (place.rows, place.columns))
        ]
        name = tag("a", _capital(place.slice.name), href="#slices", data_show=place.slice.place)
        where = f", around row {middle[0]}, column {middle[1]}"
        what = f"{_kinds(kind, place)}, {place.pixels:,} pixels"
        shown.append(
            tag(
                "figure",
                tag("div", *crops, class_="trio"),
                tag("figcaption", name, where, tag("span", what, class_="soft")),
                class_="place",
            )
        )
    return tag(
        "section",
        tag("h2", "The worst places"),
        tag(
            "p",
            "Raw, truth and result, where most pixels are wrong; borders drawn up to two pixels"
            " elsewhere do not count.",
            class_="soft",
        ),
        tag("div", *shown, class_="places"),
        id="worst",
    )


def _kinds(kind: str, place: Place) -> str:
    """Say what is wrong in a place, at most two things."""
    kinds = place.kinds[:2]
    if kind == "classes":
        return f"not found: class {' and class '.join(str(k - 1) for k in kinds)}"
    what = "membrane" if kind == "membranes" else "a cell, or part of one,"
    if set(kinds) == {MISSED, INVENTED}:
        first, second = ("missed", "invented")[:: 1 if kinds[0] == MISSED else -1]
        return f"{what} {first}, and {second}"
    names = {
        MISSED: f"{what} missed",
        INVENTED: f"{what} invented",
        MERGED: "cells merged",
        SPLIT: "cell split",
    }
    return ", ".join(names[k] for k in kinds)


def scores(run: Run) -> Markup | None:
    """Show the scores, over all slices and of each, and how they depend on the threshold."""
    found = _dict(run.scores.get("scores"))
    if not found:
        return None
    rows = []
    for name, value in found.items():
        said, direction, what = meaning(name)
        rows.append(
            tag(
                "tr",
                tag("td", said, tag("small", what) if what else None),
                tag("td", tag("b", _number(value)), class_="n"),
                tag("td", {_HIGHER: "↑", _LOWER: "↓"}.get(direction, ""), title=direction),
            )
        )
    heads = tag("tr", tag("th", "Score"), tag("th", "Value", class_="n"), tag("th", ""))
    table = tag("table", tag("thead", heads), tag("tbody", *rows))
    arrows = tag("p", "↑ higher is better, ↓ lower is better", class_="soft")
    choices = [
        _curve(_dict(run.scores.get(key)), label, words)
        for key, label, words in (
            ("threshold", "threshold", "Which threshold"),
            ("minimum_area", "minimum area, pixels", "Which minimum area"),
            ("watershed", "depth between two cells, 0: not split", "Which cells are split"),
        )
    ]
    return tag(
        "section",
        tag("h2", "Scores on the held-out slices"),
        tag("div", tag("div", table, arrows), tag("div", *choices), class_="split"),
        _slices(run, list(found)),
        id="scores",
    )


def _curve(picked: Mapping[str, Any], label: str, words: str) -> Markup | None:
    points = [point for point in _list(picked.get("curve")) if isinstance(point, list)]
    curve = [[number_of(value) for value in point] for point in points if len(point) == 2]
    curve = [point for point in curve if None not in point]
    if len(curve) < 2:
        return None
    x, y = zip(*curve)
    chosen = number_of(picked.get("chosen"))
    low, high = min(y), max(y)
    room = 0.08 * ((high - low) or 1)
    line = Line(str(picked.get("score", "score")), x, y, "test", points=True)
    drawn = chart(
        [line],
        x_label=label,
        y_label="score",
        x_range=(min(x), max(x)),
        y_range=(max(0.0, low - room), high + room),
        mark=None if chosen is None else (chosen, f"chosen: {chosen:g}"),
        described=f"score over {label}",
    )
    return joined(tag("h3", words), drawn)


def _slices(run: Run, names: Sequence[str]) -> Markup | None:
    rows = [_dict(row) for row in _list(run.scores.get("slices"))]
    names = [name for name in names if any(name in row for row in rows)]
    if len(rows) < 2 or not names:
        return None
    worst_of = {}
    for name in names:
        values = [number_of(row.get(name)) for row in rows]
        values = [math.nan if value is None else value for value in values]
        direction = meaning(name)[1]
        if direction and len({value for value in values if not math.isnan(value)}) > 1:
            pick = np.nanargmax if direction == _LOWER else np.nanargmin
            worst_of[name] = int(pick(values))
    body, split = [], run.choices.get("split")
    unit = _capital(unit_of(split))
    head = [tag("th", unit), *(tag("th", meaning(name)[0], class_="n") for name in names)]
    for place, row in enumerate(rows):
        cells = [
            tag(
                "td",
                _number(row.get(name)),
                class_="n worst" if worst_of.get(name) == place else "n",
            )
            for name in names
        ]
        body.append(
            tag("tr", tag("td", name_of_slice(row.get("slice", place), split, SHORT)), *cells)
        )
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return joined(
        tag("h3", f"{unit} by {unit.lower()}", class_="apart"),
        tag("div", table, class_="wide table"),
        tag("p", "The worst of each score is coloured.", class_="soft"),
    )
