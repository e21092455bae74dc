"""The parts of a report about the training: how far it is, what it learns from, its curves."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unet.errors import counted
from unet.report.charts import Line, chart, thinned
from unet.report.markup import Markup, joined, tag
from unet.report.plots import smoothed
from unet.report.run_files import LABELS, Run, Stage, name_of_slice, part_of_slice, unit_of

_TASKS = {
    "membranes": "tells cells from the membranes between them",
    "cells": "tells cells from background, and from each other",
    "classes": "tells {classes} classes apart",
}
# The picture of the labels is shown as wide as the page.
_MOST_WIDTH = 1600
_SMOOTH_SHARE = 50


def head(run: Run) -> Markup:
    """Say what the run is, and how far it is."""
    task = _TASKS.get(run.kind, _TASKS["classes"]).format(classes=run.choices.get("classes", "the"))
    return joined(
        tag("h1", run.folder.resolve().name),
        tag("p", f"A U-Net that {task}. {_state(run)}", class_="lead"),
        _progress(run),
    )


def is_finished(run: Run) -> bool:
    """Tell whether all stages are trained and the result is scored."""
    return bool(run.scores) and all(stage.done >= stage.iterations for stage in run.stages)


def _state(run: Run) -> str:
    if not any(stage.rows for stage in run.stages):
        return "Scored; of its training nothing is here." if run.scores else "Training begins."
    seconds = sum(stage.seconds for stage in run.stages)
    done = sum(stage.done for stage in run.stages)
    if is_finished(run):
        return f"Trained with {counted(done, 'iteration')} in {duration(seconds)}."
    last = [stage for stage in run.stages if stage.rows][-1]
    of = f" of {last.iterations:,}" if last.iterations else ""
    where = f"stage {last.number} of {len(run.stages)}, " if len(run.stages) > 1 else ""
    return f"So far: {where}iteration {last.done:,}{of}, {duration(seconds)}. Reload to see more."


def _progress(run: Run) -> Markup | None:
    planned = sum(stage.iterations for stage in run.stages)
    if not planned or is_finished(run):
        return None
    share = min(1.0, sum(stage.done for stage in run.stages) / planned)
    bar = tag("i", style=f"width:{share:.1%}")
    return tag("div", bar, class_="progress", role="img", aria_label=f"{share:.0%} trained")


def duration(seconds: float) -> str:
    """Write a time as people say it.

    Examples
    --------
    >>> duration(1), duration(42), duration(750), duration(9000)
    ('1 second', '42 seconds', '12.5 minutes', '2.5 hours')
    """
    if seconds < 120:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.3g} minutes" if seconds < 7200 else f"{seconds / 3600:.3g} hours"


def trained_on(run: Run) -> Markup | None:
    """Show what the labels were understood as, and every choice with its reason."""
    choices = run.choices
    rows = _rows(choices)
    if not rows and not run.has_labels:
        return None
    understood, notes = choices.get("understood"), choices.get("notes")
    notes = notes if isinstance(notes, list) else []
    return tag(
        "section",
        tag("h2", "What it learns from"),
        tag("p", understood) if understood else None,
        *(tag("p", f"Note: {note}", class_="soft") for note in notes),
        _labels(run) if run.has_labels else None,
        tag("dl", *rows, class_="choices") if rows else None,
        id="data",
    )


def _labels(run: Run) -> Markup | None:
    from PIL import Image

    try:
        with Image.open(run.folder / LABELS) as image:
            picture = image.convert("RGB")
    except OSError:
        # Half of it is there.
        return None
    if picture.width > _MOST_WIDTH:
        height = round(picture.height * _MOST_WIDTH / picture.width)
        picture = picture.resize((_MOST_WIDTH, height), Image.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="webp", quality=85)
    address = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    alt = "A slice, and what its labels were understood as"
    return tag("div", tag("img", src=address, alt=alt), class_="wide")


def _slices(parts: Sequence[Any], split: Any = None) -> str:
    """Write numbers of slices in runs, parts of slices by their place; files as the split has them.

    Examples
    --------
    >>> _slices([0, 1, 2, 5, 7, 8])
    '0–2, 5, 7, 8'
    >>> _slices([3, 5], {"files": {"3": "b.png", "5": "d.png"}})
    '3 (b.png), 5 (d.png)'
    """
    words = []
    numbers = sorted({part for part in parts if isinstance(part, int)})
    k = 0
    while k < len(numbers):
        end = k
        while end + 1 < len(numbers) and numbers[end + 1] == numbers[end] + 1:
            end += 1
        if end - k > 1:
            words.append(f"{name_of_slice(numbers[k], split)}–{name_of_slice(numbers[end], split)}")
        else:
            words += [name_of_slice(number, split) for number in numbers[k : end + 1]]
        k = end + 1
    for part in parts:
        if isinstance(part, dict):
            words.append(f"{name_of_slice(part.get('z'), split)} ({part_of_slice(part)})")
    return ", ".join(words)


def _split(split: Any) -> str:
    if not isinstance(split, dict):
        return _plain(split)
    train, held = (split.get(key) or [] for key in ("train", "held_out"))
    order = ", in the order of their names" if split.get("files") else ""
    # Frames have numbers of their own.
    count = "" if unit_of(split) == "frame" else f" (counted from 0{order})"
    held = f"held out: {_slices(held, split)}"
    return f"trained on {unit_of(split)}s {_slices(train)}; {held}{count}"


def _net(net: Any) -> str:
    if not isinstance(net, dict):
        return _plain(net)
    words = []
    if "levels" in net:
        words.append(f"{net['levels']} levels")
    if "maps" in net:
        words.append(f"{net['maps']} maps at the first")
    if "padded" in net:
        words.append("padded convolutions" if net["padded"] else "unpadded convolutions")
    if isinstance(net.get("parameters"), int):
        words.append(f"{net['parameters']:,} parameters")
    return ", ".join(words) or _plain(net)


def _weighting(weighting: Any) -> str:
    alike = weighting == "none"
    return "all pixels alike" if alike else f"gaps between cells weigh more ({weighting})"


def _solver(solver: Any) -> str:
    if not isinstance(solver, dict):
        return _plain(solver)
    stages = solver.get("stages") or []
    words = []
    for number, stage in enumerate(stages, 1):
        many = counted(stage.get("iterations", 0), "iteration")
        said = f"{many} at rate {stage.get('base_lr', '?')}"
        if stage.get("weighting"):
            said += f", {_weighting(stage['weighting'])}"
        words.append(f"stage {number}: {said}" if len(stages) > 1 else said)
    return "; ".join([str(solver.get("type", "")), *words]).strip("; ")


def _networks(networks: Mapping[str, Any]) -> str:
    """Write the scores by which one network was kept."""
    told = (
        f"{name} {value:.4f}"
        for name, value in networks.items()
        if name != "score" and value is not None
    )
    return f"{networks['score']}: {'; '.join(told)}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _from(value: Mapping[str, str]) -> str:
    return f"{value['model']}: {value['first']}; {value['last']}"


#: Choices in the order in which they are shown: key, name, how it is written, keys of reasons.
_SHOWN: Sequence[tuple[str, str, Callable[[Any], str], tuple[str, ...]]] = (
    ("stack", "Stack", str, ()),
    ("labels", "Labels", str, ("label_kind", "kind")),
    ("split", "Slices", _split, ("held out",)),
    ("normalise", "Normalised", _plain, ()),
    ("net", "Network", _net, ("levels", "maps", "padded")),
    ("from", "Begins as", _from, ()),
    ("tile", "Tile", _plain, ()),
    ("solver", "Solver", _solver, ("base_lr", "iterations", "stages", "weighting")),
    ("average", "Averaged", lambda share: f"the last {share:.0%} of each stage's iterations", ()),
    ("networks", "Networks", _networks, ()),
    ("kept", "Kept", str, ()),
    ("augmentation", "Augmentation", _plain, ()),
    ("minutes", "Minutes", lambda minutes: f"{minutes:g}", ()),
    ("seconds_a_step", "Seconds a step", lambda seconds: f"{seconds:.3g}", ()),
    ("device", "Device", str, ()),
    ("precision", "Precision", str, ()),
    ("seed", "Seed", str, ()),
    ("version", "Version", str, ()),
)


def _rows(choices: Mapping[str, Any]) -> list[Markup]:
    reasons = choices.get("reasons")
    reasons = dict(reasons) if isinstance(reasons, dict) else {}
    rows = []
    for key, name, write, keys in _SHOWN:
        value = choices.get(key)
        why = [(key, reasons.pop(key))] if key in reasons else []
        why += [(one, reasons.pop(one)) for one in keys if one in reasons]
        if value is None and not why:
            continue
        try:
            said = "" if value is None else write(value)
        except (TypeError, ValueError, AttributeError):
            # Of another version, which wrote it otherwise.
            said = _plain(value)
        rows += _row(name, said, why, key)
    for key, reason in reasons.items():
        rows += _row(str(key).replace("_", " ").capitalize(), "", [(key, reason)], key)
    return rows


def _row(name: str, said: str, why: Sequence[tuple[str, Any]], key: str) -> list[Markup]:
    """Write a choice and its reasons, each of which says what it is about."""
    because = "; ".join(
        str(reason) if one == key else f"{one.replace('_', ' ')}: {reason}" for one, reason in why
    )
    if not said:
        said, because = because, ""
    return [tag("dt", name), tag("dd", said, tag("small", because) if because else None)]


def curves(run: Run) -> Markup | None:
    """Draw losses, held-out errors and rates of each stage."""
    drawn = [_stage(run, stage) for stage in run.stages if stage.rows]
    drawn = [one for one in drawn if one is not None]
    if not drawn:
        return None
    said = (
        "The training loss is of one tile at a time, so it is noisy; the held-out loss is what"
        " counts. If it rises while the other falls, the network learns by heart."
    )
    return tag(
        "section",
        tag("h2", "How it learns"),
        tag("p", said, class_="soft"),
        *drawn,
        id="curves",
    )


def _stage(run: Run, stage: Stage) -> Markup | None:
    training = [row for row in stage.rows if math.isfinite(row.get("loss", math.nan))]
    names = sorted({key for row in stage.rows for key in row if key.startswith("test")})
    losses = [name for name in names if name.endswith("loss")]
    errors = [name for name in names if name not in losses]
    if run.kind != "membranes":
        # 1 - F-score of class 1, which is large where cells are few, however few pixels are wrong.
        errors = [name for name in errors if not name.endswith("pixel_error")]
    if not training and not names:
        return None
    lines, highest = [], [1e-6]
    if training:
        x = np.array([row["iteration"] for row in training])
        y = np.array([row["loss"] for row in training])
        window = max(1, len(y) // _SMOOTH_SHARE)
        lines = [Line("one tile", *thinned(x, y), "noise" if window > 1 else "train")]
        if window > 1:
            mean = thinned(x, smoothed(y, window))
            lines.append(Line(f"mean of {window}", *mean, "train"))
        highest.append(float(np.percentile(y, 98)))
    tests = [_tests(stage, name, style) for name, style in zip(losses, ("test", "second"))]
    highest += [y for line in tests for y in line.y]
    panels = [("Loss", [*lines, *tests], max(highest), "loss")]
    if errors:
        found = [_tests(stage, name, s) for name, s in zip(errors, ("second", "third", "test"))]
        most = max([1e-6, *(y for line in found for y in line.y)])
        panels.append(("Held-out errors", found, most, "error"))
    if training:
        rates = [row["rate"] for row in training if "rate" in row]
        if len(rates) == len(training):
            power = math.floor(math.log10(max(1e-12, *rates)))
            digits = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
            line = Line("", *thinned(x, np.array(rates) / 10.0**power), "rate")
            label = f"rate, in units of 10{digits}" if power else "rate"
            panels.append(("Learning rate", [line], max(line.y), label))
    end = max(1, stage.done, stage.iterations)
    drawn = [
        tag(
            "div",
            tag("h3", title),
            chart(
                lines,
                x_label="iteration",
                y_label=label,
                x_range=(0, end),
                y_range=(0, 1.1 * most),
                described=f"{title} over iterations",
            ),
        )
        for title, lines, most, label in panels
    ]
    weighting = stage.planned.get("weighting")
    said = f": {_weighting(weighting)}" if weighting else ""
    title = tag("h3", f"Stage {stage.number}{said}", class_="stage-head")
    several = len(run.stages) > 1
    return joined(title if several else None, tag("div", *drawn, class_="charts"))


def _tests(stage: Stage, name: str, style: str) -> Line:
    """The line of a score on held-out tiles, whose latest value the legend tells."""
    points = [
        (row["iteration"], row[name])
        for row in stage.rows
        if math.isfinite(row.get(name, math.nan))
    ]
    group, _, score = name.partition("_")
    # Of several held-out sets the number.
    said = "held out" if score == "loss" else score.replace("_", " ")
    said += f" {group[len('test') :]}".rstrip()
    if not points:
        return Line(said, (), (), style)
    return Line(f"{said} {points[-1][1]:.4f}", *zip(*points), style, points=True)
