"""What a run tells of itself in words: a paragraph of what was chosen, and the model's card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet.errors import counted
from unet.experiment.folder import NET, START
from unet.report.run_files import name_of_slice, unit_of


def paragraph(chosen: dict[str, Any]) -> str:
    """Tell what was chosen, and why, in a paragraph."""
    parts, net, solver, why = (chosen[key] for key in ("split", "net", "solver", "reasons"))
    numbers = [
        name_of_slice(one["z"] if isinstance(one, dict) else one, parts)
        for one in parts["held_out"]
    ]
    are_parts = any(isinstance(one, dict) for one in parts["held_out"])
    held = "Nothing is held out"
    if numbers:
        units = unit_of(parts) + "s" * (len(numbers) > 1)
        what = f"A quadrant {'each ' * (len(numbers) > 1)}of {units}"
        what = what if are_parts else f"Held out: {units}"
        held = f"{what} {', '.join(numbers)} ({why['held out']})"
    stages = solver["stages"]
    last = ""
    if len(stages) > 1:
        last = (
            f", the last {stages[1]['iterations']:,} of them with the weight of the gaps, "
            f"{stages[1]['weighting']}, at a rate of {stages[1]['base_lr']:g} ({why['stages']})"
        )
    begins = ""
    if chosen.get("from"):
        one = chosen["from"]
        begins = f"It begins as {Path(one['model']).name}: {one['first']}; {one['last']}. "
    return (
        f"Learns from {counted(len(parts['train']), unit_of(parts))}. {held}. "
        f"A U-Net of {net['levels']} levels ({why['levels']}) and {net['maps']} maps "
        f"({why['maps']}): {net['parameters']:,} parameters. {begins}"
        f"Tiles of {chosen['tile']} ({why['tile']}). "
        f"{solver['type']} ({why['solver']}), rate {stages[0]['base_lr']:g}, "
        f"{counted(sum(one['iterations'] for one in stages), 'iteration')} "
        f"({why['iterations']}){last}. "
        f"Seed {chosen['seed']}, {chosen['precision']} on the {chosen['device']}."
    )


def written(score: float | None, digits: int = 4) -> str:
    """Write a score; one that is not defined has none.

    Examples
    --------
    >>> written(0.25), written(None)
    ('0.2500', 'none')
    """
    return "none" if score is None else f"{score:.{digits}f}"


def judged(chosen: Mapping[str, Any]) -> list[str]:
    """Tell which of several networks was kept, and their scores; nothing of a single one."""
    networks = dict(chosen.get("networks", {}))
    score = networks.pop("score", "")
    if len(networks) < 2:
        return []
    told = ", ".join(f"{name} {written(value)}" for name, value in networks.items())
    return [f"Kept: {chosen['kept']}. By {score}: {told}.", ""]


def card(name: str, chosen: Mapping[str, Any], scores: Mapping[str, float]) -> str:
    """Return the card of a model, Markdown.

    Parameters
    ----------
    name : str
        Of the folder.
    chosen, scores : mapping
        What choices.json holds, and the scores of scores.json.
    """
    sources = [Path(chosen[key]).name for key in ("stack", "labels") if chosen[key]]
    outputs = "-o probabilities.tif"
    weights = f" --weights {NET}/{START}" if chosen.get("from") else ""
    if chosen["kind"] == "cells":
        outputs += " --instances cells.tif"
    lines = [
        f"# {name}",
        "",
        f"A U-Net for {chosen['kind']}, trained on {' and '.join(sources)} "
        f"({chosen['understood']}).",
        "",
        f"    unet segment STACK --model {shlex.quote(name)} {outputs}",
        "",
        paragraph(chosen),
        "",
    ]
    if chosen["command"]:
        lines += [f"    {chosen['command']}", ""]
    if scores:
        lines += [
            "On what was held out:",
            "",
            "| score | value |",
            "| --- | --- |",
            *(f"| {key} | {value:.4f} |" for key, value in scores.items() if value is not None),
            "",
            *judged(chosen),
            "The threshold, and of cells the minimum area, were picked by the same slices "
            "(segment.json), and so was the network: on other pictures expect a little less.",
            "",
            "![Held out: orange what the network draws, blue the truth](overlay.png)",
            "",
        ]
    lines += [
        "![Loss, held-out errors and rate](training-1/curves.png)",
        "",
        "What it learnt from: labels.png. All that was chosen: choices.json. The network and its "
        "solvers are plain prototxt in net/; their paths count from this folder:",
        "",
        f"    cd {shlex.quote(name)} && unet train net/solver_1.prototxt{weights} -o again",
        "",
    ]
    return "\n".join(lines)
