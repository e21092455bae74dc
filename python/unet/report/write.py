"""The report of a run as one page, report.html, of whatever is there of the run so far."""

from __future__ import annotations

import functools
import os
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.names import PathLike, printable
from unet.files.provenance import mark
from unet.report.diagnosis import FAULT, FINE, HINT, Check, diagnose_curves, diagnose_slices
from unet.report.differences import worst_places
from unet.report.markup import Markup, joined, tag
from unet.report.result_part import figures, held_out, scores, worst
from unet.report.run_files import HELD_OUT, Run, read_run
from unet.report.training_part import curves, head, is_finished, trained_on

REPORT = "report.html"
_SECTIONS = {
    "data": "What it learns from",
    "curves": "Curves",
    "slices": "Held-out slices",
    "worst": "Worst places",
    "scores": "Scores",
    "next": "What to do next",
    "use": "Use it",
}
# Of the worst places so many are shown, this wide at most.
_PLACES, _PLACE_SIDE = 6, 96


class _Held(NamedTuple):
    """What the held-out slices give to the page."""

    parts: tuple[Markup | None, ...] = ()
    checks: tuple[Check, ...] = ()
    damaged: tuple[str, ...] = ()


def write_report(folder: PathLike) -> Path:
    """Write report.html into the folder of a run, of the files that are there, whole or not at all.

    Parameters
    ----------
    folder : path
        Holds whatever is there already of choices.json, labels.png, training-1/curve.csv,
        training-2/curve.csv, held-out.h5, scores.json, segment.json and weights.caffemodel. What
        cannot be read is told in the report.

    Returns
    -------
    pathlib.Path
        Of the report: a page that needs nothing but itself.

    Raises
    ------
    InputError
        If there is no such folder, or the report cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder of a run")
    path = folder / REPORT
    with atomic_path(path) as fresh:
        fresh.write_text(_page(read_run(folder)), encoding="utf-8")
    return path


def _page(run: Run) -> Markup:
    held = _held_out(run)
    checks = [*diagnose_curves(run.stages), *held.checks]
    parts = [
        trained_on(run),
        curves(run),
        *held.parts,
        scores(run),
        _next(checks, run),
        _use(run),
    ]
    body = joined(
        tag("header", head(run), figures(run), _summary(checks), _links(parts)),
        tag("main", _damaged([*run.damaged, *held.damaged]), *parts),
        tag("footer", _written(run)),
        tag("script", Markup(_text("page.js"))),
    )
    title = f"{run.folder.resolve().name}: report of a training"
    return joined(
        Markup("<!DOCTYPE html>\n"),
        tag(
            "html",
            tag(
                "head",
                tag("meta", charset="utf-8"),
                tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                tag("meta", name="generator", content=mark("report")),
                tag("title", title),
                tag("style", Markup(_text("page.css"))),
            ),
            tag("body", body),
            lang="en",
        ),
        Markup("\n"),
    )


@functools.cache
def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _held_out(run: Run) -> _Held:
    if not run.has_held_out:
        return _Held()
    state = (run.folder / HELD_OUT).stat()
    key = (str(run.folder), state.st_mtime_ns, state.st_size, str(run.scores), str(run.choices))
    if key not in _drawn:
        _drawn.clear()
        _drawn[key] = _draw_held_out(run)
    return _drawn[key]


# While a stage is trained the report is written each minute; its slices stay what they are.
_drawn: dict[tuple, _Held] = {}


def _draw_held_out(run: Run) -> _Held:
    try:
        slices = list(run.held_out())
    except InputError as error:
        return _Held(damaged=(str(error).replace(f"{run.folder}{os.sep}", ""),))
    if not slices:
        return _Held()
    places = worst_places(run.kind, iter(slices), _PLACE_SIDE, _PLACES)
    parts = (held_out(run, slices), worst(run.kind, places))
    return _Held(parts, tuple(diagnose_slices(run.kind, slices)))


def _links(parts: Sequence[Markup | None]) -> Markup:
    ids = [re.search(r' id="(\w+)">', part) for part in parts if part is not None]
    there = [found.group(1) for found in ids if found]
    return tag("nav", *(tag("a", _SECTIONS[name], href=f"#{name}") for name in there))


def _damaged(sentences: Sequence[str]) -> Markup | None:
    if not sentences:
        return None
    return tag("section", tag("h2", "What cannot be read"), *(tag("p", one) for one in sentences))


def _summary(checks: Sequence[Check]) -> Markup | None:
    faults = [check.name for check in checks if check.state == FAULT]
    if not faults:
        return None
    words = f"Look at this first: {', '.join(dict.fromkeys(faults))}. "
    return tag("p", words, tag("a", "What to do", href="#next"), class_="summary fault")


def _next(checks: Sequence[Check], run: Run) -> Markup | None:
    if not checks:
        return None
    order = {FAULT: 0, HINT: 1, FINE: 2}
    items = []
    for check in sorted(_joined(checks), key=lambda check: order[check.state]):
        found = check.found[:1].upper() + check.found[1:]
        remedy = tag("p", _with_flags(check.remedy), class_="remedy") if check.remedy else None
        name = check.name if check.state != FINE else check.fine
        name = tag("b", name[:1].upper() + name[1:])
        items.append(tag("li", name, tag("p", found), remedy, class_=check.state))
    lead = None
    if not any(check.state == FAULT for check in checks):
        lead = "No fault was found."
    if lead and is_finished(run) and all(check.state == FINE for check in checks):
        lead += " More annotated slices, or more minutes, are what is left to make it better."
    return tag(
        "section",
        tag("h2", "What to do next"),
        tag("p", lead) if lead else None,
        tag("ul", *items, class_="checks"),
        id="next",
    )


def _joined(checks: Sequence[Check]) -> list[Check]:
    """What is well in several stages is said once."""
    joined: dict[object, Check] = {}
    for number, check in enumerate(checks):
        key = check.name if check.state == FINE else number
        if key in joined:
            before = joined[key].found
            check = check._replace(found=f"{before} {check.found[:1].upper()}{check.found[1:]}")
        joined[key] = check
    return list(joined.values())


def _use(run: Run) -> Markup | None:
    if not run.has_weights:
        return None
    outputs = {"cells": " --instances cells.tif", "classes": " --classes classes.tif"}
    more = outputs.get(run.kind, "")
    given = str(run.choices.get("stack", ""))
    command = f"unet segment STACK --model .{' -o probabilities.tif'}{more}"
    commands = [tag("p", "In the folder in which this report lies; STACK is any stack:")]
    commands.append(_command(command))
    if os.path.isabs(given):
        commands.append(tag("p", "All of the stack that it learnt from:"))
        commands.append(_command(command.replace("STACK", shlex.quote(printable(given)))))
    commands.append(tag("p", "In Python:"))
    commands.append(
        _command(
            "import unet", 'model = unet.load(".")', 'probabilities = model.segment("stack.tif")'
        )
    )
    said = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in run.segment.items()
        if name in ("threshold", "minimum_area", "watershed", "tta")
        and value not in (None, 1, "none")
    )
    if said:
        words = f"Unless flags say otherwise: {said}, as segment.json beside this report says."
        commands.append(tag("p", words, class_="soft"))
    again = run.choices.get("command")
    if again:
        commands.append(
            tag("p", "Trained, and continued if it was stopped, where it was begun, by:")
        )
        commands.append(_command(str(again)))
    return tag("section", tag("h2", "Use it"), *commands, id="use")


def _command(*lines: str) -> Markup:
    """Show lines to be typed, which break between words only."""
    copy = tag("button", "Copy", type="button")
    text = Markup("\n".join(joined(*_words(line)) for line in lines))
    return tag("div", tag("pre", tag("code", text)), copy, class_="command")


def _words(text: str) -> Iterator[Markup | str]:
    for word in re.split(r"( +)", text):
        yield tag("span", word, class_="word") if word.strip() else word


def _with_flags(text: str) -> Markup:
    """Set flags that stand in a sentence as what is typed."""
    parts = re.split(r"(--[\w-]+(?: \d+)?)", text)
    return joined(
        *(tag("code", part, class_="word") if k % 2 else part for k, part in enumerate(parts))
    )


def _written(run: Run) -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    state = "" if is_finished(run) else "; it is written again while the training goes on"
    return f"State of {now}{state}. {mark('report')}."
