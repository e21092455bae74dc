"""The folder of a trained network: what a user of it needs, and what shows how good it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from unet.errors import InputError
from unet.files.atomic import atomic_parts, is_temporary
from unet.volumes.intensity import INPUT

_CARD = "README.md"
# Says in the card that the folder may be made anew.
_LINE = "<!-- Written by tools/model_folder.py: the folder is replaced when the model is. -->"


def guard_model_folder(target: Path) -> None:
    """Refuse to make a model folder in the place of another; called before the training.

    Raises
    ------
    InputError
        Unless nothing is there, or a folder whose card says that it was made here.
    """
    card = target / _CARD
    if os.path.lexists(target) and not (
        target.is_dir()
        and (
            all(is_temporary(name) for name in os.listdir(target))
            or (card.is_file() and _LINE in card.read_text("utf-8", "replace").splitlines())
        )
    ):
        raise InputError(
            f"{target}: exists, and its {_CARD} does not say that it is a model folder made here; "
            "move it away"
        )


def make_model_folder(
    target: Path, run: Path, model: Path, deploy: Path, card: str, scored: bool
) -> None:
    """Copy a training's results into a folder, with a card.

    Parameters
    ----------
    target : Path
        The folder; made if it is not there.
    run : Path
        Has overlay.png and, if scored, scores.json.
    model : Path
        The caffemodel; curves.png is beside it.
    deploy : Path
        The network's prototxt, with input.json beside it.
    card : str
        README.md.
    scored : bool

    Raises
    ------
    InputError
        As `guard_model_folder`.
    """
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
        (fresh / _CARD).write_text(f"{card}\n{_LINE}\n", encoding="utf-8")
