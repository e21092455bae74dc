"""The folder of a trained model: weights, network, pictures, and the card that tells of it."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from recipes import Recipe
from training_choice import Choice
from unet.command.segment import parse as parse_segment
from unet.errors import InputError
from unet.files.atomic import atomic_parts, is_temporary
from unet.model.defaults import SEGMENT, write_defaults
from unet.segmentation.instances import InstanceRules
from unet.volumes.intensity import INPUT

_CARD = "README.md"
# Says in the card that the folder may be made anew; earlier ones name another file.
_LINE = "<!-- Written by tools/model_folder.py: the folder is replaced when the model is. -->"
_LINES = (_LINE, _LINE.replace("model_folder", "runner"))


def card(recipe: Recipe, split: str, choice: Choice, scores: dict[str, float]) -> str:
    """Return the model's card."""
    about = recipe.splits[split]
    lines = [
        f"# {choice.net}, {recipe.title}",
        "",
        recipe.about,
        "",
        f"Trained on {about.learnt}:",
        "",
        f"    make {recipe.make} SPLIT={split} {choice.variables()}",
        "",
    ]
    if scores:
        lines += [
            f"Scores on {about.told}:",
            "",
            "| score | value |",
            "| --- | --- |",
            *(f"| {key} | {scores[key]:.{recipe.digits}f} |" for key in recipe.scores),
            "",
        ]
    return "\n".join([*lines, recipe.use, "", recipe.cite, ""])


def guard_model_folder(target: Path) -> None:
    """Refuse to make a model folder in the place of anything but an earlier one, by its card."""
    if not os.path.lexists(target):
        return
    card = target / _CARD
    ours = target.is_dir() and (
        all(is_temporary(name) for name in os.listdir(target))
        or (card.is_file() and set(_LINES) & set(card.read_text("utf-8", "replace").splitlines()))
    )
    if not ours:
        raise InputError(
            f"{target}: exists, and its {_CARD} does not say that it is a model folder made here; "
            "move it away"
        )


def make_model_folder(
    target: Path, run: Path, model: Path, deploy: Path, card: str, scored: bool, segment: str
) -> None:
    """Copy a training's results into a folder, with a card, its README.md.

    From the folder of the run: overlay.png and, if scored, scores.json; curves.png lies beside the
    weights, input.json beside the network. segment.json says `segment`, the flags of `unet segment`
    by which it was scored.
    """
    flags = vars(parse_segment(["STACK", "--model", str(target), *shlex.split(segment)]))
    rules = {name: flags[name] for name in InstanceRules._fields if flags[name] is not None}
    guard_model_folder(target)
    files = {
        "weights.caffemodel": model,
        "deploy.prototxt": deploy,
        INPUT: deploy.parent / INPUT,
        "curves.png": model.parent / "curves.png",
        "overlay.png": run / "overlay.png",
    }
    if scored:
        files["scores.json"] = run / "scores.json"
    with atomic_parts(target, lambda name: (name == _CARD, name)) as fresh:
        for name, source in files.items():
            shutil.copyfile(source, fresh / name)
        write_defaults(fresh / SEGMENT, InstanceRules(**rules), flags["tta"] or "none")
        (fresh / _CARD).write_text(f"{card}\n{_LINE}\n", encoding="utf-8")
